"""What runs a model instead when a build of llama.cpp lacks an instruction, or its GPU fails.

The failure is recorded, so that the next command does not run into it again. Which build is next is
decided in `builds`, starting it is left to `serve`.
"""

from pathlib import Path

from llm_localrun.engine import builds, failed_builds
from llm_localrun.engine.build_probe import Build
from llm_localrun.engine.libraries import NO_INSTRUCTION
from llm_localrun.engine.settings import EngineRequest
from llm_localrun.engine.state import EngineSettings
from llm_localrun.errors import BuildFailed, EngineFailed, Fault, LoadFailed, LocalRunError
from llm_localrun.system import progress

_suspected: dict[str, dict[str, Fault]] = {}
"""The builds that failed in this process, and how, by the model that they were to run."""


def settle(error: LocalRunError, request: EngineRequest, folder: Path) -> BuildFailed | None:
    """`error` if something else can run the model of `request`: `instead` says what; else None.

    The failure of a build is recorded. If the model fails with the next ones too, the file is to
    blame, and the records are dropped.
    """
    path = request.path
    if not isinstance(error, BuildFailed):
        if isinstance(error, EngineFailed):
            is_of_file = isinstance(error, LoadFailed) or bool(error.load_problem)
            _acquit(path, cpu=is_of_file)
        return None
    failed_builds.add(error.build, error.fault, _recorded(error, request.name), path)
    _suspected.setdefault(path, {})[error.build] = error.fault
    following = _next(error, request, folder)
    if following is None:
        failed_builds.forget(error.build, path)
        _acquit(path, cpu=False)
        return None
    where = _where(error, following)
    error.instead = _sentence(error, request.name, where)
    error.advise(f"Try again: {request.name} will run{where}")
    return error


def _acquit(path: str, *, cpu: bool) -> None:
    """Drops the records of the builds that failed with a model. Those of a missing instruction stay
    without `cpu`: another build's failure does not refute them."""
    for build, fault in _suspected.pop(path, {}).items():
        if cpu or fault is not Fault.CPU:
            failed_builds.forget(build, path)


def tell(error: BuildFailed) -> None:
    """Says what runs the model instead."""
    progress.tell(error.instead)


def confirm(request: EngineRequest) -> None:
    """Notes that the model has answered: a build that failed with it was to blame."""
    _suspected.pop(request.path, None)


def chosen(request: EngineRequest, folder: Path) -> Build:
    """The build that an engine for `request` is started with. Raises `EngineFailed`."""
    settings: EngineSettings = request.settings
    named = request.limits.llama_server
    return builds.choose(folder, named, settings.rpc, request.path, settings.gpu_layers)


def _next(error: BuildFailed, request: EngineRequest, folder: Path) -> Build | None:
    try:
        build = chosen(request, folder)
    except EngineFailed:
        return None
    # The record may not have been written.
    is_same = build.key == error.build and (error.fault is Fault.CPU or not build.gpu_problem)
    return None if is_same else build


def _recorded(error: BuildFailed, name: str) -> str:
    if error.fault is Fault.CPU:
        return NO_INSTRUCTION
    if error.fault is Fault.GPU_MEMORY:
        return f"the GPU's memory was too small for {name}"
    return f"its GPU failed: {error.reason}"


def _where(error: BuildFailed, following: Build) -> str:
    with_build = "" if following.key == error.build else f" with {following.title}"
    may_use_gpu = following.uses_gpu or error.fault is Fault.CPU
    return with_build if may_use_gpu else f" on the CPU{with_build}"


def _sentence(error: BuildFailed, name: str, where: str) -> str:
    if error.fault is Fault.CPU:
        return f"{error.title} uses instructions that this CPU lacks, so {name} runs{where}."
    what = "The GPU" if error.fault is Fault.GPU else "The GPU's memory"
    return f"{what} failed with {error.title} ({error.reason}), so {name} runs{where}."
