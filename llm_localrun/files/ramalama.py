"""RamaLama's store: store/TRANSPORT/…/MODEL/{refs/TAG.json, snapshots/HASH/FILE, blobs}.

https://github.com/containers/ramalama, ramalama/model_store (0.25).
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llm_localrun.files.folders import entries_of, is_folder
from llm_localrun.files.found import Found, existing, file_at
from llm_localrun.files.huggingface import mark_of
from llm_localrun.gguf.files import is_projector_name
from llm_localrun.system.json_files import list_at, read_json, text_at

_MAX_DEPTH = 6


def ramalama_files(root: Path, problems: list[str]) -> Iterator[Found]:
    """A file for each tag of each model."""
    store = root / "store"
    for ref in _refs(str(store), _MAX_DEPTH, problems):
        *owners, name = ref.parent.parent.relative_to(store).parts
        is_of_hub = len(owners) == 2 and owners[0] in ("huggingface", "hf")
        fingerprints = (mark_of(owners[1], name),) if is_of_hub else ()
        yield from _in_ref(ref, f"{name}:{ref.stem}", fingerprints)


def _refs(folder: str, levels: int, problems: list[str]) -> Iterator[Path]:
    for entry in entries_of(folder, problems):
        if entry.name == "refs":
            yield from (Path(ref.path) for ref in entries_of(entry.path, problems))
        elif levels and entry.name not in ("blobs", "snapshots") and is_folder(entry):
            yield from _refs(entry.path, levels - 1, problems)


def _in_ref(ref: Path, name: str, fingerprints: tuple[str, ...]) -> Iterator[Found]:
    content = read_json(ref)
    snapshot = ref.parent.parent / "snapshots" / text_at(content, "hash").replace(":", "-")
    kinds = {text_at(file, "name"): text_at(file, "type") for file in list_at(content, "files")}
    projectors = [each for each in kinds if is_projector_name(each)]
    for each, kind in kinds.items():
        # What came from Ollama has no ending.
        is_model = each.lower().endswith(".gguf") or kind in ("model", "gguf_model")
        if is_model and each not in projectors:
            found = file_at(str(snapshot / each), "ramalama", name)
            if found is not None:
                projector = existing(str(snapshot / projectors[0])) if projectors else ""
                yield replace(found, projector=projector, fingerprints=fingerprints)
