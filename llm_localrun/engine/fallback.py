"""What runs a model instead when a build of llama.cpp lacks an instruction, or its GPU fails.

The failure is recorded, so that the next command does not run into it again. Which build is next is
decided in `builds`, starting it is left to `serve`.
"""

from pathlib import Path

import click

from llm_localrun.engine import builds, failed_builds
from llm_localrun.engine.build_probe import Build
from llm_localrun.engine.failed_builds import NO_INSTRUCTION, Fault
from llm_localrun.engine.settings import EngineRequest
from llm_localrun.engine.state import EngineSettings
from llm_localrun.errors import BuildFailed, EngineFailed, LocalRunError
from llm_localrun.system.text import printable

_suspected: dict[str, str] = {}
"""The builds that failed in this process, by the model that they were to run."""


def settle(error: LocalRunError, request: EngineRequest, folder: Path) -> BuildFailed | None:
    """`error` if something else can run the model of `request`: `instead` says what; else None.

    The failure of a build is recorded; if the model fails with the
    next one too, the file is to blame, and the record is dropped.
    """
    path = request.path
    if not isinstance(error, BuildFailed):
        if isinstance(error, EngineFailed) and (suspected := _suspected.pop(path, "")):
            failed_builds.forget(suspected, path)
        return None
    fault = Fault(error.fault)
    failed_builds.add(error.build, fault, _recorded(error, fault, request.name), path)
    following = _next(error, request, folder)
    if following is None:
        failed_builds.forget(error.build, path)
        return None
    _suspected[path] = error.build
    error.instead = _sentence(error, fault, following, request.name)
    return error


def tell(error: BuildFailed) -> None:
    """Says what runs the model instead."""
    click.echo(printable(error.instead), err=True)


def confirm(request: EngineRequest) -> None:
    """Notes that the model has answered: a build that failed with it was to blame."""
    _suspected.pop(request.path, None)


def chosen(request: EngineRequest, folder: Path) -> Build:
    """The build that an engine for `request` is started with. Raises `EngineFailed`."""
    settings: EngineSettings = request.settings
    named = request.limits.llama_server
    needs_gpu = bool(settings.gpu_layers)
    return builds.choose(folder, named, settings.rpc, request.path, needs_gpu=needs_gpu)


def _next(error: BuildFailed, request: EngineRequest, folder: Path) -> Build | None:
    try:
        build = chosen(request, folder)
    except EngineFailed:
        return None
    # The record may not have been written.
    is_same = build.key == error.build and (build.uses_gpu or error.fault == Fault.CPU.value)
    return None if is_same else build


def _recorded(error: BuildFailed, fault: Fault, name: str) -> str:
    if fault is Fault.CPU:
        return NO_INSTRUCTION
    if fault is Fault.GPU_MEMORY:
        return f"the GPU's memory was too small for {name}"
    return f"its GPU failed: {error.reason}"


def _sentence(error: BuildFailed, fault: Fault, following: Build, name: str) -> str:
    with_build = "" if following.key == error.build else f" with {following.title}"
    where = with_build if following.uses_gpu else f" on the CPU{with_build}"
    if fault is Fault.CPU:
        return f"{error.title} uses instructions that this CPU lacks, so {name} runs{with_build}."
    what = "The GPU" if fault is Fault.GPU else "The GPU's memory"
    return f"{what} failed with {error.title} ({error.reason}), so {name} runs{where}."
