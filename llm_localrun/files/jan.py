"""Jan's data folder: llamacpp/models/ID…/model.yml says where a model's file is.

https://github.com/janhq/jan, src-tauri/src/core/app (2026).
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llm_localrun.files.base import APPLICATION_SUPPORT, Store, StoreItem
from llm_localrun.files.folders import entries_below, walk
from llm_localrun.files.found import FoundFile, existing, file_at
from llm_localrun.system.json_files import lines_of, read_json, text_at
from llm_localrun.system.paths import expanded

_MAX_LEVELS = 7


class JanStore(Store):
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
        for entry in entries_below(str(models), _MAX_LEVELS, problems):
            found = self._found(folder, Path(entry.path)) if entry.name == "model.yml" else None
            if found is not None:
                yield found
        yield from walk(models, problems)
        yield from walk(folder / "models", problems)

    def _found(self, folder: Path, settings: Path) -> FoundFile | None:
        """The file that a model.yml names; its paths are absolute, or relative to `folder`."""
        model_id = settings.parent.relative_to(folder / "llamacpp/models").as_posix()
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
