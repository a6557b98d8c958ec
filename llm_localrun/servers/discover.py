"""Finds the servers on this machine, recognizes each by its replies, and lists their models.

All are asked at once, within one deadline. An HTTP status alone proves nothing: LM Studio answers
200 to every path, and half a dozen servers imitate Ollama. Nothing is asked that could load, unload
or fetch a model. What is peculiar to a kind is in its own module.
"""

import os
import queue
import re
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from llm_localrun.config import Config
from llm_localrun.models import (
    Endpoint,
    EndpointReport,
    LocalModel,
    ServerStatus,
    default_key_alias,
)
from llm_localrun.privacy import is_loopback
from llm_localrun.servers.base import (
    GENERIC_KIND,
    ModelListing,
    Sign,
    headers_by_url,
    key_from_environment,
    open_server,
    server_class,
    server_kinds,
)
from llm_localrun.servers.openai_compatible import NameListing
from llm_localrun.wire import http
from llm_localrun.wire.http import Probe
from llm_localrun.wire.response import Ask, ProbeReply, parse_reply
from llm_localrun.wire.sse import Payload

DEADLINE_S = 0.2
"""For everything together: a quarter of a second with what is imported before it."""
_MIN_TIME_S = 0.15
"""What servers get in any case, on a machine that is slow to import."""
TIMEOUT_MEMORY_S = 300.0
"""A server that timed out is not asked again for this long, unless the user wants it."""


# Where to look


def usual_addresses() -> list[tuple[str, str]]:
    """Every address to ask, with the kind of server that usually has it; the surest first."""
    found: dict[str, tuple[str, str]] = {}
    for kind, cls in server_kinds().items():
        for url in cls.addresses():
            found.setdefault(normalize(url), (kind, url))
    return [*found.values()]


def normalize(url: str) -> str:
    """One spelling for all spellings of a URL of this machine."""
    return re.sub(r"://(localhost|\[::1\])(?=[:/]|$)", "://127.0.0.1", url)


def _listening(addresses: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """`addresses`, as IPv6 where this machine accepts connections at the port by IPv6 alone."""
    by_ipv6 = {url: url.replace("://127.0.0.1", "://[::1]") for _, url in addresses}
    offline = http.find_offline({*by_ipv6, *by_ipv6.values()})
    return [
        (kind, by_ipv6[url] if url in offline and by_ipv6[url] not in offline else url)
        for kind, url in addresses
    ]


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


def candidates_for(config: Config, keys: Mapping[str, str]) -> list[ServerCandidate]:
    """The endpoints in `config` and, if it allows that, the usual addresses of this machine."""
    headers = headers_by_url(config)
    configured = [
        ServerCandidate(
            Endpoint(
                name=each.name, kind=each.dialect or GENERIC_KIND, url=each.url, key_alias=each.key
            ),
            keys.get(each.key or default_key_alias(each.name)),
            headers.get(each.url, {}),
            is_named=True,
            kind=each.dialect,
        )
        for each in config.endpoints
    ]
    if not config.default_endpoints:
        return configured
    taken = {normalize(candidate.endpoint.url) for candidate in configured}
    addresses = [each for each in usual_addresses() if normalize(each[1]) not in taken]
    usual = [
        ServerCandidate(
            Endpoint(name=kind, kind=kind, url=url), None, headers.get(url, {}), spare_keys=keys
        )
        for kind, url in _listening(addresses)
    ]
    return configured + usual


# Asking all at once


def deadline_from(begun: float) -> float:
    """Until when servers may answer, on the monotonic clock, if discovery has `begun` then."""
    return max(begun + DEADLINE_S, time.monotonic() + _MIN_TIME_S)


class _Reports:
    """The last reports, found by the URL of their endpoint or by another spelling of it."""

    def __init__(self, reports: Iterable[EndpointReport]) -> None:
        by_url = {report.endpoint.url: report for report in reports}
        self._by_url = {**{normalize(url): report for url, report in by_url.items()}, **by_url}

    def of(self, url: str) -> EndpointReport | None:
        return self._by_url.get(url) or self._by_url.get(normalize(url))


def discover(
    candidates: Collection[ServerCandidate],
    before: Iterable[EndpointReport],
    deadline: float,
    *,
    retry_timeouts: bool,
) -> list[EndpointReport]:
    """A report on each endpoint, in the order of `candidates`, by `deadline`.

    A server that does not answer keeps the models of its last good answer. Unless `retry_timeouts`,
    one that timed out a short while ago is not asked.
    """
    known = _Reports(before)
    pairs = [(each, known.of(each.endpoint.url)) for each in candidates]
    now = time.time()
    due = {
        index: (candidate, last)
        for index, (candidate, last) in enumerate(pairs)
        if retry_timeouts or last is None or not _timed_out_lately(last, now)
    }
    outcomes = _ask_all(due, deadline)
    reports = [
        _make_report(candidate, outcomes[index], last, now)
        if last is None or index in due
        else last
        for index, (candidate, last) in enumerate(pairs)
    ]
    return locate_models(_name_endpoints(candidates, reports, known), thorough=False)


def locate_models(reports: Iterable[EndpointReport], *, thorough: bool) -> list[EndpointReport]:
    """The reports with where models run, as far as each kind knows; seconds if `thorough`."""
    return [
        server_class(report.endpoint.kind).locate(report, thorough=thorough) for report in reports
    ]


def _timed_out_lately(report: EndpointReport, now: float) -> bool:
    age = now - report.asked_at
    return report.status is ServerStatus.TIMEOUT and 0 <= age < TIMEOUT_MEMORY_S


class Recognition(NamedTuple):
    """What a server turned out to be."""

    kind: str
    status: ServerStatus
    models: tuple[LocalModel, ...] = ()
    version: str = ""
    key_alias: str | None = None
    """The alias of the key that it accepted."""


_CandidatePair: TypeAlias = tuple[ServerCandidate, EndpointReport | None]
"""A candidate, and the last report on its endpoint."""


def _ask_all(due: Mapping[int, _CandidatePair], deadline: float) -> dict[int, Recognition]:
    """What each candidate turned out to be by the deadline; threads are not waited for longer.

    They are daemons: a server that sends a byte a minute must not keep the command from ending.
    """
    answers: queue.SimpleQueue[tuple[int, Recognition]] = queue.SimpleQueue()

    def work(index: int) -> None:
        answers.put((index, _recognize_with_keys(*due[index], deadline)))

    offline = http.find_offline(candidate.endpoint.url for candidate, _ in due.values())
    outcomes, waiting = {}, set()
    for index, (candidate, _) in due.items():
        is_offline = candidate.endpoint.url in offline
        status = ServerStatus.OFFLINE if is_offline else ServerStatus.TIMEOUT
        outcomes[index] = Recognition(candidate.endpoint.kind, status)
        if not is_offline:
            waiting.add(index)
            threading.Thread(target=work, args=(index,), daemon=True).start()
    while waiting:
        try:
            index, outcome = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        waiting.remove(index)
        outcomes[index] = outcome
    return outcomes


def _recognize_with_keys(
    candidate: ServerCandidate, last: EndpointReport | None, deadline: float
) -> Recognition:
    """Asks one server; again with a key, if it wants one and there is one for its kind."""
    recognized = _recognize_at(candidate, last, candidate.key, deadline)
    if recognized.status is not ServerStatus.NEEDS_KEY:
        return recognized
    names = [
        *([last.endpoint.name] if last else []),
        recognized.kind,
        candidate.endpoint.name,
    ]
    aliases = [alias for alias in map(default_key_alias, names) if alias in candidate.spare_keys]
    key = candidate.spare_keys[aliases[0]] if aliases else key_from_environment(recognized.kind)
    if key is None or key == candidate.key:
        return recognized
    with_key = _recognize_at(candidate, last, key, deadline)
    return with_key._replace(key_alias=next(iter(aliases), None))


def _recognize_at(
    candidate: ServerCandidate, last: EndpointReport | None, key: str | None, deadline: float
) -> Recognition:
    known = ModelListing()
    if last is not None:
        answered = last.status is ServerStatus.ANSWERS
        known = ModelListing(last.models, last.version if answered else "")
    with Probe(candidate.endpoint.url, key, deadline, candidate.headers) as probe:
        recognized = recognize(probe.ask, candidate.endpoint, known, candidate.kind)
        if recognized is not None and recognized.status is not ServerStatus.UNRECOGNIZED:
            return recognized
        if probe.failure is not None:
            return Recognition(candidate.endpoint.kind, probe.failure)
    return recognized or Recognition(candidate.endpoint.kind, ServerStatus.UNRECOGNIZED)


# Recognizing one


def recognize(
    ask: Ask, endpoint: Endpoint, known: ModelListing, kind: str | None = None
) -> Recognition | None:
    """Finds out what serves at `endpoint`, and which models; None if it did not reply.

    If the user says which `kind` it is, it is asked as that.
    """
    ask = _ask_once(ask)
    listing = ask("/v1/models")
    if listing is None:
        return None
    if _is_locked(listing):
        kind = kind or _kind_behind_lock(ask, listing, endpoint.kind)
        return Recognition(kind, ServerStatus.NEEDS_KEY)
    message = _error_in(listing).get("message") if listing.status == 503 else None
    for name, cls in server_kinds().items():
        if message and message == cls.loading_message:
            return Recognition(kind or name, ServerStatus.LOADING)
    kind = kind or _kind_of(ask, listing, endpoint.kind)
    server = open_server(endpoint.model_copy(update={"kind": kind}))
    found = server.list_models(ask, listing, known)
    if found is None:
        return Recognition(kind, ServerStatus.UNRECOGNIZED)
    return Recognition(kind, ServerStatus.ANSWERS, found.models, found.version)


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


def _kind_behind_lock(ask: Ask, reply: ProbeReply, usual_kind: str) -> str:
    """The kind of a server that wants a key."""
    kinds = server_kinds()
    error = _error_in(reply)
    for kind, cls in kinds.items():
        if (error.get("code"), error.get("type")) == cls.locked_error:
            return kind
    signs = ((kind, sign) for kind, cls in kinds.items() for sign in cls.signs if sign.needs_no_key)
    return _kind_by_sign(ask, signs) or server_class(usual_kind).kind_at_usual_port()


def _kind_of(ask: Ask, reply: ProbeReply, usual_kind: str) -> str:
    """The kind of a server, by how its models are signed, else by its signs."""
    kinds = server_kinds()
    listing = parse_reply(NameListing, reply)
    models = listing.data if listing else ()
    owner = (models[0].owned_by or "") if models else ""
    for kind, cls in kinds.items():
        if owner and cls.owned_by == owner and cls.signature_is_proof:
            return kind
    greeting = ask("/")
    for kind, cls in kinds.items():
        if cls.greeting and greeting is not None and greeting.text.strip() == cls.greeting:
            return kind
    at_port = server_class(usual_kind)
    if listing is None or owner or at_port.recognized_by_port:
        return at_port.kind_at_usual_port()
    # A list of unsigned models does not come from a kind that signs them.
    signs = [
        (kind, sign)
        for kind, cls in kinds.items()
        if not models or not cls.owned_by
        for sign in cls.signs
        if not sign.only_if_locked
    ]
    names = [model.id for model in models]
    return _kind_by_sign(ask, signs, names) or at_port.kind_at_usual_port()


def _kind_by_sign(ask: Ask, signs: Iterable[tuple[str, Sign]], names: Sequence[str] = ()) -> str:
    """The kind whose sign the server shows, the surest first; "" if it shows none of them."""
    for kind, sign in sorted(signs, key=lambda each: each[1].rank):
        if sign.is_in(ask(sign.path), names):
            return kind
    return ""


# Reports


def _make_report(
    candidate: ServerCandidate, found: Recognition, last: EndpointReport | None, now: float
) -> EndpointReport:
    tells_kind = {
        ServerStatus.ANSWERS: True,
        ServerStatus.NEEDS_KEY: found.kind != GENERIC_KIND or last is None,
        ServerStatus.LOADING: last is None,
    }
    kind = last.endpoint.kind if last else candidate.endpoint.kind
    if tells_kind.get(found.status, False):
        kind = found.kind
    alias = found.key_alias or candidate.endpoint.key_alias
    url = candidate.endpoint.url
    if last and found.status is ServerStatus.OFFLINE and not candidate.is_named:
        # It may have been found by IPv6, and come back there.
        url = last.endpoint.url
    models = tuple(map(_resolve_paths, found.models))
    return EndpointReport(
        endpoint=candidate.endpoint.model_copy(
            update={"kind": kind, "key_alias": alias, "url": url}
        ),
        status=found.status,
        asked_at=now,
        version=found.version,
        models=last.models if last and found.status is not ServerStatus.ANSWERS else models,
        devices=last.devices if last and kind == last.endpoint.kind else None,
    )


def _resolve_paths(model: LocalModel) -> LocalModel:
    """A model whose file has its real path as a fingerprint, as files that are found have.

    A path of another machine, or a relative one, matches nothing.
    """
    here = model.served is not None and is_loopback(model.served.endpoint.url)
    fingerprints = (_resolve_path(each) if here else each for each in model.fingerprints)
    return model.model_copy(update={"fingerprints": tuple(fingerprints)})


def _resolve_path(fingerprint: str) -> str:
    kind, _, path = fingerprint.partition(":")
    if kind != "path" or not os.path.isabs(path) or "\0" in path:  # noqa: PTH117
        return fingerprint
    return f"path:{os.path.realpath(path)}"


def _name_endpoints(
    candidates: Iterable[ServerCandidate],
    reports: Iterable[EndpointReport],
    known: "_Reports",
) -> list[EndpointReport]:
    """Gives each endpoint its name: the user's, else its kind, with a number from the second on.

    A server that has had models keeps its name as long as it is of the same kind. Of the others,
    those with models come first and those that are offline last.
    """
    pairs = list(zip(candidates, reports, strict=True))

    def kept_name(index: int) -> str:
        candidate, report = pairs[index]
        last = known.of(report.endpoint.url)
        if last is None or not last.models or candidate.is_named:
            return ""
        return last.endpoint.name if last.endpoint.kind == report.endpoint.kind else ""

    def rank(index: int) -> tuple[bool, bool, bool, bool]:
        candidate, report = pairs[index]
        is_offline = report.status is ServerStatus.OFFLINE
        return not candidate.is_named, not kept_name(index), not report.models, is_offline

    taken: set[str] = set()
    names: dict[int, str] = {}
    for index in sorted(range(len(pairs)), key=rank):
        candidate, report = pairs[index]
        wanted = candidate.endpoint.name if candidate.is_named else report.endpoint.kind
        name, number = kept_name(index) or wanted, 2
        while name in taken:
            name, number = f"{wanted}-{number}", number + 1
        taken.add(name)
        names[index] = name
    return [_rename(report, names[index]) for index, (_, report) in enumerate(pairs)]


def _rename(report: EndpointReport, name: str) -> EndpointReport:
    endpoint = report.endpoint.model_copy(update={"name": name})
    models = tuple(
        model.model_copy(update={"id": f"local/{name}/{model.name}"}).with_served(endpoint=endpoint)
        for model in report.models
    )
    return report.model_copy(update={"endpoint": endpoint, "models": models})
