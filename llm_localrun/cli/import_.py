"""Take over the models that another plugin has registered: llm-gguf.

Shows which model here each of its models is, and the commands that keep its aliases and context
sizes. Asks on a terminal whether to run them; --yes runs them at once. The files stay where they
are, and so does what the other plugin has written.

\b
Example:
  llm localrun import llm-gguf
"""

import json
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import llm
from llm.cli import set_model_option

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.llm_settings import command, default_options
from llm_localrun.cli.other_plugins import model_of
from llm_localrun.cli.table import count_of, json_option, say, show_json, show_table
from llm_localrun.errors import ConfigError
from llm_localrun.files import named
from llm_localrun.files.llm_gguf import LlmGgufStore, RegisteredFile, registered_files
from llm_localrun.models import LocalModel
from llm_localrun.name_cache import CachePolicy, is_ours
from llm_localrun.registration import user_aliases
from llm_localrun.system.json_files import read_json
from llm_localrun.system.paths import home
from llm_localrun.system.text import cut

_PLUGIN = LlmGgufStore.name
_PATH_WIDTH = 500


@dataclass(frozen=True, slots=True)
class _Step:
    """A change that keeps something of a model, and the command that makes it."""

    shown: str
    alias: str = ""
    context_size: int = 0
    path: str = ""
    """A file that is to be remembered."""


@dataclass(frozen=True, slots=True)
class _Import:
    """A model of the plugin, what it is here, and what is left to do."""

    file: RegisteredFile
    model: LocalModel | None
    steps: tuple[_Step, ...]
    notes: tuple[str, ...]


@click.command("import", help=__doc__)
@click.argument("plugin", type=click.Choice([_PLUGIN]))
@click.option("--yes", is_flag=True, help="Run the commands without asking")
@json_option
def import_(plugin: str, yes: bool, as_json: bool) -> None:
    found = list(_imports())
    steps = [(each.model, step) for each in found if each.model for step in each.steps]
    if not as_json:
        _show(found)
    if yes or (steps and not as_json and _agrees(len(steps))):
        _check_settings(step for _, step in steps)
        for model, step in steps:
            _do(step, model.id)
    if as_json:
        show_json([_facts(each) for each in found])
    elif not found:
        say(f"{plugin} has registered no models.", err=True)
    elif not steps:
        say("There is nothing to change.", err=True)
    elif yes:
        say(f"Done: {count_of(len(steps), 'command')}", err=True)


def _imports() -> Iterator[_Import]:
    files = registered_files()
    models = [m for m in get_catalogue(CachePolicy.FRESH).models if m.has_command and not m.problem]
    aliases, seen = {**user_aliases()}, set[str]()
    for file in files:
        model = model_of(file, models)
        if model is None:
            yield _Import(file, None, (), (_why_not_here(file),))
            continue
        steps, notes = list(_other_steps(file, model)), list[str]()
        for alias in dict.fromkeys(file.aliases):
            target = aliases.get(alias, file.id)
            shown = command("aliases", "set", alias, model.id)
            if target not in (file.id, model.id):
                notes.append(f"{alias} is already your alias for {target}")
            elif is_ours(alias) and target != model.id:
                notes.append(f"the alias {alias} would hide models of llm-localrun")
            elif shown is None or not alias:
                notes.append("an alias cannot be typed")
            elif target != model.id:
                steps.append(_Step(shown, alias=alias))
                aliases[alias] = model.id
        # Several of its models can have one file.
        new = [step for step in steps if step.shown not in seen]
        seen.update(step.shown for step in new)
        yield _Import(file, model, tuple(new), tuple(notes))


def _other_steps(file: RegisteredFile, model: LocalModel) -> Iterator[_Step]:
    """What keeps a file that only the plugin's index names, and its context size."""
    if file.is_elsewhere and model.on_disk and model.on_disk.store == _PLUGIN:
        path = model.on_disk.path
        if path not in named.remembered():
            yield _Step(f"remember the file {shlex.quote(path)}", path=path)
    if file.context_size and "context_size" not in default_options(model.id):
        size = file.context_size
        shown = command("models", "options", "set", model.id, "context_size", str(size))
        if shown is not None:
            yield _Step(shown, context_size=size)


def _why_not_here(file: RegisteredFile) -> str:
    if not file.path:
        return "it names no file"
    path = cut(json.dumps(file.path)[1:-1], _PATH_WIDTH)
    # Path.exists raises where this returns False: for a path that is too long, or is not readable.
    is_there = os.path.exists(file.path)  # noqa: PTH110
    return f"{path} is not a model that can be run" if is_there else f"{path} is missing"


def _show(found: list[_Import]) -> None:
    if found:
        here = [(each.file.id, each.model.id if each.model else "") for each in found]
        show_table([{_PLUGIN: file, "here": model} for file, model in here], may_break_first=True)
    for each in found:
        say(*(f"{each.file.id}: {note}." for note in each.notes), err=True)
    if steps := [step.shown for each in found for step in each.steps]:
        say("", *steps)


def _agrees(count: int) -> bool:
    """Whether the user wants the commands to be run; says how to, if they cannot be asked."""
    if _is_terminal():
        return click.confirm(f"Run {'it' if count == 1 else 'them'}?")
    say("", f"Nothing was changed. To run them: `llm localrun import {_PLUGIN} --yes`", err=True)
    return False


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _check_settings(steps: Iterable[_Step]) -> None:
    """Raises `ConfigError` if a file that llm changes is damaged.

    llm would replace all aliases in it, and has no sentence for options.
    """
    for name in {"aliases.json" if step.alias else "model_options.json" for step in steps}:
        path = home().parent / name
        if path.exists() and not isinstance(read_json(path), dict):
            raise ConfigError(
                f"{path} cannot be read: it holds no JSON object", "Fix the file, or delete it"
            )


def _do(step: _Step, model_id: str) -> None:
    """Makes a change as the command does. Raises `ConfigError`."""
    try:
        if step.alias:
            llm.set_alias(step.alias, model_id)  # type: ignore[no-untyped-call]
        elif step.context_size:
            set_model_option(model_id, "context_size", step.context_size)
        else:
            named.remember(Path(step.path))
    except OSError as error:
        path = error.filename or home().parent
        raise ConfigError.from_os_error("written", path, error) from None


def _facts(each: _Import) -> dict[str, Any]:
    """What `--json` shows of a model. `docs/json.md` describes each field."""
    return {
        "other_model": each.file.id,
        "path": each.file.path,
        "model": each.model.id if each.model else None,
        "commands": [step.shown for step in each.steps if not step.path],
        "remember": any(step.path for step in each.steps),
        "notes": each.notes,
    }
