"""What llm-localrun knows of a kind of model server: the base class of one module per kind.

Every module of this package that defines a `Server` with a `kind` of its own adds that kind. The
class holds facts (title, usual ports, options), how the server is recognized and how its models are
listed, and how a prompt is made to fit and sent. Finding servers is left to `discover`.
"""

import base64
import importlib
import os
import pkgutil
import re
import threading
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cached_property, partial
from math import inf
from typing import Any, ClassVar, TypeAlias
from urllib.parse import quote, quote_plus, urlsplit

from pydantic import AliasChoices, Field

from llm_localrun.config import Config, read_config, server_root
from llm_localrun.errors import ConfigError, LocalRunError, ServerRefused, UnsupportedOption
from llm_localrun.models import Endpoint, EndpointReport, LocalModel, Served, ServerStatus
from llm_localrun.privacy import host_of
from llm_localrun.servers.waiting import POLL_S, Reading, until_over
from llm_localrun.system.json_files import read_json
from llm_localrun.system.logins import split_login
from llm_localrun.system.paths import home
from llm_localrun.system.progress import Progress
from llm_localrun.tokens.count import Prompt, bound_of_text
from llm_localrun.tokens.learned import read_facts
from llm_localrun.tokens.window import (
    ANSWER_RESERVE_TOKENS,
    UNLIMITED,
    Limits,
    Size,
    TextTooLong,
    answer_too_long,
    context_too_large,
    too_long,
)
from llm_localrun.wire import http
from llm_localrun.wire.http import Clock, HttpRequest, Probe
from llm_localrun.wire.request import ChatRequest
from llm_localrun.wire.response import Ask, PayloadDecoder, ProbeReply, ResponseContext, parse_reply
from llm_localrun.wire.shapes import Overflow, Text, WireModel
from llm_localrun.wire.sse import Payload

ADMIN_TIMEOUT_S = 30.0
"""A server that is up reports what it has loaded, or counts a prompt, within this time."""

_SPELLINGS = (quote_plus, partial(quote, safe=""), partial(quote, safe=":"))
"""How a URL spells a secret."""
_MIN_SECRET = 8
"""Characters from which on the value of a header counts as a secret."""

_NUMBERS = ("context", "prompt", "tools", "answer")
CONTEXT, PROMPT, TOOLS, ANSWER = (rf"(?P<{name}>\d{{1,12}})" for name in _NUMBERS)
"""Groups of `Server.overflow_texts`."""

_MAX_ERROR_LENGTH = 4096
"""Characters of an error in which numbers are looked for: a hostile one may be endless."""

Facts: TypeAlias = dict[str, Any]
"""Fields of `Served` and of `LocalModel`: {"loaded": True, "context_max": 32768}."""


@dataclass(frozen=True, slots=True)
class WireOption:
    """Where the value of an option goes in the JSON body."""

    path: str
    """Keys joined by dots: `options.num_ctx`; "" for an option that is not sent, or whose `values`
    are whole bodies."""
    values: Mapping[Any, Any] | None = None
    """What to send for each value of the option; None sends the value itself."""
    minimum: float | None = None


NOT_SENT = WireOption("")
"""An option that takes effect before anything is sent."""


class CallForcing(Enum):
    """How a server makes a model call a tool, for `-o tool_choice required` or NAME."""

    NONE = auto()
    """It cannot."""
    NATIVE = auto()
    """By the field `tool_choice` of the body."""
    SCHEMA = auto()
    """By the schema of a call, which the answer has to follow."""


def sent_as_named(*names: str, below: str = "") -> dict[str, WireOption]:
    """Options that the body carries under their own names, `below` a path: "options."."""
    return {name: WireOption(below + name) for name in names}


@dataclass(frozen=True, slots=True)
class Sign:
    """A reply by which a kind is recognized: `path` answers with an object that has `key`.

    If `value` is given, the key has to have this value, or an object with this key.
    """

    path: str
    key: str
    value: Any = None
    needs_no_key: bool = False
    """Whether the server shows it without the API key that it may want."""
    only_if_locked: bool = False
    """Whether it shows the kind only of a server that wants a key."""
    rank: int = 0
    """Signs of a lower rank are looked for first: 0 for those that no other server imitates."""
    names: str = ""
    """A pattern in the name of each model that the server lists; "" if it may list none."""
    greeting: Any = None
    """The JSON that `GET /` answers as well; None for any."""

    def is_in(self, reply: ProbeReply | None) -> bool:
        """Whether `reply` shows it."""
        payload = reply.payload if reply is not None and isinstance(reply.payload, dict) else {}
        if self.key not in payload or self.value in (None, payload[self.key]):
            return self.key in payload
        return isinstance(payload[self.key], dict) and self.value in payload[self.key]

    def allows(self, names: Collection[str]) -> bool:
        """Whether a server with models of these names may be of the kind."""
        return not self.names or (bool(names) and all(re.search(self.names, n) for n in names))


@dataclass(frozen=True, slots=True)
class ModelListing:
    """What a server of a known kind says when it is asked for its models."""

    models: tuple[LocalModel, ...] = ()
    version: str = ""


class _VersionReply(WireModel):
    version: Text = Field(validation_alias=AliasChoices("version", "build_info"))


@dataclass(frozen=True)
class ServeRequest:
    """A chat request for a model, on its way to the server or the engine that runs it.

    The options of `chat` are settled: what depends on the model is filled in.
    """

    model: LocalModel
    chat: ChatRequest
    free_memory: Callable[[], int | None] = lambda: None
    """Returns the bytes of memory that are free; None if unknown."""

    @property
    def options(self) -> Mapping[str, Any]:
        return self.chat.options

    @cached_property
    def prompt(self) -> Prompt:
        return Prompt(self.chat)

    @property
    def new_tokens(self) -> int | None:
        """An estimate of what has to be computed of the prompt; None if it has images or sounds.

        Servers keep what they have computed of a conversation, up to the last answer.
        """
        chat = self.chat
        last = max(
            (i for i, each in enumerate(chat.messages) if each.role == "assistant"), default=-1
        )
        new = replace(
            chat, messages=chat.messages[last + 1 :], tools=() if last >= 0 else chat.tools
        )
        prompt = Prompt(new)
        if prompt.media_count:
            return None
        return prompt.estimate(read_facts(self.model.id).script_factors).tokens

    @property
    def answer_tokens(self) -> int:
        """Tokens to leave free for the answer."""
        return int(self.options.get("max_tokens", ANSWER_RESERVE_TOKENS))

    @property
    def timeout_s(self) -> float:
        """Silence after which the server counts as hung."""
        return float(self.options.get("timeout", http.READ_TIMEOUT_S))

    @property
    def context_size(self) -> int | None:
        """The context that the user asks for; None if the option is not set.

        Raises `ConfigError` for a number above the largest context, and for `max` if that is
        unknown.
        """
        asked: int | str | None = self.options.get("context_size")
        trained = self.model.context_max
        if isinstance(asked, int):
            if trained is not None and asked > trained:
                raise context_too_large(self.model.name, trained, asked)
            return asked
        if asked is not None and trained is None:
            raise ConfigError(
                f"The largest context of {self.model.id} is unknown",
                "Give a number of tokens as -o context_size",
            )
        return None if asked is None else trained

    def size_unless_below(self, tokens: int) -> Size:
        """The size of the prompt, estimated only if it could exceed `tokens`."""
        if self.prompt.bound <= tokens:
            return Size(self.prompt.bound, is_exact=False)
        return self.prompt.estimate(read_facts(self.model.id).script_factors)


@dataclass(frozen=True)
class PreparedRequest:
    """A request that is ready to be sent, with what is known of the context that it goes to."""

    server: "Server"
    path: str
    body: Payload
    model: str
    """The server's name for the model, or for its loaded instance."""
    context_size: int | None = None
    """Tokens that the context holds; None if unknown."""
    limits: Limits = UNLIMITED
    load_seconds: float | None = None
    """How long the model took to load, if it was loaded for this request."""
    enlarge: "Callable[[int, int], PreparedRequest] | None" = None
    """Returns the request to send instead, if the server refuses a prompt of so many tokens in a
    context of so many. Raises `PromptTooLong` if no context can hold it."""

    def http_request(self, timeout_s: float) -> HttpRequest:
        return self.server.http_request("POST", self.path, self.body, timeout_s)

    def check_texts(self, counts: Sequence[int]) -> None:
        """Raises `TextTooLong` for the first text whose tokens exceed the context."""
        trained = self.limits.trained
        for index, tokens in enumerate(counts):
            if tokens > trained:
                raise TextTooLong(tokens, self.model, int(trained), self.limits, index)
            if tokens > (self.context_size or inf):
                size = self.context_size or 0
                raise TextTooLong(tokens, self.server.label, size, self.limits, index)

    def after_refusal(self, error: LocalRunError) -> "PreparedRequest | None":
        """The request to send instead, if the server refuses this one before it answers."""
        return None

    def record_prompt_evaluated(self) -> None:
        """Called when the head of a successful response has come; the evaluation may go on."""

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Around the exchange: translates its errors and releases what the request holds."""
        yield


class Server:
    """A kind of model server, and with an endpoint and a key one such server."""

    kind: ClassVar[str]
    title: ClassVar[str]
    """How messages and tables call the kind."""
    checked: ClassVar[str] = ""
    """The versions that its module is about, and how they are known: "0.32 (run), 0.33 (read)"."""
    start_hint: ClassVar[str] = (
        "Start it, or choose another model: `llm localrun models` lists them"
    )
    list_position: ClassVar[int] = 9
    """Kinds with a lower number come first in lists and are asked first."""
    usual_ports: ClassVar[tuple[int, ...]] = ()
    shared_ports: ClassVar[tuple[int, ...]] = ()
    """Ports that it uses too, which are asked for another kind anyway."""
    url_variables: ClassVar[tuple[str, ...]] = ()
    """Environment variables that hold its address."""
    key_variables: ClassVar[tuple[str, ...]] = ()
    """Environment variables from which its own clients take an API key."""
    found_by: ClassVar[tuple[str, ...]] = ()
    """What else says where it is, for the README: "its settings"."""
    owned_by: ClassVar[str] = ""
    """How its /v1/models signs its entries."""
    signature_is_proof: ClassVar[bool] = True
    """Whether no other server signs entries in the same way."""
    signs_as_owner: ClassVar[bool] = False
    """Whether it signs each entry with the OWNER in its name, OWNER/NAME."""
    no_list: ClassVar[tuple[int, str]] = (0, "")
    """Status and text of its reply to GET /v1/models where it lacks the folder of its models."""
    empty_hint: ClassVar[str] = ""
    """What to do if it lists no models."""
    recognized_by_port: ClassVar[bool] = False
    """Whether a server at its usual port is of this kind unless something else is shown."""
    signs: ClassVar[tuple[Sign, ...]] = ()
    greeting: ClassVar[str] = ""
    """What `GET /` answers, where imitators of the kind answer something else."""
    loading_message: ClassVar[str] = ""
    """What its reply 503 to GET /v1/models says while it loads its model."""
    locked_error: ClassVar[tuple[Any, ...]] = ()
    """`code` and `type` of its error for a request without a key; () if others send the same."""
    guarded_path: ClassVar[str] = ""
    """What can be asked only with the key, if it lists its models without; "" if it does not."""
    version_path: ClassVar[str] = ""
    """Where it says {"version": …} or {"build_info": …}; "" if nowhere."""
    rereads_version: ClassVar[bool] = False
    """Whether listing its models asks for `version_path` in any case."""
    api_root: ClassVar[str] = ""
    """The path below its address at which /v1 begins."""
    is_product: ClassVar[bool] = True
    """Whether the title is a product's name, to be listed as a server that is supported."""
    is_private: ClassVar[bool] = False
    """Whether only llm-localrun starts and uses it: the engine."""
    relays: ClassVar[bool] = False
    """Whether it may pass prompts on to other machines without saying for which models."""
    streams: ClassVar[bool] = True
    accepts_schemas: ClassVar[bool] = True
    call_forcing: ClassVar[CallForcing] = CallForcing.NONE
    context_flag: ClassVar[str] = ""
    """The flag that sets its context when it starts: "-c {}"; "" if unknown."""
    template_flag: ClassVar[str] = ""
    """The flag that gives it another chat template when it starts; "" if unknown."""
    text_flag: ClassVar[str] = ""
    """The flags that set how long a text to embed may be, if `context_flag` is not enough."""
    cut_off_hint: ClassVar[str] = ""
    """Why it may end an answer without a reason, and what to do then."""
    cuts_for_answer: ClassVar[bool] = False
    """Whether it cuts the beginning of a prompt, in silence, to have room for `max_tokens`."""
    overflow_texts: ClassVar[tuple[str, ...]] = ()
    """Regular expressions of its errors about requests that do not fit the context.

    Their groups are numbers of tokens: `context`, `prompt`, `tools` if it counts them apart from
    the prompt, `answer` if it counts that, `above` if it counted the prompt up to there. A group
    `least` shows that the prompt may take more.
    """
    counts_prompts: ClassVar[bool] = False
    """Whether it counts the tokens of a prompt exactly, so that there is nothing to learn."""
    names_models_as_listed: ClassVar[bool] = False
    """Whether its replies name the model that answers as its list does. Others may name it as the
    server behind them does, so they are asked whether they still list the one that is wanted."""
    text_choice: ClassVar[Payload] = {}
    """The `tool_choice` with which it tells the model of tools, but leaves calls in the text; empty
    if there is none."""
    tool_refusals: ClassVar[tuple[str, ...]] = ()
    """Regular expressions of its errors about tools that it, or the model, cannot be given."""
    schema_refusals: ClassVar[tuple[str, ...]] = ()
    """The same, about a schema that it cannot enforce: that of a tool, or of the answer."""
    unread_calls: ClassVar[tuple[str, ...]] = ()
    """The same, about a call that it could not read, and drops."""
    options: ClassVar[Mapping[str, WireOption]] = {}
    """The options of `chat.options` that it supports, and where each goes in the body."""
    fixed_body: ClassVar[Payload] = {}
    """Fields of every chat request, unless an option changes them."""
    measured: ClassVar[Payload] = {}
    """Fields of a chat request that is measured: the model must not end its answer before
    `max_tokens`, and the server does nothing else."""
    times_answers: ClassVar[bool] = False
    """Whether it says how long it took to generate an answer, also of one that is not streamed."""
    without_cache: ClassVar[Payload] = {}
    """Fields of a chat request that make the server compute the whole prompt."""
    chat_path: ClassVar[str]
    embed_path: ClassVar[str]
    embed_fields: ClassVar[Payload]
    """What a request that embeds texts has besides the model and the texts."""
    pull_names: ClassVar["re.Pattern[str] | None"] = None
    """The names of models in `pull KIND:NAME`; None if it does not pull models."""
    pulls_repositories: ClassVar[bool] = False
    """Whether it pulls `KIND:hf:OWNER/REPO[:QUANT]`, a repository of the Hugging Face hub."""
    interrupted_pull: ClassVar[str] = ""
    """What happens to a pull whose command is interrupted."""
    quantizes_from: ClassVar[Collection[str]] = ()
    quantizes_to: ClassVar[Collection[str]] = ()
    """The quantizations between which it quantizes its models; empty if it does not."""
    can_delete: ClassVar[bool] = False
    """Whether it deletes its models."""
    plugin_ids: ClassVar[tuple[str, ...]] = ()
    """How other plugins of llm call its models: `ollama/{name}`. `{host}` is the host and port of
    its URL, with `_` for other characters."""
    may_pass_on: ClassVar[bool] = False
    """Whether a name can come to mean a model that runs elsewhere, between two lists."""

    def __init_subclass__(cls) -> None:
        if "kind" in cls.__dict__:
            _KINDS[cls.kind] = cls

    def __init__(self, endpoint: Endpoint, key: str | None = None) -> None:
        self.endpoint = endpoint
        self.key = key

    # Finding and recognizing it

    @classmethod
    def addresses(cls) -> Iterator[str]:
        """The URLs at which to look for it, the surest first.

        Each of `url_variables` may hold several, with commas between.
        """
        yield from filter(None, map(_usable_url, cls._texts_in_variables()))
        yield from cls.addresses_in_settings()
        yield from (f"http://127.0.0.1:{port}" for port in cls.usual_ports)

    @classmethod
    def _texts_in_variables(cls) -> Iterator[str]:
        for variable in cls.url_variables:
            yield from os.environ.get(variable, "").split(",")

    @classmethod
    def headers_in_variables(cls) -> Mapping[str, Mapping[str, str]]:
        """What variables say to send with every request, by the URL that they name."""
        texts = {_usable_url(text): text for text in cls._texts_in_variables()}
        return {url: basic_authorization(split_login(text)[1]) for url, text in texts.items()}

    @classmethod
    def addresses_in_settings(cls) -> Iterator[str]:
        """The URLs that settings on this machine give for it."""
        return iter(())

    @classmethod
    def ids_in_plugins(cls, url: str, name: str) -> Iterator[str]:
        """The ids of the model `name` of a server at `url` in other plugins of llm."""
        host = re.sub(r"[.:]", "_", urlsplit(url).netloc)
        for pattern in cls.plugin_ids:
            yield pattern.format(name=name, host=host)

    @classmethod
    def kind_at_usual_port(cls) -> str:
        """The kind of a server at its usual port that shows no sign of any kind."""
        return GENERIC_KIND if cls.owned_by else cls.kind

    @classmethod
    def shows_kind_when_locked(cls) -> bool:
        """Whether it is recognized without the key that it wants."""
        return bool(cls.locked_error) or any(sign.needs_no_key for sign in cls.signs)

    @classmethod
    def locate(cls, report: EndpointReport, *, thorough: bool) -> EndpointReport:
        """The report with where each model runs, where only this kind's own tools know.

        Takes seconds if `thorough`.
        """
        return report

    def list_models(
        self, ask: Ask, v1_models: ProbeReply, known: ModelListing
    ) -> ModelListing | None:
        """The models of the server, which answered GET /v1/models with `v1_models`.

        What is `known` from its last answer need not be asked again. None if it does not answer as
        its kind does.
        """
        raise NotImplementedError

    def add_details(self, ask: Ask, models: Sequence[LocalModel]) -> Iterator[list[LocalModel]]:
        """The models with what takes a question for each of them, as the answers come."""
        return iter(())

    def remote_host_of(self, model: LocalModel) -> str:
        """Asks for the host that it passes prompts for `model` on to by now: see `may_pass_on`.

        "" if it runs the model itself. Raises a `LocalRunError` if it does not say.
        """
        return ""

    def remote_host_in(self, payload: Payload) -> str:
        """The host that a reply with vectors names: it made them; "" for none."""
        return ""

    def version(self, ask: Ask, known: ModelListing) -> str:
        """The server's version: asked for once, and remembered for as long as it answers."""
        if not self.version_path or (known.version and not self.rereads_version):
            return known.version
        reply = parse_reply(_VersionReply, ask(self.version_path))
        return reply.version if reply else known.version

    # Requests

    @property
    def label(self) -> str:
        """How messages call this server: "Ollama at http://127.0.0.1:11434"."""
        return f"{self.title} at {self.endpoint.address}"

    @property
    def root(self) -> str:
        """The URL below which /v1 begins, whether the user gave that or the server's address."""
        url = self.endpoint.url
        return url if url.endswith(self.api_root) else url + self.api_root

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """What the user's settings say to send with every request to this address."""
        return {} if self.is_private else headers_by_url(read_config()).get(self.endpoint.url, {})

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown: the key, and what its headers hold."""
        words = [word for value in self.headers.values() for word in (value, value.split()[-1])]
        login = login_in(self.headers)
        user, _, password = login.partition(":")
        secret = (login, password) if password else (user,)
        long = (word for word in words if len(word) >= _MIN_SECRET)
        spelled = (spell(word) for word in secret for spell in _SPELLINGS)
        hidden = [self.key, *long, *secret, *spelled]
        return tuple(dict.fromkeys(word for word in hidden if word))

    @property
    def response_context(self) -> ResponseContext:
        """What is known of every response before it comes."""
        flag = self.template_flag
        return ResponseContext(
            find_overflow=find_overflow,
            secrets=self.secrets,
            login_source=self.login_source,
            key_name=self.endpoint.key_name,
            other_template=f"start the server with {flag} FILE" if flag else "choose another model",
        )

    @cached_property
    def login_source(self) -> str:
        """Where the user has written the user and password that it is sent; "" if it is sent none.

        For example OLLAMA_HOST.
        """
        url = self.endpoint.url
        if self.key or not login_in(self.headers):
            return ""
        for each in read_config().endpoints:
            if each.login and each.url == url:
                return f"the endpoint {each.name} of config.json"
        named = (cls for cls in server_kinds().values() if url in cls.headers_in_variables())
        return next((variable for cls in named for variable in cls.url_variables), "")

    def http_request(
        self,
        method: str,
        path: str,
        body: Payload | None = None,
        timeout_s: float = http.READ_TIMEOUT_S,
    ) -> HttpRequest:
        return HttpRequest(
            url=self.root + path,
            body=body or {},
            server=self.label,
            start_hint=self.start_hint,
            key=self.key,
            headers=self.headers,
            read_timeout_s=timeout_s,
            method=method,
        )

    @contextmanager
    def probe(self, timeout_s: float = ADMIN_TIMEOUT_S) -> Iterator[Probe]:
        """A `Probe` of this server. It raises no errors: the request that follows reports them."""
        with Probe(self.endpoint.url, self.key, Clock(timeout_s), self.headers) as probe:
            yield probe

    # Running a model

    def lists(self, name: str) -> bool:
        """Whether the server lists a model `name` now, or does not say."""
        return True

    def is_same_name(self, listed: str, answers: str) -> bool:
        """Whether the name in a reply is that of the model `listed`."""
        return listed.casefold() == answers.casefold()

    def prepare(self, request: ServeRequest, route: Served) -> PreparedRequest:
        """The request as it will be sent, in a context that its prompt fits into.

        May load the model. Raises a `LocalRunError`: `PromptTooLong` if no context can hold the
        prompt.
        """
        raise NotImplementedError

    def cuts_silently(self, chat: ChatRequest) -> bool:
        """Whether it may cut a prompt that does not fit, instead of refusing it. May ask it."""
        return self.cuts_for_answer

    def room_for_answer(self, request: ServeRequest, context_size: int) -> int:
        """Tokens of a context that a prompt must leave free, so that it is not cut."""
        if not self.cuts_for_answer:
            return 0
        return min(request.answer_tokens, context_size // 2)

    def check_fits(
        self, request: ServeRequest, size: Size, context_size: int | None, limits: Limits
    ) -> None:
        """Raises `PromptTooLong` if a prompt of this size does not fit into the context.

        An estimate, which may be too high, decides that only if the server would cut the prompt
        in silence. Otherwise the server counts, and refuses it.
        """
        if context_size is None:
            return
        room = self.room_for_answer(request, context_size)
        if size.fits(context_size - room):
            return
        if not size.may_fit(context_size) or self.cuts_silently(request.chat):
            raise too_long(size, self.label, context_size, limits, room)

    def check_answer(self, request: ServeRequest, context_size: int | None, limits: Limits) -> None:
        """Raises `UnsupportedOption` if `max_tokens` is more than the largest possible context."""
        asked = request.options.get("max_tokens", 0)
        if context_size is None or asked <= context_size:
            return
        is_trained = context_size == limits.trained
        trained_for = f"{request.model.id} was trained for a context of"
        holder = trained_for if is_trained else f"{self.label} holds"
        raise answer_too_long(asked, holder, context_size, limits)

    def prepare_texts(
        self, model: LocalModel, route: Served, texts: Sequence[str]
    ) -> PreparedRequest:
        """The request that embeds `texts`, each of which fits as far as the server can count.

        Raises `TextTooLong` for the first that does not.
        """
        sizes = [size for size in (route.context_loaded, model.context_max) if size is not None]
        context_size = min(sizes, default=None)
        # A larger context is no advice if the model may have been trained for no more.
        trained = model.context_max or context_size or 0
        limits = Limits(trained, fixed=True, flag=self.text_flag or self.context_flag)
        body = self.encode_texts(model.name, texts)
        prepared = PreparedRequest(self, self.embed_path, body, model.name, context_size, limits)
        if context_size is not None:
            prepared.check_texts(self.count_texts(model.name, texts, context_size))
        return prepared

    def count_texts(self, model: str, texts: Sequence[str], context_size: int) -> list[int]:
        """The tokens of each text that could exceed `context_size`; 0 for one that is not counted.

        What is not counted is short, or the server does not count.
        """
        with self.probe() as probe:
            return [
                (self.count_text(probe.ask, model, text) or 0)
                if bound_of_text(text) > context_size
                else 0
                for text in texts
            ]

    def count_text(self, ask: Ask, model: str, text: str) -> int | None:
        """The exact tokens of a text to embed; None if the server does not count."""
        return None

    def encode_texts(self, model: str, texts: Sequence[str]) -> Payload:
        """The body of the request that embeds `texts`."""
        return {"model": model, "input": list(texts), **self.embed_fields}

    def decode_vectors(self, payload: Payload) -> list[tuple[float, ...]]:
        """The vectors in a response, in the order of the texts."""
        raise NotImplementedError

    def memory_of(self, model: LocalModel) -> int | None:
        """The bytes that the model takes in the server's memory; None if it does not say."""
        return None

    def progress(
        self, request: ServeRequest, prepared: PreparedRequest, is_over: threading.Event
    ) -> Iterator[Progress]:
        """What the server does until it answers, as far as that is known besides the response.

        Waits between two questions: it runs in a thread of its own, while a user at a terminal
        waits. What the response itself says of its progress is surer. It ends soon after `is_over`
        is set. Raises no errors.
        """
        return until_over(self.watch(request, prepared, is_over), is_over)

    def watch(
        self, request: ServeRequest, prepared: PreparedRequest, is_over: threading.Event
    ) -> Iterator[Progress]:
        """`progress`, of which each step may take seconds: what the kind of server says.

        A server that says nothing reads the prompt as fast as before.
        """
        return self.watch_reading(request, is_over)

    def watch_reading(self, request: ServeRequest, is_over: threading.Event) -> Iterator[Progress]:
        """The end of `watch`: only the prompt has to be read now."""
        reading = None if is_over.is_set() else self.reading(request)
        while reading is not None:
            yield reading.now()
            if is_over.wait(POLL_S):
                return

    def reading(self, request: ServeRequest) -> Reading:
        """The prompt, which the model begins to read now."""
        from llm_localrun.stats.rates import prompt_rate

        endpoint = "gguf" if self.is_private else self.endpoint.name
        return Reading(request.new_tokens, prompt_rate(request.model.id, endpoint))

    def decoder(self, tools: Collection[str] = ()) -> PayloadDecoder:
        """A decoder of one chat response; `tools` are the names of those that were offered."""
        raise NotImplementedError

    # What it does with its own models

    def pull(
        self, name: str, *, is_repository: bool = False, quantization: str = ""
    ) -> Iterator[Progress]:
        """Has the server get a model, of which `pull_names` describes the name.

        Raises a `LocalRunError`.
        """
        raise NotImplementedError

    def delete(self, name: str) -> None:
        """Has the server delete a model. Raises a `LocalRunError`."""
        raise NotImplementedError

    def quantize(
        self, name: str, source: str, quantization: str
    ) -> Generator[Progress, None, None]:
        """Has the server make `name` from its model `source`. Raises a `LocalRunError`."""
        raise NotImplementedError

    @classmethod
    def pull_name(cls, name: str, quantization: str) -> str:
        """The server's name for a model in another quantization; "" if unknown."""
        return ""

    # Options

    def encode_options(self, options: Mapping[str, Any]) -> Payload:
        """The part of a request's body that carries `options`. Raises `UnsupportedOption`."""
        body: Payload = dict(self.fixed_body)
        for name, value in options.items():
            wire = self.options.get(name)
            if wire is None:
                raise UnsupportedOption(
                    f"{self.title} does not support -o {name}",
                    f"Leave it out, or use {_supporters(name)}",
                )
            if wire.minimum is not None and value < wire.minimum:
                raise UnsupportedOption(
                    f"{self.title} does not support -o {name} {value:g}",
                    f"Leave it out, or use {wire.minimum:g} or more",
                )
            if wire.values is not None and value not in wire.values:
                # It is the server's default.
                continue
            sent = value if wire.values is None else wire.values[value]
            if wire.path:
                _set_at(body, wire.path, sent)
            elif wire.values is not None:
                body = _merge(body, sent)
        return _merge(body, options.get("extra_body", {}))


_KINDS: dict[str, type[Server]] = {}
GENERIC_KIND = "openai"
"""The kind of a server that has OpenAI's API and shows no sign of any other kind."""


def server_kinds() -> Mapping[str, type[Server]]:
    """Every kind of server by its name, in the order of lists."""
    package = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{__package__}.{module.name}")
    kinds = sorted(_KINDS.items(), key=lambda each: (each[1].list_position, each[0]))
    return dict(kinds)


def server_class(kind: str) -> type[Server]:
    """The class of `kind`; of an unknown name, that of servers with OpenAI's API."""
    if kind in _KINDS:
        return _KINDS[kind]
    kinds = server_kinds()
    return kinds.get(kind) or kinds[GENERIC_KIND]


def find_overflow(message: str) -> Overflow | None:
    """What an error says of a request that does not fit: gateways hand on the words of any kind.

    Of several that match, the words with most numbers count.
    """
    message = message[:_MAX_ERROR_LENGTH]
    texts = (text for kind in server_kinds().values() for text in kind.overflow_texts)
    flags = re.IGNORECASE | re.DOTALL
    matches = filter(None, (re.search(text, message, flags) for text in texts))
    best = max(matches, key=lambda match: sum(map(bool, match.groups())), default=None)
    if best is None:
        return None
    groups = best.groupdict()
    numbers = {name: int(groups.get(name) or 0) for name in _NUMBERS}
    above = groups.get("above")
    return Overflow(
        context_size=numbers["context"],
        prompt_tokens=int(above) + 1 if above else numbers["prompt"] + numbers["tools"],
        is_least=bool(above) or groups.get("least") is not None,
        answer_tokens=numbers["answer"],
    )


def refuses_tools(error: LocalRunError | None, *, has_format: bool) -> bool:
    """Whether a server says that it, or the model, cannot be given these tools.

    If the request `has_format`, an error about a schema is about that of the answer.
    """
    kinds = server_kinds().values() if isinstance(error, ServerRefused) else ()
    texts = (text for kind in kinds for text in kind.tool_refusals)
    schemas = (text for kind in kinds if not has_format for text in kind.schema_refusals)
    return _says(error, (*texts, *schemas))


def is_malformed_call(error: LocalRunError | None) -> bool:
    """Whether a server says that it could not read the call that the model wrote, and drops it."""
    kinds = server_kinds().values() if isinstance(error, ServerRefused) else ()
    return _says(error, [text for kind in kinds for text in kind.unread_calls])


def _says(error: LocalRunError | None, texts: Collection[str]) -> bool:
    """Whether an error has words of any kind of server: gateways hand them on."""
    return error is not None and any(re.search(text, error.problem) for text in texts)


def open_server(endpoint: Endpoint, key: str | None = None) -> Server:
    """The server at `endpoint`; nothing is sent yet."""
    return server_class(endpoint.kind)(endpoint, key)


def open_with_stored_key(endpoint: Endpoint) -> Server:
    """The server at `endpoint` with the key that is stored for it."""
    return open_server(endpoint, stored_key(endpoint))


def stored_key(endpoint: Endpoint) -> str | None:
    """The key that `llm keys` holds for `endpoint`, or else a variable of its kind."""
    stored = stored_keys().get(endpoint.key_name)
    return stored or key_from_environment(endpoint.kind)


def key_from_environment(kind: str) -> str | None:
    """The API key in the variables that clients of this kind read."""
    return next(filter(None, map(os.environ.get, server_class(kind).key_variables)), None)


def stored_keys() -> dict[str, str]:
    """What `llm keys` holds; nothing if its file is damaged, which llm itself reports."""
    keys = read_json(home().parent / "keys.json")
    return keys if isinstance(keys, dict) else {}


def basic_authorization(login: str) -> dict[str, str]:
    """The header for `user:password`; none for ""."""
    text = login if ":" in login else f"{login}:"
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode()
    return {"authorization": f"Basic {encoded}"} if login else {}


def login_in(headers: Mapping[str, str]) -> str:
    """The `user:password` that `basic_authorization` has encoded; "" if there is none."""
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    try:
        return base64.b64decode(encoded).decode() if scheme == "Basic" else ""
    except ValueError:
        return ""


def refused_login(report: EndpointReport) -> str:
    """The `Server.login_source` of a server that does not accept that login; "" for others."""
    is_locked = report.status is ServerStatus.NEEDS_KEY
    return open_with_stored_key(report.endpoint).login_source if is_locked else ""


def headers_by_url(config: Config) -> dict[str, Mapping[str, str]]:
    """What the user's settings say to send with every request, by the URL of the server."""
    found: dict[str, Mapping[str, str]] = {}
    for kind in server_kinds().values():
        found |= {url: headers for url, headers in kind.headers_in_variables().items() if headers}
    for each in config.endpoints:
        if each.login:
            found[each.url] = {**found.get(each.url, {}), **basic_authorization(each.login)}
    return found


def variables() -> tuple[str, ...]:
    """The environment variables that decide where servers are looked for."""
    return tuple(name for kind in server_kinds().values() for name in kind.url_variables)


def local_url(port: Any) -> Iterator[str]:
    """The URL of a port on this machine, if that is what some settings hold."""
    if isinstance(port, int) and not isinstance(port, bool) and 0 < port < 2**16:
        yield f"http://127.0.0.1:{port}"


def _usable_url(text: str) -> str:
    """What a user has put into a variable as the root of a server; "" if it is not a URL."""
    try:
        url = server_root(text.strip())
    except ValueError:
        return ""
    return url if host_of(url) else ""


def _supporters(option: str) -> str:
    """What supports an option: "a model of Ollama or vLLM, or a GGUF file"."""
    kinds = [cls for cls in server_kinds().values() if option in cls.options]
    if any(cls.kind == GENERIC_KIND for cls in kinds):
        # Nearly all: those that come first are enough.
        kinds = [cls for cls in kinds if cls.is_private or cls.list_position < Server.list_position]
    titles = [cls.title for cls in kinds if not cls.is_private]
    if not titles:
        return "a GGUF file"
    of_servers = "a model of " + " or ".join(filter(None, [", ".join(titles[:-1]), titles[-1]]))
    return f"{of_servers}, or a GGUF file" if len(titles) < len(kinds) else of_servers


def _merge(body: Payload, extra: Payload) -> Payload:
    """`extra` over `body`; objects that both have are merged in turn."""
    merged = {**body, **extra}
    for key in body.keys() & extra.keys():
        if isinstance(body[key], dict) and isinstance(extra[key], dict):
            merged[key] = _merge(body[key], extra[key])
    return merged


def _set_at(body: Payload, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        body = body.setdefault(parent, {})
    body[last] = value
