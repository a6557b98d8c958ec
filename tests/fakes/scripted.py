"""A server with OpenAI's API that answers each request with the next turn of a script."""

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.http_server import Request, chunk, events, head, json_reply
from tests.fakes.openai_compatible import completion


@dataclass(frozen=True)
class Turn:
    """What the model says to one request; each turn takes 10 tokens to read and 5 to write."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str = "stop"
    call: str = ""
    """The name of a tool that the server itself reports a call of."""
    goes_on: Iterable[str] = ()
    """What is streamed after the text until the client goes away."""
    status: int = 200
    """With another one, the text is the message of an error."""
    breaks_off: bool = False
    """Whether the connection ends before the answer does."""

    @property
    def message(self) -> dict[str, Any]:
        function = {"name": self.call, "arguments": "{}"}
        calls = [{"index": 0, "id": "1", "type": "function", "function": function}]
        return {
            "content": self.text,
            **({"reasoning_content": self.reasoning} if self.reasoning else {}),
            **({"tool_calls": calls} if self.call else {}),
        }


@dataclass
class Scripted:
    """Answers with `turns`, and keeps the bodies of the requests."""

    turns: list[Turn]
    bodies: list[Any] = field(default_factory=list)

    def __call__(self, request: Request) -> Iterator[bytes]:
        self.bodies.append(request.body)
        turn = self.turns.pop(0)
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        if turn.status != 200:
            yield json_reply({"error": {"message": turn.text}}, status=turn.status)
        elif turn.goes_on or turn.breaks_off:
            yield head("text/event-stream")
            for text in itertools.chain([turn.text], turn.goes_on):
                delta = {"choices": [{"delta": {"content": text}}]}
                yield chunk(b"data: %s\n\n" % json.dumps(delta).encode())
        elif request.body["stream"]:
            choice = {"delta": turn.message, "finish_reason": turn.finish_reason}
            yield events({"choices": [choice]}, {"choices": [], "usage": usage})
        else:
            whole = completion("", finish_reason=turn.finish_reason, message=turn.message)
            yield json_reply({**whole, "usage": usage})
