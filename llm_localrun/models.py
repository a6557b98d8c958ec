"""What can run here: the values that discovery produces, and their snapshot on disk.

Finding them is `discovery`'s business, naming them `naming`'s, running them `backends`'s.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

RunsOn = Literal["this machine", "another machine", "cloud", "unknown"]
Purpose = Literal["chat", "embedding"]
Status = Literal["answers", "loading", "refuses", "hangs", "needs a key", "not understood"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Endpoint(_Value):
    """A model server. `url` is its root, without `/v1` and without a slash at the end."""

    name: str
    kind: str
    url: str
    key_alias: str | None = None
    """The name under which `llm keys` holds the key that this server, and no other, is sent."""


def default_key_alias(endpoint_name: str) -> str:
    """The name in `llm keys` under which an endpoint's key is looked for if none is configured."""
    return f"localrun-{endpoint_name}"


class LocalModel(_Value):
    """A model and the ways to run it: an `endpoint` that serves it, a GGUF file at `path`, or both.

    Sizes are bytes, contexts are tokens; None and "" mean that nobody said.
    """

    id: str
    name: str
    """What its server calls it, or the name that its file gives it."""
    purpose: Purpose = "chat"
    endpoint: Endpoint | None = None
    path: str | None = None
    store: str = ""
    """Whose folder the file lies in."""
    architecture: str = ""
    quantization: str = ""
    parameters: int | None = None
    size: int | None = None
    context_max: int | None = None
    """What the model was trained for; an upper bound."""
    context_loaded: int | None = None
    """What its server has allocated, if it is loaded."""
    loaded: bool | None = None
    modified: float = 0.0
    runs_on: RunsOn = "this machine"
    """Where its endpoint runs it; its file would run here in any case."""
    elsewhere: str = ""
    """Who runs it if not this machine, as far as its server says: a host, a device, a provider."""
    capabilities: tuple[str, ...] | None = None
    """Of `tools vision audio thinking`; None if nobody said."""
    think_levels: tuple[str, ...] | None = None
    """What `-o think` can be; None if nobody said."""
    projector: str = ""
    """The file that lets the model at `path` see or hear."""
    manifest: str = ""
    """Ollama's manifest of the file at `path`: its other layers say how that is to be run."""
    digest: str = ""
    """By which its server tells this version of the model from another."""
    marks: tuple[str, ...] = ()
    """By which the same model is recognised at its server and on the disk: see `merged`."""
    file_id: str = ""
    """The id that the file at `path` has by itself, where an endpoint serves it too."""

    def can(self, what: str, *, if_unknown: bool) -> bool:
        """Whether the model has a capability, by what its server or its file says."""
        return if_unknown if self.capabilities is None else what in self.capabilities


class EndpointReport(_Value):
    """What one endpoint said when it was last asked."""

    endpoint: Endpoint
    status: Status
    asked_at: float
    version: str = ""
    models: tuple[LocalModel, ...] = ()
    """From its last good answer, which may be older than `asked_at`."""
    devices: dict[str, str] | None = None
    """Of an LM Studio whose `lms` has been asked: the device that has each model, by its key, ""
    for this machine."""


class FileEntry(_Value):
    """A file that a scan has looked into, so that the next scan need not."""

    path: str
    size: int
    modified: float
    model: LocalModel | None
    """None: the file holds no model that can be run."""
    reason: str = ""
    """Why it does not, in half a sentence."""
    manifest_modified: float = 0.0
    """When the manifest that the model is run by was written; 0 if there is none."""


class StoreReport(_Value):
    """What looking through one folder of somebody's came to."""

    store: str
    path: str
    status: Literal["read", "missing", "unreadable"]
    files: int = 0
    """GGUF files seen in it, models or not."""
    problem: str = ""
    """What could not be read in it, in half a sentence."""


class Snapshot(_Value):
    """Everything that the last discovery found."""

    taken_at: float = 0.0
    stamp: str = ""
    """Of the settings under which it was taken: `places.settings_stamp`."""
    endpoints: tuple[EndpointReport, ...] = ()
    files: tuple[FileEntry, ...] = ()
    stores: tuple[StoreReport, ...] = ()

    @property
    def models(self) -> tuple[LocalModel, ...]:
        """Every model once, the served ones first."""
        served = [model for report in self.endpoints for model in report.models]
        return merged(served, [entry.model for entry in self.files if entry.model is not None])


def merged(served: Iterable[LocalModel], files: Iterable[LocalModel]) -> tuple[LocalModel, ...]:
    """One entry for a model that is both served and on the disk, with both ways to run it.

    The two are the same if they share a mark. Only what a server on this machine serves can be, and
    one that does not say where it runs its models is taken to run the file that is here.
    """
    files = list(files)
    by_mark = _by_mark(files)
    models, joined = [], set()
    for model in served:
        file = next((by_mark[mark] for mark in model.marks if mark in by_mark), None)
        if file is None or model.runs_on not in ("this machine", "unknown"):
            models.append(model)
            continue
        joined.add(file.id)
        models.append(_with_file(model, file))
    return (*models, *(file for file in files if file.id not in joined))


def _by_mark(files: Sequence[LocalModel]) -> dict[str, LocalModel]:
    """The file that each mark means. A size that two files have by chance means neither."""
    counts = Counter(mark for file in files for mark in file.marks)
    return {
        mark: file
        for file in reversed(files)
        for mark in file.marks
        if counts[mark] == 1 or not mark.startswith("lmstudio:")
    }


def _with_file(model: LocalModel, file: LocalModel) -> LocalModel:
    """A served model that can be run out of its file too; what its server says of it stands."""
    return model.model_copy(
        update={
            "runs_on": "this machine",
            "elsewhere": "",
            "path": file.path,
            "store": file.store,
            "projector": file.projector,
            "manifest": file.manifest,
            "file_id": file.id,
            "architecture": model.architecture or file.architecture,
            "quantization": model.quantization or file.quantization,
            "parameters": model.parameters or file.parameters,
            "size": model.size or file.size,
            "context_max": model.context_max or file.context_max,
            "modified": model.modified or file.modified,
            "capabilities": file.capabilities if model.capabilities is None else model.capabilities,
        }
    )
