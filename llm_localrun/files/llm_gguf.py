"""The files that the plugin llm-gguf knows: a folder, and two indexes that may point elsewhere.

https://github.com/simonw/llm-gguf
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llm_localrun.files.folders import walk
from llm_localrun.files.found import Found, Group, existing, file_at
from llm_localrun.system.json_files import read_json, text_at


def llm_gguf_files(root: Path, problems: list[str]) -> Iterator[Found | Group]:
    """The files that its indexes name, then those that lie in its folder."""
    for name in ("models.json", "embed-models.json"):
        index = read_json(root / name)
        for model in index.values() if isinstance(index, dict) else ():
            path = text_at(model, "path")
            found = file_at(path, "llm-gguf") if path else None
            if found is not None:
                yield replace(found, projector=existing(text_at(model, "clip_model_path")))
    yield from walk(root / "models", problems)
