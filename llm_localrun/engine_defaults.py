"""Constants of the engine that lower packages need too: how llama.cpp starts, and its limits.

docs/design/engine.md has the reasons. Imports only the standard library: the engine's host process
uses this module.
"""

SLOTS = 4
"""Requests that llama.cpp answers at the same time. All slots share one context."""
BATCH_SIZE = 512
"""Tokens of a prompt that are evaluated at once. A request can be canceled between batches."""
SLOT_SIMILARITY = 0.5
"""Share of a prompt that a slot must already hold for llama.cpp to reuse its prefix."""
PREFIX_CACHE_MIB = 512
"""Memory for prefixes that were displaced from their slots."""
VERBOSITY = 4
"""llama.cpp logs the phases of a load, and no texts of prompts and answers (b10434, b11549)."""
CONTEXT_SIZE = 8192
"""Tokens, unless the user asks for another size or the model was trained for less."""
CALM_LOAD = 0.5
"""Processes that want to compute, for each core: with more, the machine is busy."""
SAMPLING = {
    "temp": 0.8,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "penalty_repeat": 1.0,
    "penalty_last_n": 64,
    "mirostat": 0,
}
"""How llama.cpp samples where a request does not say, by the names of `general.sampling.*`: its own
defaults (b10434, b11549). It does not follow those keys of a file: a NaN makes all answers alike,
some values abort the load, and others take gigabytes of memory. `chat.sampling` sends what they
say."""

MIN_CONTEXT_SIZE = 16
"""llama.cpp b11549 aborts on a context of 1."""
MAX_THREADS = 512
"""llama.cpp b11549 aborts on 0 threads, and on more than GGML_MAX_N_THREADS."""
UNQUANTIZED_CACHE_TYPES = ("f32", "f16", "bf16")
CACHE_TYPES = (*UNQUANTIZED_CACHE_TYPES, "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""Other types of the KV cache make llama.cpp b11549 crash."""
