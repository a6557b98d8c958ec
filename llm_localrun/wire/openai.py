"""OpenAI's chat completions and embeddings, as llama-server, LM Studio and vLLM serve them.

Framing is left to `sse`, sending to `http`, and what is peculiar to one server to its module in
`servers`.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile, pairwise
from typing import Any

from pydantic import Field

from llm_localrun.system.json_files import parse_json
from llm_localrun.system.progress import Progress
from llm_localrun.wire.events import (
    READING,
    WRITING_CALL,
    Event,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCall,
)
from llm_localrun.wire.request import ChatMessage, ChatRequest, Media, PastCall
from llm_localrun.wire.shapes import (
    NO_ARGUMENTS,
    CallFragment,
    Calls,
    Content,
    Count,
    CutOff,
    Index,
    Maybe,
    OrNothing,
    Rate,
    Text,
    ThinkingParts,
    Vector,
    WireModel,
    call_arguments,
    call_id,
    function_tool,
    is_object,
    parse_payload,
)
from llm_localrun.wire.sse import Payload


class _Message(WireModel):
    content: Content = ""
    # llama.cpp, SGLang and LM Studio use reasoning_content; vLLM, mlx_lm and, for some models,
    # LM Studio use reasoning.
    reasoning_content: Maybe[Content] = None
    reasoning: Maybe[Content] = None
    thoughts: ThinkingParts = Field(default="", validation_alias="content")
    tool_calls: Calls = ()
    function_call: Maybe[dict[str, Any]] = None
    """The one call, in the form before `tool_calls`; some servers send both."""


class _Choice(WireModel):
    delta: OrNothing[_Message] = None
    message: OrNothing[_Message] = None
    finish_reason: Maybe[Text] = None


class _PromptDetails(WireModel):
    cached_tokens: Maybe[Count] = None


class _CompletionDetails(WireModel):
    reasoning_tokens: Maybe[Count] = None


class _Usage(WireModel):
    prompt_tokens: Maybe[Count] = None
    completion_tokens: Maybe[Count] = None
    prompt_tokens_details: Maybe[_PromptDetails] = None
    completion_tokens_details: Maybe[_CompletionDetails] = None


class _Timings(WireModel):
    """llama-server's own: rates are tokens per second."""

    cache_n: Maybe[Count] = None
    prompt_per_second: Maybe[Rate] = None
    predicted_per_second: Maybe[Rate] = None


class _PromptProgress(WireModel):
    """llama.cpp's own, before the first token: `processed` includes what its cache held."""

    total: Count
    processed: Count


class _Chunk(WireModel):
    model: Maybe[Text] = None
    choices: tuple[_Choice | None, ...] | None = None
    usage: Maybe[_Usage] = None
    timings: Maybe[_Timings] = None
    prompt_progress: Maybe[_PromptProgress] = None


class _IndexedVector(WireModel):
    index: Maybe[Index] = None
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


_MAX_DOUBTS = 100
_MAX_NAME = 1000


@dataclass(slots=True, eq=False)
class _OpenCall:
    """A tool call that is not complete yet."""

    id: str
    given_id: str
    has_index: bool = False
    names: tuple[str, str] = ("", "")
    """Its name as far as it has come: if a piece that begins with the whole so far repeats it, and
    if none does."""
    pieces: list[str] = field(default_factory=list)
    """Of its arguments."""
    doubts: int = 0
    """How often all pieces were read to find out whether another call begins: that takes time."""

    def add(self, fragment: CallFragment) -> None:
        if name := fragment.name:
            grown, joined = self.names
            grown = name if name.startswith(grown) else grown + name
            self.names = (grown[:_MAX_NAME], (joined + name)[:_MAX_NAME])
        if fragment.arguments:
            self.pieces.append(fragment.arguments)

    def name(self, tools: Collection[str]) -> str:
        return next((name for name in self.names if name in tools), self.names[0])

    def may_go_on_with(self, name: str, tools: Collection[str]) -> bool:
        """Whether `name` may be a piece of its name, or repeat it."""
        grown = self.names[0]
        if not grown or name in self.names:
            return True
        if not tools:
            return not self.pieces
        if grown in tools and name in tools:
            return False
        whole = [so_far + name for so_far in self.names]
        whole += [name] if name.startswith(grown) else []
        return any(tool.startswith(tuple(whole)) for tool in tools)

    def may_be_whole(self, following: str) -> bool:
        """Whether its arguments may be whole, where `following` comes: quick for many pieces."""
        last = next((piece for piece in reversed(self.pieces) if piece.strip()), "")
        goes_on = following.startswith(last) and not is_object(last)
        return last.rstrip().endswith(("}", "null", '"')) and not goes_on


class _CallCollector:
    """Puts the tool calls of a response together from their fragments.

    A call is known by its index or by its id, where servers send these. Some send neither, the same
    for all calls, or another id in each fragment. Then what a fragment can only mean decides.
    """

    def __init__(self, tools: Collection[str]) -> None:
        self._tools = tools
        self._calls: dict[str, _OpenCall] = {}
        self._by_index: dict[int, _OpenCall] = {}
        self._by_given_id: dict[str, _OpenCall] = {}
        """The last one with each id that the server gives."""
        self._last: _OpenCall | None = None

    def add(self, fragments: Sequence[CallFragment]) -> None:
        """Adds the list of one message, or of one chunk."""
        listed: set[_OpenCall] = set()
        for fragment in fragments:
            call = self._known(fragment)
            if call is None or self._begins_another(call, fragment, listed):
                given = fragment.id or ""
                call = _OpenCall(call_id(given, self._calls), given)
                self._calls[call.id] = self._by_given_id[given] = call
            if fragment.index is not None:
                self._by_index[fragment.index] = call
                call.has_index = True
            call.add(fragment)
            listed.add(call)
            self._last = call

    def calls(self) -> Iterator[ToolCall]:
        for call in self._calls.values():
            name = call.name(self._tools)
            if call.given_id or name or call.pieces:
                yield ToolCall(call.id, name, _arguments_in(call.pieces))

    def _known(self, fragment: CallFragment) -> _OpenCall | None:
        """The call that `fragment` seems to belong to."""
        if fragment.index is not None and fragment.index in self._by_index:
            return self._by_index[fragment.index]
        call = self._by_given_id.get(fragment.id) if fragment.id else None
        if fragment.index is None:
            return call or self._last
        if call is None and not fragment.name:
            call = self._last
        return call if call and not call.has_index else None

    def _begins_another(
        self, call: _OpenCall, fragment: CallFragment, listed: Collection[_OpenCall]
    ) -> bool:
        """Whether `fragment` begins another call than `call`, as only one with a name can."""
        name, given = fragment.name, fragment.id
        if not name:
            return False
        is_same = fragment.index is not None or bool(given and given == call.given_id)
        if not call.may_go_on_with(name, self._tools) or (call in listed and not is_same):
            return True
        opens = fragment.arguments.lstrip().startswith("{")
        has_other_id = bool(given and call.given_id and given != call.given_id)
        if has_other_id and opens:
            return True
        if not has_other_id and not (opens and call.may_be_whole(fragment.arguments)):
            return False
        call.doubts += 1
        arguments = parse_json(_arguments_in(call.pieces)) if call.doubts < _MAX_DOUBTS else None
        if has_other_id or not isinstance(arguments, dict):
            return has_other_id and isinstance(arguments, dict)
        # An empty object may stand for arguments that are still to come.
        may_go_on = arguments in ({}, parse_json(fragment.arguments))
        return not (is_same and may_go_on) and bool(call.pieces)


def _arguments_in(pieces: Sequence[str]) -> str:
    """The arguments that come in `pieces`, as the text of an object if they can only mean one.

    Pieces go on where the last one ended. But some servers repeat in each piece what came before,
    repeat everything in the last one, or begin with an empty object. No arguments are an object in
    two of these ways.
    """
    rest = [*dropwhile(lambda piece: piece.strip() in ("{}", *NO_ARGUMENTS), pieces)]
    readings = ["".join(pieces), "".join(rest)]
    if len(rest) > 1 and _last_repeats(rest):
        readings.append(rest[-1])
    readings = [call_arguments(reading) for reading in readings]
    return next((reading for reading in readings if is_object(reading)), readings[0])


def _last_repeats(pieces: Sequence[str]) -> bool:
    """Whether the last of `pieces` has what all the others have."""
    if all(later.startswith(earlier) for earlier, later in pairwise(pieces)):
        return True
    whole = parse_json("".join(pieces[:-1]))
    return isinstance(whole, dict) and whole == parse_json(pieces[-1])


class OpenAIDecoder:
    """Decodes chunks and whole completions alike."""

    def __init__(self, tools: Collection[str] = ()) -> None:
        """`tools` are the names of those that the model was offered."""
        self._finish_reason: str | None = None
        self._model: str | None = None
        self.progress: Progress | None = None
        self._usage = _Usage()
        self._timings = _Timings()
        self._calls = _CallCollector(tools)
        self._old_call = _CallCollector(tools)

    @property
    def model(self) -> str | None:
        """The model that answers, according to what has been decoded so far."""
        return self._model

    def feed(self, payload: Payload) -> list[Event]:
        chunk = parse_payload(_Chunk, payload)
        events: list[Event] = []
        self._model = chunk.model or self._model
        self._usage = chunk.usage or self._usage
        self._timings = chunk.timings or self._timings
        if (read := chunk.prompt_progress) is not None:
            self.progress = Progress(READING, read.processed, read.total or None, "tokens")
        for choice in filter(None, chunk.choices or ()):
            self._finish_reason = choice.finish_reason or self._finish_reason
            message = choice.delta or choice.message
            if message is None:
                continue
            if message.tool_calls:
                self._calls.add(message.tool_calls)
                self.progress = WRITING_CALL
            if message.function_call:
                self._old_call.add([CallFragment.model_validate(message.function_call)])
            if reasoning := message.reasoning_content or message.reasoning or message.thoughts:
                events.append(ReasoningDelta(reasoning))
            if message.content:
                events.append(TextDelta(message.content))
        return events

    def close(self) -> Iterator[Event]:
        if self._finish_reason is None:
            raise CutOff
        yield from [*self._calls.calls()] or self._old_call.calls()
        yield self._finished(self._finish_reason)

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


def decode_vectors(payload: Payload) -> list[tuple[float, ...]]:
    """The vectors in a response, in the order of the texts. Raises like `parse_payload`.

    An entry without an index keeps its position.
    """
    entries = enumerate(parse_payload(_Embeddings, payload).data)
    by_index = {at if each.index is None else each.index: each.embedding for at, each in entries}
    return [vector for _, vector in sorted(by_index.items())]
