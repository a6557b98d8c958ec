"""llama.cpp's server inside the host's own process: xllamacpp.

Imports nothing but the standard library, and xllamacpp when it is started.
"""

import os
import sys
from dataclasses import dataclass
from typing import Any

from llm_localrun import engine_defaults
from llm_localrun.engine.state import NGRAM, EngineSettings, Order, Paths


@dataclass(frozen=True, slots=True)
class Inside:
    """A server that lives and dies with this process."""

    _server: Any

    @property
    def url(self) -> str:
        url: str = self._server.listening_address
        return url

    @property
    def pid(self) -> int:
        return os.getpid()

    def has_ended(self) -> bool:
        return False

    def end(self) -> None:
        """It ends when this process does."""


def start(order: Order, paths: Paths) -> Inside:
    """A server as it is ordered. Raises RuntimeError, or takes the process down."""
    sys.path.append(order.xllamacpp)
    from xllamacpp import xllamacpp

    return Inside(xllamacpp.Server(_parameters(xllamacpp, order, paths)))


def _parameters(xllamacpp: Any, order: Order, paths: Paths) -> Any:
    spec = order.spec
    devices = xllamacpp.get_device_info()
    cpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    p = xllamacpp.CommonParams()
    p.model.path = spec.path
    p.model_alias = {spec.name}
    p.n_ctx = spec.context_size
    # Fitting layers to GPU memory loads the model twice: a waste where there is no GPU.
    p.fit_params = any(device["type"] != cpu for device in devices)
    p.n_batch = engine_defaults.BATCH
    p.n_parallel = engine_defaults.SEATS
    p.kv_unified = True
    p.slot_prompt_similarity = engine_defaults.SIMILARITY
    p.cache_ram_mib = engine_defaults.CACHE_MIB
    p.cache_idle_slots = False
    p.slot_save_path = order.prompt_folder(paths)
    p.verbosity = 1
    p.hostnames = ["127.0.0.1"]
    p.api_keys = [order.key]
    p.cors_origins = ""
    p.ui = False
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
        _speculate(xllamacpp, p.speculative, settings.draft_model)
    if settings.embedding:
        p.embedding = True
        # An input to be embedded is one batch: there is no other way to pool over it.
        p.n_batch = p.n_ubatch = p.n_ctx


def _speculate(xllamacpp: Any, speculative: Any, draft_model: str) -> None:
    kinds = xllamacpp.common_speculative_type
    if draft_model == NGRAM:
        speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_NGRAM_MOD]
        return
    speculative.draft.mparams.path = draft_model
    # The path alone is ignored (b11549).
    speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
