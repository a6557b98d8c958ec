"""Search the Hugging Face hub for models in GGUF files.

Lists the repositories that match WORDS, the best match first, and of those
alike the most downloaded one. "fits" is the quantization that `pull` chooses
for this machine. If the hub cannot be asked, lists recommended models.

\b
Example:
  llm localrun search qwen3 coder
"""

import click

from llm_localrun.cli.choice import list_without_hub, match_facts, match_rows, nothing_found
from llm_localrun.cli.table import json_option, say, show
from llm_localrun.config import read_config
from llm_localrun.engine.memory_check import memory_for_a_new_model
from llm_localrun.errors import PullFailed
from llm_localrun.pull.hub_search import recommended_matching, search_hub

_DEFAULT_LIMIT = 5
_MAX_LIMIT = 20
"""Each repository that is shown takes some requests."""


@click.command(help=__doc__)
@click.argument("words", nargs=-1, required=True)
@click.option(
    "--limit",
    type=click.IntRange(1, _MAX_LIMIT),
    default=_DEFAULT_LIMIT,
    show_default=True,
    help="How many to list",
)
@json_option
def search(words: tuple[str, ...], limit: int, as_json: bool) -> None:
    text, memory = " ".join(words), memory_for_a_new_model()
    try:
        found = search_hub(text, limit, memory, read_config().quantization)
    except PullFailed as error:
        list_without_hub(recommended_matching(text, memory), limit, error, "", as_json)
        raise
    if not found and not as_json:
        raise nothing_found(text)
    show(as_json, map(match_facts, found), match_rows(found))
    if as_json:
        return
    for each in found:
        if each.problem:
            say(f"{each.ref}: {each.problem}", err=True)
    if first := next((each for each in found if each.fits), None):
        say("", f"Get the first that fits: {first.command}")
