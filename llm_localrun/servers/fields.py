"""Reads what servers say of their models: optional JSON fields, sizes written for people, names.

Pure. Which fields a kind of server has is left to its module.
"""

import re
from collections.abc import Mapping
from math import isfinite

from llm_localrun.models import (
    PURPOSES,
    SAMPLING,
    Endpoint,
    LocalModel,
    Purpose,
    Served,
    surer_purpose,
)
from llm_localrun.names.quantizations import quantization_in
from llm_localrun.names.roles import rank_in_name
from llm_localrun.privacy import host_of, is_loopback, where_relayed, where_runs
from llm_localrun.servers.base import Facts, server_class
from llm_localrun.wire.shapes import Entries as Entries  # noqa: PLC0414  # for the kinds
from llm_localrun.wire.shapes import Maybe as Maybe  # noqa: PLC0414  # for the kinds
from llm_localrun.wire.shapes import Text, WireModel


class LoadStatus(WireModel):
    """Of a model in a list."""

    value: Text
    args: Maybe[tuple[Text, ...]] = None
    """What a llama-server that starts others starts it with."""

    @property
    def is_loaded(self) -> bool:
        return self.value == "loaded"


class Senses(WireModel):
    """What a model takes in besides text."""

    vision: Maybe[bool] = None
    audio: Maybe[bool] = None


def served_model(endpoint: Endpoint, name: str, facts: Facts) -> LocalModel:
    """A model that `endpoint` serves. Discovery sets its id when it has named the endpoint.

    A model whose server says where it runs does not match a file here, whatever its name.
    """
    where = where_relayed if server_class(endpoint.kind).relays else where_runs
    known: Facts = {"runs_on": where(endpoint.url)}
    if not is_loopback(endpoint.url):
        known["remote_host"] = host_of(endpoint.url)
    known |= facts
    if "runs_on" in facts:
        known["fingerprints"] = ()
    known["purpose"] = surer_purpose(known.get("purpose", "chat"), rank_in_name(name))
    route = {field: known.pop(field) for field in Served.model_fields if field in known}
    return LocalModel(id=name, name=name, routes=(Served(endpoint=endpoint, **route),), **known)


def capabilities_of(**has: object) -> tuple[str, ...]:
    """`LocalModel.capabilities` from flags: the names of those that are true."""
    return tuple(name for name, value in has.items() if value)


def sampling_of(stated: Mapping[str, object]) -> tuple[tuple[str, int | float], ...]:
    """`LocalModel.sampling` from what a server states, by the names of -o."""
    numbers = ((name, stated.get(name)) for name in SAMPLING)
    return tuple(
        # 0.699999988 is how a 32-bit number holds 0.7.
        (name, value if isinstance(value, int) else float(f"{value:.6g}"))
        for name, value in numbers
        if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    )


_STATED: dict[str, Purpose] = {
    **dict.fromkeys(("chat", "completion", "llm", "vlm"), "chat"),
    **dict.fromkeys(("embedding", "embeddings"), "embedding"),
    **dict.fromkeys(("rerank", "reranker", "reranking"), "rerank"),
    **dict.fromkeys(("decision", "decisions"), "decision"),
}


def stated_purpose(*words: str) -> Purpose:
    """The purpose that a server states in `words`: a model that can chat counts as a chat model.

    `other` if none of the words is a purpose that is known.
    """
    known = [_STATED[word.lower()] for word in words if word.lower() in _STATED]
    return min(known, key=PURPOSES.index, default="other")


def hub_fingerprint(reference: str) -> tuple[str, ...]:
    """The fingerprint of `OWNER/REPOSITORY:QUANTIZATION`; none if `reference` is something else."""
    match = re.fullmatch(r"([\w.-]+/[\w.-]+):([\w.-]+)", reference)
    quantization = quantization_in(f":{match[2]}") if match else ""
    return (f"hf:{match[1].lower()}:{quantization.upper()}",) if match and quantization else ()


def path_fingerprint(path: str | None) -> tuple[str, ...]:
    """The fingerprint of a file that a server says it runs; discovery resolves its links."""
    return (f"path:{path}",) if path else ()


_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "B": 3, "T": 4}
_NUMBER = r"(\d{1,9}(?:\.\d{1,9})?)\s*"


def weights_in(text: str) -> int | None:
    """A number of weights: `134.52M`, `8.2B`, `3.88 B`, or the `26B-A4B` of a mixture."""
    match = re.fullmatch(_NUMBER + r"([KMBT])(?:-A[\d.]+B)?", text.strip().upper())
    return match and round(float(match[1]) * 1000 ** _UNITS[match[2]])


def bytes_in(text: str) -> int | None:
    """A number of bytes: `2.31 GiB` or `2.48 GB`."""
    match = re.fullmatch(_NUMBER + r"([KMGT]?)(I?)B", text.strip().upper())
    return match and round(float(match[1]) * (1024 if match[3] else 1000) ** _UNITS[match[2]])
