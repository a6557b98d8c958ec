"""`llama-server` for machines that have none: its command line, and xllamacpp behind it.

Of llama.cpp b11434's program this is what concerns a host: the arguments that it knows and that it
refuses others, its environment variable for the key, what it prints to --help, --version and
--list-devices, and the lines of its log about an error and about where it listens. The server
behind it is the same C++, so requests and slots are the real ones.
"""

import argparse
import os
import signal
import sys
from typing import Any, NoReturn

HELP = """\
----- common params -----

-h,    --help, --usage                  print usage and exit
--version                               show version and build info
-t,    --threads N                      number of CPU threads to use during generation (default: -1)
-c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from model)
-b,    --batch-size N                   logical maximum batch size (default: 2048)
-ub,   --ubatch-size N                  physical maximum batch size (default: 512)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto', default: 'auto')
-ctk,  --cache-type-k TYPE              KV cache data type for K
-ctv,  --cache-type-v TYPE              KV cache data type for V
--list-devices                          print list of available devices and exit
-ngl,  --gpu-layers, --n-gpu-layers N   max. number of layers to store in VRAM
-fit,  --fit [on|off]                   whether to adjust unset arguments to fit in device memory
--lora FNAME                            path to LoRA adapter
-m,    --model FNAME                    model path to load
--offline                               Offline mode: forces use of cache, prevents network access
--spec-draft-model, -md, --model-draft FNAME
                                        draft model for speculative decoding (default: unused)
--spec-type none,draft-simple,draft-eagle3,draft-mtp,draft-dflash,draft-dspark,ngram-simple,ngram-map-k,ngram-map-k4v,ngram-mod,ngram-cache
                                        comma-separated list of types of speculative decoding to use
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
-sps,  --slot-prompt-similarity SIMILARITY
                                        how much the prompt of a request must match the prompt of a slot
"""  # noqa: E501


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        sys.stderr.write(f"error: invalid argument: {unknown}\n")
        raise SystemExit(1)


def _arguments() -> argparse.Namespace:
    known = _Arguments(add_help=False, allow_abbrev=False)
    for name in ("model", "alias", "host", "slot-save-path", "mmproj", "lora", "model-draft"):
        known.add_argument(f"--{name}", default="")
    for name in ("ctx-size", "batch-size", "ubatch-size", "parallel", "cache-ram", "port"):
        known.add_argument(f"--{name}", type=int, required=name != "ubatch-size")
    for name in ("threads", "n-gpu-layers"):
        known.add_argument(f"--{name}", type=int)
    for name in ("fit", "flash-attn"):
        known.add_argument(f"--{name}", choices=("on", "off", "auto"), default="auto")
    for name in ("cache-type-k", "cache-type-v"):
        known.add_argument(f"--{name}", default="f16")
    known.add_argument("--spec-type", default="none")
    known.add_argument("--slot-prompt-similarity", type=float, default=0.1)
    for name in ("kv-unified", "no-cache-idle-slots", "no-webui", "offline", "embedding"):
        known.add_argument(f"--{name}", action="store_true")
    return known.parse_args()


def main() -> None:
    if "--help" in sys.argv:
        sys.stdout.write(HELP)
    elif "--version" in sys.argv:
        sys.stderr.write("version: 0.6.0-dev (build 11434, commit abcdef0)\n")
        sys.stderr.write("built with GNU 12.2.0 for Linux x86_64\n")
    elif "--list-devices" in sys.argv:
        devices = os.environ.get("STAND_IN_DEVICES", "  (none)")
        sys.stdout.write(f"Available devices:\n{devices}\n")
    else:
        _serve(_arguments())


def _serve(given: argparse.Namespace) -> None:
    from xllamacpp import xllamacpp

    server = xllamacpp.Server(_parameters(xllamacpp, given))
    listens = f"0.00.117.373 I srv  llama_server: listening on {server.listening_address}\n"
    sys.stderr.write(listens)
    sys.stderr.flush()
    # The system's own way with signals is as good as the original's, and the same for SIGHUP.
    signal.pause()


def _parameters(xllamacpp: Any, given: argparse.Namespace) -> Any:
    p = xllamacpp.CommonParams()
    p.model.path = given.model
    p.model_alias = {given.alias}
    p.n_ctx, p.n_batch, p.n_parallel = given.ctx_size, given.batch_size, given.parallel
    p.n_ubatch = given.ubatch_size or p.n_ubatch
    p.fit_params = given.fit != "off"
    p.kv_unified, p.cache_idle_slots = given.kv_unified, not given.no_cache_idle_slots
    p.slot_prompt_similarity, p.cache_ram_mib = given.slot_prompt_similarity, given.cache_ram
    p.slot_save_path = given.slot_save_path
    p.hostnames, p.port = [given.host], given.port
    p.api_keys = [os.environ["LLAMA_API_KEY"]]
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
    p.speculative.draft.mparams.path = given.model_draft
    return p


if __name__ == "__main__":
    main()
