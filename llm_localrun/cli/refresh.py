"""Query every server and scan every folder again.

\b
Example:
  llm localrun refresh
"""

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.table import count_of, say
from llm_localrun.name_cache import CachePolicy
from llm_localrun.resolve import describe_unheard


@click.command(help=__doc__)
def refresh() -> None:
    snapshot = get_catalogue(CachePolicy.REFRESH)
    if slow := snapshot.slow_reports:
        say(f"No answer yet: {describe_unheard(slow)}.", err=True)
    answering = [report.endpoint.name for report in snapshot.answering_reports]
    models = snapshot.models
    served = sum(model.served is not None for model in models)
    say(
        f"{count_of(len(models), 'model')}: {served} on servers"
        f" ({', '.join(answering) or 'none answers'}), {len(models) - served} in files only"
    )
