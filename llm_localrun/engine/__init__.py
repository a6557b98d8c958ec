"""The engine: a private llama.cpp server process for each GGUF file in use.

`host` runs in that process, with the server `inside` it or as its `child`. In the `llm` process
`launch` finds and starts it, `builds` knows by which llama.cpp, `room` makes place for it and
`stop` ends it. `state` is what the two tell each other through files, `locks` is how they know that
the other is alive, `seats` is who is being answered, `prompts` is what outlives it all.
"""
