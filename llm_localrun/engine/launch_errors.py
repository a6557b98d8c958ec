"""What a command says when an engine cannot load a model, or ends: the model, the build or the
memory is to blame.

What a log says is left to `build_logs`, and what runs the model instead to `fallback`.
"""

import signal
from pathlib import Path

from llm_localrun.engine import build_logs, programs
from llm_localrun.engine.limits import is_reached
from llm_localrun.engine.llama_server import RPC_FAILURE
from llm_localrun.engine.load_watch import PREPARATION
from llm_localrun.engine.state import EngineSettings, EngineSpec, EngineState
from llm_localrun.errors import BuildFailed, EngineFailed, Fault, LoadFailed
from llm_localrun.files.found import listed
from llm_localrun.gguf.files import parts_of
from llm_localrun.wire.shapes import template_error_in

OTHER_TEMPLATE = "give another template with -o chat_template FILE"
"""How to run a model whose own template fails."""
_GIVE_TEMPLATE = f"{OTHER_TEMPLATE[0].upper()}{OTHER_TEMPLATE[1:]}"
_NO_INSTRUCTION = "It needs a CPU with more instructions: use another build of llama.cpp"


def load_failed(
    spec: EngineSpec, state: EngineState | None, log: str, status: int, log_file: Path
) -> EngineFailed:
    """The error for a host that has ended with `status` while it loaded a model.

    `state` is None if it ended before it wrote that. `log_file` is where its log stays.
    """
    if state is not None and (known := _denied(state, log)):
        return known
    reason = build_logs.reason_in(log)
    number = programs.signal_of(status)
    faulty = faulty_part(state, log, number) if state else None
    # llama.cpp itself aborts on a failed assertion; other signals come from elsewhere.
    if number and not (reason and number == signal.SIGABRT):
        killed = f"killed (signal {number}: {signal.strsignal(number)})"
        problem = f"llama.cpp was {killed} while it loaded {title_of(spec)}"
        problem = "; ".join([problem, *change_of(spec)])
        advice = _NO_INSTRUCTION if number == signal.SIGILL else "Try again"
        error = EngineFailed(problem, f"{advice}. The log is {log_file}")
        crashed = f"llama.cpp crashed (signal {number})" * (number in build_logs.CRASHES)
        if state and not change_of(spec):
            error = blaming_build(error, state, faulty)
        return error.with_load_problem(lasting_problem(spec, crashed))
    reason = reason or f"the engine exited with status {status}"
    problem = f"llama.cpp cannot load {title_of(spec)}: {reason}"
    if said := template_error_in(log):
        return _template_failed(spec, said)
    if build_logs.blames_model(_without_paths(log, spec)):
        others = _others(spec.settings)
        first = f"Leave out {others}" if others else "Download the file again"
        error = LoadFailed(problem, f"{first}, or use a newer build of llama.cpp")
        lasting = f"llama.cpp cannot load it: {reason}"
        return error.with_load_problem(lasting_problem(spec, lasting))
    advice = f"{build_logs.remedy_for(reason)}. The log is {log_file}"
    error = EngineFailed(problem, advice)
    return blaming_build(error, state, faulty) if state else error


def _denied(state: EngineState, log: str) -> EngineFailed | None:
    """The error if llama.cpp got no memory or an RPC server failed; None for others."""
    if state.memory_limit and is_reached(log, has_gpu=state.has_gpu):
        return limit_reached(state.spec, state.memory_limit)
    if state.spec.settings.rpc and (lost := RPC_FAILURE.search(log.encode())):
        return _rpc_failed(lost["address"].decode(), (lost["version"] or b"").decode())
    return None


def _template_failed(spec: EngineSpec, said: str) -> EngineFailed:
    problem = f"llama.cpp cannot use the chat template for {spec.path}: {said}"
    remedy = f"{_GIVE_TEMPLATE}, or choose another model"
    return LoadFailed(problem, remedy).with_load_problem(f"its chat template fails: {said}")


def _rpc_failed(address: str, version: str) -> EngineFailed:
    """The error for an RPC server without which llama-server would have gone on."""
    problem = f"llama-server cannot use the RPC server {address}"
    problem += f", whose protocol has the version {version}" if version else ""
    remedy = "Run both from the same release of llama.cpp, or remove it from rpc in config.json"
    return EngineFailed(problem, remedy)


def faulty_part(state: EngineState, log: str, number: int = 0) -> tuple[Fault, str] | None:
    """Which part of the build an engine's log, or the signal that ended it, blames, and why."""
    found = build_logs.fault_in(_without_paths(log, state.spec, state.build_path), number)
    return found if found is None or found[0] is Fault.CPU or state.has_gpu else None


def _without_paths(log: str, spec: EngineSpec, *others: str) -> str:
    """A log without the paths of what was loaded, which may hold the name of a GPU's interface."""
    paths = {*map(str, parts_of(Path(spec.path))), spec.path, *spec.settings.files(), *others}
    for path in sorted(paths - {""}, key=len, reverse=True):
        log = log.replace(path, "")
    return log


def blaming_build(
    error: EngineFailed, state: EngineState, faulty: tuple[Fault, str] | None
) -> EngineFailed:
    """`error` as a `BuildFailed` if a part of the build is to blame.

    Not for a GPU that the user has asked for.
    """
    if faulty is None or (faulty[0] is not Fault.CPU and state.spec.settings.gpu_layers):
        return error
    failed = BuildFailed(error.problem, error.remedy)
    failed.build, failed.title = state.build_key, state.build
    failed.fault, failed.reason = faulty
    return failed


def change_of(spec: EngineSpec) -> list[str]:
    """What has become of the file that an engine runs, if that explains why it ended."""
    file = listed(spec.path)
    if file is None or file.size == spec.file_size:
        return []
    change = "was cut off" if file.size < spec.file_size else "has grown"
    return [f"meanwhile its file {change}, from {spec.file_size:,} to {file.size:,} bytes"]


def unfinished(spec: EngineSpec, problem: str) -> EngineFailed:
    remedy = f"{_GIVE_TEMPLATE}, or choose another model"
    lasting = f"llama.cpp did not finish: it ran {PREPARATION}"
    return EngineFailed(problem, remedy).with_load_problem(lasting)


def limit_reached(spec: EngineSpec, limit: int) -> EngineFailed:
    """The error for a model that made llama.cpp need more memory than it may take."""
    needed = f"needed more than the {limit / 1e9:.1f} GB of memory that this model may take"
    error = EngineFailed(
        f"llama.cpp {needed}: {title_of(spec)}",
        "Choose another model, or lift the limit with -o overcommit true",
    )
    return error.with_load_problem(lasting_problem(spec, f"llama.cpp {needed}"))


def _others(settings: EngineSettings) -> str:
    """What llama.cpp loads besides the model because the user said so, for messages; "" if none."""
    named = (("the adapter", settings.lora), ("the draft model", settings.draft_model))
    files = settings.files()
    return " and ".join(f"{what} {path}" for what, path in named if path in files)


def title_of(spec: EngineSpec) -> str:
    """The model, and what is loaded with it: a failure can be that of either."""
    others = _others(spec.settings)
    return f"{spec.path} with {others}" if others else spec.path


def lasting_problem(spec: EngineSpec, problem: str) -> str:
    """`problem` if it is that of the model's file; "" if it can be that of another file."""
    return "" if _others(spec.settings) else problem
