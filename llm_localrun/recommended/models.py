"""Reads the list of recommended models.

The list is data: `models.json` in this package. Choosing from it is left to `choose`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, TypeAdapter

from llm_localrun.gguf.header import Header
from llm_localrun.memory.footprint import Footprint
from llm_localrun.memory.geometry import geometry_of
from llm_localrun.models import Purpose


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
    size: int
    sha256: str = ""


class _Entry(BaseModel):
    """An entry of the list, as in the file."""

    name: str
    good_at: str
    uses: tuple[Use, ...]
    repository: str
    revision: str = "main"
    files: tuple[ListedFile, ...]
    projector: ListedFile | None = None
    parameters: int
    active_parameters: int | None = None
    quantization: str
    license: str
    header: dict[str, int | float | bool | str | list[int | float | bool]]
    sampling: dict[str, float] = {}
    source: str
    date: str


@dataclass(frozen=True, slots=True)
class RecommendedModel:
    """A model to get.

    `name` is what `pull` takes: `qwen3.5-4b`. `files` are the parts of the model, in their order;
    `header` has the numbers of its GGUF header that decide how much memory it needs. `sampling`
    holds the makers' settings by the names of -o. `license` is an SPDX name, or the maker's.
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
    sampling: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    date: str = ""

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(file.size for file in self.files) + (
            self.projector.size if self.projector else 0
        )

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


@lru_cache(maxsize=1)
def read_recommended() -> tuple[RecommendedModel, ...]:
    """The recommended models, the best first."""
    text = files(__package__).joinpath("models.json").read_bytes()
    return tuple(_model_of(entry) for entry in TypeAdapter(list[_Entry]).validate_json(text))


def recommended_named(name: str) -> RecommendedModel | None:
    """The recommended model of this name, in any case."""
    return next((each for each in read_recommended() if each.name == name.lower()), None)


def _model_of(entry: _Entry) -> RecommendedModel:
    values = dict(entry)
    header = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in entry.header.items()
    }
    values["header"] = Header(header)
    values["active_parameters"] = entry.active_parameters or entry.parameters
    return RecommendedModel(**values)
