"""Ollama, through its own API: lists, contexts, pulls and deletes.

A request says how large the context has to be. One that says nothing gets the server's default,
4,096 tokens on most machines, and one that says something else than the last reloads the model. So
short prompts say nothing until a long one has made the context grow; from then on the larger one is
kept while the model stays loaded. The JSON of a chat is left to `wire.ollama`.

Source: Ollama's `api/types.go`, `server/routes.go` and `envconfig` (0.32.15, which was run; what
0.33 to 0.40 added was read).
"""

import os
import re
import shlex
import sys
import threading
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from math import inf
from typing import Any

from pydantic import Field

from llm_localrun.errors import NotRemoved, PullFailed, QuantizeFailed
from llm_localrun.gguf.header import Header
from llm_localrun.memory.fit import largest_context
from llm_localrun.memory.footprint import Footprint, Setting
from llm_localrun.memory.geometry import geometry_of
from llm_localrun.models import LocalModel, Purpose, RunsOn, Served, surer_purpose
from llm_localrun.names.quantizations import with_quantization
from llm_localrun.names.roles import purpose_of_header, purpose_of_name, rank_in_name
from llm_localrun.privacy import shown_host, where_runs
from llm_localrun.servers import msty
from llm_localrun.servers.base import (
    NOT_SENT,
    CallForcing,
    Facts,
    ModelListing,
    PreparedRequest,
    Server,
    ServeRequest,
    WireOption,
    basic_authorization,
    sent_as_named,
)
from llm_localrun.servers.fields import (
    Entries,
    Maybe,
    sampling_of,
    served_model,
    stated_purpose,
    weights_in,
)
from llm_localrun.servers.gateway import Gateway
from llm_localrun.servers.ollama_address import (
    headers_from_variable,
    unquoted,
    url_from_variable,
)
from llm_localrun.servers.waiting import POLL_S, TIMEOUT_S, loading
from llm_localrun.system.logins import split_login
from llm_localrun.system.progress import Progress
from llm_localrun.tokens import learned
from llm_localrun.tokens.estimate import estimate, parts_of
from llm_localrun.tokens.window import (
    MIN_CONTEXT_TOKENS,
    Limits,
    Size,
    round_up_context,
)
from llm_localrun.wire import http, ollama
from llm_localrun.wire.request import THINK_LEVELS, ChatRequest
from llm_localrun.wire.response import (
    Ask,
    ProbeReply,
    ResponseHead,
    decode_each,
    decode_whole,
    parse_reply,
)
from llm_localrun.wire.shapes import Count, Name, Text, WireModel, parse_payload
from llm_localrun.wire.sse import Payload

_FINGERPRINT = "ollama:"
_FROM_SHOW = (
    "purpose",
    "capabilities",
    "context_max",
    "think_levels",
    "sampling",
    "fingerprints",
)
"""Fields of a model that /api/show fills in."""
_PLACE_TIMEOUT_S = 5.0
"""Silence after which a model is not used, because it is unknown where it runs."""

_THINK = {level: level for level in THINK_LEVELS} | {"off": False, "on": True}
_THINK_NAMES = {False: "off", True: "on"}


class _TagDetails(WireModel):
    format: Maybe[Text] = None
    family: Maybe[Text] = None
    parameter_size: Maybe[Text] = None
    quantization_level: Maybe[Text] = None
    context_length: Maybe[Count] = None
    """Since 0.30."""


class _Tag(WireModel):
    name: Name
    digest: Maybe[Text] = None
    size: Maybe[Count] = None
    modified_at: Maybe[datetime] = None
    details: Maybe[_TagDetails] = None
    capabilities: Maybe[Entries[Text]] = None
    remote_host: ollama.RemoteHost = ""


class _Tags(WireModel):
    """/api/tags."""

    models: Entries[_Tag]


class _LoadedModel(WireModel):
    """A model in memory, of which it takes `size` bytes.

    `name` is the tag that it was loaded for. Other tags of the same file use it too.
    """

    name: Text
    details: Maybe[_TagDetails] = None
    context_length: Maybe[Count] = None
    """Tokens that are allocated; since 0.10."""
    size: Maybe[Count] = None
    expires_at: Maybe[Text] = None
    """While the model loads or answers its first prompt: a time from now, each time another."""


class _LoadedModels(WireModel):
    """/api/ps."""

    models: Entries[_LoadedModel]


class _Thinking(WireModel):
    """How a model can think: booleans and names of levels. Another level becomes the default."""

    values: tuple[Any, ...] = ()
    default: Any = None


class _Show(WireModel):
    """/api/show: the header's numbers, without its long arrays."""

    capabilities: Maybe[Entries[Text]] = None
    """Since 0.6.4. Chat follows these; /api/tags overlooks what a Jinja template can do (0.32)."""
    model_info: dict[str, Any] = Field(default_factory=dict)
    modelfile: Maybe[Text] = None
    """Begins with `FROM` and the path of the file with the weights."""
    parameters: Maybe[Text] = None
    """Those of the Modelfile, one a line: `num_ctx   8192`."""
    thinking: Maybe[_Thinking] = None
    """Since 0.34.3, where the server knows it."""
    remote_host: ollama.RemoteHost = ""


class _StatusLine(WireModel):
    """A line of the progress that it reports; `digest` names the layer that the bytes belong to."""

    status: Maybe[Text] = None
    digest: Maybe[Text] = None
    completed: Maybe[Count] = None
    total: Maybe[Count] = None


@dataclass(frozen=True, slots=True)
class _Contexts:
    """What is known of a model's contexts before the server is asked."""

    usual: int | None
    """That of a request that asks for none."""
    least: int
    """What such a request gets at least; 0 if what is loaded has to be asked."""
    reloaded: Mapping[str, int]
    """What models of the server were reloaded for, by id."""


_NOT_LISTED = "not listed"
"""In the place of the time when a model expires."""

_parse_status = partial(parse_payload, _StatusLine)


class Ollama(Server):
    kind = "ollama"
    title = "Ollama"
    checked = "0.32.15 (run), 0.40 (read)"
    start_hint = "Start it with `ollama serve`"
    list_position = 0
    usual_ports = (11434,)
    url_variables = ("OLLAMA_HOST",)
    found_by = ("Msty Studio's settings",)
    owned_by = "library"
    signature_is_proof = False
    greeting = "Ollama is running"
    version_path = "/api/version"
    pull_names = re.compile(r"(?:[\w.-]+(?::\d+)?/)?(?:[\w.-]+/)?[\w.-]+(?::[\w.-]+)?", re.ASCII)
    # What POST /api/create can make of what, according to its own messages (0.32).
    quantizes_from = ("F32", "F16", "BF16")
    quantizes_to = ("F32", "F16", "Q8_0", "Q4_K_M", "Q4_K_S")
    interrupted_pull = "Interrupted downloads resume: run the same command again."
    can_delete = True
    # After 30 equal pieces of text (0.32).
    cut_off_hint = "It stops a model that repeats itself: try -o repeat_penalty 1.1"
    names_models_as_listed = True
    # In llm-ollama 0.19, and before.
    plugin_ids = ("ollama/{name}", "{name}")
    tool_refusals = ("does not support tools",)
    # It has no `tool_choice`. `format` is a grammar, which forbids calls (ollama#11037).
    call_forcing = CallForcing.SCHEMA
    may_pass_on = True
    chat_path = "/api/chat"
    embed_path = "/api/embed"
    # Otherwise it cuts long texts in silence.
    embed_fields = {"truncate": False}
    overflow_texts = (
        "prompt is longer than the context length currently available",
        "input length exceeds (?:the |maximum )?context length",
    )
    options = {
        **sent_as_named("temperature", "top_p", "top_k", "min_p", "typical_p", below="options."),
        **sent_as_named("repeat_penalty", "presence_penalty", below="options."),
        **sent_as_named("frequency_penalty", "seed", "stop", below="options."),
        "max_tokens": WireOption("options.num_predict"),
        "json_object": WireOption("format", {True: "json"}),
        "think": WireOption("think", _THINK),
        "context_size": WireOption("options.num_ctx"),
        "keep_alive": WireOption("keep_alive"),
        "gpu_layers": WireOption("options.num_gpu"),
        "threads": WireOption("options.num_thread"),
        **dict.fromkeys(("quantization", "timeout", "extra_body"), NOT_SENT),
        **dict.fromkeys(("tool_choice", "tool_repair"), NOT_SENT),
    }

    # Finding it and its models

    @classmethod
    def addresses(cls) -> Iterator[str]:
        yield url_from_variable(os.environ.get("OLLAMA_HOST", ""))
        yield from msty.ollama_addresses()

    @classmethod
    def headers_in_variables(cls) -> Mapping[str, Mapping[str, str]]:
        """OLLAMA_HEADERS, and what OLLAMA_HOST holds as `user:password@`, go where that says.

        OLLAMA_HEADERS is a variable of llm-ollama (0.19): `Name=value,Name=value`. Without
        OLLAMA_HOST that sends them to the default address of Ollama's client.
        """
        host = os.environ.get("OLLAMA_HOST", "")
        headers = headers_from_variable(os.environ.get("OLLAMA_HEADERS", ""))
        if not (host.strip() or headers):
            return {}
        login = basic_authorization(split_login(unquoted(host))[1])
        return {url_from_variable(host): {**headers, **login}}

    @classmethod
    def kind_at_usual_port(cls) -> str:
        """Something else there is a gateway, such as Msty's."""
        return Gateway.kind

    def list_models(
        self, ask: Ask, v1_models: ProbeReply, known: ModelListing
    ) -> ModelListing | None:
        tags = parse_reply(_Tags, ask("/api/tags"))
        if tags is None:
            return None
        loaded = _loaded_models(ask)
        version = self.version(ask, known)
        # Another version may say more of a model.
        before = known.models if version == known.version else ()
        asked = {each.served.digest: each for each in before if each.served and each.served.digest}
        models = (
            _as_known(self._model(name, tag, loaded), asked.get(tag.digest or ""))
            for name, tag in _with_own_names(tags.models)
        )
        return ModelListing(tuple(models), version)

    def add_details(self, ask: Ask, models: Sequence[LocalModel]) -> Iterator[list[LocalModel]]:
        """Asks for the details of each model once. A cold model costs Ollama 30 to 40 ms (0.32).

        Without time for a question, the details follow with the next discovery.
        """
        detailed = list(models)
        for index, model in enumerate(models):
            is_remote = model.runs_on is RunsOn.CLOUD
            if is_remote or model.served is None or model.served.digest:
                continue
            reply = ask("/api/show", {"model": model.name})
            if reply is None:
                return
            detailed[index] = _with_details(model, reply)
            yield detailed

    def _model(self, name: str, tag: _Tag, loaded: Mapping[str, _LoadedModel] | None) -> LocalModel:
        """The model `name` without what /api/show says of it."""
        details = tag.details or _TagDetails()
        quantization = details.quantization_level or ""
        facts: Facts = {
            **self._where(tag.name, tag.remote_host),
            **_load_facts(name, loaded),
            "variant_of": "" if name == tag.name else tag.name,
            "purpose": _purpose_of(tag.name, tag.capabilities),
            "capabilities": tag.capabilities,
            "architecture": details.family or "",
            "quantization": "" if quantization == "unknown" else quantization,
            "parameters": weights_in(details.parameter_size or ""),
            "size": tag.size,
            "context_max": details.context_length,
            "modified": tag.modified_at.timestamp() if tag.modified_at else 0.0,
            "fingerprints": (f"{_FINGERPRINT}{tag.digest}",) if tag.digest else (),
        }
        return served_model(self.endpoint, name, facts)

    def _where(self, name: str, remote_host: str | None) -> Facts:
        if where_model_runs(self.endpoint.url, name, remote_host or "") is not RunsOn.CLOUD:
            return {}
        return {
            "runs_on": RunsOn.CLOUD,
            "remote_host": shown_host(remote_host or "") or "ollama.com",
        }

    def remote_host_of(self, model: LocalModel) -> str:
        request = replace(
            self.http_request("POST", "/api/show", {"model": model.name}, _PLACE_TIMEOUT_S),
            slow_hint="Check whether it is busy, and try again",
        )
        parse = partial(parse_payload, _Show)
        received = http.stream(request)
        return decode_whole(self.label, received, parse, self.response_context).remote_host

    def remote_host_in(self, payload: Payload) -> str:
        return ollama.remote_host_in(payload)

    # Running a model

    def is_same_name(self, listed: str, answers: str) -> bool:
        """A reply repeats the name that was sent. A cloud may leave out what says cloud."""
        usual = re.compile(r":latest$|[:-]cloud$")
        return super().is_same_name(*(usual.sub("", name) for name in (listed, answers)))

    def prepare(self, request: ServeRequest, route: Served) -> PreparedRequest:
        asked, trained = request.context_size, request.model.context_max
        self.check_answer(request, asked or trained, Limits(trained or inf))
        if route.runs_on is RunsOn.CLOUD:
            return self._prepared(request, asked, asked or route.context_loaded)
        return self._fitted(request, route)

    def cuts_silently(self, chat: ChatRequest) -> bool:
        """Versions before 0.12.6 do not know `truncate`, and cut what does not fit."""
        with self.probe() as probe:
            version = self.version(probe.ask, ModelListing())
        return tuple(map(int, re.findall(r"\d+", version)[:3])) < (0, 12, 6)

    def _fitted(
        self, request: ServeRequest, route: Served, counted: Size | None = None
    ) -> PreparedRequest:
        """The request in a context for its prompt, whose size the server may have `counted`.

        Raises `PromptTooLong`.
        """
        known = _known_contexts(request.model, route)
        enough = request.context_size or known.least
        size = counted or request.size_unless_below(enough - request.answer_tokens)
        trained = request.model.context_max
        self.check_fits(request, size, request.context_size or trained, Limits(trained or inf))
        sent, held = self._context_for(request, route, known, size)
        prepared = self._prepared(request, sent, held)
        if request.context_size is not None:
            return prepared
        return replace(prepared, enlarge=partial(self._enlarged, request, route, sent))

    def _enlarged(
        self, request: ServeRequest, route: Served, sent: int | None, tokens: int, context_size: int
    ) -> PreparedRequest:
        """`PreparedRequest.enlarge` of a request that asked for the context `sent`."""
        if sent is None:
            learned.learn_context(request.model.id, context_size)
        fitted = self._fitted(request, route, Size(tokens, is_exact=True))
        return replace(fitted, enlarge=None)

    def _prepared(
        self, request: ServeRequest, sent: int | None, held: int | None
    ) -> PreparedRequest:
        more = {} if sent is None else {"context_size": sent}
        options = self.encode_options({**request.options, **more})
        return PreparedRequest(
            self,
            self.chat_path,
            ollama.encode(request.model.name, request.chat, options),
            request.model.name,
            held,
            Limits(trained=request.model.context_max or inf),
        )

    def prepare_texts(
        self, model: LocalModel, route: Served, texts: Sequence[str]
    ) -> PreparedRequest:
        prepared = super().prepare_texts(model, route, texts)
        if model.context_max is None or route.runs_on is RunsOn.CLOUD:
            return prepared
        needed = max(estimate(parts_of([text]), {}) for text in texts)
        # There is no answer.
        request = ServeRequest(model, ChatRequest((), {"max_tokens": 0}, stream=False))
        size = Size(min(needed, model.context_max), is_exact=False)
        chosen, _ = self._context_for(request, route, _known_contexts(model, route), size)
        body = prepared.body | ({"options": {"num_ctx": chosen}} if chosen else {})
        return replace(prepared, body=body)

    def _context_for(
        self, request: ServeRequest, route: Served, known: _Contexts, size: Size
    ) -> tuple[int | None, int | None]:
        """The context to ask for, and the one that the request gets.

        The first is None to ask for none, the second if it is unknown.
        """
        asked, usual = request.context_size, known.usual
        if asked is not None:
            if asked > (usual or MIN_CONTEXT_TOKENS):
                sizes = {**known.reloaded, request.model.id: asked}
                learned.set_reloaded_models(known.reloaded, sizes)
            return asked, asked
        if known.least and _has_room(known.least, request, size):
            return None, route.context_loaded or usual
        chosen = self._choose_context_size(request, route, known, size)
        return chosen or None, chosen or usual

    def _choose_context_size(
        self, request: ServeRequest, route: Served, known: _Contexts, size: Size
    ) -> int:
        """The context to ask for; 0 to ask for none and get the usual one.

        What models are reloaded for is remembered, so that the next short prompt does not reload
        them; so is a Modelfile's context, for the other tags of its file.
        """
        model, prefix = request.model, _prefix_of(request.model)
        usual = known.usual or MIN_CONTEXT_TOKENS
        with self.probe() as probe:
            loaded = _loaded_models(probe.ask) or {}
            runner = _runner_of(model, loaded, probe.ask)
            chosen = allocated = (runner and runner.context_length) or 0
            if not _has_room(allocated or usual, request, size):
                needed, held = _needed(request, size), (runner and runner.size) or 0
                chosen = self._grown_context_size(probe.ask, request, needed, held)
        runner_id = prefix + (runner or model).name
        is_known = chosen and known.reloaded.get(runner_id) == chosen
        others = {prefix + each.name for each in loaded.values() if each is not runner}
        is_usual = (known.usual or chosen) >= chosen
        if chosen == allocated == model.context_max and is_usual and not is_known:
            # Ollama compares what requests ask for before it reduces that to the trained context.
            # Its default may be larger: naming the trained one would reload the model.
            chosen = 0
        kept = {key: size for key, size in known.reloaded.items() if key in others}
        if is_known or route.context_default or chosen > min(usual, allocated or usual):
            # A runner keeps its name unless it is reloaded.
            kept |= dict.fromkeys((runner_id, model.id), chosen or usual)
        learned.set_reloaded_models(known.reloaded, kept)
        return chosen

    def _grown_context_size(self, ask: Ask, request: ServeRequest, needed: int, held: int) -> int:
        """A context for `needed` tokens, rounded up as far as memory goes.

        Whether `needed` itself fits is for Ollama to say, which spreads a model over GPUs. `held`
        is what the model takes now, in bytes, and gives back.
        """
        model = request.model
        wanted = round_up_context(needed, model.context_max or inf)
        if model.size is None or model.runs_on is not RunsOn.THIS_MACHINE:
            return wanted
        free = request.free_memory()
        if free is None:
            return wanted
        show = parse_reply(_Show, ask("/api/show", {"model": model.name}))
        geometry = geometry_of(Header(show.model_info)) if show else None
        if geometry is None:
            return wanted
        footprint = Footprint(geometry, model.size)
        affordable = largest_context(footprint, Setting(wanted), free + held)
        return min(wanted, max(needed, affordable))

    def watch(
        self, request: ServeRequest, prepared: PreparedRequest, is_over: threading.Event
    ) -> Iterator[Progress]:
        """/api/ps lists a model as soon as it begins to load, and does not say how far it is.

        The time when the model expires is a new one each time as long as the model has answered
        nothing: it loads, or reads its first prompt.
        """
        name, reading, seen = prepared.model, None, [""]
        while request.model.runs_on is not RunsOn.CLOUD:
            with self.probe(TIMEOUT_S) as probe:
                loaded = _loaded_models(probe.ask)
                runner = _runner_of(request.model, loaded, probe.ask) if loaded else None
            if loaded is None:
                break
            expires = (runner.expires_at or "never") if runner else _NOT_LISTED
            seen = [*seen[-2:], expires]
            if runner is None:
                reading = None
                yield loading(name)
            elif _NOT_LISTED in seen or len({*seen} - {""}) == len(seen):
                reading = None
                yield loading(f"{name} and reading the prompt")
            elif seen[-1] == seen[-2]:
                reading = reading or self.reading(request)
                yield reading.now()
            if is_over.wait(POLL_S):
                return
        yield from self.watch_reading(request, is_over)

    def memory_of(self, model: LocalModel) -> int | None:
        with self.probe() as probe:
            runner = _runner_of(model, _loaded_models(probe.ask) or {}, probe.ask)
        return runner.size if runner else None

    def decoder(self, tools: Collection[str] = ()) -> ollama.OllamaDecoder:
        return ollama.OllamaDecoder()

    def decode_vectors(self, payload: Payload) -> list[tuple[float, ...]]:
        return ollama.decode_vectors(payload)

    # What it does with its own models

    def pull(
        self, name: str, *, is_repository: bool = False, quantization: str = ""
    ) -> Generator[Progress, None, None]:
        """Has Ollama pull `name`, whose tag says the quantization. Raises a `LocalRunError`."""
        last = yield from self._follow("/api/pull", {"model": name}, "Downloading")
        if last != "success":
            raise PullFailed(
                f"{self.label} stopped at '{last}' before the pull was complete",
                "Pull it again: the download resumes",
            )

    @classmethod
    def pull_name(cls, name: str, quantization: str) -> str:
        return tag_for(name, quantization)

    def quantize(
        self, name: str, source: str, quantization: str
    ) -> Generator[Progress, None, None]:
        body = {"model": name, "from": source, "quantize": quantization}
        last = yield from self._follow("/api/create", body, "Quantizing")
        if last != "success":
            raise QuantizeFailed(
                f"{self.label} stopped at '{last}' before it was finished", "Try again"
            )

    def delete(self, name: str) -> None:
        """Has Ollama delete `name`. Raises a `LocalRunError`."""
        asked = http.stream(self.http_request("GET", "/api/tags"))
        tags = decode_whole(self.label, asked, partial(parse_payload, _Tags), self.response_context)
        listed = [*_with_own_names(tags.models)]
        shared = next((tag.name for own, tag in listed if own == name), name)
        count = sum(tag.name == shared for _, tag in listed)
        if count > 1:
            raise NotRemoved(
                f"{self.label} has {count} models called {shared} and deletes them together",
                f"To delete all of them: `ollama rm {shlex.quote(shared)}`",
            )
        request = self.http_request("DELETE", "/api/delete", {"model": name})
        head, *body = http.stream(request)
        # A success has neither a body nor a Content-Type.
        if not isinstance(head, ResponseHead) or head.status != 200:
            decode_whole(self.label, (head, *body), _parse_status, self.response_context)

    def _follow(self, path: str, body: Payload, action: str) -> Generator[Progress, None, str]:
        """Yields the progress of a request; returns the last status. Raises a `LocalRunError`."""
        layers: dict[str, _StatusLine] = {}
        last = ""
        received = http.stream(self.http_request("POST", path, {**body, "stream": True}))
        for line in decode_each(self.label, received, _parse_status, self.response_context):
            last = line.status or ""
            if line.digest:
                layers[line.digest] = line
                done = sum(layer.completed or 0 for layer in layers.values())
                yield Progress(action, done, sum(layer.total or 0 for layer in layers.values()))
            else:
                yield Progress(last[:1].upper() + last[1:])
        return last


def where_model_runs(url: str, name: str, remote_host: str) -> RunsOn:
    """Where Ollama runs a model.

    It passes a prompt on for every model that has a `remote_host`, whatever its name, and for every
    name whose tag says cloud, whether it has been pulled or not.
    """
    if remote_host or name.lower().endswith((":cloud", "-cloud")):
        return RunsOn.CLOUD
    return where_runs(url)


def tag_for(name: str, quantization: str) -> str:
    """The name of a model in another quantization, as Ollama's library spells it.

    `qwen3:8b` in Q8_0 is `qwen3:8b-q8_0`, and in F16 `qwen3:8b-fp16`. The size that the tag
    `latest` stands for is not known: `qwen3:latest` in Q8_0 is `qwen3:q8_0`.
    """
    model, _, tag = name.partition(":")
    is_repository = model.startswith(("hf.co/", "huggingface.co/"))
    if quantization == "F16" and not is_repository:
        quantization = "fp16"
    spelled = quantization[:1].lower() + quantization[1:]
    return f"{model}:{spelled if tag in ('', 'latest') else with_quantization(tag, spelled)}"


def _with_own_names(tags: Sequence[_Tag]) -> Iterator[tuple[str, _Tag]]:
    """A name of its own for each entry of a list.

    A name may be listed once for each runner. It means what Ollama prefers: MLX on a Mac, GGUF
    elsewhere. The others are reached by their digest, which 0.40 takes as a name.
    """
    preferred = "safetensors" if sys.platform == "darwin" else "gguf"
    by_name: dict[str, dict[str, _Tag]] = {}
    for tag in tags:
        by_name.setdefault(tag.name, {}).setdefault(tag.digest or "", tag)
    for alike in by_name.values():
        first, *others = sorted(
            alike.values(), key=lambda tag: (tag.details and tag.details.format) != preferred
        )
        yield first.name, first
        for tag in others:
            if tag.digest:
                yield f"sha256-{tag.digest[:12]}", tag


def _as_known(model: LocalModel, known: LocalModel | None) -> LocalModel:
    """The model with what /api/show has said before of the same version; it does not change."""
    if known is None or known.served is None or not model.fingerprints:
        return model
    facts = {field: getattr(known, field) for field in _FROM_SHOW}
    served = {field: getattr(known.served, field) for field in ("digest", "context_default")}
    return model.with_served(**served).model_copy(update=facts)


def _with_details(model: LocalModel, reply: ProbeReply) -> LocalModel:
    """The model with what /api/show said of it; what the list says if it failed."""
    show = parse_reply(_Show, reply)
    # It is not asked about this version again.
    asked = model.with_served(digest=next(iter(model.fingerprints), "").removeprefix(_FINGERPRINT))
    if show is None:
        levels = _levels(model.capabilities, None)
        return asked.model_copy(update={"think_levels": levels})
    chosen = re.search(r"^num_ctx +(\d{1,18})$", show.parameters or "", re.MULTILINE)
    # It counts rerankers among the embedding models; the header tells them apart.
    stated = _purpose_of(model.variant_of or model.name, show.capabilities)
    weights = _weights_in(show) if model.fingerprints else ""
    facts: Facts = {
        "purpose": surer_purpose(stated, purpose_of_header(Header(show.model_info))),
        "capabilities": show.capabilities,
        "context_max": model.context_max or _trained_context(show.model_info),
        "think_levels": _levels(show.capabilities, show.thinking),
        "sampling": _sampling_in(show.parameters or ""),
        "fingerprints": (*model.fingerprints, *([f"blob:{weights}"] if weights else [])),
    }
    context_default = int(chosen[1]) or None if chosen else None
    return asked.with_served(context_default=context_default).model_copy(update=facts)


def _sampling_in(parameters: str) -> tuple[tuple[str, int | float], ...]:
    """`LocalModel.sampling`. The numbers keep the form that Ollama writes: 20, 0.6."""
    lines = re.findall(r"^(\w+) +(-?\d{1,9}(?:\.\d{1,9})?)$", parameters, re.MULTILINE)
    return sampling_of({name: float(text) if "." in text else int(text) for name, text in lines})


def _levels(
    capabilities: tuple[str, ...] | None, thinking: _Thinking | None
) -> tuple[str, ...] | None:
    """`LocalModel.think_levels`. Only /api/show counts what the template can do (0.32.15)."""
    if capabilities is not None and "thinking" not in capabilities:
        return ("off",)
    if thinking is None:
        return None
    can = {_THINK_NAMES[value] for value in thinking.values if isinstance(value, bool)}
    can |= {level for level in THINK_LEVELS if level in thinking.values}
    if isinstance(thinking.default, str) or thinking.default is True:
        # The default stands for what is not listed, and it thinks.
        can.add("on")
    return tuple(level for level in THINK_LEVELS if level in can) or None


def _purpose_of(name: str, capabilities: tuple[str, ...] | None) -> Purpose:
    """By the capabilities, which Ollama checks; versions before 0.6.4 name none."""
    stated = stated_purpose(*capabilities) if capabilities else purpose_of_name(name)
    return surer_purpose(stated, rank_in_name(name))


def _trained_context(info: Mapping[str, Any]) -> int | None:
    size = Header(info).of_architecture("context_length") or 0
    return size if 0 < size < 2**63 else None


def _load_facts(name: str, loaded: Mapping[str, _LoadedModel] | None) -> Facts:
    """Whether it is loaded, unless /api/ps did not answer."""
    if loaded is None:
        return {}
    found = loaded.get(name)
    return {"loaded": found is not None, "context_loaded": found and found.context_length}


def _loaded_models(ask: Ask) -> dict[str, _LoadedModel] | None:
    """The models in memory, by name; None if /api/ps did not answer."""
    loaded = parse_reply(_LoadedModels, ask("/api/ps"))
    return {model.name: model for model in loaded.models} if loaded else None


def _known_contexts(model: LocalModel, route: Served) -> _Contexts:
    usual = route.context_default or learned.read_facts(model.id).usual_context or None
    reloaded = learned.reloaded_models(_prefix_of(model))
    # Another tag of the same file may have been loaded with another context.
    must_ask = reloaded or route.context_default
    known = filter(None, (usual, route.context_loaded))
    return _Contexts(usual, 0 if must_ask else min([MIN_CONTEXT_TOKENS, *known]), reloaded)


def _needed(request: ServeRequest, size: Size) -> int:
    """Tokens of context for a prompt of `size` and its answer; at most what the model can have."""
    needed = size.tokens + request.answer_tokens
    return min(needed, request.model.context_max or needed)


def _has_room(context_size: int, request: ServeRequest, size: Size) -> bool:
    """Whether a prompt of `size` and its answer fit.

    An answer of usual length may have as little as half of a small context, which somebody has
    chosen for a purpose.
    """
    spare = 0
    if "max_tokens" not in request.options:
        spare = max(0, request.answer_tokens - context_size // 2)
    return _needed(request, size) - spare <= context_size


def _runner_of(
    model: LocalModel, loaded: Mapping[str, _LoadedModel], ask: Ask
) -> _LoadedModel | None:
    """The entry of /api/ps that answers for `model`, under its name or that of another tag."""
    if model.name in loaded:
        return loaded[model.name]
    alike = [
        each
        for each in loaded.values()
        if not (each.details and each.details.family and model.architecture)
        or each.details.family == model.architecture
    ]
    weights = _weights_of(ask, model.name) if alike else ""
    return next(
        (each for each in alike if weights and _weights_of(ask, each.name) == weights), None
    )


def _weights_of(ask: Ask, name: str) -> str:
    """The digest of a model's file; "" if unknown. A tag's own digest is that of its manifest."""
    show = parse_reply(_Show, ask("/api/show", {"model": name}))
    return _weights_in(show) if show else ""


def _weights_in(show: _Show) -> str:
    found = re.search(r"^FROM .*(sha256-[0-9a-f]{64})", show.modelfile or "", re.MULTILINE)
    return found[1] if found else ""


def _prefix_of(model: LocalModel) -> str:
    """What the ids of all models of its server begin with."""
    return f"local/{model.served.endpoint.name}/" if model.served else model.id
