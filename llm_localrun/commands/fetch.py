"""`pull`: gets a model."""

import click

from llm_localrun.discovery import catalogue
from llm_localrun.errors import PullFailed
from llm_localrun.hub import starter
from llm_localrun.places import home


@click.command(short_help="Get a model")
@click.argument("ref")
def pull(ref: str) -> None:
    """Get the model REF: `starter` is a small one (98 MB) to begin with."""
    if ref != "starter":
        raise PullFailed(f"'{ref}' cannot be pulled", "Use `starter`")
    target = home() / "models" / starter.FILE_NAME
    if starter.is_there(target):
        click.echo(f"The starter model is there already: {target}")
        return
    label = "Pulling SmolLM2-135M-Instruct"
    with click.progressbar(length=starter.SIZE, label=label, show_pos=False) as bar:
        for done, total in starter.pull(target):
            bar.length = total
            bar.update(done - bar.pos)
        bar.update((bar.length or 0) - bar.pos)
    catalogue("now")
    click.echo(f"Put into {target}\nTry it: llm -m local 'Name the primary colours'")
