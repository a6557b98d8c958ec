"""The files of the plugin llm-gguf: a folder, and two indexes that may name files elsewhere.

https://github.com/simonw/llm-gguf
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from llm_localrun.errors import ConfigError
from llm_localrun.files.base import Store, StoreItem
from llm_localrun.files.folders import walk
from llm_localrun.files.found import existing, file_at
from llm_localrun.system.json_files import list_at, read_json, text_at, value_at
from llm_localrun.system.paths import home

ID_PREFIX = "gguf/"
"""The beginning of the ids that it gives its models."""
_INDEXES = ("models.json", "embed-models.json")


class LlmGgufStore(Store):
    """The files that the indexes name, and other files in the folder."""

    name = "llm-gguf"
    precedence = 100

    def configured_folder(self) -> str:
        return str(_folder())

    def scan(self, folder: Path, problems: list[str]) -> Iterator[StoreItem]:
        for name in _INDEXES:
            index = read_json(folder / name)
            for model in index.values() if isinstance(index, dict) else ():
                path = text_at(model, "path")
                found = file_at(path) if path else None
                if found is not None:
                    yield replace(found, projector=existing(text_at(model, "clip_model_path")))
        yield from walk(folder / "models", problems)


@dataclass(frozen=True, slots=True)
class RegisteredFile:
    """A file that llm-gguf has registered with llm (0.2)."""

    id: str
    """Its id in llm: `gguf/NAME`."""
    path: str
    """"" if the index names none."""
    aliases: tuple[str, ...]
    context_size: int | None
    """None: the one that the model was trained for."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether only the index says where the file is."""
        return not Path(self.path).is_relative_to(_folder() / "models")


def registered_files() -> list[RegisteredFile]:
    """The files in the indexes. Raises `ConfigError` if there is none, or one cannot be read."""
    paths = [_folder() / name for name in _INDEXES]
    found = [path for path in paths if path.exists()]
    if not found:
        raise ConfigError(
            f"llm-gguf has registered no models: there is no file {paths[0]}",
            "See the models that are here with `llm localrun models`",
        )
    return [file for path in found for file in _read(path)]


def _read(path: Path) -> Iterator[RegisteredFile]:
    index = read_json(path)
    if not isinstance(index, dict):
        raise ConfigError(
            f"{path} cannot be read as llm-gguf writes it: it holds no JSON object",
            "Fix the file, or delete it",
        )
    for name, entry in index.items():
        size = value_at(entry, "n_ctx")
        yield RegisteredFile(
            f"{ID_PREFIX}{name}",
            text_at(entry, "path"),
            tuple(alias for alias in list_at(entry, "aliases") if isinstance(alias, str)),
            size if isinstance(size, int) and size > 0 and not isinstance(size, bool) else None,
        )


def _folder() -> Path:
    return home().parent / "gguf"
