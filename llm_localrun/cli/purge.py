"""Remove what this plugin has put on this machine.

It lists that first, and asks. Models stay, unless --models is given. Models in the engine's memory
are unloaded when their answers are finished. Ctrl-C stops waiting for that.

\b
Example:
  llm localrun purge
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click
from llm import DEFAULT_MODEL

from llm_localrun.cli.llm_settings import (
    all_default_options,
    command,
    default_embedding_model,
    default_model,
)
from llm_localrun.cli.table import Row, first_few, json_option, say, show, show_json, size_text
from llm_localrun.errors import NotRemoved
from llm_localrun.name_cache import is_ours
from llm_localrun.pull.purge import KEPT, Item, Removed, find_items, remove_all
from llm_localrun.registration import user_aliases
from llm_localrun.system.json_files import read_json
from llm_localrun.system.paths import home

_OPTIONAL = ("in",)


@click.command(help=__doc__)
@click.option("--models", "with_models", is_flag=True, help="Remove pulled models too")
@click.option("-y", "--yes", is_flag=True, help="Do not ask")
@click.option("--force", is_flag=True, help="Break off answers instead of waiting for them")
@json_option
def purge(with_models: bool, yes: bool, force: bool, as_json: bool) -> None:
    try:
        items = find_items(with_models=with_models)
        is_empty = all(item.reason for item in items)
        if not (as_json and (yes or is_empty)):
            _list(items, as_json)
        if is_empty:
            _say_nothing_to_do(items, as_json)
            return
        if not yes:
            _ask(with_models, as_json)
        removed = [*_shown(remove_all(_announce, with_models=with_models, force=force), as_json)]
        kept = [item for item in find_items(with_models=with_models) if item.reason]
    except OSError as error:
        raise NotRemoved.from_os_error("removed", error.filename or home(), error) from None
    if as_json:
        show_json([*map(_facts_of_removed, removed), *map(_facts, kept)])
    else:
        freed = size_text(sum(each.freed for each in removed))
        is_done = not any(each.problem for each in removed)
        what = "what llm-localrun had put here" if is_done else "the rest"
        say(f"Removed {what}: {freed} freed", *_left_to_llm())
    if any(each.problem for each in removed):
        raise click.exceptions.Exit(1)


def _list(items: Sequence[Item], as_json: bool) -> None:
    if items:
        show(as_json, map(_facts, items), map(_row, items), optional=_OPTIONAL)


def _say_nothing_to_do(items: Sequence[Item], as_json: bool) -> None:
    if as_json:
        show_json([*map(_facts, items)])
    more = ". Models stay: to remove them, too: llm localrun purge --models"
    say("Nothing to remove" + more * any(item.reason == KEPT for item in items), err=True)


def _ask(with_models: bool, as_json: bool) -> None:
    """Ends the command unless the user agrees."""
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        models = " --models" if with_models else ""
        say(f"Nothing was removed. To remove it: llm localrun purge{models} --yes", err=True)
        raise click.exceptions.Exit(1)
    if not click.confirm("Remove it?", default=False, err=True):
        say("Nothing was removed.", err=True)
        raise click.exceptions.Exit(1)


def _shown(steps: Iterable[Removed], as_json: bool) -> Iterator[Removed]:
    """`steps`, with a sentence for each engine that has ended, and each problem."""
    for step in steps:
        if step.problem:
            say(f"{step.problem}. The rest goes on. Fix that, and run this again.", err=True)
        elif step.item.is_engine and not as_json:
            say(f"Unloaded {step.item.path}")
        yield step


def _announce(name: str, doing: str) -> None:
    say(f"{name} {doing}: waiting. Use --force to end it now.", err=True)


def _facts(item: Item) -> dict[str, Any]:
    facts = {"what": item.what, "path": item.path, "size": item.size}
    return {**facts, "removed": False, "reason": item.reason}


def _facts_of_removed(removed: Removed) -> dict[str, Any]:
    is_gone = not removed.problem
    return {**_facts(removed.item), "removed": is_gone, "reason": removed.problem}


def _row(item: Item) -> Row:
    removal = "ends" if item.is_engine else "is removed"
    return {
        "what": f"{item.what}: {item.name}" if item.name else item.what,
        "size": size_text(item.size),
        "then": f"stays: {item.reason}" if item.reason else removal,
        "in": item.path,
    }


# What llm stores


def _left_to_llm() -> Iterator[str]:
    """What llm itself stores of our models and servers, and what removes it."""
    if commands := [*_commands()]:
        yield "llm itself still stores what you have set for local models. To remove that:"
        yield from (f"  {each}" for each in commands)
    path = home().parent / "keys.json"
    keys = [key for key in _names_in(read_json(path)) if key.startswith("localrun-")]
    if keys:
        yield f"llm still stores keys ({first_few(keys)}). To remove them, edit {path}"
    yield "To uninstall the plugin: llm uninstall llm-localrun"


def _commands() -> Iterator[str]:
    """The commands that remove aliases, options and defaults that mean local models."""
    aliases = [alias for alias, model in sorted(user_aliases().items()) if is_ours(str(model))]
    yield from filter(None, (command("aliases", "remove", alias) for alias in aliases))
    models = filter(is_ours, sorted(all_default_options()))
    yield from filter(None, (command("models", "options", "clear", name) for name in models))
    if is_ours(default_model()):
        yield f"llm models default {DEFAULT_MODEL}"
    if is_ours(default_embedding_model()):
        yield "llm embed-models default --remove-default"


def _names_in(value: object) -> list[str]:
    return sorted(map(str, value)) if isinstance(value, Mapping) else []
