"""Jan's data folder: llamacpp/models/ID…/model.yml says where a model's file is.

https://github.com/janhq/jan, src-tauri/src/core/app (2026).
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llm_localrun.files.base import APPLICATION_SUPPORT, Store, StoreItem
from llm_localrun.files.folders import entries_of, is_folder, walk
from llm_localrun.files.found import FoundFile, existing, file_at
from llm_localrun.system.json_files import lines_of, read_json, text_at
from llm_localrun.system.paths import expanded

_MAX_DEPTH = 6


class Jan(Store):
    """Files that a model.yml names, and other files in the folders of models."""

    name = "jan"
    precedence = 90
    overrides = ("JAN_DATA_FOLDER",)
    linux = ("$XDG_DATA_HOME/Jan/data", "$XDG_CONFIG_HOME/Jan/data", "~/jan")
    mac = (f"{APPLICATION_SUPPORT}/Jan/data", "~/jan")
    windows = ("$APPDATA/Jan/data", "~/jan")

    def configured_folder(self) -> str:
        settings = (expanded(path).parent / "settings.json" for path in self.on_system())
        folders = (text_at(read_json(each), "data_folder") for each in settings)
        return next(filter(None, folders), "")

    def scan(self, folder: Path, problems: list[str]) -> Iterator[StoreItem]:
        models = folder / "llamacpp/models"
        for settings in _settings(str(models), _MAX_DEPTH, problems):
            model_id = settings.parent.relative_to(models).as_posix()
            found = self._found(folder, settings, model_id)
            if found is not None:
                yield found
        yield from walk(models, problems)
        yield from walk(folder / "models", problems)

    def _found(self, folder: Path, settings: Path, model_id: str) -> FoundFile | None:
        """The file of a model; its paths are absolute, or relative to the data folder."""
        values = lines_of(settings, ":")
        path, projector = values.get("model_path"), values.get("mmproj_path")
        found = file_at(str(folder / path), model_id) if path else None
        if found is None:
            return None
        return replace(
            found,
            projector=existing(str(folder / projector)) if projector else "",
            fingerprints=(f"name:{self.name}:{model_id}",),
        )


def _settings(folder: str, levels: int, problems: list[str]) -> Iterator[Path]:
    for entry in entries_of(folder, problems):
        if entry.name == "model.yml":
            yield Path(entry.path)
        elif levels and is_folder(entry):
            yield from _settings(entry.path, levels - 1, problems)
