"""Answers that call no tool, though many speak of calls, sent by servers that stream or do not.

`data/answers_without_calls.json` holds the texts. None of them is a call in its whole, as a call
has to be, and none looks like a failed one. Each is sent in both languages, cut in three ways, to
a model that was offered six tools. Some are calls of tools that are not offered: the model is asked
once more then, and its answer is the same.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

from llm_localrun.chat.models import LocalChat
from tests.fakes.http_server import DATA, Request, StandIn, chunk, head, json_reply
from tests.support import six_tools
from tests.support.drive import served

LANGUAGES = {"openai": "vllm", "ollama": "ollama"}
"""Each language, and a kind of server that speaks it."""
CUTS = ("whole", "characters", "random")
STREAMED = [*product(LANGUAGES, CUTS)]
"""In each way to stream."""
Ways = list[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """A text, and the thinking before it."""

    kind: str
    text: str
    thinking: str = ""
    names_unknown: bool = False
    """Whether it is calls of tools that are not offered."""

    @property
    def sent(self) -> str:
        """What the model writes."""
        return f"<think>\n{self.thinking}\n</think>\n\n{self.text}" if self.thinking else self.text


@cache
def answers() -> list[Answer]:
    texts = json.loads((DATA / "answers_without_calls.json").read_text("utf-8"))
    return [Answer(**each) for each in texts]


def wrong_answers(language: str, cut: str = "") -> list[str]:
    """The answers that come otherwise than they were sent, and how; not streamed without a `cut`.

    A second request is wrong too, unless it asks about a tool that is not offered.
    """
    found = []
    with StandIn(_Server(language, cut)) as server:
        model = LocalChat(served(server.url, LANGUAGES[language]))
        tools = six_tools.tools()
        for number, answer in enumerate(answers()):
            before = len(server.requests)
            response = model.prompt(str(number), tools=[*tools], stream=bool(cut))
            got = response.text(), len(response.tool_calls()), len(server.requests) - before
            if got != (answer.text, 0, 1 + answer.names_unknown):
                text, calls, requests = got
                found.append(
                    f"{answer.kind} {number}: {calls} calls, {requests} requests, {text!r} instead"
                    f" of {answer.text!r}"
                )
    return found


@dataclass(frozen=True)
class _Server:
    """Sends the answer whose number it is asked for."""

    language: str
    cut: str

    def __call__(self, request: Request) -> Iterator[bytes]:
        assert len(request.body["tools"]) == len(six_tools.tools())
        number = int(request.body["messages"][-1]["content"].split("\n")[0])
        text = answers()[number].sent
        if not self.cut:
            yield json_reply(self._message(text))
            return
        kind = "application/x-ndjson" if self.language == "ollama" else "text/event-stream"
        pieces = [self._piece(piece) for piece in pieces_of(text, self.cut, number)]
        # Sent at once, they still come one by one to the decoder.
        yield head(kind) + b"".join(map(chunk, [*pieces, self._end()])) + b"0\r\n\r\n"

    def _message(self, text: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        if self.language == "ollama":
            return {"message": message, "done": True, "done_reason": "stop"}
        return {"choices": [{"message": message, "finish_reason": "stop"}]}

    def _piece(self, text: str) -> bytes:
        if self.language == "ollama":
            return _json({"message": {"content": text}, "done": False}) + b"\n"
        return b"data: " + _json({"choices": [{"delta": {"content": text}}]}) + b"\n\n"

    def _end(self) -> bytes:
        if self.language == "ollama":
            return _json({"message": {"content": ""}, "done": True, "done_reason": "stop"}) + b"\n"
        end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
        return b"data: " + _json(end) + b"\n\ndata: [DONE]\n\n"


def pieces_of(text: str, cut: str, seed: int) -> list[str]:
    """The text in pieces: whole, in single characters, or of random sizes."""
    if cut == "whole":
        return [text]
    sizes = random.Random(seed)
    pieces, at = [], 0
    while at < len(text):
        size = 1 if cut == "characters" else sizes.randint(1, 12)
        pieces.append(text[at : at + size])
        at += size
    return pieces


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
