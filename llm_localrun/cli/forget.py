"""Forget a file that you have run by its path.

PATH need not exist any more. The file itself is not deleted.

\b
Example:
  llm localrun forget ./Some-Model-Q4_K_M.gguf
"""

import os

import click

from llm_localrun.catalogue import forget_file
from llm_localrun.cli.table import say
from llm_localrun.errors import UnknownModel
from llm_localrun.files import named
from llm_localrun.names.aliases import nearest


@click.command(help=__doc__)
@click.argument("path")
def forget(path: str) -> None:
    known = named.remembered()
    expanded = os.path.expanduser(path)  # noqa: PTH111  # Path.expanduser raises instead
    spellings = (path, os.path.abspath(expanded), os.path.realpath(expanded))  # noqa: PTH100
    found = next((each for each in spellings if each in known), None)
    if found is None:
        similar = nearest(spellings[-1], known) or known[-3:]
        raise UnknownModel(
            f"{path} is not remembered as a file that was run by its path",
            f"Nearest: {', '.join(similar)}" if known else "No file is",
        )
    named.forget(found)
    store = forget_file(found)
    stays = f", which stays listed because it is in the store {store}" if store else ""
    say(f"Forgot {found}{stays}")
