"""Reads the list of recommended models.

The list is data: `models.json` in this package, and `recommended.json` in the user's folder, which
`recommend --refresh` writes. Choosing from it is left to `choose`, asking a hub to
`pull.refreshed`.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_localrun.gguf.header import Header
from llm_localrun.memory.fit import Fit, default_setting, fit_of
from llm_localrun.memory.footprint import Footprint
from llm_localrun.memory.geometry import geometry_of
from llm_localrun.models import Purpose
from llm_localrun.system.atomic import write_atomically
from llm_localrun.system.json_files import parse_json, read_own_json
from llm_localrun.system.paths import home

_Count = Annotated[int, Field(gt=0, lt=2**63)]
"""What is larger is damaged, and cannot be calculated with."""
_Number = Annotated[int, Field(gt=-(2**63), lt=2**63)] | float | bool


class Use(str, Enum):
    """What a model is recommended for."""

    CHAT = "chat"
    CODE = "code"
    VISION = "vision"
    EMBED = "embed"
    TOOLS = "tools"
    THINKING = "thinking"
    SMALL = "small"


class ListedFile(BaseModel):
    """A file of a repository. `size` is bytes; `sha256` is "" if it is not known."""

    model_config = ConfigDict(frozen=True)

    path: str
    size: _Count
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""


class _Entry(BaseModel):
    """An entry of the list, as in the file."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]
    good_at: str
    uses: Annotated[tuple[Use, ...], Field(min_length=1)]
    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: str = "main"
    files: Annotated[tuple[ListedFile, ...], Field(min_length=1)]
    projector: ListedFile | None = None
    parameters: _Count
    active_parameters: _Count | None = None
    unread_parameters: Annotated[int, Field(ge=0, lt=2**63)] = 0
    quantization: str
    license: str
    header: dict[str, _Number | str | list[_Number]]
    sampling: dict[str, float] = {}
    source: str
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]


@dataclass(frozen=True, slots=True)
class RecommendedModel:
    """A model to get.

    `name` is what `pull` takes: `qwen3.5-4b`. `files` are the parts of the model, in their order;
    `header` has the numbers of its GGUF header that decide how much memory it needs. `sampling`
    holds the makers' settings by the names of -o, or what was measured to be better. `license` is
    an SPDX name, or the maker's. `unread_parameters` are those of the active ones of which a token
    reads next to nothing: the table of embeddings, where the output matrix is another one.
    """

    name: str
    good_at: str
    uses: tuple[Use, ...]
    repository: str
    revision: str
    files: tuple[ListedFile, ...]
    projector: ListedFile | None
    parameters: int
    active_parameters: int
    quantization: str
    license: str
    header: Header
    unread_parameters: int = 0
    sampling: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    date: str = ""

    @property
    def size(self) -> int:
        """Bytes to download."""
        return self._weights + (self.projector.size if self.projector else 0)

    @property
    def _weights(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def active_bytes(self) -> int:
        """Bytes of weights that are read for a token: of a mixture, those of the experts in use."""
        read = min(self.active_parameters, self.parameters) - self.unread_parameters
        return self._weights * max(read, 0) // self.parameters

    @property
    def capability(self) -> float:
        """A mixture counts as a dense model of the geometric mean of all its weights and the active
        ones: a rule of thumb, which only places models that have no rank."""
        return math.sqrt(self.parameters * min(self.active_parameters, self.parameters))

    @property
    def context_max(self) -> int | None:
        value = self.header.of_architecture("context_length")
        return value if isinstance(value, int) else None

    @property
    def purpose(self) -> Purpose:
        return "embedding" if Use.EMBED in self.uses else "chat"

    @property
    def footprint(self) -> Footprint:
        return Footprint(geometry_of(self.header), self.size)

    def fit_in(self, memory: float) -> Fit:
        """How it fits into `memory` bytes, in the setting that the engine gives it by default."""
        return fit_of(self.footprint, default_setting(self.context_max, self.purpose), memory)


def refreshed_path() -> Path:
    """The file of the models that `recommend --refresh` has found."""
    return home() / "recommended.json"


def read_recommended() -> tuple[RecommendedModel, ...]:
    """The recommended models, the best first: those of this package, and the user's."""
    merged = [*listed_models()]
    for new in _models_in(read_own_json(refreshed_path())):
        _merge(new, merged)
    return tuple(merged)


@lru_cache(maxsize=1)
def listed_models() -> tuple[RecommendedModel, ...]:
    """The models of this package's list."""
    text = files(__package__).joinpath("models.json").read_bytes()
    return tuple(_models_in(parse_json(text)))


def recommended_named(name: str) -> RecommendedModel | None:
    """The recommended model of this name, in any case."""
    return next((each for each in read_recommended() if each.name == name.lower()), None)


def write_refreshed(models: Iterable[RecommendedModel]) -> None:
    """Replaces the user's list. Raises OSError."""
    entries = [_entry_of(model).model_dump(mode="json") for model in models]
    path = refreshed_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(entries, indent=1).encode())


def is_valid(model: RecommendedModel) -> bool:
    """Whether the user's list can have `model`."""
    with suppress(ValidationError):
        return bool(_entry_of(model))
    return False


def _entry_of(model: RecommendedModel) -> _Entry:
    values = {name: getattr(model, name) for name in _Entry.model_fields}
    values["header"] = {
        key: [*value] if isinstance(value, tuple) else value
        for key, value in model.header.metadata.items()
    }
    return _Entry(**values)


def _models_in(values: Any) -> Iterator[RecommendedModel]:
    """The models of a list that was read. An entry that is not valid costs only itself."""
    for value in values if isinstance(values, list) else ():
        with suppress(ValidationError):
            yield _model_of(_Entry.model_validate(value))


def _model_of(entry: _Entry) -> RecommendedModel:
    values = dict(entry)
    header = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in entry.header.items()
    }
    values["header"] = Header(header)
    values["active_parameters"] = entry.active_parameters or entry.parameters
    return RecommendedModel(**values)


def _merge(new: RecommendedModel, models: list[RecommendedModel]) -> None:
    """Adds a model of the user's list to `models`, or puts it in the place of an older entry for
    its repository."""
    for at, known in enumerate(models):
        if new.repository == known.repository:
            if new.date > known.date:
                models[at] = replace(new, name=known.name)
            return
    if all(new.name != known.name for known in models):
        models.insert(_place_of(new, models), new)


def _place_of(new: RecommendedModel, models: Sequence[RecommendedModel]) -> int:
    """Behind the last model for one of its uses that is at least as capable, by its size."""
    return 1 + max(
        (
            at
            for at, known in enumerate(models)
            if {*known.uses} & {*new.uses} and known.capability >= new.capability
        ),
        default=-1,
    )
