"""The engine's process: llama.cpp's server, from xllamacpp, over one GGUF file.

Started by `launch` without llm and without `site`, so that a cold start costs little; told what to
do in one line of JSON on stdin; answers one line on stdout when the model is loaded. It ends by
itself when its lease has run out, when its state file is gone, or on SIGTERM.
"""

import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from llm_localrun.engine import locks
from llm_localrun.engine.state import (
    EngineSettings,
    EngineSpec,
    EngineState,
    Paths,
    dump_state,
    open_private,
    read_lease,
    spec_from,
)

POLL_SECONDS = 0.5
_MAX_LOG_BYTES = 2**20
_BUSY = re.compile(r"^llamacpp:requests_(?:processing|deferred) (\d+)", re.MULTILINE)
_DONE = re.compile(r"^llamacpp:(?:prompt_tokens|tokens_predicted)_total (\d+)", re.MULTILINE)


def main() -> None:
    order = json.loads(sys.stdin.readline())
    paths = Paths(Path(order["folder"]), order["id"])
    answer = _redirect_output(paths.log)
    # Without it a failed assertion spends ten seconds in gdb (b11549).
    os.environ["GGML_NO_BACKTRACE"] = "1"
    sys.path.append(order["engine_path"])
    stop = threading.Event()
    _stop_on_signal(stop)

    begun = time.monotonic()
    from xllamacpp import xllamacpp

    spec = spec_from(order["spec"])
    server = xllamacpp.Server(_parameters(xllamacpp, spec, order["key"]))
    state = EngineState(
        id=order["id"],
        spec=spec,
        pid=os.getpid(),
        url=server.listening_address,
        key=order["key"],
        build=order["build"],
        started_at=time.time(),
        load_seconds=time.monotonic() - begun,
    )
    with open(paths.state, "xb", opener=open_private, buffering=0) as file:
        locks.try_lock(file)
        file.write(dump_state(state))
        _tell(answer, "ready")
        _serve(server, paths, stop)
        paths.remove()
        # Not sys.exit: a thread of llama.cpp may be in the middle of an answer.
        os._exit(0)


def _redirect_output(log: Path) -> int:
    """Sends what llama.cpp prints to `log`; returns what was stdout, for our answer."""
    answer = os.dup(1)
    descriptor = open_private(str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    return answer


def _stop_on_signal(stop: threading.Event) -> None:
    def handler(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _tell(answer: int, word: str) -> None:
    # Who started us may be gone; the next command will find us loaded.
    with contextlib.suppress(BrokenPipeError):
        os.write(answer, f"{word}\n".encode())
    os.close(answer)


def _parameters(xllamacpp: Any, spec: EngineSpec, key: str) -> Any:
    """llama.cpp's parameters. Which of them abort it, and why these: see CONTRIBUTING.md."""
    devices = xllamacpp.get_device_info()
    cpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    p = xllamacpp.CommonParams()
    p.model.path = spec.path
    p.model_alias = {spec.name}
    p.n_ctx = spec.context_size
    # Fitting layers to GPU memory loads the model twice: a waste where there is no GPU.
    p.fit_params = any(device["type"] != cpu for device in devices)
    p.n_batch = 512
    p.n_parallel = 4
    p.kv_unified = True
    # Another conversation takes another slot, and leaves the first one's prefix alone.
    p.slot_prompt_similarity = 0.5
    p.cache_ram_mib = 512
    p.verbosity = 1
    p.hostnames = ["127.0.0.1"]
    p.api_keys = [key]
    p.cors_origins = ""
    p.ui = False
    p.endpoint_metrics = True
    _apply(xllamacpp, p, spec.settings)
    return p


def _apply(xllamacpp: Any, p: Any, settings: EngineSettings) -> None:
    """Sets what the user, or the model's files, have settled."""
    if settings.threads is not None:
        p.cpuparams.n_threads = settings.threads
        p.cpuparams_batch.n_threads = settings.threads
    if settings.gpu_layers is not None:
        p.n_gpu_layers = settings.gpu_layers
    if settings.kv_cache_type is not None:
        cache_type = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{settings.kv_cache_type.upper()}")
        p.cache_type_k = p.cache_type_v = cache_type
    if settings.flash_attention is not None:
        switch = "ENABLED" if settings.flash_attention else "DISABLED"
        kinds = xllamacpp.llama_flash_attn_type
        p.flash_attn_type = getattr(kinds, f"LLAMA_FLASH_ATTN_TYPE_{switch}")
    if settings.projector:
        p.mmproj.path = settings.projector
    if settings.chat_template:
        p.chat_template = settings.chat_template
    if settings.lora:
        p.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(settings.lora, 1.0)]
    if settings.draft_model:
        p.speculative.draft.mparams.path = settings.draft_model
        # The path alone is ignored (b11549).
        p.speculative.types = [
            xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE
        ]
    if settings.embedding:
        p.embedding = True
        # An input to be embedded is one batch: there is no other way to pool over it.
        p.n_batch = p.n_ubatch = p.n_ctx


def _serve(server: Any, paths: Paths, stop: threading.Event) -> None:
    """Returns when the engine should end."""
    done_before, used_at = 0, time.time()
    while not stop.wait(POLL_SECONDS):
        metrics = server.handle_metrics()
        busy = sum(map(int, _BUSY.findall(metrics)))
        done = sum(map(int, _DONE.findall(metrics)))
        if busy or done != done_before:
            done_before, used_at = done, time.time()
        lease = read_lease(paths)
        if lease is None or not paths.state.exists():
            return
        if not busy and time.time() > max(lease.until, used_at + lease.keep_alive):
            return
        _bound(paths.log)


def _bound(log: Path) -> None:
    try:
        if log.stat().st_size > _MAX_LOG_BYTES:
            os.truncate(log, 0)
    except OSError:
        return
