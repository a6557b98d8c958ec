"""OpenAI's chat completions and embeddings, as llama-server, LM Studio and vLLM serve them.

Framing is left to `sse`, sending to `http`, and what is peculiar to one server to its module in
`servers`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llm_localrun.wire.events import Event, Finished, ReasoningDelta, TextDelta, ToolCall
from llm_localrun.wire.request import ChatMessage, ChatRequest, Media, PastCall
from llm_localrun.wire.shapes import (
    Count,
    CutOff,
    Fragment,
    Rate,
    Text,
    Vector,
    WireModel,
    call_id,
    function_tool,
    parse_payload,
)
from llm_localrun.wire.sse import Payload


class _FunctionFragment(WireModel):
    name: Text | None = None
    arguments: Fragment | None = None


class _CallFragment(WireModel):
    index: int | None = None
    id: Text | None = None
    function: _FunctionFragment = _FunctionFragment()


class _Message(WireModel):
    content: Fragment | None = None
    # llama.cpp, SGLang and LM Studio use reasoning_content; vLLM, mlx_lm and, for some models,
    # LM Studio use reasoning.
    reasoning_content: Fragment | None = None
    reasoning: Fragment | None = None
    tool_calls: tuple[_CallFragment, ...] | None = None


class _Choice(WireModel):
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: Text | None = None


class _PromptDetails(WireModel):
    cached_tokens: Count | None = None


class _CompletionDetails(WireModel):
    reasoning_tokens: Count | None = None


class _Usage(WireModel):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Timings(WireModel):
    """llama-server's own: rates are tokens per second."""

    cache_n: Count | None = None
    prompt_per_second: Rate | None = None
    predicted_per_second: Rate | None = None


class _Chunk(WireModel):
    model: Text | None = None
    choices: tuple[_Choice, ...] | None = None
    usage: _Usage | None = None
    timings: _Timings | None = None


class _IndexedVector(WireModel):
    index: int
    embedding: Vector


class _Embeddings(WireModel):
    data: tuple[_IndexedVector, ...]


def encode(
    model: str,
    request: ChatRequest,
    options: Payload,
    *,
    reasoning_field: str = "",
    streams: bool = True,
) -> Payload:
    """The body of POST /v1/chat/completions.

    `options` is the part of it that carries options. Earlier thinking is handed back under the name
    `reasoning_field`, if the server takes it; `streams` is False for servers that cannot stream.
    """
    streams = request.stream and streams
    body: Payload = {
        "model": model,
        "messages": [_message(message, reasoning_field) for message in request.messages],
        "stream": streams,
    }
    if streams:
        body["stream_options"] = {"include_usage": True}
    if request.tools:
        body["tools"] = [function_tool(tool) for tool in request.tools]
    if request.schema is not None:
        json_schema = {"name": "output", "strict": True, "schema": dict(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": json_schema}
    return {**body, **options}


def _message(message: ChatMessage, reasoning_field: str) -> Payload:
    wire: Payload = {"role": message.role, "content": message.text}
    if message.media:
        text = [{"type": "text", "text": message.text}] if message.text else []
        wire["content"] = [*text, *(_media(media) for media in message.media)]
    if message.calls:
        wire["tool_calls"] = [_past_call(call) for call in message.calls]
    if message.reasoning and reasoning_field:
        wire[reasoning_field] = message.reasoning
    if message.role == "tool":
        wire["tool_call_id"] = message.call_id
    return wire


def _media(media: Media) -> Payload:
    if media.is_image:
        url = f"data:{media.type};base64,{media.base64}"
        return {"type": "image_url", "image_url": {"url": url}}
    sound = {"data": media.base64, "format": "wav" if media.type == "audio/wav" else "mp3"}
    return {"type": "input_audio", "input_audio": sound}


def _past_call(call: PastCall) -> Payload:
    function = {"name": call.name, "arguments": json.dumps(dict(call.arguments))}
    return {"id": call.id, "type": "function", "function": function}


@dataclass(slots=True)
class _OpenCall:
    """A tool call that is not complete yet."""

    id: str
    given_id: str
    name: str = ""
    arguments: str = ""


class OpenAIDecoder:
    """Decodes chunks and whole completions alike."""

    def __init__(self) -> None:
        self._finish_reason: str | None = None
        self._model: str | None = None
        self._usage = _Usage()
        self._timings = _Timings()
        self._calls: list[_OpenCall] = []
        self._by_index: dict[int, _OpenCall] = {}

    @property
    def model(self) -> str | None:
        """The model that answers, according to what has been decoded so far."""
        return self._model

    def feed(self, payload: Payload) -> Iterator[Event]:
        chunk = parse_payload(_Chunk, payload)
        self._model = chunk.model or self._model
        self._usage = chunk.usage or self._usage
        self._timings = chunk.timings or self._timings
        for choice in chunk.choices or ():
            self._finish_reason = choice.finish_reason or self._finish_reason
            message = choice.delta or choice.message or _Message()
            self._collect(message.tool_calls or ())
            yield from _deltas(message)

    def close(self) -> Iterator[Event]:
        if self._finish_reason is None:
            raise CutOff
        for call in self._calls:
            yield ToolCall(call.id, call.name, call.arguments or "{}")
        yield self._finished(self._finish_reason)

    def _collect(self, fragments: Sequence[_CallFragment]) -> None:
        for fragment in fragments:
            call = self._call_of(fragment)
            call.name += fragment.function.name or ""
            call.arguments += fragment.function.arguments or ""

    def _call_of(self, fragment: _CallFragment) -> _OpenCall:
        """The call that `fragment` belongs to: fragments with one index belong together.

        Some servers send no index, or the same for all calls, and give each call its own id.
        """
        index, given = fragment.index, fragment.id or ""
        call = None if index is None else self._by_index.get(index)
        is_another = call is not None and given and call.given_id and given != call.given_id
        if call is None or (is_another and fragment.function.name):
            call = _OpenCall(call_id(given, [other.id for other in self._calls]), given)
            self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        return call

    def _finished(self, finish_reason: str) -> Finished:
        usage, timings = self._usage, self._timings
        prompt_details = usage.prompt_tokens_details or _PromptDetails()
        completion_details = usage.completion_tokens_details or _CompletionDetails()
        cached = prompt_details.cached_tokens
        return Finished(
            finish_reason=finish_reason,
            model=self._model,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=timings.cache_n if cached is None else cached,
            reasoning_tokens=completion_details.reasoning_tokens,
            prompt_tokens_per_second=timings.prompt_per_second,
            generation_tokens_per_second=timings.predicted_per_second,
        )


def _deltas(message: _Message) -> Iterator[Event]:
    if reasoning := message.reasoning_content or message.reasoning:
        yield ReasoningDelta(reasoning)
    if message.content:
        yield TextDelta(message.content)


def decode_vectors(payload: Payload) -> list[tuple[float, ...]]:
    """The vectors in a response, in the order of the texts. Raises like `parse_payload`."""
    embeddings = parse_payload(_Embeddings, payload)
    by_index = {entry.index: entry.embedding for entry in embeddings.data}
    return [vector for _, vector in sorted(by_index.items())]
