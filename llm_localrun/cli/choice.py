"""Lists models to choose from, and on a terminal asks for the number of one.

`pull` uses it where its arguments name no model. In a pipe, and with --json, the list is all, and
the command ends with status 2.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from llm_localrun.cli.table import Row, pick, say, show_json, show_table, size_text
from llm_localrun.config import read_config
from llm_localrun.errors import PullFailed
from llm_localrun.memory import machine
from llm_localrun.pull.hub_search import Match, recommended_matching, search_hub

_MAX_MATCHES = 5
_MAX_RECOMMENDED = 2
"""Of the matches, if the hub has some too."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that can be chosen: its REF, its row in the table, and what --json shows."""

    ref: str
    row: Row
    facts: Mapping[str, Any]


def choose_recommended(suffix: str, *, as_json: bool) -> str:
    """The REF of the recommended model that the user chooses.

    `suffix` ends the commands in the list: the options that the user has given.
    """
    from llm_localrun.cli import recommend

    found = recommend.recommendations()
    if not found:
        raise PullFailed(
            "No recommended model fits the memory of this machine",
            "Get the smallest one: `llm localrun pull starter --tiny`",
        )
    rows, facts = recommend.recommendation_rows(found), map(recommend.recommendation_facts, found)
    choices = map(Choice, (each.model.name for each in found), rows, facts)
    return _choose([*choices], "A REF is missing; give one of these", suffix, as_json)


def choose_match(words: str, quantization: str, suffix: str, *, as_json: bool) -> str:
    """The REF of the model that the user chooses from those that match `words`.

    `quantization` is the one that is wanted, "" for any. Raises `PullFailed` if there is none, or
    if the hub cannot be asked.
    """
    memory = machine.physical_memory()
    recommended = [] if quantization else recommended_matching(words, memory)
    preferred = quantization or read_config().quantization
    try:
        on_hub = search_hub(words, _MAX_MATCHES, memory, preferred)
    except PullFailed as error:
        if recommended:
            _list(_choices(recommended), suffix, as_json)
            error.advise(f"{error.remedy}. Recommended models that match are listed")
        raise
    usable = [match for match in on_hub if not match.problem] or on_hub
    fitting = [match for match in recommended if match.fits]
    found = [*fitting[: _MAX_RECOMMENDED if usable else None], *usable][:_MAX_MATCHES]
    if not found:
        raise nothing_found(words)
    choices = _choices(sorted(found, key=lambda match: not match.fits))
    return _choose(choices, f"'{words}' is not a REF; give one of these", suffix, as_json)


def nothing_found(words: str) -> PullFailed:
    """The error for words that no model matches."""
    return PullFailed(
        f"The hub has no GGUF repository that matches '{words}'",
        "Try fewer words, or see what is recommended: `llm localrun recommend`",
    )


def match_rows(found: Iterable[Match]) -> list[dict[str, str]]:
    """The rows of a table of models that words have found."""
    return [
        {
            "model": each.ref,
            "fits": _fit_text(each),
            "size": size_text(each.size),
            "downloads": "" if each.downloads is None else f"{each.downloads:,}",
            "license": each.license,
        }
        for each in found
    ]


def match_facts(found: Match) -> dict[str, Any]:
    """What --json shows of a model that words have found. `docs/json.md` describes each field."""
    names = "ref quantization size fits context_size downloads license problem command"
    return pick(found, names)


def _fit_text(match: Match) -> str:
    """The quantization that fits: Q4_K_M, none; ? if that is not known."""
    if match.fits is None:
        return "?"
    return (match.quantization or "yes") if match.fits else "none"


def _choices(found: Sequence[Match]) -> list[Choice]:
    refs = (each.ref for each in found)
    return [*map(Choice, refs, match_rows(found), map(match_facts, found))]


def _choose(choices: Sequence[Choice], reason: str, suffix: str, as_json: bool) -> str:
    """The REF that the user chooses. Ends the command if nobody can be asked, or nothing is chosen.

    `reason` says why there is something to choose.
    """
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        _list(choices, suffix, as_json)
        say(f"{reason}. Nothing was downloaded.", err=True)
        raise click.exceptions.Exit(2)
    _show_numbered(choices)
    numbers = {str(at): each.ref for at, each in enumerate(choices, 1)}
    ref = _ask({"": "", **numbers}, f"a number from 1 to {len(choices)}")
    if not ref:
        say("Nothing was downloaded.", err=True)
        raise click.exceptions.Exit(1)
    return ref


def _ask(meanings: Mapping[str, str], wanted: str) -> str:
    """What the answer that is typed means; asks again until it is one of `meanings`."""

    def meaning(typed: str) -> str:
        if typed.strip() in meanings:
            return meanings[typed.strip()]
        raise click.BadParameter(f"type {wanted}, or nothing")

    text = "Number of the model to download (Enter for none)"
    chosen: str = click.prompt(text, default="", show_default=False, value_proc=meaning)
    return chosen


def _show_numbered(choices: Sequence[Choice]) -> None:
    first = next(iter(choices[0].row))
    numbered = enumerate(choices, 1)
    show_table([{**each.row, first: f"{at}  {each.row[first]}"} for at, each in numbered])


def _list(choices: Sequence[Choice], suffix: str, as_json: bool) -> None:
    """Prints `choices` with the commands that get them."""
    if as_json:
        show_json([dict(each.facts) for each in choices])
        return
    show_table([each.row for each in choices])
    say("", *(f"llm localrun pull {each.ref}{suffix}" for each in choices))
