"""Runs llama.cpp's server as a child process of the host: the program `llama-server`.

The child gets a terminal of its own, whose other end the host holds. However the host ends, the
system then hangs up on the child, which ends it. No other way works on Linux, macOS and the BSDs;
on Windows a job object does it (`windows_job`). When the server ends is decided in `host`.

Imports only the standard library: the engine's host process uses this module.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llm_localrun import engine_defaults
from llm_localrun.engine import limits, windows_job
from llm_localrun.engine.state import (
    AUTO,
    GUESSED,
    NGRAM,
    REPEATED,
    EnginePaths,
    EngineSettings,
    HostInstructions,
    ending,
)

if TYPE_CHECKING:
    import subprocess

_LISTENING = re.compile(rb"listening on (http://127\.0\.0\.1:\d+)")
RPC_FAILURE = re.compile(
    rb"^(?:[\d.]+ E RPC server version mismatch: (?P<version>[\d.]{1,20})\n)?"
    rb"[\d.]+ E Failed to connect to (?P<address>\S{1,300})$",
    re.MULTILINE,
)
"""In the log of a llama-server that goes on without an RPC server (b10434)."""
_LOG_TAIL_BYTES = 2**12
_POLL_INTERVAL_S = 0.01


@dataclass(frozen=True, slots=True)
class LlamaServerProcess:
    """A running llama-server."""

    url: str
    pid: int
    _terminal: int

    def has_ended(self) -> bool:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid and os.WIFSIGNALED(status):
            reason = f"llama-server was killed: {signal.strsignal(os.WTERMSIG(status))}"
            os.write(2, ending(reason))
        return pid != 0

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class WindowsLlamaServer:
    """A running llama-server on Windows."""

    url: str
    _process: "subprocess.Popen[bytes]"
    _job: int

    @property
    def pid(self) -> int:
        return self._process.pid

    def has_ended(self) -> bool:
        code = self._process.poll()
        number = windows_job.shell_status(code or 0) - 128
        if number in (signal.SIGILL, signal.SIGSEGV):
            os.write(2, ending(f"llama-server was killed: {signal.strsignal(number)}"))
        return code is not None

    def end(self) -> None:
        self._process.kill()


def start(
    instructions: HostInstructions,
    paths: EnginePaths,
    watch: Callable[[int], AbstractContextManager[None]],
) -> LlamaServerProcess | WindowsLlamaServer:
    """Starts llama-server and waits until it listens, while `watch` watches its process.

    If it ends before, so does this process, with the status that a shell would report; the reason
    is in the log.
    """
    arguments = [instructions.llama_server, *_arguments(instructions, paths)]
    # Every user of the machine can read arguments, so the key is in the environment.
    environment = {**neutral_environment(), "LLAMA_API_KEY": instructions.key}
    if sys.platform == "win32":
        return start_on_windows(instructions, paths, arguments, environment)
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        # The driver of a GPU reserves address space, even if it is not used.
        if not (instructions.has_gpu or instructions.ignores_gpu):
            limits.limit_data(instructions, is_final=True)
        _exec(arguments, environment, paths.log)
    kill = LlamaServerProcess("", pid, terminal).end
    with watch(pid):
        url = _listening_url(instructions, paths, partial(exit_status, pid), kill)
    return LlamaServerProcess(url, pid, terminal)


def exit_status(pid: int) -> int | None:
    """How a child has ended, as a shell would report it, never 0; None if it runs."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    code = os.waitstatus_to_exitcode(status) if ended else 0
    return (128 - code if code < 0 else code or 1) if ended else None


def start_on_windows(
    instructions: HostInstructions,
    paths: EnginePaths,
    arguments: list[str],
    environment: dict[str, str],
) -> WindowsLlamaServer:
    """`start` where processes have jobs instead of terminals. There is no watcher."""
    import subprocess

    with paths.log.open("ab") as log:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
    try:
        job = windows_job.tie(int(process._handle))  # type: ignore[attr-defined]
    except OSError as error:
        process.kill()
        os.write(2, f"OSError: {error.strerror} (error {error.errno})\n".encode())
        raise SystemExit(1) from None

    def status() -> int | None:
        code = process.poll()
        return None if code is None else windows_job.shell_status(code) or 1

    url = _listening_url(instructions, paths, status, process.kill)
    return WindowsLlamaServer(url, process, job)


def _listening_url(
    instructions: HostInstructions,
    paths: EnginePaths,
    exit_status: Callable[[], int | None],
    kill: Callable[[], None],
) -> str:
    """The URL that llama-server logs when it listens. If it ends before, so does this process."""
    log, rpc = b"", instructions.spec.settings.rpc
    with paths.log.open("rb") as file:
        while (status := exit_status()) is None:
            # All of it again would take long if it grows without end.
            log = log[-_LOG_TAIL_BYTES:] + file.read()
            if rpc and RPC_FAILURE.search(log):
                kill()
                raise SystemExit(1)
            if match := _LISTENING.search(log):
                return match[1].decode()
            time.sleep(_POLL_INTERVAL_S)
    raise SystemExit(status)


def _exec(arguments: list[str], environment: dict[str, str], log: Path) -> None:
    """Replaces this process with llama-server. Its standard input stays the terminal."""
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(arguments[0], arguments, environment)
    except OSError as error:
        os.write(2, f"OSError: {arguments[0]} cannot be started: {error.strerror}\n".encode())
    os._exit(127)


def neutral_environment() -> dict[str, str]:
    """This process's environment without the variables that llama-server reads as arguments."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("LLAMA_", "AIP_"))
    }
    # Otherwise a failed assertion spends ten seconds in gdb.
    return {**kept, "GGML_NO_BACKTRACE": "1"}


def _arguments(instructions: HostInstructions, paths: EnginePaths) -> list[str]:
    """The settings of `xllamacpp` as arguments, except those that are llama-server's defaults."""
    spec = instructions.spec
    embedding = spec.settings.embedding
    batch = spec.context_size if embedding else engine_defaults.BATCH_SIZE
    arguments = {
        "--model": spec.path,
        "--alias": spec.name,
        "--ctx-size": spec.context_size,
        "--fit": _on_off(instructions.has_gpu),
        "--batch-size": batch,
        "--parallel": engine_defaults.SLOTS,
        "--slot-prompt-similarity": engine_defaults.SLOT_SIMILARITY,
        "--cache-ram": engine_defaults.PREFIX_CACHE_MIB,
        "--ctx-checkpoints": instructions.checkpoints,
        "--host": "127.0.0.1",
        "--port": 0,
        "--verbosity": engine_defaults.VERBOSITY,
        **{_sampling_flag(name): value for name, value in engine_defaults.SAMPLING.items()},
        **_chosen_arguments(spec.settings),
    }
    if folder := instructions.prompt_folder(paths):
        arguments["--slot-save-path"] = folder
    if embedding:
        arguments["--ubatch-size"] = batch
    if instructions.ignores_gpu:
        arguments["--device"] = "none"
        arguments |= {"--device-draft": "none"} if "--model-draft" in arguments else {}
    switches = ["--kv-unified", "--no-cache-idle-slots", "--no-webui", "--offline"]
    if not spec.settings.needs_jinja:
        switches.append("--no-jinja")
    named = [text for name, value in arguments.items() for text in (name, str(value))]
    return [*named, *switches, *(["--embedding"] if embedding else [])]


def _chosen_arguments(settings: EngineSettings) -> dict[str, object]:
    """The arguments for settings that come from the user or the model's files."""
    given: dict[str, object] = {
        "--threads": settings.threads,
        "--n-gpu-layers": settings.gpu_layers,
        "--cache-type-k": settings.kv_cache_type,
        "--cache-type-v": settings.kv_cache_type,
        "--mmproj": settings.projector or None,
        "--chat-template": settings.chat_template or None,
        "--lora": settings.lora or None,
        "--rpc": settings.rpc or None,
    }
    if settings.flash_attention is not None:
        given["--flash-attn"] = _on_off(settings.flash_attention)
    if settings.draft_model == NGRAM:
        given["--spec-type"] = "ngram-mod"
    elif settings.draft_model == AUTO:
        given |= {"--spec-type": "ngram-simple", "--spec-ngram-simple-size-n": REPEATED}
        given["--spec-ngram-simple-size-m"] = GUESSED
    elif settings.draft_model:
        given |= {"--model-draft": settings.draft_model, "--spec-type": "draft-simple"}
    return {name: value for name, value in given.items() if value is not None}


def _sampling_flag(name: str) -> str:
    """The flag for a setting of `engine_defaults.SAMPLING`."""
    changed = {"penalty_repeat": "repeat-penalty", "penalty_last_n": "repeat-last-n"}
    return f"--{changed.get(name, name).replace('_', '-')}"


def _on_off(is_on: bool) -> str:
    return "on" if is_on else "off"
