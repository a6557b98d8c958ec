"""What every llama.cpp is started with, whoever runs it, and what must never reach one.

The reasons for the figures stand in CONTRIBUTING.md. Imports nothing but the standard library: the
engine's host uses it too.
"""

from llm_localrun.engine.state import EngineSettings

SEATS = 4
"""Requests that are answered at once; llama.cpp's slots. The context is shared by all."""
BATCH = 512
"""Tokens of a prompt that are evaluated at once; a request is cancelled between batches."""
SIMILARITY = 0.5
"""How much of a prompt a slot must hold already for its prefix to be used as it is."""
CACHE_MIB = 512
"""Memory for prefixes that had to leave their slot."""
CONTEXT_SIZE = 8192
"""Tokens, unless somebody asks for another size or the model was trained for less."""

LEAST_CONTEXT = 16
"""llama.cpp b11549 aborts on a context of 1."""
MOST_THREADS = 512
"""llama.cpp b11549 aborts on 0 threads, and on more than GGML_MAX_N_THREADS."""
_UNQUANTIZED = ("f32", "f16", "bf16")
CACHE_TYPES = (*_UNQUANTIZED, "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""Other types of the KV cache make llama.cpp b11549 crash."""


def problem_with(settings: EngineSettings) -> str:
    """Why llama.cpp would crash, or refuse, if it got `settings`; "" if it takes them."""
    if settings.context_size is not None and settings.context_size < LEAST_CONTEXT:
        return f"a context of {settings.context_size} tokens is too small"
    if settings.threads is not None and not 1 <= settings.threads <= MOST_THREADS:
        return f"it takes 1 to {MOST_THREADS} threads, not {settings.threads}"
    if settings.kv_cache_type not in (None, *CACHE_TYPES):
        return f"it knows no KV cache of type {settings.kv_cache_type}"
    if settings.kv_cache_type not in (None, *_UNQUANTIZED) and settings.flash_attention is False:
        return f"a KV cache of type {settings.kv_cache_type} needs flash_attention"
    return ""
