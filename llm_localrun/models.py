"""llm's models on top of a `LocalModel`: `LocalChat`, its async twin, and `LocalEmbedding`.

The twins differ in one loop; what an event leaves in llm's response is `_Recorder`'s business.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import click
import llm
from llm.models import AsyncConversation, Conversation, EmbeddingModel
from llm.parts import StreamEvent
from typing_extensions import assert_never

from llm_localrun.attachments import AUDIO, IMAGES, load, spellings
from llm_localrun.catalogue import LocalModel, default_key_alias
from llm_localrun.errors import BadAttachment
from llm_localrun.events import Event, Finished, ReasoningDelta, TextDelta, ToolCall
from llm_localrun.interrupts import Interrupts
from llm_localrun.kinds import kind_of
from llm_localrun.options import Options


class _Local:
    """What all models of ours share."""

    key: str | None = None

    def __init__(self, local: LocalModel) -> None:
        self.local = local
        self.model_id = local.id

    def get_key(self, explicit_key: str | None = None) -> str | None:
        """The key for this model's server, and none for any other; keys are optional.

        The first of: what was set on the model, what was given on the command line, what
        `llm keys` holds for the endpoint, the environment variables of its kind.
        """
        endpoint = self.local.endpoint
        if endpoint is None or self.key is not None:
            return self.key
        alias = endpoint.key_alias or default_key_alias(endpoint.name)
        key: str | None = llm.get_key(input=explicit_key, alias=alias)
        variables = map(os.environ.get, kind_of(endpoint.kind).key_variables)
        return key or next(filter(None, variables), None)


class _Chat(_Local):
    """What the twins share."""

    can_stream = True
    supports_schema = True

    def __init__(self, local: LocalModel) -> None:
        super().__init__(local)
        self.supports_tools = local.can("tools", if_unknown=True)
        sees = local.can("vision", if_unknown=True)
        hears = local.can("audio", if_unknown=False)
        self.attachment_types: set[str] | frozenset[str] = frozenset(
            name for types in (sees and IMAGES, hears and AUDIO) for name in spellings(types or ())
        )

    def _request(
        self,
        prompt: llm.Prompt,
        stream: bool,
        conversation: Conversation | AsyncConversation | None,
        logged_as: str,
    ) -> Any:
        from llm_localrun.request import chat_request

        load_accepted = partial(load, accepted=self.attachment_types)
        schema = _schema(prompt, conversation)
        return chat_request(
            prompt, load_accepted, stream=stream, schema=schema, conversation=logged_as
        )


class LocalChat(_Chat, llm.KeyModel):
    """A chat model that runs here, for llm's synchronous API."""

    Options = Options  # type: ignore[assignment]  # llm types it by the nested default

    def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.Response,
        conversation: Conversation | None,
        key: str | None = None,
    ) -> Iterator[StreamEvent]:
        from llm_localrun import backends, resolve

        recorder = _Recorder(self.local, response)
        request = self._request(prompt, stream, conversation, _logged_as(conversation))
        local = resolve.variant(self.local, request.options)
        interrupts = Interrupts()
        with (
            interrupts.caught(recorder.keep_what_has_come),
            closing(backends.stream(local, request, key)) as events,
        ):
            for event in events:
                for item in recorder.record(event):
                    with interrupts.outside():
                        yield item


class AsyncLocalChat(_Chat, llm.AsyncKeyModel):
    """`LocalChat` for llm's asynchronous API."""

    Options = Options  # type: ignore[assignment]  # llm types it by the nested default

    async def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.AsyncResponse,
        conversation: AsyncConversation | None,
        key: str | None = None,
    ) -> AsyncGenerator[StreamEvent, None]:
        from llm_localrun import backends, resolve

        recorder = _Recorder(self.local, response)
        # Attachments are read from disk or fetched.
        logged_as = _logged_as(conversation)
        request = await asyncio.to_thread(self._request, prompt, stream, conversation, logged_as)
        local = await asyncio.to_thread(resolve.variant, self.local, request.options)
        async with aclosing(backends.astream(local, request, key)) as events:
            async for event in events:
                for item in recorder.record(event):
                    yield item


class LocalEmbedding(_Local, EmbeddingModel):
    """An embedding model that runs here."""

    batch_size = 32

    def embed_batch(
        self, items: Iterable[str | bytes], *, key: str | None = None
    ) -> Iterator[list[float]]:
        from llm_localrun import backends

        texts = map(self._text, items)
        while batch := list(islice(texts, self.batch_size)):
            yield from map(list, backends.embed(self.local, batch, key))

    def _text(self, item: str | bytes) -> str:
        if isinstance(item, bytes):
            raise BadAttachment(
                f"{self.model_id} embeds text, and bytes were given", "Decode them first"
            )
        return item


def _logged_as(conversation: Conversation | AsyncConversation | None) -> str:
    """The id under which llm logs a conversation; "" if the user has said that it must not.

    To be asked in the thread that runs the command: click knows its options there only.
    """
    command = click.get_current_context(silent=True)
    options = command.params if command else {}
    logs_off = Path(llm.user_dir(), "logs-off").exists()  # type: ignore[no-untyped-call]
    if conversation is None or options.get("no_log") or (logs_off and not options.get("log")):
        return ""
    return conversation.id


def _schema(
    prompt: llm.Prompt, conversation: Conversation | AsyncConversation | None
) -> Mapping[str, Any] | None:
    """The schema of the question that a turn of tool results belongs to: llm drops it there."""
    if not prompt.tool_results or conversation is None:
        return None
    earlier: Sequence[Any] = conversation.responses
    for response in reversed(earlier):
        if not response.prompt.tool_results:
            schema: Mapping[str, Any] | None = response.prompt.schema
            return schema
    return None


class _MalformedArguments(dict[str, Any]):
    """Arguments of a tool call that are no JSON object.

    llm unpacks them into the tool's own; that fails, and the model is told why.
    """

    def keys(self) -> NoReturn:
        raise ValueError(f"the arguments are not a JSON object: {self['_raw']}")

    def __iter__(self) -> NoReturn:
        self.keys()


class _Recorder:
    """Writes a reply's events into llm's response."""

    def __init__(self, local: LocalModel, response: llm.Response | llm.AsyncResponse) -> None:
        self._local = local
        self._response = response
        self._begun = time.monotonic()
        self._time_to_first_token: float | None = None

    def record(self, event: Event) -> Iterator[StreamEvent]:
        """What llm is to be handed for `event`."""
        if self._time_to_first_token is None:
            self._time_to_first_token = time.monotonic() - self._begun
        if isinstance(event, TextDelta):
            yield StreamEvent(type="text", chunk=event.text)
        elif isinstance(event, ReasoningDelta):
            yield StreamEvent(type="reasoning", chunk=event.text)
        elif isinstance(event, ToolCall):
            yield from self._call(event)
        elif isinstance(event, Finished):
            self._finish(event)
        else:
            assert_never(event)

    def keep_what_has_come(self) -> bool:
        """Ends an interrupted answer in good order; False if nothing of it has come."""
        if self._time_to_first_token is None:
            return False
        self._finish(Finished(finish_reason="interrupted"))
        return True

    def _call(self, call: ToolCall) -> Iterator[StreamEvent]:
        """The events record the call; adding it is what makes llm run the tool."""
        arguments = _arguments(call.arguments)
        chunk = json.dumps(dict(arguments.items()))
        yield StreamEvent(type="tool_call_name", chunk=call.name, tool_call_id=call.id)
        yield StreamEvent(type="tool_call_args", chunk=chunk, tool_call_id=call.id)
        self._response.add_tool_call(llm.ToolCall(call.name, arguments, call.id))

    def _finish(self, finished: Finished) -> None:
        details = {
            name: count
            for name in ("cached_tokens", "reasoning_tokens")
            if (count := getattr(finished, name))
        }
        self._response.set_usage(
            input=finished.prompt_tokens, output=finished.completion_tokens, details=details or None
        )
        if finished.model:
            self._response.set_resolved_model(finished.model)
        self._response.response_json = self._facts(finished)

    def _facts(self, finished: Finished) -> dict[str, Any]:
        endpoint = self._local.endpoint
        facts = {
            **asdict(finished),
            "time_to_first_token": self._time_to_first_token,
            "quantization": self._local.quantization or None,
            "endpoint": endpoint.name if endpoint else "gguf",
        }
        for counted in ("model", "prompt_tokens", "completion_tokens", "reasoning_tokens"):
            # llm keeps these in columns of its own.
            del facts[counted]
        return {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in facts.items()
            if value is not None
        }


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        arguments = None
    return arguments if isinstance(arguments, dict) else _MalformedArguments(_raw=text)
