"""The files of the plugin llm-gguf: a folder, and two indexes that may name files elsewhere.

https://github.com/simonw/llm-gguf
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llm_localrun.files.base import Store, StoreItem
from llm_localrun.files.folders import walk
from llm_localrun.files.found import existing, file_at
from llm_localrun.system.json_files import read_json, text_at
from llm_localrun.system.paths import home


class LlmGgufStore(Store):
    """The files that the indexes name, and other files in the folder."""

    name = "llm-gguf"
    precedence = 100

    def configured_folder(self) -> str:
        return str(home().parent / "gguf")

    def scan(self, folder: Path, problems: list[str]) -> Iterator[StoreItem]:
        for name in ("models.json", "embed-models.json"):
            index = read_json(folder / name)
            for model in index.values() if isinstance(index, dict) else ():
                path = text_at(model, "path")
                found = file_at(path) if path else None
                if found is not None:
                    yield replace(found, projector=existing(text_at(model, "clip_model_path")))
        yield from walk(folder / "models", problems)
