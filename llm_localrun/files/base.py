"""What the stores have in common: a store is a tool's folders of models, one module per tool.

Each module of this package that defines a subclass of `Store` adds a store; nothing else lists
them. Combining what the stores hold is left to `scan`.
"""

import functools
import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

from llm_localrun.files.folders import walk
from llm_localrun.files.found import FoundFile
from llm_localrun.gguf.files import parts_of
from llm_localrun.models import LocalModel, OnDisk
from llm_localrun.system.paths import expanded

APPLICATION_SUPPORT = "~/Library/Application Support"
"""Where applications keep their data on macOS."""
SEVERAL_BLOBS = "its weights are in several blobs, which llama.cpp does not join"
"""Why a model of Ollama or Docker cannot be run."""

_HUB_CACHE_FOLDER = re.compile(r"models--(?P<owner>[^/\\]+?)--(?P<name>[^/\\]+)")
"""A repository in a Hugging Face cache, which lies in the folders of several tools."""


class StoreItem(Protocol):
    """A part of what a store lists. Its `repr` changes if the files in it may have changed."""

    def found_files(self, store: str) -> Iterator[FoundFile]: ...


class Store:
    """Where a tool's folders are, how they are read, and how a model is deleted from them.

    The paths of a system that has none of its own are those of Linux. A path begins with `~`, a
    variable such as `$XDG_DATA_HOME`, or `/`.
    """

    name: ClassVar[str]
    precedence: ClassVar[int]
    """Stores are read in ascending order. A file in two stores counts as the first one's."""
    overrides: ClassVar[tuple[str, ...]] = ()
    """Variables that replace the paths: the first that is set. `NAME/hub` means its folder hub."""
    pulled_by: ClassVar[str] = ""
    """The kind of server that pulls models into this store; "" if none does."""
    linux: ClassVar[tuple[str, ...]] = ()
    mac: ClassVar[tuple[str, ...]] = ()
    windows: ClassVar[tuple[str, ...]] = ()

    def variables(self) -> set[str]:
        """The environment variables that decide where the folders are."""
        paths = "\n".join((*self.linux, *self.mac, *self.windows))
        names = re.findall(r"^\$(\w+)", paths, re.MULTILINE)
        return {*names, *(variable.partition("/")[0] for variable in self.overrides)}

    def configured_folder(self) -> str:
        """The folder in the tool's own settings; "" if they name none."""
        return ""

    def folders(self, added: Sequence[str]) -> list[Path]:
        """The folders to scan, whether they exist or not. `added` are those in config.json."""
        for variable in self.overrides:
            name, _, below = variable.partition("/")
            if folder := os.environ.get(name):
                return [expanded(folder).absolute() / below]
        if folder := self.configured_folder():
            return [expanded(folder).absolute()]
        return [expanded(path) for path in self.on_system()]

    def on_system(self) -> tuple[str, ...]:
        """The paths of this system, not expanded."""
        own = {"darwin": self.mac, "win32": self.windows}.get(sys.platform, ())
        return own or self.linux

    def scan(self, folder: Path, problems: list[str]) -> Iterable[StoreItem]:
        """What is in `folder`; what cannot be read is added to `problems`."""
        return walk(folder, problems)

    def repository_of(self, path: str) -> str:
        """The Hugging Face repository of a file, as OWNER/REPO; "" if it is not known."""
        match = _HUB_CACHE_FOLDER.search(path)
        return f"{match['owner']}/{match['name']}" if match else ""

    def remote_host_of(self, model: LocalModel, route: OnDisk) -> str | None:
        """The host that the tool passes prompts for `model` on to by now; "" if it runs it here.

        None if the files here do not show that.
        """
        return None

    def files_to_delete(self, model: LocalModel, route: OnDisk) -> list[Path]:
        """The files to delete, in this order, so that the model at `route` is gone.

        Raises `NotRemoved` if only the tool itself can do that.
        """
        return parts_of(Path(route.path))


class StoreFolder(NamedTuple):
    """A folder to scan, and the store that it belongs to."""

    store: Store
    path: Path


def store_folders(added: Sequence[str]) -> Iterator[StoreFolder]:
    """Every folder to scan, in the order of precedence. `added` are those in config.json."""
    for store in stores():
        for path in store.folders(added):
            yield StoreFolder(store, path)


@functools.cache
def stores() -> tuple[Store, ...]:
    """One of each store, in the order of precedence."""
    package = importlib.import_module(__package__)
    found: list[Store] = []
    for each in pkgutil.iter_modules(package.__path__):
        if each.ispkg:
            # `gotemplate`, which a scan does not need.
            continue
        module = importlib.import_module(f"{__package__}.{each.name}")
        found += [value() for value in vars(module).values() if _is_store_of(value, each.name)]
    return tuple(sorted(found, key=lambda store: store.precedence))


def _is_store_of(value: object, module: str) -> bool:
    """Whether `value` is a store that the module defines, and not one that it imports."""
    is_store = isinstance(value, type) and issubclass(value, Store) and value is not Store
    return is_store and value.__module__ == f"{__package__}.{module}"


def store_named(name: str) -> Store:
    """The store called `name`; for files in no store, one that deletes just the file."""
    return next((store for store in stores() if store.name == name), Store())


def variables() -> tuple[str, ...]:
    """The environment variables that decide where any store is, sorted."""
    return tuple(sorted({name for store in stores() for name in store.variables()}))
