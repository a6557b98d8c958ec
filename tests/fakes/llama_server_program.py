"""`llama-server` for machines that have none: its command line, and xllamacpp behind it.

Of llama.cpp b11434's program this is what concerns a host: the arguments that it knows and that it
refuses others, its environment variable for the key, what it prints to --help, --version and
--list-devices, and the lines of its log about an error and about where it listens. The server
behind it is the same C++, so requests and slots are the real ones.

The variable STAND_IN_LOAD names one of `LOADS`, which happens before the server loads its model.
If STAND_IN_RPC is set, the program has --rpc too: it greets the RPC servers, and goes on without
those that do not answer or have another version, as b10434 does. It gives them no work.
"""

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

HELP = """\
----- common params -----

-h,    --help, --usage                  print usage and exit
--version                               show version and build info
-t,    --threads N                      number of CPU threads to use during generation (default: -1)
-lv,   --verbosity, --log-verbosity N   Set the verbosity threshold.
-c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from model)
-b,    --batch-size N                   logical maximum batch size (default: 2048)
-ub,   --ubatch-size N                  physical maximum batch size (default: 512)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto', default: 'auto')
-ctk,  --cache-type-k TYPE              KV cache data type for K
-ctv,  --cache-type-v TYPE              KV cache data type for V
--list-devices                          print list of available devices and exit
-dev,  --device <dev1,dev2,..>          comma-separated list of devices to use for offloading (none = don't
                                        offload)
--spec-draft-device, -devd, --device-draft <dev1,dev2,..>
                                        comma-separated list of devices to use for offloading the draft model
-ngl,  --gpu-layers, --n-gpu-layers N   max. number of layers to store in VRAM
-fit,  --fit [on|off]                   whether to adjust unset arguments to fit in device memory
--lora FNAME                            path to LoRA adapter
-m,    --model FNAME                    model path to load
--offline                               Offline mode: forces use of cache, prevents network access
--spec-draft-model, -md, --model-draft FNAME
                                        draft model for speculative decoding (default: unused)
--spec-type none,draft-simple,draft-eagle3,draft-mtp,draft-dflash,draft-dspark,ngram-simple,ngram-map-k,ngram-map-k4v,ngram-mod,ngram-cache
                                        comma-separated list of types of speculative decoding to use
--spec-ngram-simple-size-n N            ngram size N for ngram-simple speculative decoding, length of lookup
--spec-ngram-simple-size-m N            ngram size M for ngram-simple speculative decoding, length of draft
-ctxcp, --ctx-checkpoints, --swa-checkpoints N
                                        max number of context checkpoints to create per slot (default: 32)
-cram, --cache-ram N                    set the maximum cache size in MiB (default: 8192)
-kvu,  --kv-unified, -no-kvu, --no-kv-unified
                                        use single unified KV buffer shared across all sequences
--cache-idle-slots, --no-cache-idle-slots
                                        save idle slots to the prompt cache on new task
-np,   --parallel N                     number of server slots (default: -1, -1 = auto)
-mm,   --mmproj FILE                    path to a multimodal projector file
-a,    --alias STRING                   set model name aliases, comma-separated (to be used by API)
--host HOST                             ip address to listen (default: 127.0.0.1)
--port PORT                             port to listen (default: 8080)
--ui,  --webui, --no-ui, --no-webui     whether to enable the Web UI (default: enabled)
--embedding, --embeddings               restrict to only support embedding use case
--api-key KEY                           API key to use for authentication
                                        (env: LLAMA_API_KEY)
--slot-save-path PATH                   path to save slot kv cache (default: disabled)
--temp, --temperature N                 temperature (default: 0.80)
--top-k N                               top-k sampling (default: 40, 0 = disabled)
--top-p N                               top-p sampling (default: 0.95, 1.0 = disabled)
--min-p N                               min-p sampling (default: 0.05, 0.0 = disabled)
--repeat-penalty N                      penalize repeat sequence of tokens (default: 1.00, 1.0 = disabled)
--repeat-last-n N                       last n tokens to consider for penalize (default: 64, 0 = disabled, -1 = ctx_size)
--mirostat N                            use Mirostat sampling.
-sps,  --slot-prompt-similarity SIMILARITY
                                        how much the prompt of a request must match the prompt of a slot
"""  # noqa: E501

SAMPLING = {
    "temp": float,
    "top-k": int,
    "top-p": float,
    "min-p": float,
    "repeat-penalty": float,
    "repeat-last-n": int,
    "mirostat": int,
}


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        sys.stderr.write(f"error: invalid argument: {unknown}\n")
        raise SystemExit(1)


def _arguments() -> argparse.Namespace:
    known = _Arguments(add_help=False, allow_abbrev=False)
    for name in ("model", "alias", "host", "slot-save-path", "mmproj", "lora", "model-draft"):
        known.add_argument(f"--{name}", default="")
    numbers = (
        "ctx-size",
        "batch-size",
        "ubatch-size",
        "parallel",
        "cache-ram",
        "ctx-checkpoints",
        "port",
    )
    for name in (*numbers, "verbosity"):
        known.add_argument(f"--{name}", type=int, required=name != "ubatch-size")
    for name in ("device", "device-draft"):
        known.add_argument(f"--{name}", default="")
    for name in ("threads", "n-gpu-layers"):
        known.add_argument(f"--{name}", type=int)
    for name in ("fit", "flash-attn"):
        known.add_argument(f"--{name}", choices=("on", "off", "auto"), default="auto")
    for name in ("cache-type-k", "cache-type-v"):
        known.add_argument(f"--{name}", default="f16")
    known.add_argument("--spec-type", default="none")
    for name, default in (("n", 12), ("m", 48)):
        known.add_argument(f"--spec-ngram-simple-size-{name}", type=int, default=default)
    if "STAND_IN_RPC" in os.environ:
        known.add_argument("--rpc", default="")
    for name, kind in SAMPLING.items():
        known.add_argument(f"--{name}", type=kind, required=True)
    known.add_argument("--slot-prompt-similarity", type=float, default=0.1)
    for name in ("kv-unified", "no-cache-idle-slots", "no-webui", "offline", "embedding"):
        known.add_argument(f"--{name}", action="store_true")
    return known.parse_args()


def main() -> None:
    if "--help" in sys.argv:
        sys.stdout.write(HELP)
        if "STAND_IN_RPC" in os.environ:
            sys.stdout.write("--rpc SERVERS      comma-separated list of RPC servers (host:port)\n")
    elif "--version" in sys.argv:
        sys.stderr.write("version: 0.6.0-dev (build 11434, commit abcdef0)\n")
        sys.stderr.write("built with GNU 12.2.0 for Linux x86_64\n")
    elif "--list-devices" in sys.argv:
        devices = os.environ.get("STAND_IN_DEVICES", "  (none)")
        sys.stdout.write(f"Available devices:\n{devices}\n")
    else:
        _serve(_arguments())


_LOAD_S = 1.5
_STEP_S = 0.05
_TOKENIZER = "llama_model_loader: loaded meta data with 33 key-value pairs and 272 tensors"
_TENSORS = "load_tensors: loading model tensors, this can take a while... (load_mode = mmap)"
_TEMPLATE = "srv    load_model: initializing, n_slots = 4, n_ctx_slot = 512, kv_unified = 'true'"


def _log(line: str, level: str = "I") -> None:
    sys.stderr.write(f"0.00.003.544 {level} {line}\n")
    sys.stderr.flush()


def _repeat(step: Callable[[], object]) -> None:
    """Repeats `step`, which uses nearly no CPU time, as long as a slow load takes."""
    for _ in range(round(_LOAD_S / _STEP_S)):
        step()
        time.sleep(_STEP_S)


def _compute(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def _read_zeros(count: int) -> bytes:
    with Path("/dev/zero").open("rb", buffering=0) as file:
        return file.read(count)


def _fail(line: str, end: Callable[[], object] = lambda: os._exit(1)) -> None:
    _log(line, "E")
    end()


def _given(argument: str) -> str:
    return sys.argv[sys.argv.index(argument) + 1]


def _after(*lines: str, then: Callable[[], object]) -> Callable[[], object]:
    def load() -> None:
        _log("srv    load_model: loading model 'x'")
        for line in lines:
            _log(line)
        then()

    return load


LOADS: dict[str, Callable[[], object]] = {
    "at once": lambda: None,
    "logs": _after(_TOKENIZER, then=lambda: _repeat(lambda: _log("load: control token"))),
    "reads": _after(_TOKENIZER, then=lambda: _repeat(lambda: _read_zeros(1))),
    "reads tensors": _after(_TENSORS, then=lambda: _repeat(lambda: _read_zeros(4_000_000))),
    "compiles": _after(_TOKENIZER, _TENSORS, then=lambda: _compute(_LOAD_S)),
    "silent": _after(_TOKENIZER, _TENSORS, then=signal.pause),
    "tokenizer": _after(_TOKENIZER, then=lambda: _compute(60)),
    "draft model's tokenizer": _after(_TOKENIZER, _TENSORS, _TOKENIZER, then=lambda: _compute(60)),
    "template": _after(_TOKENIZER, _TENSORS, _TEMPLATE, then=lambda: _compute(60)),
    "template that logs": _after(_TEMPLATE, _TENSORS, then=lambda: _compute(60)),
    "killed": _after(_TENSORS, then=lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "crashes": _after(_TENSORS, then=lambda: os.kill(os.getpid(), signal.SIGSEGV)),
    "lacks an instruction": _after(_TENSORS, then=lambda: os.kill(os.getpid(), signal.SIGILL)),
    "exits": _after(_TENSORS, then=lambda: os._exit(3)),
    "no memory": _after(then=lambda: _fail("ggml_aligned_malloc: insufficient memory")),
    "no memory of a GPU": _after(then=lambda: _fail("alloc: cudaMalloc failed: out of memory")),
    "lost device": _after(then=lambda: _fail("CUDA error: device lost", os.abort)),
    "offloads": _after("load_tensors: offloaded 20/31 layers to GPU", then=lambda: None),
    "bad adapter": _after(then=lambda: _fail("cmn  common_init_: failed to load lora adapter 'x'")),
    "bad adapter, named": _after(
        then=lambda: _fail(f"cmn  common_init_: failed to load lora adapter '{_given('--lora')}'")
    ),
    "bad tensor": _after(
        then=lambda: _fail("llama_model_load: error loading model: missing tensor", os.abort)
    ),
    "never begins": lambda: sys.exit("error: no backends"),
}
"""What a load may do. Those that succeed take longer than a second and use little CPU time, except
for the one that compiles shaders."""


def _connect(address: str) -> socket.socket | None:
    """A connection to an RPC server, which serves nobody else meanwhile."""
    host, _, port = address.rpartition(":")
    try:
        connection = socket.create_connection((host, int(port)))
        connection.sendall(b"\x0e" + (24).to_bytes(8, "little") + bytes(24))
        version = connection.recv(64)[8:11]
    except OSError:
        version = b""
    if version == b"\5\0\0":
        return connection
    if version:
        sys.stderr.write(
            f"0.00.169.112 E RPC server version mismatch: {'.'.join(map(str, version))}\n"
        )
    sys.stderr.write(f"0.00.169.292 E Failed to connect to {address}\n")
    sys.stderr.flush()
    return None


_WORD = b'data: {"choices": [{"index": 0, "delta": {"content": "A"}}]}\n\n'


def _lose_device(begun: bytes = b"") -> NoReturn:
    """Listens, and crashes as soon as a prompt has come, after the answer has `begun`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _log(f"srv  llama_server: listening on http://127.0.0.1:{listener.getsockname()[1]}")
        connection, _ = listener.accept()
        connection.recv(2**16)
        connection.sendall(begun)
        if begun:
            # The client has read it before the connection breaks.
            time.sleep(0.5)
        _fail("ggml_cuda: CUDA error: device lost", os.abort)
    raise SystemExit(1)


LOADS["loses device later"] = _lose_device
LOADS["loses device while it answers"] = lambda: _lose_device(
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + _WORD
)


def _serve(given: argparse.Namespace) -> None:
    from xllamacpp import xllamacpp

    connections = [_connect(each) for each in getattr(given, "rpc", "").split(",") if each]
    LOADS[os.environ.get("STAND_IN_LOAD", "at once")]()
    server = xllamacpp.Server(_parameters(xllamacpp, given))
    listens = f"0.00.117.373 I srv  llama_server: listening on {server.listening_address}\n"
    sys.stderr.write(listens)
    sys.stderr.flush()
    # The system's own way with signals is as good as the original's, and the same for SIGHUP.
    signal.pause()
    del connections


def _parameters(xllamacpp: Any, given: argparse.Namespace) -> Any:
    p = xllamacpp.CommonParams()
    p.model.path = given.model
    p.model_alias = {given.alias}
    p.n_ctx, p.n_batch, p.n_parallel = given.ctx_size, given.batch_size, given.parallel
    p.n_ubatch = given.ubatch_size or p.n_ubatch
    p.fit_params = given.fit != "off"
    p.kv_unified, p.cache_idle_slots = given.kv_unified, not given.no_cache_idle_slots
    p.slot_prompt_similarity, p.cache_ram_mib = given.slot_prompt_similarity, given.cache_ram
    p.n_ctx_checkpoints = given.ctx_checkpoints
    p.slot_save_path = given.slot_save_path
    p.hostnames, p.port = [given.host], given.port
    p.api_keys = [os.environ["LLAMA_API_KEY"]]
    p.verbosity = given.verbosity
    p.ui, p.embedding = not given.no_webui, given.embedding
    for cpu in (p.cpuparams, p.cpuparams_batch):
        cpu.n_threads = given.threads or cpu.n_threads
    p.n_gpu_layers = p.n_gpu_layers if given.n_gpu_layers is None else given.n_gpu_layers
    p.cache_type_k, p.cache_type_v = (
        getattr(xllamacpp.ggml_type, f"GGML_TYPE_{name.upper()}")
        for name in (given.cache_type_k, given.cache_type_v)
    )
    attention = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}[given.flash_attn]
    p.flash_attn_type = xllamacpp.llama_flash_attn_type[f"LLAMA_FLASH_ATTN_TYPE_{attention}"]
    kind = given.spec_type.upper().replace("-", "_")
    p.speculative.types = [xllamacpp.common_speculative_type[f"COMMON_SPECULATIVE_TYPE_{kind}"]]
    p.speculative.ngram_simple.size_n = given.spec_ngram_simple_size_n
    p.speculative.ngram_simple.size_m = given.spec_ngram_simple_size_m
    p.speculative.draft.mparams.path = given.model_draft
    flags = xllamacpp.common_params_sampling_config
    for argument in SAMPLING:
        changed = {"repeat-penalty": "penalty_repeat", "repeat-last-n": "penalty_last_n"}
        name = changed.get(argument, argument.replace("-", "_"))
        setattr(p.sampling, name, getattr(given, argument.replace("-", "_")))
        # What is given is not taken from the model's file.
        flag = getattr(flags, f"COMMON_PARAMS_SAMPLING_CONFIG_{name.upper()}")
        p.sampling.user_sampling_config |= int(flag)
    return p


if __name__ == "__main__":
    main()
