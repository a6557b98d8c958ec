"""Show the commands that move settings of llm to these models.

Looks at your aliases, default models, default options and templates for models of llm-ollama,
llm-lmstudio, llm-gguf, llm-mlx and llm-llama-server. Nothing is changed: paste the commands that
you want into a shell.

\b
Example:
  llm localrun migrate
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click
import llm
from typing_extensions import assert_never

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.llm_settings import command, default_options
from llm_localrun.cli.other_plugins import (
    LlmSetting,
    SettingKind,
    by_other_ids,
    our_options,
    settings,
    why_not_here,
)
from llm_localrun.cli.table import json_option, say, show_json
from llm_localrun.config import read_config
from llm_localrun.models import LocalModel
from llm_localrun.name_cache import CachePolicy
from llm_localrun.privacy import requires_consent

_UNPRINTABLE = "a name in it cannot be typed"
_WORDS = r"[\w@%+=:,./ -]+"
_HARMLESS = re.compile(rf"{_WORDS}(\({_WORDS}\))?")


@dataclass(frozen=True, slots=True)
class _Move:
    """A setting, and the commands that make it one of a model of ours."""

    setting: LlmSetting
    model: LocalModel | None
    commands: tuple[str, ...]
    notes: tuple[str, ...]
    """What the commands leave to the user; without a model, why there is none."""


@click.command(help=__doc__)
@json_option
def migrate(as_json: bool) -> None:
    moves = list(_moves())
    if as_json:
        show_json([_facts(move) for move in moves])
        return
    found = [move for move in moves if move.commands or (move.model and move.notes)]
    for move in found:
        say(*map(_comment, (_title(move.setting), *move.notes)), *move.commands)
    for move in moves:
        if move.model is None:
            say(f"{_title(move.setting)}: {'; '.join(move.notes)}.", err=True)
    if found:
        say("Nothing was changed. Paste the commands that you want.", err=True)
    elif not moves:
        say("No setting of llm names a model of another plugin for local models.", err=True)


def _moves() -> Iterator[_Move]:
    snapshot = get_catalogue(CachePolicy.FRESH)
    ours, registered = by_other_ids(snapshot.models), _registered()
    for setting in settings():
        model = ours.get(setting.model)
        if model is None:
            if reason := why_not_here(setting.model, registered, snapshot):
                yield _Move(setting, None, (), (reason,))
            continue
        commands, notes = _steps(setting, model)
        if commands or notes:
            yield _Move(setting, model, tuple(filter(None, commands)), _all_notes(commands, notes))


def _registered() -> Mapping[str, Any]:
    """The models that llm knows, by all their names."""
    try:
        return llm.get_model_aliases() | llm.get_embedding_model_aliases()
    except (ValueError, AttributeError):
        # llm 0.36 raises these for an aliases.json that is not a JSON object.
        return {}


def _steps(setting: LlmSetting, model: LocalModel) -> tuple[list[str | None], list[str]]:
    """The commands for a setting, None for one that cannot be typed; and notes."""
    notes = []
    if requires_consent(model) and model.id not in read_config().allow:
        notes.append("The model does not run on this machine: see llm localrun allow --help")
    match setting.kind:
        case SettingKind.ALIAS:
            return [command("aliases", "set", setting.name, model.id)], notes
        case SettingKind.DEFAULT_MODEL:
            return [command("models", "default", model.id)], notes
        case SettingKind.DEFAULT_EMBEDDING_MODEL:
            return [command("embed-models", "default", model.id)], notes
        case SettingKind.TEMPLATE:
            options = our_options(setting.options, model)
            changes = [f"{setting.model} is {model.id}", *options.renamed]
            notes.append(f"Change in the file: {', '.join(changes)}")
            return [command("templates", "edit", setting.name)], [*notes, *options.problems]
        case SettingKind.OPTIONS:
            return _options(setting, model)
        case _:
            assert_never(setting.kind)


def _options(setting: LlmSetting, model: LocalModel) -> tuple[list[str | None], list[str]]:
    """The commands for the default options of a model, without those that ours has already."""
    options = our_options(setting.options, model)
    present = default_options(model.id)
    commands = [
        command("models", "options", "set", model.id, name, value)
        for name, value in options.values.items()
        if name not in present
    ]
    # What has no counterpart is worth a line only together with the rest.
    return commands, list(options.problems) if commands or not options.values else []


def _all_notes(commands: list[str | None], notes: list[str]) -> tuple[str, ...]:
    return (*notes, *[_UNPRINTABLE] * (None in commands))


def _title(setting: LlmSetting) -> str:
    """A setting in words: alias fast (ollama/qwen3:8b)."""
    return f"{' '.join(filter(None, (setting.kind.value, setting.name)))} ({setting.model})"


def _comment(text: str) -> str:
    """A line that does nothing when it is pasted.

    zsh takes `#` for a command, unless it is told otherwise, and expands the words after it.
    """
    return f"# {text if _HARMLESS.fullmatch(text) else shlex.quote(text)}"


def _facts(move: _Move) -> dict[str, Any]:
    """What `--json` shows of a setting. `docs/json.md` describes each field."""
    return {
        "setting": move.setting.kind.value,
        "name": move.setting.name,
        "other_model": move.setting.model,
        "model": move.model.id if move.model else None,
        "commands": move.commands,
        "notes": move.notes,
    }
