"""Which models to get for this machine.

models.json  the list, made by hand; `localrun/recommended.json` in llm's user directory adds to it
models       reads the list
recognize    which of them a file on this machine is
choose       which of them fit an amount of memory, for a use
measuring    a program that measures how fast this machine reads weights
bandwidth    runs it once, and keeps what it prints
speed        how many tokens a second a model will generate
log          how fast models generated that ran here, by llm's log
advice       what to do where no model here will do

Asking a hub for newer models, and downloading, are left to `pull`.
"""
