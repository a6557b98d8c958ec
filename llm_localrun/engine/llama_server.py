"""llama.cpp's server as a child of the host: the program `llama-server`.

It gets a terminal of its own, of which the host holds the other end. So the system hangs up on it,
and thereby ends it, however the host dies: there is no other way to have that on Linux, macOS and
the BSDs alike. Imports nothing but the standard library.
"""

import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from llm_localrun import engine_defaults
from llm_localrun.engine.state import NGRAM, EngineSettings, Order, Paths

_LISTENS = re.compile(rb"listening on (http://127\.0\.0\.1:\d+)")
_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Child:
    """A running llama-server."""

    url: str
    pid: int
    _terminal: int

    def has_ended(self) -> bool:
        return os.waitpid(self.pid, os.WNOHANG) != (0, 0)

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def start(order: Order, paths: Paths) -> Child:
    """A llama-server as it is ordered. Ends this process if it ends, with the reason in the log."""
    import pty

    arguments = [order.llama_server, *_arguments(order, paths)]
    # The key is no argument: those can be read by every user of the machine.
    environment = {**_neutral_environment(), "LLAMA_API_KEY": order.key}
    pid, terminal = pty.fork()
    if pid == 0:
        _become(arguments, environment, paths.log)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if listens := _LISTENS.search(paths.log.read_bytes()):
            return Child(listens[1].decode(), pid, terminal)
        time.sleep(_POLL_SECONDS)
    raise SystemExit(1)


def _become(arguments: list[str], environment: dict[str, str], log: Path) -> None:
    """Turns this process into llama-server; standard input stays the terminal it hangs on."""
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


def _neutral_environment() -> dict[str, str]:
    """This process's environment without what llama-server would take for arguments."""
    meant_for_it = ("LLAMA_", "AIP_")
    return {name: text for name, text in os.environ.items() if not name.startswith(meant_for_it)}


def _arguments(order: Order, paths: Paths) -> list[str]:
    """The same as `inside` sets; what is left out has that as its default."""
    spec = order.spec
    embedding = spec.settings.embedding
    batch = spec.context_size if embedding else engine_defaults.BATCH
    arguments = {
        "--model": spec.path,
        "--alias": spec.name,
        "--ctx-size": spec.context_size,
        "--fit": _switch(order.has_gpu),
        "--batch-size": batch,
        "--parallel": engine_defaults.SEATS,
        "--slot-prompt-similarity": engine_defaults.SIMILARITY,
        "--cache-ram": engine_defaults.CACHE_MIB,
        "--host": "127.0.0.1",
        "--port": 0,
        **_settings(spec.settings),
    }
    if folder := order.prompt_folder(paths):
        arguments["--slot-save-path"] = folder
    if embedding:
        arguments["--ubatch-size"] = batch
    switches = ("--kv-unified", "--no-cache-idle-slots", "--no-webui", "--offline")
    named = [text for name, value in arguments.items() for text in (name, str(value))]
    return [*named, *switches, *(["--embedding"] if embedding else [])]


def _settings(settings: EngineSettings) -> dict[str, object]:
    """The arguments for what the user, or the model's files, have settled."""
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
        given["--flash-attn"] = _switch(settings.flash_attention)
    if settings.draft_model == NGRAM:
        given["--spec-type"] = "ngram-mod"
    elif settings.draft_model:
        given |= {"--model-draft": settings.draft_model, "--spec-type": "draft-simple"}
    return {name: value for name, value in given.items() if value is not None}


def _switch(is_on: bool) -> str:
    return "on" if is_on else "off"
