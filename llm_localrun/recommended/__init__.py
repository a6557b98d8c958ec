"""Which models to get for this machine.

models.json  the list, made by hand; `localrun/recommended.json` in llm's user directory adds to it
models       reads the list
recognize    which of them a file on this machine is
choose       which of them fit an amount of memory, for a use
bandwidth    how fast this machine reads memory
speed        how many tokens a second a model will generate

Asking a hub for newer models, and downloading, are left to `pull`.
"""
