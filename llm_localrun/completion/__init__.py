"""Completion of names in bash, zsh and fish: what a word on the command line can become.

`answer` decides what a word is, `sources` reads what it can become from small files, `quick`
answers a shell without starting llm, and `shells` answers through click. Nothing here asks a server
or looks for models.
"""
