"""Forget a file that you have run by its path.

PATH need not exist any more. The file itself is not deleted.
"""

import os

import click

from llm_localrun.catalogue import forget_file
from llm_localrun.errors import UnknownModel
from llm_localrun.files import forget as forget_path
from llm_localrun.files import remembered
from llm_localrun.names.aliases import nearest


@click.command(help=__doc__)
@click.argument("path")
def forget(path: str) -> None:
    known = remembered()
    expanded = os.path.expanduser(path)  # noqa: PTH111  # Path.expanduser raises instead
    spellings = (path, os.path.abspath(expanded), os.path.realpath(expanded))  # noqa: PTH100
    found = next((each for each in spellings if each in known), None)
    if found is None:
        raise _not_remembered(path, spellings[-1], known)
    forget_path(found)
    store = forget_file(found)
    stays = f", which stays listed because it is in the store {store}" if store else ""
    click.echo(f"Forgot {found}{stays}")


def _not_remembered(path: str, real_path: str, known: list[str]) -> UnknownModel:
    problem = f"{path} is not remembered as a file that was run by its path"
    if not known:
        return UnknownModel(problem, "No file is")
    similar = nearest(real_path, known) or known[-3:]
    return UnknownModel(problem, f"Nearest: {', '.join(similar)}")
