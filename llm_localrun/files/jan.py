"""Jan's data folder: llamacpp/models/ID…/model.yml says where a model's file is.

https://github.com/janhq/jan, src-tauri/src/core/app (2026).
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llm_localrun.files.folders import entries_of, is_folder, walk
from llm_localrun.files.found import Found, Group, existing, file_at
from llm_localrun.system.json_files import lines_of, read_json, text_at

_MAX_DEPTH = 6


def jan_files(root: Path, problems: list[str]) -> Iterator[Found | Group]:
    """The files that model.yml files name, then those that lie in the models' folders anyway."""
    models = root / "llamacpp" / "models"
    for settings in _settings(str(models), _MAX_DEPTH, problems):
        found = _found(root, settings, settings.parent.relative_to(models).as_posix())
        if found is not None:
            yield found
    yield from walk(models, problems)
    yield from walk(root / "models", problems)


def data_folder(settings: Path) -> str:
    """The data folder that the user has chosen, by Jan's settings.json; "" if that is silent."""
    return text_at(read_json(settings), "data_folder")


def _settings(folder: str, levels: int, problems: list[str]) -> Iterator[Path]:
    for entry in entries_of(folder, problems):
        if entry.name == "model.yml":
            yield Path(entry.path)
        elif levels and is_folder(entry):
            yield from _settings(entry.path, levels - 1, problems)


def _found(root: Path, settings: Path, model_id: str) -> Found | None:
    """The file of a model; its paths are absolute, or start from the data folder."""
    values = lines_of(settings, ":")
    path, projector = values.get("model_path"), values.get("mmproj_path")
    found = file_at(str(root / path), "jan", model_id) if path else None
    if found is None:
        return None
    return replace(
        found,
        projector=existing(str(root / projector)) if projector else "",
        fingerprints=(f"name:jan:{model_id}",),
    )
