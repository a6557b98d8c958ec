"""Asks the servers on this machine, all at once and within one deadline, what they serve."""

import os
import queue
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from llm_localrun.config import Config
from llm_localrun.models import (
    Endpoint,
    EndpointReport,
    LocalModel,
    ServerStatus,
    default_key_alias,
)
from llm_localrun.privacy import is_loopback
from llm_localrun.servers.addresses import same_address, usual_addresses
from llm_localrun.servers.identify import Identity, identify
from llm_localrun.servers.keys import key_in_environment
from llm_localrun.servers.lm_link import placed
from llm_localrun.servers.reading import Asked
from llm_localrun.wire import http

DEADLINE = 0.2
"""Seconds for everything together: a quarter of a second with what is imported before it."""
_LEAST = 0.15
"""Seconds that servers get in any case, on a machine that is slow to import."""
HANG_MEMORY = 300.0
"""Seconds for which a server that hung is not asked again, unless the user wants it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """An endpoint to be asked, and the key to ask it with.

    `named` if the user gave it a name, `dialect` if the user said what kind of server it is.
    `spare_keys` are what `llm keys` holds for servers on their usual ports, by alias.
    """

    endpoint: Endpoint
    key: str | None = field(default=None, repr=False)
    named: bool = False
    dialect: str | None = None
    spare_keys: Mapping[str, str] = field(default_factory=dict, repr=False)


class _Outcome(NamedTuple):
    """What came of a probe, and the alias of the key that it took."""

    identity: Identity
    key_alias: str | None = None


def probes_for(config: Config, keys: Mapping[str, str]) -> list[Probe]:
    """The endpoints in `config` and, if it allows that, the usual addresses of this machine."""
    configured = [
        Probe(
            Endpoint(
                name=each.name, kind=each.dialect or "openai", url=each.url, key_alias=each.key
            ),
            keys.get(each.key or default_key_alias(each.name)),
            named=True,
            dialect=each.dialect,
        )
        for each in config.endpoints
    ]
    if not config.default_endpoints:
        return configured
    taken = {same_address(probe.endpoint.url) for probe in configured}
    usual = [
        Probe(Endpoint(name=kind, kind=kind, url=url), spare_keys=keys)
        for kind, url in usual_addresses()
        if same_address(url) not in taken
    ]
    return configured + usual


def deadline_from(begun: float) -> float:
    """Until when servers may answer, on the monotonic clock, if discovery has `begun` then."""
    return max(begun + DEADLINE, time.monotonic() + _LEAST)


def ask(
    probes: Collection[Probe],
    before: Iterable[EndpointReport],
    deadline: float,
    *,
    patient: bool,
) -> list[EndpointReport]:
    """A report on each endpoint, in the order of `probes`, by `deadline`.

    One that is off or hangs keeps the models of its last good answer. Unless `patient`, one that
    hung a short while ago is not asked.
    """
    known = {report.endpoint.url: report for report in before}
    pairs = [(probe, known.get(probe.endpoint.url)) for probe in probes]
    now = time.time()
    due = {
        index: (probe, last)
        for index, (probe, last) in enumerate(pairs)
        if patient or last is None or not _hung_lately(last, now)
    }
    outcomes = _outcomes(due, deadline)
    reports = [
        _report(probe, outcomes[index], last, now) if last is None or index in due else last
        for index, (probe, last) in enumerate(pairs)
    ]
    return [placed(report) for report in _named(probes, reports, known)]


def _hung_lately(report: EndpointReport, now: float) -> bool:
    return report.status == ServerStatus.TIMEOUT and 0 <= now - report.asked_at < HANG_MEMORY


_Pair: TypeAlias = tuple[Probe, EndpointReport | None]
"""A probe, and the last report on its endpoint."""


def _outcomes(due: Mapping[int, _Pair], deadline: float) -> dict[int, _Outcome]:
    """What came of each before the deadline; the threads are not waited for any longer.

    They are daemons: a server that sends a byte a minute must not keep the command from ending.
    """
    answers: queue.SimpleQueue[tuple[int, _Outcome]] = queue.SimpleQueue()

    def work(index: int) -> None:
        answers.put((index, _outcome(*due[index], deadline)))

    off = http.refusing(probe.endpoint.url for probe, _ in due.values())
    outcomes, waiting = {}, set()
    for index, (probe, _) in due.items():
        is_off = probe.endpoint.url in off
        outcomes[index] = _Outcome(
            Identity(probe.endpoint.kind, ServerStatus.OFFLINE if is_off else ServerStatus.TIMEOUT)
        )
        if not is_off:
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


def _outcome(probe: Probe, last: EndpointReport | None, deadline: float) -> _Outcome:
    """Asks one server; again with a key, if it wants one and there is one for its kind."""
    identity = _identity(probe, last, probe.key, deadline)
    if identity.status != ServerStatus.NEEDS_KEY:
        return _Outcome(identity)
    names = [*([last.endpoint.name] if last else []), identity.kind, probe.endpoint.name]
    aliases = [alias for alias in map(default_key_alias, names) if alias in probe.spare_keys]
    key = probe.spare_keys[aliases[0]] if aliases else key_in_environment(identity.kind)
    if key is None or key == probe.key:
        return _Outcome(identity)
    return _Outcome(_identity(probe, last, key, deadline), next(iter(aliases), None))


def _identity(
    probe: Probe, last: EndpointReport | None, key: str | None, deadline: float
) -> Identity:
    endpoint = probe.endpoint
    asked = Asked(endpoint)
    if last is not None:
        asked = Asked(
            endpoint, last.models, last.version if last.status == ServerStatus.ANSWERS else ""
        )
    try:
        return http.drive(identify(asked, probe.dialect), endpoint.url, key, deadline)
    except http.Refused:
        return Identity(endpoint.kind, ServerStatus.OFFLINE)
    except http.NoAnswer:
        return Identity(endpoint.kind, ServerStatus.TIMEOUT)
    except http.NotHttp:
        return Identity(endpoint.kind, ServerStatus.UNRECOGNIZED)


def _report(
    probe: Probe, outcome: _Outcome, last: EndpointReport | None, now: float
) -> EndpointReport:
    identity = outcome.identity
    tells = {
        ServerStatus.ANSWERS: True,
        ServerStatus.NEEDS_KEY: identity.kind != "openai" or last is None,
        ServerStatus.LOADING: last is None,
    }
    kind = last.endpoint.kind if last else probe.endpoint.kind
    if tells.get(identity.status, False):
        kind = identity.kind
    alias = outcome.key_alias or probe.endpoint.key_alias
    models = tuple(map(_with_real_paths, identity.models))
    return EndpointReport(
        endpoint=probe.endpoint.model_copy(update={"kind": kind, "key_alias": alias}),
        status=identity.status,
        asked_at=now,
        version=identity.version,
        models=last.models if last and identity.status != ServerStatus.ANSWERS else models,
        devices=last.devices if last and kind == last.endpoint.kind else None,
    )


def _with_real_paths(model: LocalModel) -> LocalModel:
    """A model whose file is told by its real path, as the files that are found are.

    A path of another machine, or one that is relative to who knows what, tells nothing.
    """
    here = model.endpoint is not None and is_loopback(model.endpoint.url)
    fingerprints = (_with_real_path(mark) if here else mark for mark in model.fingerprints)
    return model.model_copy(update={"fingerprints": tuple(fingerprints)})


def _with_real_path(mark: str) -> str:
    kind, _, path = mark.partition(":")
    if kind != "path" or not os.path.isabs(path) or "\0" in path:  # noqa: PTH117
        return mark
    return f"path:{os.path.realpath(path)}"


def _named(
    probes: Iterable[Probe],
    reports: Iterable[EndpointReport],
    known: Mapping[str, EndpointReport],
) -> list[EndpointReport]:
    """Gives each endpoint its name: the user's, else its kind, with a number from the second on.

    A name stays with a server that has had models as long as that is of the kind; of others those
    come first that have some, and those last that are not there.
    """
    pairs = list(zip(probes, reports, strict=True))

    def last_name(index: int) -> str:
        probe, report = pairs[index]
        last = known.get(report.endpoint.url)
        stays = last is not None and last.models and last.endpoint.kind == report.endpoint.kind
        return last.endpoint.name if last is not None and stays and not probe.named else ""

    def rank(index: int) -> tuple[bool, bool, bool, bool]:
        probe, report = pairs[index]
        is_off = report.status == ServerStatus.OFFLINE
        return not probe.named, not last_name(index), not report.models, is_off

    taken: set[str] = set()
    names: dict[int, str] = {}
    for index in sorted(range(len(pairs)), key=rank):
        probe, report = pairs[index]
        wanted = probe.endpoint.name if probe.named else report.endpoint.kind
        name, number = last_name(index) or wanted, 2
        while name in taken:
            name, number = f"{wanted}-{number}", number + 1
        taken.add(name)
        names[index] = name
    return [_renamed(report, names[index]) for index, (_, report) in enumerate(pairs)]


def _renamed(report: EndpointReport, name: str) -> EndpointReport:
    endpoint = report.endpoint.model_copy(update={"name": name})
    models = tuple(_served(model, endpoint) for model in report.models)
    return report.model_copy(update={"endpoint": endpoint, "models": models})


def _served(model: LocalModel, endpoint: Endpoint) -> LocalModel:
    renamed = model.model_copy(update={"id": f"local/{endpoint.name}/{model.name}"})
    return renamed.with_served(endpoint=endpoint)
