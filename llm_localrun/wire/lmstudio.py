"""LM Studio's own /api/v1/chat, whose events say how far a model is loaded and a prompt is read.

It takes one question, with neither tools, earlier answers nor a schema. Which requests are sent
there is left to `servers.lmstudio`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from llm_localrun.system.progress import Progress
from llm_localrun.wire.events import (
    READING,
    Event,
    Finished,
    ReasoningDelta,
    TextDelta,
    share_of,
)
from llm_localrun.wire.request import ChatRequest
from llm_localrun.wire.shapes import (
    Content,
    Count,
    CutOff,
    Maybe,
    Rate,
    Text,
    WireModel,
    parse_payload,
)
from llm_localrun.wire.sse import Payload

_ROLES = (["user"], ["system", "user"])


class _Stats(WireModel):
    input_tokens: Maybe[Count] = None
    total_output_tokens: Maybe[Count] = None
    reasoning_output_tokens: Maybe[Count] = None
    tokens_per_second: Maybe[Rate] = None
    model_load_time_seconds: Maybe[Rate] = None


class _Result(WireModel):
    model_instance_id: Maybe[Text] = None
    stats: Maybe[_Stats] = None


class _ChatEvent(WireModel):
    type: Text
    model_instance_id: Maybe[Text] = None
    content: Content = ""
    progress: Maybe[Annotated[float, Field(ge=0, le=1)]] = None
    result: Maybe[_Result] = None


def can_carry(request: ChatRequest) -> bool:
    """Whether the path takes a request as it is, apart from its options."""
    messages = request.messages
    is_plain = all(each.text and not (each.media or each.calls) for each in messages)
    is_more = request.tools or request.schema is not None or not request.stream
    return is_plain and not is_more and [each.role for each in messages] in _ROLES


def encode(model: str, request: ChatRequest, options: Payload) -> Payload:
    """The body of POST /api/v1/chat for a request that it `can_carry`. The chat is not kept."""
    *system, question = request.messages
    prompt = {"system_prompt": system[0].text} if system else {}
    return {
        "model": model,
        "input": question.text,
        **prompt,
        "stream": True,
        "store": False,
        **options,
    }


@dataclass
class LMStudioDecoder:
    """A `PayloadDecoder` for the events of /api/v1/chat.

    They have no reason for the end. `largest` returns the tokens that prompt and answer can take
    together, None if unknown: an answer that takes them all was cut.
    """

    largest: Callable[[], int | None]
    model: str | None = None
    progress: Progress | None = None
    _result: _Result | None = None

    def feed(self, payload: Payload) -> Sequence[Event]:
        event = parse_payload(_ChatEvent, payload)
        self.model = event.model_instance_id or self.model
        if event.type.startswith("model_load."):
            self.progress = share_of(f"loading {self.model or 'the model'}", event.progress)
        elif event.type.startswith("prompt_processing."):
            self.progress = share_of(READING, event.progress)
        elif event.type == "chat.end":
            self._result = event.result or _Result()
            self.model = self._result.model_instance_id or self.model
        elif event.content and event.type == "message.delta":
            return [TextDelta(event.content)]
        elif event.content and event.type == "reasoning.delta":
            return [ReasoningDelta(event.content)]
        return ()

    def close(self) -> Iterator[Event]:
        if self._result is None:
            raise CutOff
        stats = self._result.stats or _Stats()
        used = (stats.input_tokens or 0) + (stats.total_output_tokens or 0)
        largest = self.largest()
        yield Finished(
            finish_reason="stop" if largest is None or used < largest else "length",
            model=self.model,
            prompt_tokens=stats.input_tokens,
            completion_tokens=stats.total_output_tokens,
            reasoning_tokens=stats.reasoning_output_tokens,
            load_seconds=stats.model_load_time_seconds,
            generation_tokens_per_second=stats.tokens_per_second or None,
        )
