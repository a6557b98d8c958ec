"""What the readers of all kinds of server share: who is asked, how JSON is read, what names tell.

Pure. A reader is a generator that yields the `Question` that it has, is sent the `Answer`, and
returns what it has found; it is thrown `OutOfTime` when there will be no more answers.
"""

import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from llm_localrun.models import Endpoint, LocalModel, Purpose, Served
from llm_localrun.names.quantizations import quantization_in
from llm_localrun.privacy import host_of, is_loopback, where_relayed, where_runs
from llm_localrun.servers.kinds import kind_of
from llm_localrun.wire.response import Answer, OutOfTime, Question, read
from llm_localrun.wire.shapes import Text, WireModel


@dataclass(frozen=True, slots=True)
class Asked:
    """A server that is asked, and what it said when it last answered.

    The kind in `endpoint` is what usually has its port, or what the user says it is.
    """

    endpoint: Endpoint
    known: tuple[LocalModel, ...] = ()
    version: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What a server of a known kind has told."""

    models: tuple[LocalModel, ...]
    version: str = ""


Reading: TypeAlias = Generator[Question, Answer, Found | None]
"""None: it is not of the kind, or does not say what it should."""

Facts: TypeAlias = dict[str, Any]
"""Fields of `LocalModel`."""


def _none_if_odd(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        return None


_Value = TypeVar("_Value")
Maybe = Annotated[_Value | None, WrapValidator(_none_if_odd)]
"""Something that a model can be run without knowing: what is not of the type counts as not said."""

_Shape = TypeVar("_Shape", bound=BaseModel)


def ask(path: str, shape: type[_Shape]) -> Generator[Question, Answer, _Shape | None]:
    """GETs `path`: what it answers as a `shape`; None if that is something else, or comes too late.

    For what a list of models can be had without.
    """
    try:
        return read(shape, (yield Question(path)))
    except OutOfTime:
        return None


def able(**can: object) -> tuple[str, ...]:
    """What a model can do, of what is asked here, as `LocalModel.capabilities` has it."""
    return tuple(what for what, does in can.items() if does)


class _Version(WireModel):
    version: Text


def version_at(path: str, asked: Asked) -> Generator[Question, Answer, str]:
    """The server's version: asked for once, and believed for as long as it answers."""
    if asked.version:
        return asked.version
    said = yield from ask(path, _Version)
    return said.version if said else ""


def served(endpoint: Endpoint, name: str, facts: Facts) -> LocalModel:
    """A model that `endpoint` serves; its id is set when the endpoint has got its name.

    One of which its server says that others may run it is no file here, whatever its name.
    """
    where = where_relayed if kind_of(endpoint.kind).relays else where_runs
    place: Facts = {"runs_on": where(endpoint.url)}
    if not is_loopback(endpoint.url):
        place["remote_host"] = host_of(endpoint.url)
    known = {**place, **facts, **({"fingerprints": ()} if "runs_on" in facts else {})}
    route = {field: known.pop(field) for field in Served.model_fields if field in known}
    return LocalModel(id=name, name=name, routes=(Served(endpoint=endpoint, **route),), **known)


_EMBEDS = re.compile(r"embed|(?:^|[/_-])(?:bge|e5|gte|minilm)(?:$|[_-])", re.IGNORECASE)
_NEITHER = re.compile(r"rerank|whisper|parakeet|kokoro|(?:^|[/_-])tts(?:$|[_-])", re.IGNORECASE)


def purpose_of(name: str) -> Purpose | None:
    """What a model is for, by its name, where its server does not tell; None: not for text."""
    if _NEITHER.search(name):
        return None
    return "embedding" if _EMBEDS.search(name) else "chat"


def hub_mark(reference: str) -> tuple[str, ...]:
    """The mark of `OWNER/REPOSITORY:QUANTIZATION`; none if that is not what `reference` is."""
    match = re.fullmatch(r"([\w.-]+/[\w.-]+):([\w.-]+)", reference)
    quantization = quantization_in(f":{match[2]}") if match else ""
    return (f"hf:{match[1].lower()}:{quantization.upper()}",) if match and quantization else ()


def path_mark(path: str | None) -> tuple[str, ...]:
    """The mark of a file that a server says it runs; `disk` makes its path a real one."""
    return (f"path:{path}",) if path else ()


_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "B": 3, "T": 4}
_NUMBER = r"(\d{1,9}(?:\.\d{1,9})?)\s*"


def weights_in(text: str) -> int | None:
    """`134.52M`, `8.2B`, `3.88 B` or the `26B-A4B` of a mixture to a number of weights."""
    match = re.fullmatch(_NUMBER + r"([KMBT])(?:-A[\d.]+B)?", text.strip().upper())
    return match and round(float(match[1]) * 1000 ** _UNITS[match[2]])


def bytes_in(text: str) -> int | None:
    """`2.31 GiB` or `2.48 GB` to a number of bytes."""
    match = re.fullmatch(_NUMBER + r"([KMGT]?)(I?)B", text.strip().upper())
    return match and round(float(match[1]) * (1024 if match[3] else 1000) ** _UNITS[match[2]])
