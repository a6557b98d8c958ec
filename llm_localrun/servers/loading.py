"""What servers that load models on request have loaded, and how to have them load one anew.

Pure: generators of questions. Which context is wanted is `context`'s business, asking `serving`'s.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from pydantic import Field

from llm_localrun.errors import ServerRefused
from llm_localrun.gguf.header import Header
from llm_localrun.wire.response import Answer, Question, read
from llm_localrun.wire.shapes import Text, WireModel, error_in
from llm_localrun.wire.sse import Payload

_Result = TypeVar("_Result")
Asking: TypeAlias = Generator[Question, Answer, _Result]

# What /api/v1/models/load takes beside the model and the context: what an instance was loaded with
# is carried over to the one that takes its place.
_CARRIED = ("eval_batch_size", "flash_attention", "num_experts", "offload_kv_cache_to_gpu")


class Running(WireModel):
    """A model that Ollama has in memory, of which it takes `size` bytes."""

    name: Text
    context_length: int | None = None
    size: int = 0


class _Ps(WireModel):
    models: tuple[Running, ...]


class _Show(WireModel):
    model_info: dict[str, Any] = Field(default_factory=dict)


class _Instance(WireModel):
    id: Text
    config: dict[str, Any] = Field(default_factory=dict)


class _Record(WireModel):
    key: Text
    loaded_instances: tuple[_Instance, ...] = ()


class _Records(WireModel):
    models: tuple[_Record, ...]


class _Loaded(WireModel):
    instance_id: Text
    load_time_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """A copy of a model that LM Studio has in memory."""

    id: str
    context_size: int
    config: Payload


@dataclass(frozen=True, slots=True)
class Load:
    """An instance that LM Studio has loaded just now, and how long that took."""

    id: str
    seconds: float | None


def ollama_running(name: str) -> Asking[Running | None]:
    """What Ollama has in memory of a model; None if it has not loaded it."""
    ps = read(_Ps, (yield Question("/api/ps")))
    return next((model for model in ps.models if model.name == name), None) if ps else None


def ollama_header(name: str) -> Asking[Header]:
    """What Ollama tells of a model's header: numbers, but no long arrays."""
    show = read(_Show, (yield Question("/api/show", {"model": name})))
    return Header(show.model_info if show else {})


def lmstudio_instances(name: str) -> Asking[list[Instance] | None]:
    """LM Studio's instances of a model; None if this one is too old to tell, or to load any."""
    records = read(_Records, (yield Question("/api/v1/models")))
    if records is None:
        return None
    key = name.partition("@")[0]
    found = (record for record in records.models if record.key in (name, key))
    return [
        Instance(instance.id, size, instance.config)
        for record in found
        for instance in record.loaded_instances
        if _is_of(instance.id, name, record)
        and isinstance(size := instance.config.get("context_length"), int)
    ]


def lmstudio_reload(
    name: str, instances: list[Instance], context_size: int, server: str
) -> Asking[Load]:
    """Puts an instance of `name` with this context into the place of all `instances`.

    Loading what is loaded makes a second copy, so what is there goes first. Raises `ServerRefused`.
    """
    for instance in instances:
        unload = Question("/api/v1/models/unload", {"instance_id": instance.id})
        _checked((yield unload), server)
    config = instances[0].config if instances else {}
    carried = {name: config[name] for name in _CARRIED if name in config}
    body = {"model": name, "context_length": context_size, **carried}
    answer = yield Question("/api/v1/models/load", body)
    _checked(answer, server)
    loaded = read(_Loaded, answer)
    return Load(loaded.instance_id, loaded.load_time_seconds) if loaded else Load(name, None)


def _is_of(instance_id: str, name: str, record: _Record) -> bool:
    """Whether an instance is of the variant that `name` means, by its id.

    An id that a user has made up says nothing: it is taken for one of the selected variant.
    """
    variant = instance_id.partition(":")[0]
    if record.key == name:
        return not variant.startswith(f"{name}@")
    return variant == name


def _checked(answer: Answer, server: str) -> None:
    error = error_in(answer.payload or {})
    if error is None and answer.status < 300:
        return
    said = error.message if error else answer.text.strip() or f"HTTP {answer.status}"
    raise ServerRefused(
        f"{server} says: {said.rstrip('.')}",
        "Give a smaller -o context_size, or unload what else it holds",
    )
