"""The findings of `doctor`: what was checked, and how to fix what is wrong.

Judges the catalogue and the reports of other modules. Queries no server and scans no folder.
"""

import shlex
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_localrun.cli.endpoints import STATUS, report_facts, server_title
from llm_localrun.cli.table import count_of, first_few, pick, seconds_text, size_text
from llm_localrun.config import Config, config_path
from llm_localrun.engine.build_probe import Build
from llm_localrun.engine.builds import NAMED, BuildReport
from llm_localrun.engine.hardware import Gpu, Hardware, Vendor, suggest
from llm_localrun.engine.state import EngineState, check_folders
from llm_localrun.errors import EngineFailed
from llm_localrun.files.failed_loads import FailedLoads
from llm_localrun.files.found import NOT_TEXT
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
from llm_localrun.recommended.advice import PULL_STARTER, RECOMMEND, smaller
from llm_localrun.servers.base import refused_login, server_class
from llm_localrun.servers.llamacpp_rpc import RpcReport, ask_rpc_servers
from llm_localrun.system.paths import home

_DEVICE_WORDS = {
    Vendor.NVIDIA: ("NVIDIA", "CUDA"),
    Vendor.AMD: ("AMD", "Radeon", "ROCm"),
    Vendor.INTEL: ("Intel",),
    Vendor.APPLE: ("Apple", "Metal", "MTL"),
}
"""In the names and titles of the devices that llama.cpp lists, one of them at least."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was checked. It is in order if there is no advice."""

    section: str
    text: str
    advice: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def can_run(model: LocalModel, snapshot: Snapshot, config: Config, build: str) -> bool:
    """Whether llm can run `model` now. `build` is the engine's build, "" if there is none."""
    if not model.has_command:
        return False
    if model.on_disk is not None and build and not FailedLoads().problem_of(model.on_disk):
        return True
    if model.served is None or (requires_consent(model) and model.id not in config.allow):
        return False
    endpoint = model.served.endpoint
    return any(
        report.endpoint == endpoint and report.status in (ServerStatus.ANSWERS, ServerStatus.BUSY)
        for report in snapshot.endpoints
    )


def model_finding(
    snapshot: Snapshot, runnable: list[LocalModel], *, needs_rpc: bool = False
) -> Finding:
    """How many models can run; `needs_rpc` says that files wait for RPC servers."""
    others = [model.id for model in snapshot.models if not model.has_command]
    more = f" (llm has no command for {first_few(others)})" if others else ""
    facts = {"can_run": [model.id for model in runnable]}
    if runnable:
        text = f"{len(runnable)} of {count_of(len(snapshot.models), 'model')} can run{more}"
        return Finding("models", text, facts=facts)
    text = f"none of the models can run{more}" if snapshot.models else "no model was found"
    advice = f"Get a small one: {PULL_STARTER}"
    if needs_rpc:
        advice = "Follow the advice on the RPC servers, or remove rpc from config.json"
    return Finding("models", text, advice, facts)


# Servers


def server_findings(snapshot: Snapshot, config: Config) -> Iterator[Finding]:
    added = {endpoint.name for endpoint in config.endpoints}
    absent = []
    for report in snapshot.endpoints:
        is_expected = report.endpoint.name in added or bool(report.models)
        if report.status in (ServerStatus.OFFLINE, ServerStatus.UNRECOGNIZED) and not is_expected:
            absent.append(report)
        else:
            yield _server_finding(report, report.endpoint.name in added)
    if absent:
        text = f"not found: {', '.join(_with_ports(absent))}"
        facts = {"endpoints": [report_facts(each, is_added=False) for each in absent]}
        yield Finding("servers", text, facts=facts)
    if not config.default_endpoints:
        text = "default ports are not checked: default_endpoints is false"
        yield Finding("servers", text)


def _server_finding(report: EndpointReport, is_added: bool) -> Finding:
    name, url = report.endpoint.name, report.endpoint.address
    added_as = f" ({name})" if is_added else ""
    parts = [f"{server_title(report)} at {url}{added_as}: {STATUS[report.status]}"]
    if report.models:
        known = "" if report.status == ServerStatus.ANSWERS else " known"
        parts.append(f"{count_of(len(report.models), 'model')}{known}")
    if not is_loopback(report.endpoint.url):
        parts.append("on another machine")
    if report.problem:
        parts.append(f"its answers could not be read ({report.problem})")
    advice = _server_advice(report, is_added)
    return Finding(
        "servers", ", ".join(parts), advice, {"endpoints": [report_facts(report, is_added)]}
    )


def _server_advice(report: EndpointReport, is_added: bool) -> str:
    if source := refused_login(report):
        return f"Correct the user and password in {source}"
    remove = f"llm localrun endpoints remove {report.endpoint.name}"
    advice = {
        ServerStatus.ANSWERS: ""
        if report.models
        else server_class(report.endpoint.kind).empty_hint,
        ServerStatus.LOADING: "Wait a moment",
        ServerStatus.OFFLINE: server_class(report.endpoint.kind).start_hint,
        ServerStatus.TIMEOUT: "Check its address, and whether its machine is on",
        ServerStatus.BUSY: "It accepts connections but did not answer within"
        f" {report.waited_s:g} s. Run this again when it is less busy",
        ServerStatus.NEEDS_KEY: f"Store its key: llm keys set {report.endpoint.key_name}",
        ServerStatus.UNRECOGNIZED: f"Check its URL, or remove it: {remove}"
        if is_added
        else "Check whether another program uses its port",
    }
    return advice[report.status]


def _with_ports(reports: Iterable[EndpointReport]) -> Iterator[str]:
    """Each kind of server once, with its ports."""
    ports: dict[str, list[str]] = defaultdict(list)
    for report in reports:
        ports[server_class(report.endpoint.kind).title].append(
            report.endpoint.url.rpartition(":")[2]
        )
    yield from (f"{title} ({', '.join(numbers)})" for title, numbers in ports.items())


# Files


def store_findings(snapshot: Snapshot) -> Iterator[Finding]:
    skipped = _skipped(snapshot)
    missing = []
    for store in snapshot.stores:
        if store.status == "missing" and store.store != "folders":
            missing.append(store)
        else:
            yield _store_finding(store, skipped[store.path])
    found = {store.store for store in snapshot.stores if store.status != "missing"}
    if names := ", ".join(sorted({store.store for store in missing} - found)):
        facts = {"stores": [_store_facts(store, []) for store in missing]}
        yield Finding("files", f"not found: {names}", facts=facts)


def problem_findings(snapshot: Snapshot) -> Iterator[Finding]:
    """The files that hold a model but cannot be loaded."""
    failed_loads = FailedLoads()
    for model in snapshot.models:
        if model.on_disk and (problem := failed_loads.problem_of(model.on_disk)):
            path, name = model.on_disk.path, shlex.quote(model.on_disk.id or model.id)
            advice = f"Download it again, or delete it. To try it again: llm -m {name}"
            yield Finding("files", f"{path}: {problem}", advice, {"path": path, "problem": problem})


def _store_finding(store: ScannedStore, skipped: list[ScannedFile]) -> Finding:
    text, advice = f"{store.path}: {count_of(store.files, 'file')}", ""
    if store.status == "missing":
        text, advice = f"{store.path}: not found", 'Create it, or remove it from "folders"'
    elif store.status == "unreadable":
        text = f"{store.path}: cannot be read"
    if store.problem:
        text, advice = f"{text} ({store.problem})", "Check its disk"
        if NOT_TEXT in store.problem:
            advice = "Rename it"
        elif "ermission" in store.problem or "not permitted" in store.problem:
            advice = "Fix its permissions"
    if skipped:
        reasons = [f"{each.name or Path(each.path).name}: {each.reason}" for each in skipped]
        text += f", {len(skipped)} skipped ({first_few(reasons)})"
    return Finding("files", text, advice, {"stores": [_store_facts(store, skipped)]})


def _store_facts(store: ScannedStore, skipped: Iterable[ScannedFile]) -> dict[str, Any]:
    facts = pick(store, "store path status files problem")
    return {**facts, "skipped": [pick(each, "path reason") for each in skipped]}


def _skipped(snapshot: Snapshot) -> Mapping[str, list[ScannedFile]]:
    """The files that hold no model, by the path of their store."""
    by_store: dict[str, list[ScannedFile]] = defaultdict(list)
    for entry in snapshot.files:
        if entry.model is None:
            within = [s.path for s in snapshot.stores if Path(entry.path).is_relative_to(s.path)]
            by_store[max(within, key=len, default="")].append(entry)
    return by_store


# This machine


def folder_findings(folder: Path) -> Iterator[Finding]:
    """Whether the folder of the engines' files can be used."""
    try:
        check_folders(folder)
    except OSError as error:
        failed = EngineFailed.from_os_error("used", folder, error)
        yield Finding("engine", failed.problem, failed.remedy)


def engine_findings(
    snapshot: Snapshot, report: BuildReport, engines: Iterable[EngineState]
) -> Iterator[Finding]:
    """The installed builds of llama.cpp, the running engines and their logs."""
    files = [model for model in snapshot.models if model.on_disk is not None]
    if not report.builds and files:
        text = f"not installed: {count_of(len(files), 'file')} cannot run"
        yield Finding("engine", text, report.remedy or "llm install 'llm-localrun[gguf]'")
    elif not report.builds:
        yield Finding("engine", "not installed: only GGUF files need it")
    for build in report.builds:
        yield _build_finding(build, report)
    for engine in engines:
        text = f"{engine.spec.name} is loaded, {engine.build}, process {engine.pid}"
        yield Finding("engine", text, facts={"path": engine.spec.path, "pid": engine.pid})
    for log in report.logs:
        yield Finding("engine", f"llama.cpp's log: {log}", facts={"log": str(log)})


def _build_finding(build: Build, report: BuildReport) -> Finding:
    devices = [f"{device.title} ({size_text(device.memory)})" for device in build.devices]
    is_unused = report.chosen is not None and build != report.chosen
    unused = ", not used" * is_unused
    title = build.title if build.version or build.installed else f"{build.title} ({build.path})"
    if build.problem:
        remedy = report.remedy if build.problem in report.problem else build.remedy
        advice = remedy or "Choose another build: llm localrun engine use auto"
        return Finding("engine", f"{title}: {build.problem}", advice, _build_facts(build))
    text = f"{title}, {', '.join(devices) or 'no GPU'}{unused}"
    advice = ""
    if build.gpu_problem:
        text += f": {build.gpu_problem}"
        is_named = report.reasons.get(build.path, "").startswith(NAMED)
        name = shlex.quote(build.name) if is_named else "auto"
        advice = f"Update its driver. To try it again: llm localrun engine use {name}"
    return Finding("engine", text, advice, _build_facts(build))


def ask_unused(addresses: Sequence[str], engines: Iterable[EngineState]) -> list[RpcReport]:
    """What RPC servers answer. One that serves an engine has answered that, and answers no other
    program meanwhile."""
    used = {address for engine in engines for address in engine.spec.settings.rpc.split(",")}
    reports = ask_rpc_servers([each for each in addresses if each not in used])
    by_address = {report.address: report for report in reports}
    return [by_address.get(each) or RpcReport(each, ServerStatus.ANSWERS) for each in addresses]


def rpc_findings(
    report: BuildReport, servers: Sequence[RpcReport], engines: Collection[EngineState]
) -> Iterator[Finding]:
    """The RPC servers in config.json, and why no build can use them if that is so."""
    is_told = any(build.problem and build.problem in report.problem for build in report.builds)
    if servers and report.problem and not is_told:
        yield Finding("engine", report.problem, report.remedy)
    for each in servers:
        version = f" (protocol {each.version})" if each.version else ""
        users = [e.spec.name for e in engines if each.address in e.spec.settings.rpc.split(",")]
        said = f"serves {first_few(users)}" if users else each.problem or STATUS[each.status]
        text = f"RPC server {each.address}: {said}{version}"
        if not is_loopback(f"http://{each.address}"):
            text += ", on another machine"
        yield Finding("engine", text, each.advice, {"rpc": pick(each, "address status version")})


def finds_gpu(build: Build, gpu: Gpu) -> bool:
    """Whether a build has found a GPU, or another one of the same vendor."""
    texts = [f"{device.name} {device.title}" for device in build.devices]
    return any(word in text for text in texts for word in _DEVICE_WORDS[gpu.vendor])


def _build_facts(build: Build) -> dict[str, Any]:
    facts = pick(build, "kind path version can_rpc problem gpu_problem")
    return {**facts, "devices": [pick(each, "title memory") for each in build.devices]}


def hardware_findings(report: BuildReport, hardware: Hardware) -> Iterator[Finding]:
    """What this machine could have: a build that uses its GPU, or all of its CPU."""
    suggestion = suggest(hardware)
    gpu, backend = suggestion.gpu, suggestion.backend
    if hardware.problem:
        return
    gpus = [pick(each, "title driver obstacle") for each in hardware.gpus]
    facts = {"gpus": gpus, "suggested": backend.value, "missing": suggestion.missing}
    other = suggestion.lacking
    if other and other != gpu and not any(finds_gpu(each, other) for each in report.builds):
        advice = f"{suggestion.missing}. Then: llm localrun engine install"
        yield Finding("engine", f"{other.title} is not used", advice, facts)
    if gpu is not None and any(finds_gpu(each, gpu) for each in report.builds):
        return
    install = f"llm localrun engine install {backend.value}"
    if gpu is None:
        if hardware.has_avx512 and report.chosen and report.chosen.kind == "xllamacpp":
            text = f"AVX-512 is not used; for faster prompts: {install}"
            yield Finding("engine", text, facts=facts)
    elif gpu.is_integrated:
        # It may be slower than the CPU.
        text = f"{gpu.title} is not used" + f": {install}" * backend.has_gpu
        yield Finding("engine", text, facts=facts)
    else:
        advice = f"Install a build that uses it: {install}"
        if not backend.has_gpu:
            advice = f"{suggestion.missing}. Then: llm localrun engine install"
        yield Finding("engine", f"{gpu.title} is not used", advice, facts)


def memory_finding(snapshot: Snapshot, memory: int | None) -> Finding:
    """Whether each model fits into `memory`, the bytes of this machine; None: unknown.

    The size of a damaged one means nothing.
    """
    usable = (model for model in snapshot.models if not model.problem)
    too_large = [model.id for model in usable if not fit_of_model(model, memory).fits]
    text = f"{size_text(memory)} in total" if memory is not None else "size unknown"
    facts = {"memory": memory, "too_large": too_large}
    if not too_large:
        return Finding("memory", text, facts=facts)
    text += f", too little for {first_few(too_large)}"
    first = next(model for model in snapshot.models if model.id == too_large[0])
    advice = smaller(first, snapshot.models, memory or 0) or f"See which fit: `{RECOMMEND}`"
    return Finding("memory", text, advice, facts)


def cache_finding(before: Snapshot, written: Snapshot, snapshot: Snapshot) -> Finding:
    """Whether the new `snapshot` was written to the cache, which held the one `before`."""
    path = str(home() / "catalogue.json")
    age = age_of(before.taken_at) if before.taken_at else None
    facts = {"path": path, "age": age}
    if written.taken_at != snapshot.taken_at:
        text = f"{path} cannot be written, so every command searches for models again"
        return Finding(
            "cache", text, "Free disk space, or fix the permissions of its folder", facts
        )
    old = "missing" if age is None else f"{seconds_text(age)} old"
    return Finding("cache", f"{path}: was {old}, now updated", facts=facts)


# Privacy


def policy_findings(snapshot: Snapshot, config: Config) -> Iterator[Finding]:
    path = config_path()
    text = f"{path}" if path.exists() else f"{path} does not exist: the defaults apply"
    yield Finding("policy", text, facts={"path": str(path)})
    remote = [model.id for model in snapshot.models if requires_consent(model)]
    allowed = [model_id for model_id in remote if model_id in config.allow]
    refused = [model_id for model_id in remote if model_id not in config.allow]
    if allowed:
        text = f"allowed to run outside this machine: {first_few(allowed)}"
        yield Finding("policy", text, facts={"allowed": allowed})
    if refused:
        text = f"refused, because they may run outside this machine: {first_few(refused)}"
        yield Finding("policy", text, facts={"refused": refused})
