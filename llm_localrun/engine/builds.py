"""Which build of llama.cpp runs a model, and why.

In this order: the build that config.json names; one that uses a GPU with CUDA, ROCm or Metal; one
that uses a GPU; an installed one; xllamacpp; a llama-server on PATH. One whose CPU part does not
run here is never used, and one whose GPU has failed counts as one without (`failed_builds`).
Finding and probing the builds is left to `build_probe`, starting the chosen one to `launch` and
`host`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llm_localrun.engine import failed_builds
from llm_localrun.engine.build_probe import Build, find_builds, free_gpu_memory, probe_all
from llm_localrun.engine.libraries import NO_INSTRUCTION, OTHER_BUILD
from llm_localrun.engine.state import list_hosts
from llm_localrun.errors import EngineFailed, Fault

NAMED = "config.json names it"
_INSTALL = "`llm install 'llm-localrun[gguf]'`"


@dataclass(frozen=True, slots=True)
class BuildReport:
    """The builds and the logs of the engine."""

    builds: tuple[Build, ...]
    """The chosen one first."""
    chosen: Build | None
    problem: str
    """Why none is chosen; "" if one is."""
    logs: tuple[Path, ...]
    """The logs of the running engines, and of the last one that failed."""
    remedy: str = ""
    """What to do about the problem."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why each build is used or not, in half a sentence, by its path."""


def report(folder: Path, llama_server: str | None, rpc: str = "") -> BuildReport:
    """Describes builds, devices and logs. `folder` holds the engines' files.

    Probes the builds, which takes seconds the first time and milliseconds afterwards.
    """
    builds = [_marked(build) for build in probe_all(find_builds(llama_server), folder)]
    try:
        chosen, problem, remedy = _select(builds, llama_server, rpc), "", ""
    except EngineFailed as error:
        chosen, problem, remedy = None, error.problem, error.remedy
    allowed = _allowed(builds, llama_server, "")
    reasons = {build.path: _reason(build, chosen, allowed, rpc) for build in builds}
    if chosen in allowed and llama_server is not None:
        named = [NAMED, *filter(None, [chosen.gpu_problem])]
        reasons[chosen.path] = ", and ".join(named)
    logs = (*(paths.log for paths in list_hosts(folder)), failed_log(folder))
    builds.sort(key=lambda build: build != chosen)
    logs = tuple(log for log in logs if log.exists())
    return BuildReport(tuple(builds), chosen, problem, logs, remedy, reasons)


def failed_log(folder: Path) -> Path:
    """The log of the last engine that failed."""
    return folder.parent / "engine-failed.log"


def choose(
    folder: Path,
    llama_server: str | None,
    rpc: str,
    model: str = "",
    gpu_layers: int | None = None,
) -> Build:
    """Chooses the build to start an engine with. Raises `EngineFailed`.

    `llama_server` is the name or path that the user has chosen, which is used then; "" for
    xllamacpp, None for none. `model` is the file to run, "" for none in particular. `gpu_layers` is
    what the user has set: 0 keeps the GPU out, and more use it even if it has failed.
    """
    found = find_builds(llama_server)
    builds = _allowed(found, llama_server, rpc)
    if [build.kind for build in builds] != ["xllamacpp"]:
        builds = probe_all(builds, folder)
    builds = [_marked(build, model, gpu_layers) for build in builds]
    if llama_server and builds and builds[0].problem == NO_INSTRUCTION:
        others = probe_all(found[1:], folder)
        builds += [_marked(build, model, gpu_layers) for build in others]
    return _select(builds, llama_server, rpc)


def free_memory_of_gpus(
    folder: Path, llama_server: str | None, model: str = "", gpu_layers: int | None = None
) -> int:
    """The free bytes of the GPUs that an engine would use, besides RAM.

    Asks the driver: that takes a second. The arguments are those of `choose`.
    """
    build = _choose_probed(folder, llama_server, model, gpu_layers)
    return free_gpu_memory(build) if build and build.uses_gpu else 0


def would_use_gpu(folder: Path, llama_server: str | None) -> bool:
    """Whether an engine would use a GPU, be it one that shares the RAM."""
    build = _choose_probed(folder, llama_server)
    return bool(build and build.uses_gpu)


def _choose_probed(
    folder: Path, llama_server: str | None, model: str = "", gpu_layers: int | None = None
) -> Build | None:
    """The build that `choose` chooses, whose GPUs are known; None if there is none."""
    try:
        build = choose(folder, llama_server, "", model, gpu_layers)
    except EngineFailed:
        return None
    # xllamacpp alone has not been probed yet.
    (probed,) = probe_all([build], folder)
    return build.model_copy(update={"devices": probed.devices})


def _marked(build: Build, model: str = "", gpu_layers: int | None = None) -> Build:
    """`build` with what has failed when it ran, and what the user rules out."""
    failed = failed_builds.find(build.key, model)
    if failed is not None and failed.fault is Fault.CPU and not build.problem:
        return build.model_copy(update={"problem": failed.reason, "remedy": OTHER_BUILD})
    reason = failed.reason if failed is not None and failed.fault is not Fault.CPU else ""
    if gpu_layers == 0 and (build.devices or build.kind == "xllamacpp"):
        reason = "gpu_layers is 0"
    is_ruled_out = reason and not gpu_layers and not build.problem
    return build.model_copy(update={"gpu_problem": reason}) if is_ruled_out else build


def _allowed(builds: list[Build], llama_server: str | None, rpc: str) -> list[Build]:
    """The builds that config.json allows: the one that it names, if it does."""
    if llama_server:
        return builds[:1]
    kinds = {"llama-server", "xllamacpp"}
    # xllamacpp cannot use RPC servers.
    kinds -= {"xllamacpp"} if rpc else set()
    kinds -= {"llama-server"} if llama_server == "" else set()
    return [build for build in builds if build.kind in kinds]


def _select(builds: list[Build], llama_server: str | None, rpc: str) -> Build:
    allowed = _allowed(builds, llama_server, rpc)
    if llama_server and allowed and allowed[0].problem == NO_INSTRUCTION:
        # Its owner named it before that was known.
        allowed += [build for build in _allowed(builds, None, rpc) if build not in allowed]
    usable = [build for build in allowed if not build.problem and (build.can_rpc or not rpc)]
    if usable:
        return max(usable, key=_rank)
    if broken := next((build for build in allowed if build.problem), None):
        setting = "llama_server" if llama_server else "rpc" if rpc else ""
        raise EngineFailed(
            f"{broken.path} cannot be used: {broken.problem}",
            _remedy_for_build(broken, setting),
        )
    if rpc:
        raise _no_build_for_rpc(allowed, llama_server)
    raise EngineFailed(
        "GGUF files need the engine, which is not installed",
        f"Install it with {_INSTALL}",
    )


def _rank(build: Build) -> tuple[bool, bool, bool, bool]:
    """The best has the largest; of equal ones, the first is used."""
    own = bool(build.installed)
    return build.is_native, build.uses_gpu, own, build.kind == "xllamacpp"


def _reason(build: Build, chosen: Build | None, allowed: Iterable[Build], rpc: str) -> str:
    """Why a build is used or not. `allowed` are those that config.json does not rule out."""
    if build.problem:
        return build.problem
    if rpc and not build.can_rpc:
        return "it cannot use the RPC servers in config.json"
    if build not in allowed and build != chosen:
        return "config.json names another one"
    if build.gpu_problem or chosen is None:
        return build.gpu_problem
    if build == chosen:
        return f"it uses the {build.devices[0].title}" if build.uses_gpu else "no build uses a GPU"
    is_slower = chosen.uses_gpu and not build.uses_gpu
    return "it uses no GPU" if is_slower else f"{chosen.name} comes before it"


def _remedy_for_build(build: Build, setting: str) -> str:
    """What to do if a build cannot be used, and no other may be: because of `setting`, if any."""
    if build.installed and not Path(build.path).is_file():
        tag, _, backend = build.installed.partition("-")
        return f"Install it again: llm localrun engine install {backend} --tag {tag}"
    is_missing = "is missing" in build.problem
    if setting == "llama_server" and is_missing:
        return f"{build.remedy}, or remove llama_server from config.json"
    if setting == "llama_server":
        return "Correct llama_server in config.json, or remove it"
    if setting == "rpc":
        return f"{build.remedy or 'Install a newer llama.cpp'}, or remove rpc from config.json"
    if build.kind == "llama-server":
        return f"{build.remedy or 'Install a newer llama.cpp'}, or the engine with {_INSTALL}"
    again = f"Install it again with {_INSTALL}".replace("install '", "install --force-reinstall '")
    return build.remedy if is_missing else again


def _no_build_for_rpc(builds: list[Build], llama_server: str | None) -> EngineFailed:
    """The error for RPC servers where no llama-server can use them: `builds` are the others."""
    need = "The RPC servers in config.json need a llama-server that was built with GGML_RPC"
    found = f"{builds[0].path} was not" if builds else "there is none on PATH"
    if llama_server == "":
        found = "llama_server rules it out there"
    return EngineFailed(
        f"{need}, and {found}", "Set llama_server in config.json to its path, or remove rpc"
    )
