"""llm's model classes for a `LocalModel`: `LocalChat`, `AsyncLocalChat` and `LocalEmbedding`.

They turn a prompt into a request (`prompt`), have it answered (`run`) and write the events of the
answer into llm's response (`response`). Every `llm` command creates an object for every model, so
this module imports what runs a model only when one runs.
"""

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import llm
from llm.models import AsyncConversation, Conversation, EmbeddingModel
from llm.parts import StreamEvent

from llm_localrun.name_cache import CachedName
from llm_localrun.wire.request import accepted_types

if TYPE_CHECKING:
    from llm_localrun.chat.options import Options
    from llm_localrun.models import LocalModel
    from llm_localrun.wire.request import ChatRequest


class _Local:
    """The base of all our model classes."""

    key: str | None = None

    def __init__(self, model: "CachedName | LocalModel") -> None:
        self._model = model
        self.model_id = model.id

    @cached_property
    def local(self) -> "LocalModel":
        """The model in the catalogue. Raises `UnknownModel` if it no longer exists."""
        if not isinstance(self._model, CachedName):
            return self._model
        from llm_localrun.resolve import model_with_id

        return model_with_id(self.model_id)

    def get_key(self, explicit_key: str | None = None) -> str | None:
        """The key for this model's server; None if there is none, because keys are optional.

        In this order: the key set on this object, `explicit_key` (`--key`), the key that `llm keys`
        has for the endpoint, the environment variables of the kind of server.
        """
        from llm_localrun.servers.base import key_from_environment

        served = self.local.served
        if served is None or self.key is not None:
            return self.key
        endpoint = served.endpoint
        alias = endpoint.key_name
        key: str | None = llm.get_key(input=explicit_key, alias=alias)
        return key or key_from_environment(endpoint.kind)


class _OptionsOnUse:
    """The class of a model's options, imported on use: pydantic takes milliseconds to create it."""

    def __get__(self, model: object, owner: type) -> type["Options"]:
        from llm_localrun.chat.options import Options

        return Options


class _Chat(_Local):
    """The base of `LocalChat` and `AsyncLocalChat`."""

    can_stream = True
    supports_schema = True
    supports_tools = True  # A model whose template has no place for them reads them as text.

    def __init__(self, model: "CachedName | LocalModel") -> None:
        super().__init__(model)
        self.attachment_types: set[str] | frozenset[str] = accepted_types(
            images=model.can("vision", if_unknown=True), audio=model.can("audio", if_unknown=False)
        )

    def _validate_attachments(self, attachments: Sequence[llm.Attachment] | None = None) -> None:
        """llm calls it. Its own does not say what takes the attachments."""
        from llm_localrun.chat.attachments import check_types

        check_types(attachments or (), self.attachment_types)

    def _request(
        self,
        prompt: llm.Prompt,
        stream: bool,
        conversation: Conversation | AsyncConversation | None,
        conversation_id: str,
    ) -> "ChatRequest":
        from llm_localrun.chat.attachments import load_attachment
        from llm_localrun.chat.prompt import chat_request, with_missing_turns

        load = partial(load_attachment, accepted=self.attachment_types)
        schema = _schema(prompt, conversation)
        request = chat_request(
            prompt, load, stream=stream, schema=schema, conversation=conversation_id
        )
        has_earlier = conversation and (conversation.responses or conversation.loaded_messages)
        return with_missing_turns(request) if has_earlier else request


class LocalChat(_Chat, llm.KeyModel):
    """A chat model, for llm's synchronous API."""

    Options = _OptionsOnUse()  # type: ignore[assignment]  # llm types it by the nested default

    def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.Response,
        conversation: Conversation | None,
        key: str | None = None,
    ) -> Iterator[StreamEvent]:
        from llm_localrun import resolve
        from llm_localrun.chat import run
        from llm_localrun.chat.interrupts import Interrupts
        from llm_localrun.chat.response import ResponseRecorder
        from llm_localrun.chat.shown import shown
        from llm_localrun.chat.tools import repeats_in

        with shown(is_streamed=stream) as seen:
            request = self._request(prompt, stream, conversation, _log_id(conversation))
            model, route = resolve.choose_route(self.local, request.options)
            recorder = ResponseRecorder(model, route, response, repeats_in(request.messages))
            interrupts = Interrupts()
            with (
                interrupts.caught(recorder.finish_interrupted),
                recorder.failure_kept(),
                recorder.errors_below(is_streamed=stream),
                closing(run.stream(model, route, request, key, seen)) as events,
            ):
                for event in events:
                    if seen is not None:
                        seen.before(event)
                    for item in recorder.record(event):
                        with interrupts.deferred:
                            yield item


class AsyncLocalChat(_Chat, llm.AsyncKeyModel):
    """`LocalChat` for llm's asynchronous API."""

    Options = _OptionsOnUse()  # type: ignore[assignment]  # llm types it by the nested default

    async def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.AsyncResponse,
        conversation: AsyncConversation | None,
        key: str | None = None,
    ) -> AsyncGenerator[StreamEvent, None]:
        from llm_localrun import resolve
        from llm_localrun.chat import run
        from llm_localrun.chat.response import ResponseRecorder
        from llm_localrun.chat.shown import shown
        from llm_localrun.chat.tools import repeats_in
        from llm_localrun.system.threads import in_thread

        log_id = _log_id(conversation)
        with shown(is_streamed=stream) as seen:
            # Reading attachments and asking whether a server listens would block the event loop.
            read = partial(self._request, prompt, stream, conversation, log_id)
            request = await in_thread(read)
            model, route = await in_thread(
                lambda: resolve.choose_route(self.local, request.options)
            )
            recorder = ResponseRecorder(model, route, response, repeats_in(request.messages))
            events = run.astream(model, route, request, key, seen)
            with recorder.failure_kept(), recorder.errors_below(is_streamed=stream):
                async with aclosing(events):
                    async for event in events:
                        if seen is not None:
                            seen.before(event)
                        for item in recorder.record(event):
                            yield item


class LocalEmbedding(_Local, EmbeddingModel):
    """An embedding model."""

    batch_size = 32

    def embed_batch(
        self, items: Iterable[str | bytes], *, key: str | None = None
    ) -> Iterator[list[float]]:
        from llm_localrun.chat.embed import embed_batches
        from llm_localrun.chat.shown import shown_texts

        texts = map(self._text, items)
        batches = iter(lambda: list(islice(texts, self.batch_size)), [])
        with shown_texts():
            yield from map(list, embed_batches(self.local, batches, key))

    def _text(self, item: str | bytes) -> str:
        from llm_localrun.errors import BadAttachment

        if isinstance(item, bytes):
            raise BadAttachment(
                f"{self.model_id} embeds text, and bytes were given", "Decode them first"
            )
        return item


def _log_id(conversation: Conversation | AsyncConversation | None) -> str:
    """The id under which llm logs a conversation; "" if the user turned logging off.

    Call it in the thread that runs the command: click knows the command's options only there.
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
    """The schema of the question to which tool results belong; llm drops it from their turn."""
    if not prompt.tool_results or conversation is None:
        return None
    earlier: Sequence[Any] = conversation.responses
    for response in reversed(earlier):
        if not response.prompt.tool_results:
            schema: Mapping[str, Any] | None = response.prompt.schema
            return schema
    return None
