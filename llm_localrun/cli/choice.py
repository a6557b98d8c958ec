"""Lists models to choose from, and on a terminal asks for the number of one.

`pull` uses it where its arguments name no model. In a pipe, and with --json, the list is all, and
the command ends with status 2.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from llm_localrun.cli.table import (
    Row,
    pick,
    say,
    show_json,
    show_table,
    size_text,
    terminal_width,
)
from llm_localrun.config import read_config
from llm_localrun.engine.memory_check import memory_for_a_new_model
from llm_localrun.errors import PullFailed
from llm_localrun.pull.hub_search import Match, recommended_matching, search_hub
from llm_localrun.recommended.advice import PULL_STARTER
from llm_localrun.system.program import quoted

_MAX_MATCHES = 5
_MAX_RECOMMENDED = 2
"""Of the matches, if the hub has some too."""
_MAX_TOO_LARGE = 3
"""Shown if no match fits."""
_OPTIONAL = ("license",)


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
    reason, explained = "No model is named; choose one of these", recommend.explanation(found)
    return _choose([*choices], reason, suffix, as_json, explained)


def choose_match(words: str, quantization: str, suffix: str, *, as_json: bool) -> str:
    """The REF of the model that the user chooses from those that match `words`.

    `quantization` is the one that is wanted, "" for any. Raises `PullFailed` if there is none, or
    if the hub cannot be asked.
    """
    memory, preferred = memory_for_a_new_model(), read_config().quantization
    recommended = [
        match
        for match in recommended_matching(words, memory)
        if quantization in ("", match.quantization)
    ]
    try:
        on_hub = search_hub(words, _MAX_MATCHES, memory, preferred, quantization)
    except PullFailed as error:
        list_without_hub(recommended, _MAX_MATCHES, error, suffix, as_json)
        raise
    usable = [match for match in on_hub if not match.problem]
    if not (usable or quantization):
        usable = on_hub
    fitting = [match for match in recommended if match.fits]
    found = [*fitting[: _MAX_RECOMMENDED if usable else None], *usable][:_MAX_MATCHES]
    if not found:
        raise _lacks(quantization, words) if on_hub else nothing_found(words)
    choices = _choices(sorted(found, key=lambda match: not match.fits))
    reason = f"'{words}' is not the name of a model; choose one of these"
    return _choose(choices, reason, suffix, as_json)


def list_without_hub(
    recommended: Sequence[Match], limit: int, error: PullFailed, suffix: str, as_json: bool
) -> None:
    """Lists the recommended models that match, as `error` says why the hub cannot be asked, and
    adds to that what can be done."""
    fitting = [match for match in recommended if match.fits][:limit]
    smallest = sorted(recommended, key=lambda match: match.size or 0)[: min(limit, _MAX_TOO_LARGE)]
    if found := fitting or smallest:
        _list(_choices(found), suffix if fitting else None, as_json)
    none_fits = "" if fitting else ", but none fits this machine"
    note = f"Recommended models that match are listed{none_fits}" if found else ""
    advise_starter(error, note)


def advise_starter(error: PullFailed, note: str = "") -> None:
    """Adds `note`, and the command that works without a hub, to what `error` advises."""
    starter = f"To get a model without the hub: `{PULL_STARTER}`"
    error.advise(". ".join(filter(None, [error.remedy.rstrip("."), note, starter])))


def _lacks(quantization: str, words: str) -> PullFailed:
    """The error for a quantization that no match has."""
    return PullFailed(
        f"None of the best matches for '{words}' is known to have {quantization}",
        f"See what fits without -q: `{quoted('llm', 'localrun', 'pull', *words.split())}`",
    )


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


def _choose(
    choices: Sequence[Choice], reason: str, suffix: str, as_json: bool, explained: str = ""
) -> str:
    """The REF that the user chooses. Ends the command if it cannot ask, or nothing is chosen.

    `reason` says why there is something to choose, `explained` what the columns mean.
    """
    explained = explained if terminal_width() is not None else ""
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        _list(choices, suffix, as_json, explained)
        say(f"{reason}. Nothing was downloaded.", err=True)
        raise click.exceptions.Exit(2)
    _show_numbered(choices)
    if explained:
        say("", explained, "")
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
    rows = [{**each.row, first: f"{at}  {each.row[first]}"} for at, each in numbered]
    show_table(rows, _OPTIONAL)


def _list(
    choices: Sequence[Choice], suffix: str | None, as_json: bool, explained: str = ""
) -> None:
    """Prints `choices` with the commands that get them; without these if `suffix` is None."""
    if as_json:
        show_json([dict(each.facts) for each in choices])
        return
    show_table([each.row for each in choices], _OPTIONAL)
    if explained:
        say("", explained)
    if suffix is not None:
        say("", *(f"llm localrun pull {each.ref}{suffix}" for each in choices))
