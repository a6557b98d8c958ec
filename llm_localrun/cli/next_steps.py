"""What to do next: a few commands for the state that this machine is in.

Judges what `status` has gathered. Asks no server, starts no build of llama.cpp, and prints nothing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from llm_localrun.cli.doctor_findings import finds_gpu
from llm_localrun.cli.endpoints import server_title
from llm_localrun.cli.table import count_of
from llm_localrun.engine.builds import BuildReport
from llm_localrun.engine.hardware import Hardware, suggest
from llm_localrun.models import EndpointReport, LocalModel, ServerStatus, Snapshot
from llm_localrun.names.aliases import ids_of
from llm_localrun.privacy import requires_consent
from llm_localrun.recommended.advice import PULL_STARTER, RECOMMEND
from llm_localrun.resolve import unheard_reports
from llm_localrun.servers.base import refused_login, server_class
from llm_localrun.system.program import quoted

_MAX_STEPS = 4
_DOCTOR = "llm localrun doctor"
_INSTALL_ENGINE = "llm install 'llm-localrun[gguf]'"
_START = re.compile(r"Start (?:it|its server) with `([^`A-Z]+)`")
"""A hint with a command that needs no model and no file."""

Step = tuple[str, str]
"""A command, and what it does."""


@dataclass(frozen=True, slots=True)
class MachineState:
    """What the next steps depend on."""

    snapshot: Snapshot
    builds: BuildReport
    hardware: Hardware
    best: LocalModel | None
    """The model that `local` means."""
    obstacle: str = ""
    """Why the best model cannot run now."""
    allowed: frozenset[str] = frozenset()
    """The ids of models that may run outside this machine."""
    default: str = ""
    """The id of llm's default model, if the user has set one."""

    @property
    def needs_consent(self) -> bool:
        """Whether the best model is refused until the user allows it."""
        best = self.best
        return best is not None and requires_consent(best) and best.id not in self.allowed

    @property
    def has_files(self) -> bool:
        return any(model.on_disk for model in self.snapshot.models)

    def has(self, model_id: str) -> bool:
        """Whether a model with this id is known."""
        return any(model_id in (m.id, *ids_of(m)) for m in self.snapshot.models)

    def may_have(self, model_id: str) -> bool:
        """Whether it is known, or may be at a server that has not answered."""
        return self.has(model_id) or bool(unheard_reports(self.snapshot, is_empty=True))


def next_steps(state: MachineState) -> list[Step]:
    """At most four commands, the most important first."""
    return [*islice(_steps(state), _MAX_STEPS)]


def _steps(state: MachineState) -> Iterator[Step]:
    yield from _locked_servers(state.snapshot)
    yield from _missing_engine(state)
    yield from _first_model(state) if state.best is None else _use(state, state.best)
    yield "llm localrun --help", "list all commands"


def _locked_servers(snapshot: Snapshot) -> Iterator[Step]:
    """At most two steps, so that others have a place."""
    locked = [each for each in snapshot.endpoints if each.status is ServerStatus.NEEDS_KEY]
    for report in locked[:2]:
        if refused_login(report):
            yield _DOCTOR, f"correct the password for {server_title(report)}"
        else:
            name = report.endpoint.key_name
            yield quoted("llm", "keys", "set", name), f"store the key of {report.endpoint.name}"


def _missing_engine(state: MachineState) -> Iterator[Step]:
    if state.builds.chosen is not None:
        return
    if state.builds.builds and state.has_files:
        yield _DOCTOR, "find out why the engine cannot run files"
    elif not state.builds.builds and (state.has_files or state.best is None):
        yield _INSTALL_ENGINE, "install the engine that runs GGUF files"


def _first_model(state: MachineState) -> Iterator[Step]:
    for report in state.snapshot.endpoints:
        if report.status in (ServerStatus.BUSY, ServerStatus.LOADING):
            yield "llm localrun refresh", f"ask {_named(report)} again"
            break
    yield RECOMMEND, "see which models suit this machine"
    yield PULL_STARTER, "get a small model"
    yield _DOCTOR, "find out what is wrong, and how to fix it"


def _named(report: EndpointReport) -> str:
    """A server; one of unknown kind by its address."""
    return report.endpoint.address if report.is_unheard else server_title(report)


def _use(state: MachineState, best: LocalModel) -> Iterator[Step]:
    """How to use the best model, or what to do before that."""
    if state.obstacle:
        yield _remove_obstacle(state, best)
        yield PULL_STARTER, "get a small model that runs without a server"
    elif state.needs_consent:
        allow = quoted("llm", "localrun", "allow", best.id)
        yield allow, f"let prompts go to {best.remote_host or 'where it runs'}"
        yield PULL_STARTER, "get a small model that runs here"
    else:
        yield _ask(state)
        yield from _unused_gpu(state)
        yield from _default_model(state)
    yield "llm localrun models", f"list {count_of(len(state.snapshot.models), 'model')}"


def _remove_obstacle(state: MachineState, best: LocalModel) -> Step:
    if best.served and state.obstacle == ServerStatus.OFFLINE.obstacle:
        server = server_class(best.served.endpoint.kind)
        if found := _START.match(server.start_hint):
            return found[1], f"start {server.title}"
    return _DOCTOR, "find out why the best model cannot run"


def _ask(state: MachineState) -> Step:
    if state.default and state.has(state.default):
        return 'llm "prompt"', "ask the default model"
    return 'llm -m local "prompt"', "ask the best model"


def _unused_gpu(state: MachineState) -> Iterator[Step]:
    """A build for a GPU that none uses, if files here would gain by it."""
    suggestion = suggest(state.hardware)
    gpu = suggestion.gpu
    if gpu is None or gpu.is_integrated or state.hardware.problem or not state.has_files:
        return
    if any(finds_gpu(build, gpu) for build in state.builds.builds):
        return
    if suggestion.backend.has_gpu:
        yield f"llm localrun engine install {suggestion.backend.value}", f"use {gpu.title}"
    else:
        yield _DOCTOR, f"find out how to use {gpu.title}"


def _default_model(state: MachineState) -> Iterator[Step]:
    if not state.default:
        yield "llm models default local", "ask it without -m from now on"
    elif state.default.startswith("local/") and not state.may_have(state.default):
        yield "llm models default local", "replace the default model, which is gone"
