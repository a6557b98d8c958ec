"""Install llama.cpp builds that use this machine's GPU, or all of its CPU."""

import click

from llm_localrun.cli.engine_install import install, update


@click.group(help=__doc__)
def engine() -> None:
    """The group."""


engine.add_command(install)
engine.add_command(update)
