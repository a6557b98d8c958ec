"""Finds the servers on this machine and reports what each has answered.

All are asked at once, each in a thread. How long a server may take depends on what it is asked for:
see `patience_for`. Recognizing a server and listing its models is left to `recognize`.
"""

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from llm_localrun.config import Config
from llm_localrun.models import (
    Endpoint,
    EndpointReport,
    LocalModel,
    ServerStatus,
    default_key_alias,
)
from llm_localrun.name_cache import CachePolicy
from llm_localrun.names.parse import short_names
from llm_localrun.privacy import is_loopback
from llm_localrun.servers.base import (
    GENERIC_KIND,
    headers_by_url,
    login_in,
    server_class,
    server_kinds,
)
from llm_localrun.servers.recognize import Recognition, ServerCandidate, recognize_with_keys
from llm_localrun.system.logins import shown_login
from llm_localrun.system.text import id_part
from llm_localrun.wire import http
from llm_localrun.wire.http import Clock

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


def candidates_for(config: Config, keys: Mapping[str, str]) -> list[ServerCandidate]:
    """The endpoints in `config` and, if it allows that, the usual addresses of this machine."""
    headers = headers_by_url(config)
    configured = [
        ServerCandidate(
            Endpoint(
                name=each.name,
                kind=each.dialect or GENERIC_KIND,
                url=each.url,
                key_alias=each.key,
                shown_login=shown_login(login_in(headers.get(each.url, {}))),
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
            Endpoint(
                name=kind,
                kind=kind,
                url=url,
                shown_login=shown_login(login_in(headers.get(url, {}))),
            ),
            None,
            headers.get(url, {}),
            spare_keys=keys,
        )
        for kind, url in _listening(addresses)
    ]
    return configured + usual


# Asking all at once


QUICK_S = 0.25
"""For a command that can do without the server: 0.3 s together with what is imported for it."""
PATIENT_S = 5.0
"""For a command that the user asked something of the server with."""
SILENCE_MEMORY_S = 3600.0
"""A server that never answered anything is spared for this long."""
_NOTICE_S = 0.5
"""How long servers are waited for before the user is told."""
_MIN_PAUSE_S = 0.01
_GRACE = 0.2
"""How much longer a thread is waited for when its time is over, as a share of it."""


def patience_for(policy: CachePolicy, last: EndpointReport | None) -> float:
    """How many seconds a server may take, after its `last` report; 0: it is not asked."""
    is_quick = policy in (CachePolicy.IF_EMPTY, CachePolicy.IF_STALE)
    if last is None or policy is CachePolicy.REFRESH:
        return QUICK_S if is_quick else PATIENT_S
    if _was_silent(last):
        if is_quick:
            return 0.0
        return QUICK_S if last.waited_s >= PATIENT_S else PATIENT_S
    # What it served last stays in the list while it is busy.
    is_known = bool(last.models) or last.status is ServerStatus.UNRECOGNIZED
    can_wait = policy is CachePolicy.IF_NEEDED and is_known
    return QUICK_S if is_quick or can_wait else PATIENT_S


def _was_silent(report: EndpointReport) -> bool:
    """Whether a server has never answered anything, and was asked a short while ago."""
    return report.is_silent and 0 <= time.time() - report.asked_at < SILENCE_MEMORY_S


class _Reports:
    """The last reports, found by the URL of their endpoint or by another spelling of it."""

    def __init__(self, reports: Iterable[EndpointReport]) -> None:
        by_url = {report.endpoint.url: report for report in reports}
        self._by_url = {**{normalize(url): report for url, report in by_url.items()}, **by_url}

    def of(self, url: str) -> EndpointReport | None:
        return self._by_url.get(url) or self._by_url.get(normalize(url))


class Discovery:
    """Asks servers for their models, all at once, and reports on each.

    A server that does not answer keeps the models of its last good answer. `is_enough` says of the
    reports so far whether the search can end; `on_wait` is called if it takes long, with
    the endpoints that are waited for, each time that there are fewer.
    """

    def __init__(
        self,
        candidates: Collection[ServerCandidate],
        before: Iterable[EndpointReport],
        policy: CachePolicy,
    ) -> None:
        self._known = _Reports(before)
        self._changes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._asked_at = time.time()
        self.has_stopped_early = False
        """Whether `is_enough` ended the search before every server had its time."""
        self._inquiries = [
            _Inquiry(each, last, patience_for(policy, last), self._changes)
            for each in candidates
            for last in [self._known.of(each.endpoint.url)]
        ]

    def run(
        self,
        is_enough: Callable[[list[EndpointReport]], bool] = lambda _: False,
        on_wait: Callable[[list[EndpointReport]], None] = lambda _: None,
    ) -> list[EndpointReport]:
        """The reports, in the order of the candidates."""
        due = [each for each in self._inquiries if each.patience_s]
        offline = http.find_offline(each.candidate.endpoint.url for each in due)
        for inquiry in due:
            inquiry.start(is_offline=inquiry.candidate.endpoint.url in offline)
        notice_at, told = time.monotonic() + _NOTICE_S, list[_Inquiry]()
        while waiting := [each for each in due if not each.has_ended()]:
            if is_enough(self.reports()):
                break
            if time.monotonic() > notice_at and waiting != told:
                on_wait([each.report(self._asked_at) for each in waiting])
                told = waiting
            pause = min(each.seconds_left() for each in waiting)
            if not self._wait(max(_MIN_PAUSE_S, min(pause, _NOTICE_S))):
                for each in waiting:
                    each.check_clock()
        self.has_stopped_early = any(not each.has_news for each in waiting)
        reports = self.reports()
        for inquiry in due:
            inquiry.give_up()
        return reports

    def _wait(self, seconds: float) -> bool:
        """Waits for changes, of which several at once cost one report; False if none came."""
        try:
            self._changes.get(timeout=seconds)
        except queue.Empty:
            return False
        with suppress(queue.Empty):
            while True:
                self._changes.get_nowait()
        return True

    def reports(self) -> list[EndpointReport]:
        """What is known by now."""
        reports = [each.report(self._asked_at) for each in self._inquiries]
        candidates = [each.candidate for each in self._inquiries]
        return locate_models(_name_endpoints(candidates, reports, self._known), thorough=False)


def is_complete(reports: Iterable[EndpointReport]) -> bool:
    """Whether every server that accepts connections has answered or has had `PATIENT_S`."""
    return not any(report.is_unheard and report.waited_s < PATIENT_S for report in reports)


def locate_models(reports: Iterable[EndpointReport], *, thorough: bool) -> list[EndpointReport]:
    """The reports with where models run, as far as each kind knows; seconds if `thorough`."""
    return [
        server_class(report.endpoint.kind).locate(report, thorough=thorough) for report in reports
    ]


class _Inquiry:
    """One server, which a thread asks, and what it turned out to be so far.

    The thread is a daemon: a server that sends a byte a minute must not keep the command from
    ending.
    """

    def __init__(
        self,
        candidate: ServerCandidate,
        last: EndpointReport | None,
        patience_s: float,
        changes: "queue.SimpleQueue[None]",
    ) -> None:
        self.candidate = candidate
        self.patience_s = patience_s
        self._last = last
        self._changes = changes
        self._clock = Clock(patience_s)
        self._found = Recognition(candidate.endpoint.kind, ServerStatus.BUSY)
        self._is_done = False
        self._was_overdue = False

    def start(self, *, is_offline: bool) -> None:
        if is_offline:
            self._found = self._found._replace(status=ServerStatus.OFFLINE)
            self._is_done = True
        else:
            threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        try:
            recognize_with_keys(self.candidate, self._last, self._clock, self._publish)
        except Exception as error:  # noqa: BLE001  # one server must not end the search for others
            problem = f"{type(error).__name__}: {error}"
            if self._found.status is ServerStatus.BUSY:
                self._found = self._found._replace(status=ServerStatus.UNRECOGNIZED)
            self._found = self._found._replace(problem=problem)
        self._is_done = True
        self._changes.put(None)

    def _publish(self, found: Recognition) -> None:
        self._found = found
        self._changes.put(None)

    def give_up(self) -> None:
        """Lets the thread end after the question that it has asked."""
        self._clock.stop()

    def has_ended(self) -> bool:
        """Whether no more is to come in time.

        The thread ends by itself when its clock has run out. Only a server that sends little by
        little keeps it longer: then it is not waited for any more.
        """
        return self._is_done

    def check_clock(self) -> None:
        """Ends the inquiry if its time was over before the last pause, and still is.

        A thread that was not scheduled in time gets that pause to say its last word.
        """
        is_overdue = self._clock.is_overdue()
        self._is_done = self._is_done or (is_overdue and self._was_overdue)
        self._was_overdue = is_overdue

    def seconds_left(self) -> float:
        """How long to wait until the clock has to be checked."""
        left = self._clock.left()
        return left if left > 0 else self.patience_s * _GRACE

    @property
    def has_news(self) -> bool:
        """Whether the server has told more than that it is there; details may be missing."""
        return self._found.status is not ServerStatus.BUSY

    def report(self, now: float) -> EndpointReport:
        """What is known of the server by now: its last report, until there is news."""
        last = self._last
        has_news = self.has_news or self.has_ended()
        if last is not None and not (self.patience_s and has_news):
            return last
        report = _make_report(self.candidate, self._found, last)
        if last is not None and report.is_silent and self.patience_s < last.waited_s:
            # It was given more time before, so this says nothing new.
            return last
        times = {"asked_at": now, "waited_s": self.patience_s} if has_news else {"asked_at": 0.0}
        return report.model_copy(update=times)


# Reports


_UNANSWERED = (ServerStatus.BUSY, ServerStatus.OFFLINE, ServerStatus.TIMEOUT)


def _make_report(
    candidate: ServerCandidate, found: Recognition, last: EndpointReport | None
) -> EndpointReport:
    """The report without the time at which the server was asked."""
    was_told = last and (last.models or last.status is ServerStatus.ANSWERS)
    tells_kind = {
        ServerStatus.ANSWERS: True,
        # A proxy before a server that has told its kind says nothing of that.
        ServerStatus.NEEDS_KEY: not was_told or server_class(found.kind).shows_kind_when_locked(),
        ServerStatus.LOADING: last is None,
    }
    kind = last.endpoint.kind if last else candidate.endpoint.kind
    if last and (found.status, last.status) == (ServerStatus.BUSY, ServerStatus.UNRECOGNIZED):
        # What is no model server does not become one by being slow.
        found = found._replace(status=ServerStatus.UNRECOGNIZED)
    if tells_kind.get(found.status, False):
        kind = found.kind
    alias = found.key_alias or candidate.endpoint.key_alias
    url = candidate.endpoint.url
    if last and found.status is ServerStatus.OFFLINE and not candidate.is_named:
        # It may have been found by IPv6, and come back there.
        url = last.endpoint.url
    models = tuple(map(_resolve_paths, found.models))
    is_listed = found.status is ServerStatus.ANSWERS or bool(models)
    return EndpointReport(
        endpoint=candidate.endpoint.model_copy(
            update={"kind": kind, "key_alias": alias, "url": url}
        ),
        status=found.status,
        asked_at=0.0,
        has_answered=found.has_answered
        or found.status not in _UNANSWERED
        or (last is not None and last.has_answered),
        problem=found.problem,
        version=found.version,
        models=models if is_listed or last is None else last.models,
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
    those with models come first, or those that may have some, and those that are offline last.
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
        has_none = not report.models and report.status is not ServerStatus.BUSY
        return not candidate.is_named, not kept_name(index), has_none, is_offline

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
    return [
        _rename(report, names[index], candidate.endpoint.shown_login, known.of(report.endpoint.url))
        for index, (candidate, report) in enumerate(pairs)
    ]


def _rename(
    report: EndpointReport, name: str, shown_login: str, last: EndpointReport | None
) -> EndpointReport:
    """Gives a report its endpoint's name and its models their ids, the same as in the `last`."""
    endpoint = report.endpoint.model_copy(update={"name": name, "shown_login": shown_login})
    before = f"local/{last.endpoint.name}/" if last else ""
    kept = {each.name: each.id.removeprefix(before) for each in (last.models if last else ())}
    short = short_names((model.name for model in report.models), kept)
    models = tuple(
        model.model_copy(update={"id": f"local/{name}/{id_part(short[model.name])}"}).with_served(
            endpoint=endpoint
        )
        for model in report.models
    )
    return report.model_copy(update={"endpoint": endpoint, "models": models})
