"""The engine: a private llama.cpp server process for each GGUF file in use.

`host` runs in that process, the others in the `llm` process: `launch` starts and finds it, `state`
is what the two tell each other through files, `locks` is how they know that the other is alive.
"""
