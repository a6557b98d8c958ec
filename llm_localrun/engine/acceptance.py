"""Whether a build of llama.cpp runs on this machine: its version, its devices, one measured answer.

A build for GPUs that finds none starts all the same, on the CPU, so it has to list one. Builds load
their part for the GPU when they start, and say nothing if that fails; then it is loaded here to
learn what is missing (llama.cpp, ggml-backend-reg.cpp; b10434). The answer is that of a server with
the engine's own arguments, so a build that does not know them fails as well.

The answer takes as long as it makes progress: llvmpipe (Mesa 22.3) compiles shaders for 44 s in
silence. Where the build comes from is left to `pull.install`, what is missing to `libraries`.
"""

import contextlib
import http.client
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from llm_localrun.engine import hardware, llama_server, programs
from llm_localrun.engine.build_logs import blames_model, reason_in
from llm_localrun.engine.build_probe import (
    GRACE_S,
    Unusable,
    devices_in,
    lack_of,
    output_of,
    version_of,
)
from llm_localrun.engine.installed import Backend
from llm_localrun.engine.libraries import OTHER_BUILD, Lack, lack_in
from llm_localrun.engine.load_watch import size_of
from llm_localrun.engine.state import (
    EnginePaths,
    EngineSettings,
    EngineSpec,
    HostInstructions,
    new_id,
)
from llm_localrun.errors import InstallFailed
from llm_localrun.system.paths import builds_folder

_ALL_LAYERS = 99
_PROMPT = "The sky is blue because"
_TOKENS = 16
_ABORTED = 128 + signal.SIGABRT
_CONTEXT_SIZE = 512
_SPARE_BYTES = 2 * 2**30
"""What an engine takes at most besides three times the size of its model's file."""
_END_TIMEOUT_S = 2.0
_LOG_TAIL_BYTES = 2**16
_GPU_PARTS = {
    Backend.VULKAN: "vulkan",
    Backend.CUDA: "cuda",
    Backend.ROCM: "hip",
    Backend.METAL: "metal",
}
"""In the names of llama.cpp's libraries."""
_LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"


class ModelRefused(InstallFailed):
    """A build says that it cannot load the model that it is tried with."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a build that runs here has shown."""

    version: str
    devices: tuple[str, ...]
    """Titles of GPUs."""
    tokens_per_second: float | None
    """Of an answer; None if there is no model to measure it with."""


def accept(program: Path, backend: Backend, model: Path | None) -> Accepted:
    """Tries the llama-server `program`. `model` is a GGUF file to answer with.

    Raises `InstallFailed` with what is missing, and the package to install; `ModelRefused` if it
    may load other models.
    """
    try:
        version = version_of(str(program), GRACE_S)
        devices = _devices(program, backend) if backend.has_gpu else ()
    except Unusable as error:
        raise _failed(error.lack) from None
    speed = None
    if model is not None:
        # On the disk of builds, whose free space is known. What is left there is removed.
        place = builds_folder() / ".partial"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place) as folder:
            speed = _Trial(program, backend, model, Path(folder)).measure()
    return Accepted(version, devices, speed)


def _devices(program: Path, backend: Backend) -> tuple[str, ...]:
    """The titles of the GPUs that a build finds. Raises `Unusable`, also if it finds none."""
    output = output_of(str(program), "--list-devices", grace=GRACE_S)
    if found := tuple(device.title for device, _ in devices_in(output)):
        return found
    if lack := lack_in(output) or _lack_of_part(program, backend):
        raise Unusable(lack)
    remedy = hardware.suggest(hardware.detect()).missing or OTHER_BUILD
    raise Unusable(Lack("it finds no GPU that it can use", remedy))


def _lack_of_part(program: Path, backend: Backend) -> Lack | None:
    """What is missing for the part of a build that uses the GPU."""
    for part in program.parent.glob(f"libggml-{_GPU_PARTS[backend]}.*"):
        # In a process of its own: it runs the code of a driver.
        command = (sys.executable, "-I", "-S", "-c", _LOAD, str(part))
        if lack := lack_in(programs.run(*command, grace=GRACE_S).output):
            return lack
    return None


def _failed(lack: Lack) -> InstallFailed:
    return InstallFailed(f"This build of llama.cpp does not run here: {lack.problem}", lack.remedy)


class _Trial:
    """One answer of a build, by a server that ends with it."""

    def __init__(self, program: Path, backend: Backend, model: Path, folder: Path) -> None:
        self._paths = EnginePaths(folder, new_id(os.getpid()))
        self._paths.log.touch()
        size, has_gpu = model.stat().st_size, backend.has_gpu
        settings = EngineSettings(
            context_size=_CONTEXT_SIZE, gpu_layers=_ALL_LAYERS if has_gpu else None
        )
        self._instructions = HostInstructions(
            folder=str(folder),
            spec=EngineSpec(str(model), model.stem, size, model.stat().st_mtime, settings),
            key=secrets.token_urlsafe(32),
            build="",
            llama_server=str(program),
            xllamacpp="",
            has_gpu=has_gpu,
            load_grace=GRACE_S,
            keep_alive=0,
            prompt_bytes=0,
            memory_limit=3 * size + _SPARE_BYTES,
            mapped_bytes=size,
        )
        self._pid = 0
        self._watch: programs.ChildWatch | None = None

    def measure(self) -> float:
        """Tokens per second. Raises `InstallFailed`."""
        with ExitStack() as stack:
            try:
                start = partial(llama_server.start, self._instructions, self._paths)
                server = start(partial(self._watched, stack))
                if not self._pid:
                    # On Windows, nothing is watched while it loads.
                    self._guard(stack, server.pid)
                return self._ask(server.url)
            except SystemExit as ended:
                status = ended.code if isinstance(ended.code, int) else 1
            except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
                status = _status_of(self._pid)
            raise self._failed(status)

    @contextmanager
    def _watched(self, stack: ExitStack, pid: int) -> Iterator[None]:
        self._guard(stack, pid)
        yield

    def _guard(self, stack: ExitStack, pid: int) -> None:
        """Watches the server until `stack` ends, and then ends it."""
        self._pid = pid
        stack.callback(_end, pid)
        limit = self._instructions.memory_limit
        self._watch = programs.ChildWatch(
            pid, lambda: size_of(self._paths.log), GRACE_S, memory_limit=limit
        )
        stack.enter_context(self._watch)

    def _ask(self, url: str) -> float:
        body = {
            "prompt": _PROMPT,
            "n_predict": _TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": False,
        }
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {self._instructions.key}",
        }
        address = urlsplit(url)
        # No timeout: a server that makes no progress is ended, and then this fails.
        connection = http.client.HTTPConnection(address.hostname or "", address.port)
        with contextlib.closing(connection):
            connection.request("POST", "/completion", json.dumps(body), headers)
            reply = json.loads(connection.getresponse().read())
        return float(reply["timings"]["predicted_per_second"])

    def _failed(self, status: int) -> InstallFailed:
        """The error for a server that has ended with `status`, or 0 if it goes on."""
        with self._paths.log.open("rb") as file:
            file.seek(max(0, size_of(self._paths.log) - _LOG_TAIL_BYTES))
            log = file.read().decode("utf-8", "replace")
        if self._watch and self._watch.stalled:
            return _failed(Lack(f"it {self._watch.stalled}", OTHER_BUILD))
        if not status:
            return _failed(Lack("it did not answer a prompt", OTHER_BUILD))
        model = self._instructions.spec.path
        # What ends by another signal says nothing about the model; llama.cpp itself aborts.
        reason = reason_in(log).rstrip(".")
        if reason and (status < 128 or status == _ABORTED) and blames_model(log.replace(model, "")):
            return ModelRefused(f"llama.cpp cannot load {model}: {reason}", "Choose another model")
        return _failed(lack_of(log, status))


def _status_of(pid: int) -> int:
    """How a child has ended, as a shell would say it; 0 if it has not, or the system cannot tell.

    It may take a moment to end after it has closed a connection.
    """
    for _ in range(round(_END_TIMEOUT_S / 0.05)):
        try:
            status = llama_server.exit_status(pid)
        except (OSError, AttributeError):
            return 0
        if status is not None:
            return status
        time.sleep(0.05)
    return 0


def _end(pid: int) -> None:
    """Ends a child, and waits for its end unless the kernel does not let it end."""
    with contextlib.suppress(OSError):
        os.kill(pid, programs.KILL)
    _status_of(pid)
