"""The engine: a private llama.cpp server process for each GGUF file in use.

The host process: `host` runs llama.cpp's server through `xllamacpp` or `llama_server`, and decides
when to end. The commands: `launch` finds or starts an engine, with the `settings` of a model and a
build from `builds`; `evict` frees memory, and `stop` ends engines. Both sides: `state` has
the files by which they communicate, `slots` who uses which slot of llama.cpp, `saved_prompts` the
conversations that are kept on disk.
"""
