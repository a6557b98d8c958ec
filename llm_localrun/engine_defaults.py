"""What every llama.cpp is started with, whoever runs it, and what must never reach one.

The reasons for the figures stand in CONTRIBUTING.md. Imports nothing but the standard library: the
engine's host uses it too.
"""

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
UNQUANTIZED = ("f32", "f16", "bf16")
CACHE_TYPES = (*UNQUANTIZED, "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""Other types of the KV cache make llama.cpp b11549 crash."""
