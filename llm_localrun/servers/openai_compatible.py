"""/v1/models, which every OpenAI-compatible server has, and to which each adds what it likes.

Pure. How a kind's entries are read is a class that turns them into fields of `LocalModel`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from llm_localrun.models import Endpoint, LocalModel, RunsOn
from llm_localrun.names.quantizations import quantization_in
from llm_localrun.privacy import is_hosted, is_provider
from llm_localrun.servers.reading import Facts, Maybe, hub_mark, purpose_of, served
from llm_localrun.wire.response import Answer, read
from llm_localrun.wire.shapes import Text, WireModel


class Entry(WireModel):
    """What all servers say of a model, and what can be told from that."""

    id: Text
    owned_by: Maybe[Text] = None

    def facts(self) -> Facts:
        """What the entry tells; a `purpose` of None leaves the model out."""
        return {
            "purpose": purpose_of(self.id),
            "quantization": quantization_in(self.id),
            "fingerprints": hub_mark(self.id),
        }


class _AnyonesEntry(Entry):
    """An entry of a server that may be a proxy."""

    def facts(self) -> Facts:
        owner = self.owned_by or ""
        if is_provider(owner):
            return {**super().facts(), "runs_on": RunsOn.UNKNOWN, "remote_host": owner}
        return {**super().facts(), **({"runs_on": RunsOn.UNKNOWN} if is_hosted(self.id) else {})}


class _LlamafileEntry(Entry):
    def facts(self) -> Facts:
        return {**super().facts(), "loaded": True}


class _MistralRsEntry(Entry):
    """mistral.rs's; `default` stands for another of them."""

    status: Maybe[Text] = None

    def facts(self) -> Facts:
        facts = super().facts()
        if self.id == "default":
            facts["purpose"] = None
        return {**facts, "loaded": self.status and self.status == "loaded"}


class _Gpt4AllEntry(_AnyonesEntry):
    """GPT4All's, which has no tools, and calls a file that it did not fetch by its name."""

    def facts(self) -> Facts:
        return {**super().facts(), "capabilities": (), "fingerprints": (f"name:gpt4all:{self.id}",)}


class _JanEntry(Entry):
    """Jan's: a name below its folder, or a provider's."""

    def facts(self) -> Facts:
        return {**super().facts(), "fingerprints": (f"name:jan:{self.id}",)}


ENTRIES: dict[str, type[Entry]] = {
    "openai": _AnyonesEntry,
    "gpt4all": _Gpt4AllEntry,
    "jan": _JanEntry,
    "llamafile": _LlamafileEntry,
    "mistralrs": _MistralRsEntry,
}
"""Of kinds that have a list and no more to say."""


class Listing(WireModel):
    """A list of models, of which only their names have to be right."""

    data: tuple[Entry, ...]


class _Rows(WireModel):
    data: tuple[Any, ...]


_Entry = TypeVar("_Entry", bound=Entry)


def entries_in(answer: Answer, shape: type[_Entry]) -> list[_Entry]:
    """The entries of a list of models, as a kind has them; none if the answer is no such list."""
    rows = read(_Rows, answer)
    try:
        return [shape.model_validate(row) for row in rows.data] if rows else []
    except ValidationError:
        return []


def listed(
    endpoint: Endpoint, entries: Iterable[Entry], more: Mapping[str, Facts] | None = None
) -> tuple[LocalModel, ...]:
    """The models that `entries` stand for, with `more` that is known of them, by their ids."""
    facts = {entry.id: {**entry.facts(), **(more or {}).get(entry.id, {})} for entry in entries}
    return tuple(served(endpoint, name, known) for name, known in facts.items() if known["purpose"])
