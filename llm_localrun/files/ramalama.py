"""RamaLama's store: store/TRANSPORT/…/MODEL/{refs/TAG.json, snapshots/HASH/FILE, blobs}.

https://github.com/containers/ramalama, ramalama/model_store (0.25).
"""

import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llm_localrun.errors import NotRemoved
from llm_localrun.files.base import Store
from llm_localrun.files.folders import entries_below
from llm_localrun.files.found import FoundFile, existing, file_at
from llm_localrun.files.huggingface import repository_fingerprint
from llm_localrun.models import LocalModel, OnDisk
from llm_localrun.names.roles import is_projector_name
from llm_localrun.system.json_files import list_at, read_json, text_at

_MAX_LEVELS = 8


class RamaLamaStore(Store):
    """Files of snapshots, which are links to blobs."""

    name = "ramalama"
    precedence = 120
    overrides = ("RAMALAMA_STORE",)
    linux = ("$XDG_DATA_HOME/ramalama", "/var/lib/ramalama")
    mac = ("$XDG_DATA_HOME/ramalama",)
    windows = ("$XDG_DATA_HOME/ramalama",)

    def scan(self, folder: Path, problems: list[str]) -> Iterator[FoundFile]:
        """A file for each tag of each model."""
        store = folder / "store"
        for entry in entries_below(str(store), _MAX_LEVELS, problems, ("blobs", "snapshots")):
            ref = Path(entry.path)
            if ref.parent.name != "refs":
                continue
            *owners, name = ref.parent.parent.relative_to(store).parts
            is_of_hub = len(owners) == 2 and owners[0] in ("huggingface", "hf")
            fingerprints = (repository_fingerprint(owners[1], name),) if is_of_hub else ()
            yield from _in_ref(ref, f"{name}:{ref.stem}", fingerprints)

    def files_to_delete(self, model: LocalModel, route: OnDisk) -> list[Path]:
        """Refuses: RamaLama's tags can share blobs, and it has a command for this."""
        raise NotRemoved(
            f"{route.path} is in RamaLama's store, which only RamaLama can change",
            f"Run `ramalama rm {shlex.quote(_listed_name(model, route))}`",
        )


def _listed_name(model: LocalModel, route: OnDisk) -> str:
    """The name in `ramalama ls`: TRANSPORT://…/MODEL:TAG."""
    folder = next(each for each in Path(route.path).parents if each.name == "snapshots").parent
    root = next((each for each in folder.parents if each.name == "store"), folder.parent)
    transport, *below = folder.relative_to(root).parts
    separator = ":///" if transport == "file" else "://"
    tag = model.name.rpartition(":")[2]
    return f"{transport}{separator}{'/'.join(below)}:{tag}"


def _in_ref(ref: Path, name: str, fingerprints: tuple[str, ...]) -> Iterator[FoundFile]:
    content = read_json(ref)
    snapshot = ref.parent.parent / "snapshots" / text_at(content, "hash").replace(":", "-")
    kinds = {text_at(file, "name"): text_at(file, "type") for file in list_at(content, "files")}
    projectors = [each for each in kinds if is_projector_name(each)]
    projector = existing(str(snapshot / projectors[0])) if projectors else ""
    for each, kind in kinds.items():
        # A model that came from Ollama has no suffix.
        is_model = each.lower().endswith(".gguf") or kind in ("model", "gguf_model")
        found = file_at(str(snapshot / each), name) if is_model and each not in projectors else None
        if found is not None:
            yield replace(found, projector=projector, fingerprints=fingerprints)
