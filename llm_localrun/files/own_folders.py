"""Folders of models that belong to no tool: our own, those in config.json, and common ones."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from llm_localrun.files.base import Store, StoreItem
from llm_localrun.files.folders import walk
from llm_localrun.system.paths import expanded, models_folder


class OwnStore(Store):
    """What `llm localrun pull` downloads."""

    name = "localrun"
    precedence = 10

    def folders(self, added: Sequence[str]) -> list[Path]:
        return [models_folder()]


class AddedStore(Store):
    """The folders that the user has added to config.json."""

    name = "folders"
    precedence = 20

    def folders(self, added: Sequence[str]) -> list[Path]:
        return [expanded(folder).absolute() for folder in added]


class CommonStore(Store):
    """Folders that people make for models.

    Not ~/Downloads: macOS asks the user for permission each time.
    """

    name = "models"
    precedence = 140
    linux = ("~/models", "~/Models", "/models")
    windows = ("~/models", "D:/models")

    def scan(self, folder: Path, problems: list[str]) -> Iterable[StoreItem]:
        return walk(folder, problems, depth=3)
