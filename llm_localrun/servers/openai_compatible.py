"""Servers with OpenAI's API: what they have in common, and the base class of their kinds.

Every one of them lists its models at /v1/models, and each adds fields of its own there: a kind has
a `ListedModel` that turns them into facts. Its context was chosen when the server started. The JSON
of a chat is left to `wire.openai`, what is peculiar to a kind to its module.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError

from llm_localrun.errors import UnsupportedOption
from llm_localrun.models import Endpoint, LocalModel, Served
from llm_localrun.names.parse import without_folders
from llm_localrun.names.quantizations import quantization_in
from llm_localrun.names.roles import purpose_of_name
from llm_localrun.servers.base import (
    NOT_SENT,
    CallForcing,
    Facts,
    ModelListing,
    PreparedRequest,
    Server,
    ServeRequest,
    WireOption,
    sent_as_named,
)
from llm_localrun.servers.fields import Entries, Maybe, hub_fingerprint, served_model
from llm_localrun.tokens.window import Limits, Size, context_too_small
from llm_localrun.wire import openai
from llm_localrun.wire.request import THINK_LEVELS, ChatRequest
from llm_localrun.wire.response import Ask, PayloadDecoder, ProbeReply, parse_reply
from llm_localrun.wire.shapes import MAX_ENTRIES, Name, Text, WireModel
from llm_localrun.wire.sse import Payload


class ListedModel(WireModel):
    """An entry of /v1/models, with the fields that every server has."""

    id: Name
    owned_by: Maybe[Text] = None

    def facts(self) -> Facts:
        """What the entry says; a `purpose` of None leaves out what is no model of its own."""
        name = without_folders(self.id)
        return {
            "purpose": purpose_of_name(name),
            "quantization": quantization_in(name),
            "fingerprints": hub_fingerprint(self.id),
        }


class NameListing(WireModel):
    """/v1/models, of which only the names have to be right."""

    data: Entries[ListedModel]


class _RowListing(WireModel):
    data: tuple[Any, ...]


class _Tokenized(WireModel):
    """/tokenize."""

    tokens: tuple[Any, ...]


_Listed = TypeVar("_Listed", bound=ListedModel)

_EFFORTS = {level: level for level in THINK_LEVELS} | {
    "off": "none",
    "on": "medium",
    "max": "high",
}


def _template_variables(level: str) -> Payload:
    # Templates of Qwen and GLM read `enable_thinking`, of DeepSeek, Granite and Kimi `thinking`, of
    # gpt-oss and Mistral `reasoning_effort`. None complains about what it does not read.
    switches = dict.fromkeys(("enable_thinking", "thinking"), level != "off")
    return switches if level in ("off", "on") else {**switches, "reasoning_effort": _EFFORTS[level]}


TEMPLATE_VARIABLES = {level: _template_variables(level) for level in THINK_LEVELS}
TEMPLATE_THINKING = WireOption("chat_template_kwargs", TEMPLATE_VARIABLES)
"""`-o think` where the server hands variables to the model's chat template."""


class OpenAICompatible(Server):
    """A server with OpenAI's API."""

    listed_model: ClassVar[type[ListedModel]] = ListedModel
    reasoning_field: ClassVar[str] = ""
    """The field of a message in which it takes earlier thinking; "" if it takes none."""
    lists_trained_context: ClassVar[bool] = True
    """Whether its largest context is that of the model, and not what it was started with."""
    call_forcing = CallForcing.NATIVE
    tokenize_field: ClassVar[str] = ""
    """The field of /tokenize that holds the text; "" if it has no such path."""
    chat_path = "/v1/chat/completions"
    embed_path = "/v1/embeddings"
    embed_fields = {"encoding_format": "float"}
    options = {
        **sent_as_named("temperature", "top_p", "presence_penalty", "frequency_penalty"),
        **sent_as_named("seed", "max_tokens", "stop", "logit_bias"),
        "think": WireOption("reasoning_effort", _EFFORTS),
        **dict.fromkeys(("quantization", "context_size", "timeout", "extra_body"), NOT_SENT),
        **dict.fromkeys(("tool_choice", "tool_repair"), NOT_SENT),
    }

    # Its models

    def list_models(
        self, ask: Ask, v1_models: ProbeReply, known: ModelListing
    ) -> ModelListing | None:
        if (v1_models.status, v1_models.text) == self.no_list:
            return ModelListing()
        if parse_reply(NameListing, v1_models) is None:
            return None
        entries = entries_in(v1_models, self.listed_model)
        models = listed_models(self.endpoint, entries, self.details(ask, entries))
        return ModelListing(models, self.version(ask, known))

    def details(self, ask: Ask, entries: Sequence[Any]) -> Mapping[str, Facts]:
        """More facts about the models, by their ids. `entries` are of the class `listed_model`."""
        return {}

    def lists(self, name: str) -> bool:
        with self.probe() as probe:
            listing = parse_reply(NameListing, probe.ask("/v1/models"))
        return listing is None or any(entry.id == name for entry in listing.data)

    # Running a model

    def prepare(self, request: ServeRequest, route: Served) -> PreparedRequest:
        model, context_size = request.model, route.context_loaded
        trained = (self.lists_trained_context and model.context_max) or inf
        limits = Limits(trained, fixed=True, flag=self.context_flag)
        self._check_context_size(request, context_size, limits)
        self.check_answer(request, context_size or model.context_max, limits)
        body = self.encode(model.name, request.chat)
        if context_size is not None:
            room = context_size - self.room_for_answer(request, context_size)
            if request.prompt.bound >= room:
                size = self.count_tokens(body) or request.size_unless_below(room)
                self.check_fits(request, size, context_size, limits)
        return PreparedRequest(self, self.chat_path, body, model.name, context_size, limits)

    def _check_context_size(
        self, request: ServeRequest, context_size: int | None, limits: Limits
    ) -> None:
        """Raises `UnsupportedOption` if the server has less context than the user asks for."""
        asked = request.options.get("context_size")
        if not isinstance(asked, int):
            # `max` is what the server has.
            return
        if context_size is None:
            raise UnsupportedOption(
                f"{self.label} does not say how large its context is", "Leave out -o context_size"
            )
        if asked > context_size:
            raise context_too_small(asked, context_size, self.label, limits)

    def count_tokens(self, body: Payload) -> Size | None:
        """The exact size of the prompt in a chat request; None if the server does not count."""
        return None

    def count_text(self, ask: Ask, model: str, text: str) -> int | None:
        if not self.tokenize_field:
            return None
        # llama.cpp counts the tokens around the text only if asked to; the others do anyway.
        body = {"model": model, self.tokenize_field: text, "add_special": True}
        reply = parse_reply(_Tokenized, ask("/tokenize", body))
        return len(reply.tokens) if reply else None

    def encode(self, model: str, chat: ChatRequest, **more: Any) -> Payload:
        """The body of a chat request; `more` are options to add to the user's."""
        options = self.encode_options({**chat.options, **more})
        if chat.tools:
            chat, choice = self._with_choice(chat)
            options = {**choice, **options}
        return openai.encode(
            model,
            chat,
            options,
            reasoning_field=self.reasoning_field,
            streams=self.streams,
        )

    def _with_choice(self, chat: ChatRequest) -> tuple[ChatRequest, Payload]:
        """A request with tools, and the `tool_choice` to send with it.

        A tool that has to be called is the only one sent: LM Studio takes no names.
        """
        choice, tools = chat.options.get("tool_choice"), chat.tools
        if choice is not None and self.call_forcing is CallForcing.NATIVE:
            named = tuple(tool for tool in tools if tool.name == choice)
            return replace(chat, tools=named or tools), {"tool_choice": "required"}
        has_format = chat.schema is not None or chat.options.get("json_object")
        return chat, self.text_choice if has_format or chat.calls_as_text else {}

    def decoder(self, tools: Collection[str] = ()) -> PayloadDecoder:
        return openai.OpenAIDecoder(tools)

    def decode_vectors(self, payload: Payload) -> list[tuple[float, ...]]:
        return openai.decode_vectors(payload)


def entries_in(reply: ProbeReply | None, shape: type[_Listed]) -> list[_Listed]:
    """The entries of a list of models as a kind has them; none if the reply is not such a list."""
    listing = parse_reply(_RowListing, reply)
    entries = []
    for row in listing.data[:MAX_ENTRIES] if listing else ():
        with suppress(ValidationError):
            entries.append(shape.model_validate(row))
    return entries


def listed_models(
    endpoint: Endpoint, entries: Iterable[ListedModel], details: Mapping[str, Facts]
) -> tuple[LocalModel, ...]:
    """The models that `entries` stand for, with more facts from `details`, by their ids."""
    facts = {entry.id: {**entry.facts(), **details.get(entry.id, {})} for entry in entries}
    return tuple(
        served_model(endpoint, name, known) for name, known in facts.items() if known["purpose"]
    )
