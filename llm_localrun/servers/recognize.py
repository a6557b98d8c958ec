"""Recognizes a server by its replies and lists its models.

An HTTP status alone proves nothing: LM Studio answers 200 to every path, and half a dozen servers
imitate Ollama. Nothing is asked that could load, unload or fetch a model. What is peculiar to a
kind is in its own module, which servers are asked in `discover`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llm_localrun.models import (
    Endpoint,
    EndpointReport,
    LocalModel,
    ServerStatus,
    default_key_alias,
)
from llm_localrun.servers.base import (
    ModelListing,
    Server,
    Sign,
    key_from_environment,
    open_server,
    server_class,
    server_kinds,
)
from llm_localrun.servers.openai_compatible import NameListing
from llm_localrun.wire.http import Clock, Probe
from llm_localrun.wire.response import Ask, ProbeReply, parse_reply
from llm_localrun.wire.sse import Payload


@dataclass(frozen=True, slots=True)
class ServerCandidate:
    """An endpoint to ask, and the key to ask it with."""

    endpoint: Endpoint
    """Its kind is what usually has the port, or what the user says it is."""
    key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What the user's settings say to send with every request."""
    is_named: bool = False
    """Whether the user gave it its name."""
    kind: str | None = None
    """The kind that the user says it is."""
    spare_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What `llm keys` holds for servers on their usual ports, by alias."""


class Recognition(NamedTuple):
    """What a server turned out to be."""

    kind: str
    status: ServerStatus
    models: tuple[LocalModel, ...] = ()
    version: str = ""
    key_alias: str | None = None
    """The alias of the key that it accepted."""
    has_answered: bool = False
    """Whether it answered at least one question."""
    problem: str = ""
    """As `EndpointReport.problem`."""


Publish = Callable[[Recognition], None]
"""Receives what is known of a server by now, whenever that is more than before."""


class Watch(NamedTuple):
    """What follows the recognition of a server while it goes on."""

    publish: Publish = lambda _: None
    is_out_of_time: Callable[[], bool] = lambda: False
    """Whether a question stayed without a reply because the time was over."""


def recognize_with_keys(
    candidate: ServerCandidate, last: EndpointReport | None, clock: Clock, publish: Publish
) -> None:
    """Asks one server; again with a key, if it wants one and there is one for its kind."""
    recognized = _recognize_at(candidate, last, candidate.key, clock, publish)
    if recognized.status is not ServerStatus.NEEDS_KEY:
        publish(recognized)
        return
    names = [
        *([last.endpoint.name] if last else []),
        recognized.kind,
        candidate.endpoint.name,
    ]
    aliases = [alias for alias in map(default_key_alias, names) if alias in candidate.spare_keys]
    key = candidate.spare_keys[aliases[0]] if aliases else key_from_environment(recognized.kind)
    if key is None or key == candidate.key:
        publish(recognized)
        return
    alias = next(iter(aliases), None)

    def publish_with_alias(found: Recognition) -> None:
        publish(found._replace(key_alias=alias))

    publish_with_alias(_recognize_at(candidate, last, key, clock, publish_with_alias))


def _recognize_at(
    candidate: ServerCandidate,
    last: EndpointReport | None,
    key: str | None,
    clock: Clock,
    publish: Publish,
) -> Recognition:
    known = ModelListing()
    if last is not None:
        answered = last.status is ServerStatus.ANSWERS
        known = ModelListing(last.models, last.version if answered else "")
    usual_kind = candidate.endpoint.kind
    with Probe(candidate.endpoint.url, key, clock, candidate.headers) as probe:
        watch = Watch(publish, lambda: probe.failure is ServerStatus.BUSY)
        recognized = recognize(probe.ask, candidate.endpoint, known, candidate.kind, watch)
        if recognized is None:
            return Recognition(usual_kind, probe.failure or ServerStatus.UNRECOGNIZED)
        if recognized.status is ServerStatus.UNRECOGNIZED and probe.failure is not None:
            return Recognition(usual_kind, probe.failure, has_answered=True)
    return recognized


def recognize(
    ask: Ask,
    endpoint: Endpoint,
    known: ModelListing,
    kind: str | None = None,
    watch: Watch = Watch(),  # noqa: B008  # it has no state
) -> Recognition | None:
    """Finds out what serves at `endpoint`, and which models; None if it did not reply.

    If the user says which `kind` it is, it is asked as that. A kind is not guessed from questions
    that the server had no time to answer.
    """
    ask = _ask_once(ask)
    listing = ask("/v1/models")
    if listing is None:
        return None
    unfinished = Recognition(endpoint.kind, ServerStatus.BUSY, has_answered=True)
    watch.publish(unfinished)
    status, kind = _identify(ask, listing, endpoint, kind)
    if watch.is_out_of_time():
        return unfinished
    if status is not ServerStatus.ANSWERS:
        return Recognition(kind, status)
    server = open_server(endpoint.model_copy(update={"kind": kind}))
    found = server.list_models(ask, listing, known)
    if found is None:
        return (
            unfinished if watch.is_out_of_time() else Recognition(kind, ServerStatus.UNRECOGNIZED)
        )
    lock = ask(server.guarded_path) if server.guarded_path else None
    status = ServerStatus.NEEDS_KEY if lock and _is_locked(lock) else status
    models = _with_known_facts(found, known) if watch.is_out_of_time() else found.models
    recognized = Recognition(kind, status, models, found.version)
    watch.publish(recognized)
    for detailed in server.add_details(ask, models):
        recognized = recognized._replace(models=tuple(detailed))
        watch.publish(recognized)
    return recognized


def _with_known_facts(found: ModelListing, known: ModelListing) -> tuple[LocalModel, ...]:
    """The models of a listing without details, with what the last answer said of each."""
    last = {model.name: model for model in known.models}
    return tuple(last.get(model.name, model) for model in found.models)


def _identify(
    ask: Ask, listing: ProbeReply, endpoint: Endpoint, kind: str | None
) -> tuple[ServerStatus, str]:
    """The state of a server that answered GET /v1/models with `listing`, and its kind."""
    if _is_locked(listing):
        return ServerStatus.NEEDS_KEY, kind or _kind_behind_lock(ask, listing, endpoint)
    message = _error_in(listing).get("message") if listing.status == 503 else None
    for name, cls in server_kinds().items():
        if message and message == cls.loading_message:
            return ServerStatus.LOADING, kind or name
    return ServerStatus.ANSWERS, kind or _kind_of(ask, listing, endpoint.kind)


def _ask_once(ask: Ask) -> Ask:
    """`ask` that GETs a path once: recognizing a server and listing its models share some."""
    replies: dict[str, ProbeReply | None] = {}

    def ask_once(path: str, json: Payload | None = None) -> ProbeReply | None:
        if json is not None:
            return ask(path, json)
        if path not in replies:
            replies[path] = ask(path)
        return replies[path]

    return ask_once


def _is_locked(reply: ProbeReply) -> bool:
    """A 403 without JSON is macOS's AirPlay receiver, on text-generation-webui's port."""
    return reply.status == 401 or (reply.status == 403 and isinstance(reply.payload, dict))


def _error_in(reply: ProbeReply) -> dict[str, Any]:
    error = reply.payload.get("error") if isinstance(reply.payload, dict) else None
    return error if isinstance(error, dict) else {}


def _kind_behind_lock(ask: Ask, reply: ProbeReply, endpoint: Endpoint) -> str:
    """The kind of a server that wants a key: where it shows none, what a variable says."""
    kinds = server_kinds()
    error = _error_in(reply)
    for kind, cls in kinds.items():
        if (error.get("code"), error.get("type")) == cls.locked_error:
            return kind
    signs = ((kind, sign) for kind, cls in kinds.items() for sign in cls.signs if sign.needs_no_key)
    usual = server_class(endpoint.kind)
    is_named = endpoint.url in usual.headers_in_variables()
    guess = usual.kind if is_named else usual.kind_at_usual_port()
    return _kind_by_sign(ask, signs) or guess


def _kind_of(ask: Ask, reply: ProbeReply, usual_kind: str) -> str:
    """The kind of a server, by how its models are signed, else by its signs."""
    kinds = server_kinds()
    listing = parse_reply(NameListing, reply)
    models = listing.data if listing else ()
    signed = next((model for model in models if model.owned_by), None)
    owner = (signed and signed.owned_by) or ""
    for kind, cls in kinds.items():
        if owner and cls.owned_by == owner and cls.signature_is_proof:
            return kind
    greeting = ask("/")
    for kind, cls in kinds.items():
        if cls.greeting and greeting is not None and greeting.text.strip() == cls.greeting:
            return kind
    at_port = server_class(usual_kind)
    names = [model.id for model in models]
    is_own = signed is not None and signed.id.startswith(f"{owner}/")
    if listing is not None and ((owner and not is_own) or at_port.recognized_by_port):
        return at_port.kind_at_usual_port()

    def may_be(cls: type[Server]) -> bool:
        if listing is None:
            return cls.no_list == (reply.status, reply.text)
        # A list of unsigned models does not come from a kind that signs them.
        return cls.signs_as_owner if is_own else not models or not cls.owned_by

    signs = [
        (kind, sign)
        for kind, cls in kinds.items()
        if may_be(cls)
        for sign in cls.signs
        if not sign.only_if_locked and (listing is None or sign.allows(names))
    ]
    return _kind_by_sign(ask, signs) or at_port.kind_at_usual_port()


def _kind_by_sign(ask: Ask, signs: Iterable[tuple[str, Sign]]) -> str:
    """The kind whose sign the server shows, the surest first; "" if it shows none of them."""
    for kind, sign in sorted(signs, key=lambda each: each[1].rank):
        greeting = ask("/") if sign.greeting else None
        if (greeting is None or greeting.payload == sign.greeting) and sign.is_in(ask(sign.path)):
            return kind
    return ""
