"""llm's models on top of a `LocalModel`: `LocalChat`, its async twin, and `LocalEmbedding`.

The twins differ in one loop; what an event leaves in llm's response is `recorder`'s business. Every
`llm` command makes an object for every model, so what running one takes is imported when it runs.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import click
import llm
from llm.models import AsyncConversation, Conversation, EmbeddingModel
from llm.parts import StreamEvent

from llm_localrun.name_cache import Offer
from llm_localrun.wire.media import accepted_types

if TYPE_CHECKING:
    from llm_localrun.chat.options import Options
    from llm_localrun.models import LocalModel


class _Local:
    """What all models of ours share."""

    key: str | None = None

    def __init__(self, known: Union[Offer, "LocalModel"]) -> None:
        self._known = known
        self.model_id = known.id

    @cached_property
    def local(self) -> "LocalModel":
        """The model itself, looked up in the catalogue if llm has only been told of an offer."""
        if not isinstance(self._known, Offer):
            return self._known
        from llm_localrun.resolve import by_id

        return by_id(self.model_id)

    def get_key(self, explicit_key: str | None = None) -> str | None:
        """The key for this model's server, and none for any other; keys are optional.

        The first of: what was set on the model, what was given on the command line, what
        `llm keys` holds for the endpoint, the environment variables of its kind.
        """
        from llm_localrun.models import default_key_alias
        from llm_localrun.servers.base import key_from_environment

        endpoint = self.local.endpoint
        if endpoint is None or self.key is not None:
            return self.key
        alias = endpoint.key_alias or default_key_alias(endpoint.name)
        key: str | None = llm.get_key(input=explicit_key, alias=alias)
        return key or key_from_environment(endpoint.kind)


class _OptionsOnUse:
    """The class of a model's options, which pydantic takes milliseconds to make."""

    def __get__(self, model: object, owner: type) -> type["Options"]:
        from llm_localrun.chat.options import Options

        return Options


class _Chat(_Local):
    """What the twins share."""

    can_stream = True
    supports_schema = True

    def __init__(self, known: Union[Offer, "LocalModel"]) -> None:
        super().__init__(known)
        self.supports_tools = known.can("tools", if_unknown=True)
        self.attachment_types: set[str] | frozenset[str] = accepted_types(
            images=known.can("vision", if_unknown=True), audio=known.can("audio", if_unknown=False)
        )

    def _request(
        self,
        prompt: llm.Prompt,
        stream: bool,
        conversation: Conversation | AsyncConversation | None,
        logged_as: str,
    ) -> Any:
        from llm_localrun.chat.attachments import load
        from llm_localrun.chat.prompt import chat_request

        load_accepted = partial(load, accepted=self.attachment_types)
        schema = _schema(prompt, conversation)
        return chat_request(
            prompt, load_accepted, stream=stream, schema=schema, conversation=logged_as
        )


class LocalChat(_Chat, llm.KeyModel):
    """A chat model that runs here, for llm's synchronous API."""

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
        from llm_localrun.chat.response import Recorder

        request = self._request(prompt, stream, conversation, _logged_as(conversation))
        local = resolve.to_run(self.local, request.options)
        recorder = Recorder(local, response)
        interrupts = Interrupts()
        with (
            interrupts.caught(recorder.keep_what_has_come),
            closing(run.stream(local, local.routes[0], request, key)) as events,
        ):
            for event in events:
                for item in recorder.record(event):
                    with interrupts.outside():
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
        from llm_localrun.chat.response import Recorder

        # Attachments are read from disk or fetched.
        logged_as = _logged_as(conversation)
        request = await asyncio.to_thread(self._request, prompt, stream, conversation, logged_as)
        local = await asyncio.to_thread(resolve.to_run, self.local, request.options)
        recorder = Recorder(local, response)
        async with aclosing(run.astream(local, local.routes[0], request, key)) as events:
            async for event in events:
                for item in recorder.record(event):
                    yield item


class LocalEmbedding(_Local, EmbeddingModel):
    """An embedding model that runs here."""

    batch_size = 32

    def embed_batch(
        self, items: Iterable[str | bytes], *, key: str | None = None
    ) -> Iterator[list[float]]:
        from llm_localrun import resolve
        from llm_localrun.chat import run

        local = resolve.to_run(self.local, {})
        texts = map(self._text, items)
        while batch := list(islice(texts, self.batch_size)):
            yield from map(list, run.embed(local, local.routes[0], batch, key))

    def _text(self, item: str | bytes) -> str:
        from llm_localrun.errors import BadAttachment

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
