"""Show which models to get for this machine.

Lists at most five that fit its memory, each with its download, the memory that it takes, the speed
to expect, and the command that gets it. Without --for, that is a mix: the best for chat, a faster
one, and what these are not for. Only --refresh asks the Hugging Face hub.

\b
Example:
  llm localrun recommend --for code --memory 16GB
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.table import (
    count_of,
    first_few,
    json_option,
    pick,
    say,
    show,
    size_text,
    terminal_width,
    tokens_text,
)
from llm_localrun.config import Bytes, read_config
from llm_localrun.engine.builds import free_memory_of_gpus, would_use_gpu
from llm_localrun.errors import PullFailed
from llm_localrun.memory import machine
from llm_localrun.name_cache import CachePolicy
from llm_localrun.pull.refreshed import refresh_list
from llm_localrun.recommended.advice import PULL_STARTER, RECOMMEND
from llm_localrun.recommended.choose import ASSUMED_MEMORY, Recommendation
from llm_localrun.recommended.choose import recommend as choose
from llm_localrun.recommended.log import logged_runs
from llm_localrun.recommended.models import Use, listed_models, read_recommended, refreshed_path
from llm_localrun.recommended.speed import expected_speed
from llm_localrun.system.paths import engine_folder

_OPTIONAL = ("license",)
_LEAST_MEMORY = 10**6
"""Bytes. Less is a number without its unit."""
_MODEL_FIELDS = (
    "name good_at uses repository revision size quantization parameters active_parameters"
    " context_max license source date"
)


def _parse_memory(_: object, __: object, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        memory = TypeAdapter(Bytes).validate_python(text)
    except ValidationError:
        memory = 0
    if memory < _LEAST_MEMORY:
        raise click.BadParameter("give a size such as 16GB")
    return memory


@click.command(help=__doc__)
@click.option(
    "--for", "use", type=click.Choice([each.value for each in Use]), help="What you want it for"
)
@click.option(
    "--memory",
    callback=_parse_memory,
    metavar="SIZE",
    help="RAM of another machine, such as 16GB, instead of this one's RAM and GPUs",
)
@click.option("--refresh", is_flag=True, help="Ask the Hugging Face hub for newer models first")
@json_option
def recommend(use: str | None, memory: int | None, refresh: bool, as_json: bool) -> None:
    if refresh:
        _refresh()
    wanted = Use(use) if use else None
    found = recommendations(wanted, memory)
    show(
        as_json,
        map(recommendation_facts, found),
        recommendation_rows(found),
        optional=_OPTIONAL,
        if_empty="" if found else _if_empty(wanted, memory),
    )
    if found and not as_json:
        say("", *_advice(found, wanted))


def recommendations(use: Use | None = None, memory: int | None = None) -> list[Recommendation]:
    """The recommended models for a machine with `memory` bytes of RAM; by default this one, with
    its GPUs. The speeds are always those of this one."""
    models, named = read_recommended(), read_config().llama_server
    has_gpu = would_use_gpu(engine_folder(), named)
    speed_of = partial(expected_speed, runs=logged_runs(_path_finder()), has_gpu=has_gpu)
    if memory is not None:
        return choose(models, use, memory, speed_of=speed_of)
    ram, gpu_memory = machine.usable_ram() or machine.free_ram(), 0
    # A Mac's GPU shares the RAM, which is counted already.
    if has_gpu and sys.platform != "darwin":
        gpu_memory = free_memory_of_gpus(engine_folder(), named)
    if ram is None:
        say(f"How much RAM this machine has is unknown. {_of_assumed()}", err=True)
    return choose(models, use, ram, gpu_memory, speed_of)


def _path_finder() -> Callable[[str], str | None]:
    """Returns the file of a model that has run here, by its id; None if it is no longer known."""

    @cache
    def paths() -> Mapping[str, str]:
        models = get_catalogue(CachePolicy.CACHED).models
        return {each.id: each.on_disk.path for each in models if each.on_disk}

    return lambda model_id: paths().get(model_id)


def _of_assumed() -> str:
    return f"These models fit into {size_text(ASSUMED_MEMORY)}; --memory says how much there is."


def recommendation_facts(found: Recommendation) -> dict[str, Any]:
    """What `--json` shows of a recommended model. `docs/json.md` describes each field."""
    model = found.model
    own = pick(found, "context_size memory tokens_per_second command")
    speed = own["tokens_per_second"]
    return {
        **pick(model, _MODEL_FIELDS),
        **own,
        "uses": [use.value for use in model.uses],
        "files": [file.path for file in (*model.files, *filter(None, [model.projector]))],
        "tokens_per_second": speed and round(speed, 1),
    }


def recommendation_rows(found: Iterable[Recommendation]) -> list[dict[str, str]]:
    """The rows of a table of recommended models."""
    return [
        {
            "name": each.model.name,
            "good at": each.model.good_at,
            "size": size_text(each.model.size),
            "memory": size_text(each.memory),
            "speed": _speed_text(each.tokens_per_second),
            "license": each.model.license,
        }
        for each in found
    ]


def _speed_text(speed: float | None) -> str:
    """Tokens a second: 4.2/s, 35/s; "" for None."""
    return "" if speed is None else f"{speed:.{0 if speed >= 9.95 else 1}f}/s"


def explanation(found: Sequence[Recommendation]) -> str:
    """What the columns of `recommendation_rows` mean."""
    context = tokens_text(max(each.context_size for each in found))
    explained = f"memory: with {context} tokens of context"
    if any(each.tokens_per_second for each in found):
        explained += "; speed: tokens a second, expected here"
    return explained


def _advice(found: Sequence[Recommendation], use: Use | None) -> list[str]:
    """Lines below the table: what its columns mean, and what to type."""
    first, *others = (each.value for each in (Use.CODE, *Use) if each != use)
    more = [each for each in others if each != first]
    return [
        *([explanation(found), ""] if terminal_width() is not None else []),
        f"Get the first:  {found[0].command}",
        f"{f'More for {first}:':15} llm localrun recommend --for {first}",
        f"                (or {', '.join(more)})",
    ]


def _if_empty(use: Use | None, memory: int | None) -> str:
    """What to say instead of a table without rows: why, and what to type."""
    if use and recommendations(memory=memory):
        # Units are binary where they are read.
        given = f" --memory {memory / 2**30:g}GB" if memory else ""
        return f"{_why_empty(use)} For other uses: {RECOMMEND}{given}"
    return f"{_why_empty(use)} Get a tiny one: {PULL_STARTER}"


def _why_empty(use: Use | None) -> str:
    models = [each for each in read_recommended() if use is None or use in each.uses]
    purpose = f" for {use.value}" if use else ""
    if not models:
        return f"No model{purpose} is recommended."
    smallest = min(models, key=lambda model: model.size)
    return (
        f"No recommended model{purpose} fits into so little memory: the smallest,"
        f" {smallest.name}, is a download of {size_text(smallest.size)}."
    )


def _refresh() -> None:
    """Asks the hub for newer models, and says what was added."""
    try:
        added, updated = refresh_list()
    except PullFailed as error:
        say(error.message, err=True)
        date = max((each.date for each in listed_models()), default="")
        earlier = ", with what earlier refreshes found" if refreshed_path().exists() else ""
        say(f"This is the package's list of {date}{earlier}.", err=True)
        return
    parts = [
        f"{word} {count_of(len(names), 'model')}: {first_few(names)}"
        for word, names in (("added", added), ("updated", updated))
        if names
    ]
    said = "; ".join(parts) or "nothing is newer"
    say(f"{said[0].upper()}{said[1:]}.", err=True)
