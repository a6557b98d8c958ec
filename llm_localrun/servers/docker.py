"""Docker Model Runner: a list of images, and what runs of them.

Pure. Source: docker/model-runner (2026-07).
"""

from pydantic import RootModel

from llm_localrun.servers.kinds import api_root
from llm_localrun.servers.openai_compatible import Entry, entries_in, listed
from llm_localrun.servers.reading import (
    Asked,
    Facts,
    Found,
    Maybe,
    Reading,
    ask,
    bytes_in,
    weights_in,
)
from llm_localrun.wire.response import Answer, Question
from llm_localrun.wire.shapes import Count, Text, WireModel


class _Dmr(WireModel):
    """Texts for people; each may be missing."""

    context_window: Maybe[Count] = None
    architecture: Maybe[Text] = None
    parameters: Maybe[Text] = None
    quantization: Maybe[Text] = None
    size: Maybe[Text] = None


class _Entry(Entry):
    dmr: Maybe[_Dmr] = None

    def facts(self) -> Facts:
        facts = super().facts()
        dmr = self.dmr or _Dmr()
        # A mix names its formats from the smallest tensors to the rule: `IQ2_XXS/Q4_K_M`.
        quantization = (dmr.quantization or "").removeprefix("MOSTLY_").rpartition("/")[2]
        return {
            **facts,
            "architecture": dmr.architecture or "",
            "quantization": quantization or facts["quantization"],
            "parameters": weights_in(dmr.parameters or ""),
            "size": bytes_in(dmr.size or ""),
            "context_max": dmr.context_window,
            "fingerprints": (f"docker:{self.id}",),
        }


class _Process(WireModel):
    model_name: Text


class _Processes(RootModel[tuple[_Process, ...]]):
    """/engines/ps: what runs at the moment."""


def read_docker(asked: Asked, answer: Answer) -> Reading:
    """The models of the Docker Model Runner, whose older versions list them below /engines only."""
    url = asked.endpoint.url
    root = api_root(url, "docker").removeprefix(url)
    entries = entries_in(answer, _Entry)
    if not entries:
        entries = entries_in((yield Question(f"{root}/v1/models")), _Entry)
    running = yield from ask(f"{root}/ps", _Processes)
    if running is None:
        return Found(listed(asked.endpoint, entries))
    names = {backend.model_name for backend in running.root}
    more = {entry.id: {"loaded": entry.id in names} for entry in entries}
    return Found(listed(asked.endpoint, entries, more))
