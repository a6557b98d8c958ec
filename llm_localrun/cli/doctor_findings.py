"""What `doctor` finds: a finding for each thing that was looked at, and what would mend it.

Judges what discovery has found; asks and reads nothing that is not there already.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_localrun.cli.endpoints import STATUS, key_alias
from llm_localrun.cli.table import count_of, seconds_text, size_text, some_of
from llm_localrun.config import Config, config_path
from llm_localrun.engine.builds import BuildReport
from llm_localrun.engine.state import EngineState
from llm_localrun.memory.fit import fit_of_model
from llm_localrun.models import (
    EndpointReport,
    LocalModel,
    ScannedFile,
    ScannedStore,
    ServerStatus,
    Snapshot,
)
from llm_localrun.name_cache import age_of
from llm_localrun.privacy import is_loopback, requires_consent
from llm_localrun.servers.kinds import kind_of
from llm_localrun.system.paths import home


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was looked at. All is well with it unless there is advice."""

    section: str
    text: str
    advice: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def can_run(model: LocalModel, snapshot: Snapshot, config: Config, build: str) -> bool:
    """Whether `model` would run now, as far as that can be told without trying."""
    if model.path is not None and build:
        return True
    if requires_consent(model) and model.id not in config.allow:
        return False
    return any(
        r.endpoint == model.endpoint and r.status == ServerStatus.ANSWERS
        for r in snapshot.endpoints
    )


def of_models(snapshot: Snapshot, can: list[LocalModel]) -> Finding:
    """The sum of it: how many models `can` run."""
    facts = {"can_run": [model.id for model in can]}
    if can:
        text = f"{len(can)} of {count_of(len(snapshot.models), 'model')} can run"
        return Finding("models", text, facts=facts)
    text = "none of them can run" if snapshot.models else "none was found"
    return Finding("models", text, "Get a small one: llm localrun pull starter", facts)


# Servers


def of_servers(snapshot: Snapshot, config: Config) -> Iterator[Finding]:
    added = {endpoint.name for endpoint in config.endpoints}
    absent = []
    for report in snapshot.endpoints:
        is_expected = report.endpoint.name in added or bool(report.models)
        if report.status in (ServerStatus.OFFLINE, ServerStatus.UNRECOGNIZED) and not is_expected:
            absent.append(report)
        else:
            yield _of_server(report, report.endpoint.name in added)
    if absent:
        text = f"not running: {', '.join(_with_ports(absent))}"
        yield Finding("servers", text, facts={"endpoints": [_dump(each) for each in absent]})
    if not config.default_endpoints:
        yield Finding("servers", "The usual ports are left out: default_endpoints is false")


def _of_server(report: EndpointReport, is_added: bool) -> Finding:
    name, url = report.endpoint.name, report.endpoint.url
    title = f"{_title(report)} {report.version}".strip()
    parts = [f"{title} at {url}{f' ({name})' if is_added else ''}: {STATUS[report.status]}"]
    if report.models:
        known = "" if report.status == ServerStatus.ANSWERS else " known"
        parts.append(f"{count_of(len(report.models), 'model')}{known}")
    if not is_loopback(url):
        parts.append("on another machine")
    forget = f"Check its address, or forget it: llm localrun endpoints remove {name}"
    advice = {
        ServerStatus.ANSWERS: "",
        ServerStatus.LOADING: "Wait a moment",
        ServerStatus.OFFLINE: kind_of(report.endpoint.kind).advice,
        ServerStatus.TIMEOUT: "Look whether it is busy or stuck, and restart it",
        ServerStatus.NEEDS_KEY: f"Store it: llm keys set {key_alias(report)}",
        ServerStatus.UNRECOGNIZED: forget
        if is_added
        else "Look whether another program has its port",
    }[report.status]
    return Finding("servers", ", ".join(parts), advice, {"endpoints": [_dump(report)]})


def _title(report: EndpointReport) -> str:
    return kind_of(report.endpoint.kind).title


def _with_ports(reports: Iterable[EndpointReport]) -> Iterator[str]:
    """Each kind of server once, with the ports where it was looked for."""
    ports: dict[str, list[str]] = defaultdict(list)
    for report in reports:
        ports[_title(report)].append(report.endpoint.url.rpartition(":")[2])
    yield from (f"{title} ({', '.join(those)})" for title, those in ports.items())


def _dump(report: EndpointReport) -> dict[str, Any]:
    return {
        **report.model_dump(exclude={"models"}),
        "models": [model.id for model in report.models],
    }


# Files


def of_stores(snapshot: Snapshot) -> Iterator[Finding]:
    skipped = _skipped(snapshot)
    missing = []
    for store in snapshot.stores:
        if store.status == "missing" and store.store != "folders":
            missing.append(store)
        else:
            yield _of_store(store, skipped[store.path])
    elsewhere = {store.store for store in snapshot.stores if store.status != "missing"}
    if names := ", ".join(sorted({store.store for store in missing} - elsewhere)):
        yield Finding(
            "files", f"not there: {names}", facts={"stores": [s.model_dump() for s in missing]}
        )


def _of_store(store: ScannedStore, skipped: list[ScannedFile]) -> Finding:
    if store.status == "missing":
        text, advice = f"{store.path}: not there", 'Make it, or take it out of "folders"'
    elif store.status == "unreadable":
        text, advice = f"{store.path}: cannot be read", "Mend its permissions"
    else:
        text, advice = f"{store.path}: {count_of(store.files, 'file')}", ""
    if store.problem:
        text, advice = f"{text} ({store.problem})", advice or "Mend its permissions"
    if skipped:
        reasons = [f"{Path(each.path).name}: {each.reason}" for each in skipped]
        text += f", {len(skipped)} skipped ({some_of(reasons)})"
    facts = {**store.model_dump(), "skipped": [each.model_dump() for each in skipped]}
    return Finding("files", text, advice, {"stores": [facts]})


def _skipped(snapshot: Snapshot) -> Mapping[str, list[ScannedFile]]:
    """The files that hold no model, by the store that they lie in."""
    by_store: dict[str, list[ScannedFile]] = defaultdict(list)
    for entry in snapshot.files:
        if entry.model is None:
            within = [s.path for s in snapshot.stores if Path(entry.path).is_relative_to(s.path)]
            by_store[max(within, key=len, default="")].append(entry)
    return by_store


# This machine


def of_engine(
    snapshot: Snapshot, report: BuildReport, engines: Iterable[EngineState]
) -> Iterator[Finding]:
    """The builds of llama.cpp that there are, the engines that are up, and what those write."""
    files = [model for model in snapshot.models if model.path is not None]
    if not report.builds and files:
        text = f"not installed: {count_of(len(files), 'file')} cannot be run"
        yield Finding("engine", text, "llm install 'llm-localrun[gguf]'")
    elif not report.builds:
        yield Finding("engine", "not installed; GGUF files need it")
    for build in report.builds:
        devices = [f"{device.title} ({size_text(device.memory)})" for device in build.devices]
        is_spare = report.chosen is not None and build != report.chosen
        text = f"{build.title}, {', '.join(devices) or 'no GPU'}{', not used' if is_spare else ''}"
        yield Finding("engine", text, build.problem, build.model_dump())
    for engine in engines:
        text = f"{engine.spec.name} is loaded, {engine.build}, process {engine.pid}"
        yield Finding("engine", text, facts={"path": engine.spec.path, "pid": engine.pid})
    for log in report.logs:
        yield Finding("engine", f"llama.cpp's log: {log}", facts={"log": str(log)})


def of_memory(snapshot: Snapshot, memory: int | None) -> Iterator[Finding]:
    too_large = [m.id for m in snapshot.models if not fit_of_model(m, memory).fits]
    text = f"{size_text(memory)} in all" if memory is not None else "this system does not tell"
    facts = {"memory": memory, "too_large": too_large}
    if not too_large:
        yield Finding("memory", text, facts=facts)
        return
    yield Finding(
        "memory",
        f"{text}; too little for {some_of(too_large)}",
        "Run a smaller quantization: `llm localrun show NAME` lists those that are here",
        facts,
    )


def of_cache(before: Snapshot, written: Snapshot, snapshot: Snapshot) -> Iterator[Finding]:
    """`before` was on the disk at first and `written` now is; `snapshot` should be."""
    age = age_of(before.taken_at)
    old = f"{seconds_text(age)} old" if before.taken_at else "not there"
    facts = {"path": str(home() / "catalogue.json"), "age": age if before.taken_at else None}
    if written.taken_at != snapshot.taken_at:
        yield Finding(
            "cache",
            f"{facts['path']} cannot be written, so every command looks anew",
            "Make room there, or mend its permissions",
            facts,
        )
    else:
        yield Finding("cache", f"{facts['path']}: was {old}, is new now", facts=facts)


# What may leave


def of_policy(snapshot: Snapshot, config: Config) -> Iterator[Finding]:
    path = config_path()
    text = f"{path}" if path.exists() else f"{path} is not there: the defaults hold"
    yield Finding("policy", text, facts={"config": config.model_dump()})
    leaving = [model.id for model in snapshot.models if requires_consent(model)]
    allowed = [model_id for model_id in leaving if model_id in config.allow]
    refused = [model_id for model_id in leaving if model_id not in config.allow]
    if allowed:
        text = f"allowed to leave this machine: {some_of(allowed)}"
        yield Finding("policy", text, facts={"allowed": allowed})
    if refused:
        text = f"refused, because they may leave this machine: {some_of(refused)}"
        yield Finding("policy", text, facts={"refused": refused})
