"""Asks the servers on this machine, all at once and within one deadline, what they serve."""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from llm_localrun import transport
from llm_localrun.catalogue import Endpoint, EndpointReport, LocalModel, default_key_alias
from llm_localrun.config import Config
from llm_localrun.discovery.identify import Identity, identify
from llm_localrun.kinds import KINDS

DEADLINE = 0.2
"""Seconds for everything together: a quarter of a second with what is imported before it."""
_LEAST = 0.15
"""Seconds that servers get in any case, on a machine that is slow to import."""
HANG_MEMORY = 300.0
"""Seconds for which a server that hung is not asked again, unless the user wants it."""

_OLLAMA_PORT = 11434


@dataclass(frozen=True, slots=True)
class Probe:
    """An endpoint to be asked, and the key to ask it with; `named` if the user gave it a name."""

    endpoint: Endpoint
    key: str | None = None
    named: bool = False
    known: tuple[LocalModel, ...] = ()
    """What it served when it was last asked."""


def probes_for(config: Config, keys: dict[str, str]) -> list[Probe]:
    """The endpoints in `config` and, if it allows that, the usual ports of this machine."""
    configured = [
        Probe(
            Endpoint(name=each.name, kind="openai", url=each.url, key_alias=each.key),
            keys.get(each.key or default_key_alias(each.name)),
            named=True,
        )
        for each in config.endpoints
    ]
    if not config.default_endpoints:
        return configured
    taken = {_address(probe.endpoint.url) for probe in configured}
    usual = []
    for kind, url in _usual_urls():
        if _address(url) not in taken:
            taken.add(_address(url))
            endpoint = Endpoint(name=kind, kind=kind, url=url)
            usual.append(Probe(endpoint, keys.get(default_key_alias(kind))))
    return configured + usual


def _address(url: str) -> str:
    return url.replace("://localhost", "://127.0.0.1")


def _usual_urls() -> list[tuple[str, str]]:
    urls = [
        (kind.name, f"http://127.0.0.1:{port}")
        for kind in KINDS
        for port in kind.ports
        if kind.name != "ollama"
    ]
    return [("ollama", ollama_url(os.environ.get("OLLAMA_HOST", ""))), *urls]


def ollama_url(host: str) -> str:
    """OLLAMA_HOST to a URL, as Ollama's `envconfig.Host` does, for a client (0.32).

    An address that a server listens on, 0.0.0.0 say, is reached at the loopback one.
    """
    host = host.strip().strip("\"'").strip()
    if host == "ollama.com":
        return "https://ollama.com:443"
    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest, port = "http", host, _OLLAMA_PORT
    else:
        port = 443 if scheme == "https" else 80
    authority, slash, path = rest.partition("/")
    if authority.count(":") > 1 and not authority.startswith("["):
        authority = f"[{authority}]"
    try:
        parts = urlsplit(f"//{authority}")
    except ValueError:
        return f"http://127.0.0.1:{_OLLAMA_PORT}"
    with contextlib.suppress(ValueError):
        port = parts.port if parts.port is not None else port
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(
        parts.hostname or "", parts.hostname or ""
    )
    name = f"[{name}]" if ":" in name and not name.startswith("[") else name
    return f"{scheme}://{name}:{port}{slash}{path}".rstrip("/")


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
    probes = [_with_known(probe, known.get(probe.endpoint.url)) for probe in probes]
    now = time.time()
    due = [p for p in probes if patient or not _hung_lately(known.get(p.endpoint.url), now)]
    identities = _identities(due, deadline)
    reports = []
    for probe in probes:
        last = known.get(probe.endpoint.url)
        if probe not in due and last is not None:
            reports.append(last)
        else:
            identity = identities.get(probe, Identity(probe.endpoint.kind, "hangs"))
            reports.append(_report(probe, identity, last, now))
    return _named(probes, reports, known)


def _with_known(probe: Probe, report: EndpointReport | None) -> Probe:
    return probe if report is None else replace(probe, known=report.models)


def _hung_lately(report: EndpointReport | None, now: float) -> bool:
    return (
        report is not None and report.status == "hangs" and 0 <= now - report.asked_at < HANG_MEMORY
    )


def _identities(probes: Collection[Probe], deadline: float) -> dict[Probe, Identity]:
    """What was found out, by probe, before the deadline; the threads are not waited for any longer.

    They are daemons: a server that sends a byte a minute must not keep the command from ending.
    """
    answers: queue.SimpleQueue[tuple[Probe, Identity]] = queue.SimpleQueue()

    def work(probe: Probe) -> None:
        answers.put((probe, _identity(probe, deadline)))

    for probe in {*probes}:
        threading.Thread(target=work, args=(probe,), daemon=True).start()
    identities: dict[Probe, Identity] = {}
    while len(identities) < len({*probes}):
        try:
            probe, identity = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        identities[probe] = identity
    return identities


def _identity(probe: Probe, deadline: float) -> Identity:
    endpoint = probe.endpoint
    try:
        return transport.drive(identify(endpoint, probe.known), endpoint.url, probe.key, deadline)
    except transport.Refused:
        return Identity(endpoint.kind, "refuses")
    except transport.NoAnswer:
        return Identity(endpoint.kind, "hangs")
    except transport.NotHttp:
        return Identity(endpoint.kind, "not understood")


def _report(
    probe: Probe, identity: Identity, last: EndpointReport | None, now: float
) -> EndpointReport:
    endpoint = probe.endpoint
    tells = identity.status == "answers" or identity.kind != "openai" or last is None
    if identity.status in ("answers", "needs a key") and tells:
        endpoint = endpoint.model_copy(update={"kind": identity.kind})
    elif last is not None:
        endpoint = endpoint.model_copy(update={"kind": last.endpoint.kind})
    kept = last.models if last is not None and identity.status != "answers" else identity.models
    return EndpointReport(endpoint=endpoint, status=identity.status, asked_at=now, models=kept)


def _named(
    probes: Iterable[Probe],
    reports: Iterable[EndpointReport],
    known: Mapping[str, EndpointReport],
) -> list[EndpointReport]:
    """Gives each endpoint its name: the user's, else its kind, with a number from the second on.

    A name stays with its server as long as that is of the kind; of new ones those come first that
    have models.
    """
    pairs = list(zip(probes, reports, strict=True))

    def rank(index: int) -> tuple[bool, bool, bool]:
        probe, report = pairs[index]
        last = known.get(report.endpoint.url)
        is_new = last is None or last.endpoint.kind != report.endpoint.kind or not last.models
        return not probe.named, is_new, not report.models

    taken: set[str] = set()
    names: dict[int, str] = {}
    for index in sorted(range(len(pairs)), key=rank):
        probe, report = pairs[index]
        last = known.get(report.endpoint.url)
        wanted = probe.endpoint.name if probe.named else report.endpoint.kind
        name, number = wanted, 2
        if last is not None and not probe.named and last.endpoint.kind == report.endpoint.kind:
            name = last.endpoint.name
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
    return model.model_copy(
        update={"id": f"local/{endpoint.name}/{model.name}", "endpoint": endpoint}
    )
