"""Runs llama.cpp's server inside the host process: the package xllamacpp.

When the server ends is decided in `host`.

Imports only the standard library, and xllamacpp when the server starts.
"""

import os
import sys
from dataclasses import dataclass, replace
from typing import Any

from llm_localrun import engine_defaults
from llm_localrun.engine import limits
from llm_localrun.engine.state import (
    AUTO,
    GUESSED,
    NGRAM,
    REPEATED,
    EnginePaths,
    EngineSettings,
    HostInstructions,
    read_state,
    write_state,
)


@dataclass(frozen=True, slots=True)
class XllamacppServer:
    """A server that ends with this process."""

    _server: Any

    @property
    def url(self) -> str:
        return str(self._server.listening_address)

    @property
    def pid(self) -> int:
        return os.getpid()

    def has_ended(self) -> bool:
        return False

    def end(self) -> None:
        """Does nothing: the server ends with this process."""


def start(instructions: HostInstructions, paths: EnginePaths) -> XllamacppServer:
    """Starts the server, and notes whether it uses a GPU.

    Raises RuntimeError and OSError, or llama.cpp ends this process.
    """
    sys.path.append(instructions.xllamacpp)
    from xllamacpp import xllamacpp

    cpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    is_there = any(device["type"] != cpu for device in xllamacpp.get_device_info())
    has_gpu = is_there and not instructions.ignores_gpu
    # Before it loads: a command that explains why that failed has to know it.
    if has_gpu != instructions.has_gpu and (state := read_state(paths.state)):
        write_state(paths.folder, replace(state, has_gpu=has_gpu))
    # The driver of a GPU reserves address space, even if it is not used.
    if not is_there:
        limits.limit_data(instructions)
    parameters = _parameters(xllamacpp, instructions, paths)
    # Fitting layers to GPU memory loads the model twice, which is useless without a GPU.
    parameters.fit_params = has_gpu
    return XllamacppServer(xllamacpp.Server(parameters))


def _parameters(xllamacpp: Any, instructions: HostInstructions, paths: EnginePaths) -> Any:
    spec = instructions.spec
    p = xllamacpp.CommonParams()
    p.model.path = spec.path
    p.model_alias = {spec.name}
    p.n_ctx = spec.context_size
    p.n_batch = engine_defaults.BATCH_SIZE
    p.n_parallel = engine_defaults.SLOTS
    p.kv_unified = True
    p.slot_prompt_similarity = engine_defaults.SLOT_SIMILARITY
    p.cache_ram_mib = engine_defaults.PREFIX_CACHE_MIB
    p.cache_idle_slots = False
    p.n_ctx_checkpoints = instructions.checkpoints
    p.slot_save_path = instructions.prompt_folder(paths)
    p.verbosity = engine_defaults.VERBOSITY
    p.hostnames = ["127.0.0.1"]
    p.api_keys = [instructions.key]
    p.cors_origins = ""
    p.ui = False
    _set_sampling(xllamacpp, p.sampling)
    _apply(xllamacpp, p, spec.settings)
    if instructions.ignores_gpu:
        p.n_gpu_layers = 0
        p.no_kv_offload = p.no_op_offload = True
        p.mmproj_use_gpu = False
    return p


def _set_sampling(xllamacpp: Any, sampling: Any) -> None:
    """Sets the default sampling. The flags keep the keys in the model's file from changing it."""
    flags = xllamacpp.common_params_sampling_config
    for name, value in engine_defaults.SAMPLING.items():
        setattr(sampling, name, value)
        flag = getattr(flags, f"COMMON_PARAMS_SAMPLING_CONFIG_{name.upper()}")
        sampling.user_sampling_config |= int(flag)


def _apply(xllamacpp: Any, p: Any, settings: EngineSettings) -> None:
    """Applies the settings that come from the user or the model's files."""
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
        p.use_jinja = settings.needs_jinja
    if settings.lora:
        p.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(settings.lora, 1.0)]
    if settings.draft_model:
        _speculate(xllamacpp, p.speculative, settings.draft_model)
    if settings.embedding:
        p.embedding = True
        # A text to embed must be one batch: pooling needs all its tokens at once.
        p.n_batch = p.n_ubatch = p.n_ctx


def _speculate(xllamacpp: Any, speculative: Any, draft_model: str) -> None:
    kinds = xllamacpp.common_speculative_type
    if draft_model == NGRAM:
        speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_NGRAM_MOD]
        return
    if draft_model == AUTO:
        speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
        speculative.ngram_simple.size_n = REPEATED
        speculative.ngram_simple.size_m = GUESSED
        return
    speculative.draft.mparams.path = draft_model
    # Without a type, llama.cpp ignores the path (b11549).
    speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
