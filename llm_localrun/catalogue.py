"""What can run here: the values that discovery produces, and their snapshot on disk.

Finding them is `discovery`'s business, naming them `naming`'s, running them `backends`'s.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

# A snapshot of another version is rebuilt, never read.
SNAPSHOT_VERSION = 2

RunsOn = Literal["this machine", "another machine", "cloud", "unknown"]
Purpose = Literal["chat", "embedding"]
Status = Literal["answers", "refuses", "hangs", "needs a key", "not understood"]


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
    """One model and the one way to run it: an `endpoint` that serves it, or a GGUF file at `path`.

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
    capabilities: tuple[str, ...] | None = None
    """Of `tools vision audio thinking`; None if nobody said."""
    think_levels: tuple[str, ...] | None = None
    """What `-o think` can be; None if nobody said."""
    projector: str = ""
    """The file that lets the model at `path` see or hear."""
    digest: str = ""
    """By which its server tells this version of the model from another."""

    def can(self, what: str, *, if_unknown: bool) -> bool:
        """Whether the model has a capability, by what its server or its file says."""
        return if_unknown if self.capabilities is None else what in self.capabilities


class EndpointReport(_Value):
    """What one endpoint said when it was last asked."""

    endpoint: Endpoint
    status: Status
    asked_at: float
    models: tuple[LocalModel, ...] = ()
    """From its last good answer, which may be older than `asked_at`."""


class FileEntry(_Value):
    """A file that a scan has looked into, so that the next scan need not."""

    path: str
    size: int
    modified: float
    model: LocalModel | None
    """None: the file holds no model that can be run."""


class Snapshot(_Value):
    """Everything that the last discovery found."""

    version: int = SNAPSHOT_VERSION
    taken_at: float = 0.0
    endpoints: tuple[EndpointReport, ...] = ()
    files: tuple[FileEntry, ...] = Field(default=())

    @property
    def models(self) -> tuple[LocalModel, ...]:
        """Every model, the served ones first."""
        served = [model for report in self.endpoints for model in report.models]
        return (*served, *(entry.model for entry in self.files if entry.model is not None))

    def age(self) -> float:
        """Seconds since it was taken; a clock that was set back makes it old."""
        age = time.time() - self.taken_at
        return age if age >= 0 else float("inf")


def read_snapshot(folder: Path) -> Snapshot:
    """The snapshot in `folder`; an empty one if there is none that this version can use."""
    try:
        text = (folder / "catalogue.json").read_bytes()
    except OSError:
        return Snapshot()
    try:
        snapshot = Snapshot.model_validate_json(text)
    except ValidationError:
        return Snapshot()
    return snapshot if snapshot.version == SNAPSHOT_VERSION else Snapshot()


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Puts `snapshot` in place of the last one, whole or not at all.

    A folder that cannot be written to costs a new discovery each time, and nothing else.
    """
    try:
        write_atomically(folder / "catalogue.json", snapshot.model_dump_json().encode())
    except OSError:
        return


def write_atomically(target: Path, data: bytes) -> None:
    """Writes `data` to `target`, readable by its owner only; another process sees all or nothing.

    Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
