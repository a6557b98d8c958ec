"""What llm's settings say of models of other plugins, and which of our models those are.

Reads aliases, default models, default options and templates. Showing what to change is left to
`migrate` and `import_`.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from llm.cli import LoadTemplateError, load_template

from llm_localrun.chat.options import Options
from llm_localrun.cli.llm_settings import (
    all_default_options,
    default_embedding_model,
    default_model,
)
from llm_localrun.errors import ConfigError
from llm_localrun.files import store_named
from llm_localrun.files.found import is_text
from llm_localrun.files.llm_gguf import ID_PREFIX, RegisteredFile, registered_files
from llm_localrun.models import LocalModel, OnDisk, Route, ServerStatus, Snapshot
from llm_localrun.name_cache import is_ours
from llm_localrun.registration import user_aliases
from llm_localrun.servers.base import Server, server_class, server_kinds
from llm_localrun.system.paths import home


class SettingKind(str, Enum):
    """What a setting of llm is."""

    ALIAS = "alias"
    DEFAULT_MODEL = "default model"
    DEFAULT_EMBEDDING_MODEL = "default embedding model"
    OPTIONS = "options"
    TEMPLATE = "template"


@dataclass(frozen=True, slots=True)
class LlmSetting:
    """A setting of llm that names a model of another plugin."""

    kind: SettingKind
    model: str
    """The name of the model in the setting."""
    name: str = ""
    """That of the alias or the template."""
    options: Mapping[str, Any] = field(default_factory=dict)


def settings() -> Iterator[LlmSetting]:
    """The settings that name models of others. What cannot be read is left out."""
    aliases = user_aliases()
    for setting in _all_settings(aliases):
        is_alias = setting.kind is not SettingKind.ALIAS and setting.model in aliases
        if setting.model and not (is_ours(setting.model) or is_alias):
            yield setting


def _all_settings(aliases: Mapping[str, Any]) -> Iterator[LlmSetting]:
    for alias, model in aliases.items():
        if isinstance(model, str):
            yield LlmSetting(SettingKind.ALIAS, model, alias)
    yield LlmSetting(SettingKind.DEFAULT_MODEL, default_model())
    yield LlmSetting(SettingKind.DEFAULT_EMBEDDING_MODEL, default_embedding_model())
    for model, options in all_default_options().items():
        if isinstance(options, dict) and options:
            yield LlmSetting(SettingKind.OPTIONS, model, options=options)
    for path in sorted((home().parent / "templates").glob("*.yaml")):
        if path.is_file():
            yield from _template_setting(path)


def _template_setting(path: Path) -> Iterator[LlmSetting]:
    try:
        template = load_template(str(path))
    except (LoadTemplateError, OSError, ValueError, TypeError, RecursionError):
        # llm says what is wrong with it where it is used.
        return
    yield LlmSetting(SettingKind.TEMPLATE, template.model or "", path.stem, template.options or {})


# Models


def by_other_ids(models: Iterable[LocalModel]) -> dict[str, LocalModel]:
    """Our models that can run, by the ids that they have in other plugins."""
    usable = [model for model in models if model.has_command and not model.problem]
    found: dict[str, LocalModel] = {}
    for model in usable:
        for each in _ids_in_plugins(model):
            found.setdefault(each, model)
            found.setdefault(each.removesuffix(":latest"), model)
    try:
        files = registered_files()
    except ConfigError:
        return found
    of_files = ((file.id, model_of(file, usable)) for file in files)
    return found | {each: model for each, model in of_files if model is not None}


def model_of(file: RegisteredFile, models: Iterable[LocalModel]) -> LocalModel | None:
    """The model of ours in a file that llm-gguf has registered; None if it cannot be run."""
    real = os.path.realpath(file.path) if file.path and is_text(file.path) else ""
    on_disk = ((model, model.on_disk) for model in models if model.on_disk)
    return next((m for m, route in on_disk if os.path.realpath(route.path) == real), None)


def _ids_in_plugins(model: LocalModel) -> Iterator[str]:
    for route in model.routes:
        if not isinstance(route, OnDisk):
            cls, url = server_class(route.endpoint.kind), route.endpoint.url
            yield from cls.ids_in_plugins(url, model.name)
        elif kind := _kind_of_route(route):
            yield from server_class(kind).ids_in_plugins("", model.name)


def why_not_here(model: str, registered: Mapping[str, Any], snapshot: Snapshot) -> str:
    """Why none of our models is the one that a setting names; "" if it need not be one.

    `registered` has the names of all models that llm knows.
    """
    if model.startswith(ID_PREFIX):
        return "llm-gguf has not registered it, or its file is not there or cannot be run"
    kind = _kind_of(model)
    if kind is not None:
        reports = (report for report in snapshot.endpoints if report.endpoint.kind == kind.kind)
        if any(report.status is ServerStatus.ANSWERS for report in reports):
            return f"{kind.title} has no model of that name"
        return f"{kind.title} does not answer. {kind.start_hint}"
    return "" if model in registered else "no plugin that is installed has a model of that name"


def _kind_of(model: str) -> type[Server] | None:
    """The kind of server that only a model with this id in another plugin can have."""
    for kind in server_kinds().values():
        for pattern in kind.plugin_ids:
            beginning, is_open, _ = pattern.partition("{")
            if beginning and (model.startswith(beginning) if is_open else model == beginning):
                return kind
    return None


# Options


@dataclass(frozen=True, slots=True)
class OurOptions:
    """The options of a setting as ours, and why some of them are not among them."""

    values: Mapping[str, str]
    problems: tuple[str, ...]
    renamed: tuple[str, ...]
    """Such as "num_ctx is context_size"."""


def our_options(options: Mapping[str, Any], model: LocalModel) -> OurOptions:
    """The options of a model in another plugin, as `model` of ours takes them."""
    values, problems, renamed = {}, [], []
    names = _our_names(model)
    served = server_class(model.served.endpoint.kind).options if model.served else None
    for theirs, value in options.items():
        name = theirs if theirs in Options.model_fields else names.get(theirs, "")
        text = _text_of(value)
        if not name or (served is not None and name not in served):
            problems.append(f"there is no option for {theirs}")
        elif text is None:
            problems.append(f"the value of {theirs} cannot be set by a command")
        else:
            values[name] = text
            renamed += [f"{theirs} is {name}"] * (theirs != name)
    return OurOptions(values, tuple(problems), tuple(renamed))


def _our_names(model: LocalModel) -> dict[str, str]:
    """Our options by the names that the server has for them, which its plugin uses."""
    kinds = filter(None, map(_kind_of_route, model.routes))
    options = (option for kind in kinds for option in server_class(kind).options.items())
    return {wire.path.rpartition(".")[2]: name for name, wire in options}


def _kind_of_route(route: Route) -> str:
    """The kind of server that has the model; "" for a file that none has."""
    if isinstance(route, OnDisk):
        return store_named(route.store).pulled_by
    return route.endpoint.kind


def _text_of(value: Any) -> str | None:
    """The value of an option as a command takes it; None if it cannot."""
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    return value if isinstance(value, str) and value else None
