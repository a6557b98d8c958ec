"""Where each tool keeps its models: on each system, or where its settings say.

Sources: the tools' documentation or source. Folders that people make for themselves are taken where
they are dedicated to models; not ~/Downloads, for which macOS asks the user each time.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from llm_localrun.files.docker import docker_files
from llm_localrun.files.folders import walk
from llm_localrun.files.found import Found, Group, Known, Unchanged
from llm_localrun.files.huggingface import hub_files
from llm_localrun.files.jan import data_folder, jan_files
from llm_localrun.files.llm_gguf import llm_gguf_files
from llm_localrun.files.lmstudio import lmstudio_files
from llm_localrun.files.ollama import ollama_files
from llm_localrun.files.ramalama import ramalama_files
from llm_localrun.servers.lmstudio_home import models_folder
from llm_localrun.system.json_files import lines_of, read_json, text_at
from llm_localrun.system.paths import home, user_home

Items: TypeAlias = Iterator[Found | Group | Unchanged]
Look: TypeAlias = Callable[["Place", Known, list[str]], Items]
"""Looks through a place; what cannot be read is said in the list."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of somebody's, and how to look through it."""

    store: str
    path: Path
    look: Look


@dataclass(frozen=True, slots=True)
class _Location:
    """A row of the table: the first of `variables` that is set, else `setting`, else the paths.

    The paths of a system that has none of its own are those of Linux.
    """

    store: str
    look: Look
    linux: tuple[str, ...]
    mac: tuple[str, ...] = ()
    windows: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    setting: Callable[[], str] = str


# What a variable stands for where it is not set.
_DEFAULTS = {
    "XDG_CACHE_HOME": "~/.cache",
    "XDG_CONFIG_HOME": "~/.config",
    "XDG_DATA_HOME": "~/.local/share",
    "APPDATA": "~/AppData/Roaming",
    "LOCALAPPDATA": "~/AppData/Local",
}
_MAC = "~/Library/Application Support"


def _folder(place: Place, _: Known, problems: list[str]) -> Items:
    return walk(place.path, problems)


def _shallow(place: Place, _: Known, problems: list[str]) -> Items:
    return walk(place.path, problems, depth=3)


def _llamacpp(place: Place, _: Known, problems: list[str]) -> Items:
    """Older ones keep files side by side, newer ones as the hub does, if told to keep them here."""
    yield from hub_files(place.path, problems)
    # Not so deep that it meets the hub's snapshots again.
    yield from walk(place.path, problems, depth=2)


def _ollama(place: Place, known: Known, problems: list[str]) -> Items:
    return ollama_files(place.path, place.store, known, problems)


def _lmstudio_folder() -> str:
    return str(models_folder(user_home()))


def _gpt4all_folder() -> str:
    return lines_of(expanded(_on_system(_GPT4ALL_SETTINGS)[0]), "=").get("modelPath", "")


def _jan_folder() -> str:
    settings = (expanded(folder) for folder in _on_system(_JAN))
    folders = (data_folder(folder.parent / "settings.json") for folder in settings)
    return next((folder for folder in folders if folder), "")


def _msty_folder() -> str:
    return text_at(read_json(msty_settings()), "localAIService", "modelsPath")


def msty_settings() -> Path:
    """Msty Studio's settings, of its folders and of its services."""
    return expanded(_on_system(_MSTY)[0]).parent / "Gifnoc.nosj"


def _llm_gguf_folder() -> str:
    return str(home().parent / "gguf")


_GPT4ALL_SETTINGS = _Location(
    "gpt4all",
    _folder,
    linux=("$XDG_CONFIG_HOME/nomic.ai/GPT4All.ini",),
    windows=("$APPDATA/nomic.ai/GPT4All.ini",),
)
_JAN = _Location(
    "jan",
    lambda place, _, problems: jan_files(place.path, problems),
    linux=("$XDG_DATA_HOME/Jan/data", "$XDG_CONFIG_HOME/Jan/data", "~/jan"),
    mac=(f"{_MAC}/Jan/data", "~/jan"),
    windows=("$APPDATA/Jan/data", "~/jan"),
    variables=("JAN_DATA_FOLDER",),
    setting=_jan_folder,
)
_MSTY = _Location(
    "msty",
    _ollama,
    linux=("$XDG_CONFIG_HOME/MstyStudio/models",),
    mac=(f"{_MAC}/MstyStudio/models",),
    windows=("$APPDATA/MstyStudio/models",),
    setting=_msty_folder,
)

_LOCATIONS = (
    _Location(
        "lmstudio",
        lambda place, _, problems: lmstudio_files(place.path, problems),
        linux=("~/.lmstudio/models",),
        setting=_lmstudio_folder,
    ),
    _Location(
        "huggingface",
        lambda place, _, problems: hub_files(place.path, problems),
        linux=("$XDG_CACHE_HOME/huggingface/hub",),
        variables=("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME/hub"),
    ),
    _Location(
        "llamacpp",
        _llamacpp,
        linux=("$XDG_CACHE_HOME/llama.cpp",),
        mac=("~/Library/Caches/llama.cpp",),
        windows=("$LOCALAPPDATA/llama.cpp",),
        variables=("LLAMA_CACHE",),
    ),
    _Location(
        "ollama",
        _ollama,
        linux=(
            "~/.ollama/models",
            "/usr/share/ollama/.ollama/models",
            "/var/lib/ollama/.ollama/models",
        ),
        mac=("~/.ollama/models",),
        windows=("~/.ollama/models",),
        variables=("OLLAMA_MODELS",),
    ),
    _MSTY,
    _Location(
        "gpt4all",
        _folder,
        linux=("$XDG_DATA_HOME/nomic.ai/GPT4All",),
        mac=(f"{_MAC}/nomic.ai/GPT4All",),
        windows=("$LOCALAPPDATA/nomic.ai/GPT4All",),
        setting=_gpt4all_folder,
    ),
    # Its Python package, which llm-gpt4all uses.
    _Location("gpt4all", _folder, linux=("~/.cache/gpt4all",)),
    _JAN,
    _Location(
        "llm-gguf",
        lambda place, _, problems: llm_gguf_files(place.path, problems),
        linux=(),
        setting=_llm_gguf_folder,
    ),
    _Location(
        "docker",
        lambda place, _known, _problems: docker_files(place.path),
        linux=("~/.docker/models",),
        variables=("MODELS_PATH",),
    ),
    _Location(
        "ramalama",
        lambda place, _, problems: ramalama_files(place.path, problems),
        linux=("$XDG_DATA_HOME/ramalama", "/var/lib/ramalama"),
        mac=("$XDG_DATA_HOME/ramalama",),
        windows=("$XDG_DATA_HOME/ramalama",),
        variables=("RAMALAMA_STORE",),
    ),
    _Location("lemonade", _folder, linux=("~/.cache/lemonade",)),
    _Location(
        "models",
        _shallow,
        linux=("~/models", "~/Models", "/models"),
        windows=("~/models", "D:/models"),
    ),
)


def places(folders: Iterable[str]) -> Iterator[Place]:
    """Every folder to look through: our own, those that the user has added, the tools'."""
    yield Place("localrun", home() / "models", _folder)
    for folder in folders:
        yield Place("folders", expanded(folder).absolute(), _folder)
    for location in _LOCATIONS:
        for path in _paths(location):
            yield Place(location.store, path, location.look)


def _paths(location: _Location) -> list[Path]:
    for variable in location.variables:
        name, _, below = variable.partition("/")
        if folder := os.environ.get(name):
            return [expanded(folder).absolute() / below]
    if folder := location.setting():
        return [expanded(folder).absolute()]
    return [expanded(path) for path in _on_system(location)]


def _on_system(location: _Location) -> tuple[str, ...]:
    own = {"darwin": location.mac, "win32": location.windows}.get(sys.platform, ())
    return own or location.linux


def expanded(path: str) -> Path:
    """A path with variables and ~; that stays as it is if nobody knows whose home it is."""
    path = re.sub(r"^\$(\w+)", lambda m: os.environ.get(m[1]) or _DEFAULTS[m[1]], path)
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser raises instead
