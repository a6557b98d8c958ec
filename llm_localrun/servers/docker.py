"""Docker Model Runner: a list of images, and which of them run.

Source: docker/model-runner (2026-07).
"""

from pydantic import RootModel

from llm_localrun.servers.base import Facts, ModelListing
from llm_localrun.servers.fields import Entries, Maybe, bytes_in, weights_in
from llm_localrun.servers.llamacpp import RunsLlamaCpp
from llm_localrun.servers.openai_compatible import (
    ListedModel,
    entries_in,
    listed_models,
)
from llm_localrun.wire.response import Ask, ProbeReply, parse_reply
from llm_localrun.wire.shapes import Count, Text, WireModel


class _ImageDetails(WireModel):
    """Texts to display: "2.31 GiB", "8.2B"; each may be absent."""

    context_window: Maybe[Count] = None
    architecture: Maybe[Text] = None
    parameters: Maybe[Text] = None
    quantization: Maybe[Text] = None
    size: Maybe[Text] = None


class _DockerModel(ListedModel):
    dmr: Maybe[_ImageDetails] = None

    def facts(self) -> Facts:
        facts = super().facts()
        details = self.dmr or _ImageDetails()
        # A mix names its formats from the smallest tensors to the rule: `IQ2_XXS/Q4_K_M`.
        quantization = (details.quantization or "").removeprefix("MOSTLY_").rpartition("/")[2]
        return {
            **facts,
            "architecture": details.architecture or "",
            "quantization": quantization or facts["quantization"],
            "parameters": weights_in(details.parameters or ""),
            "size": bytes_in(details.size or ""),
            "context_max": details.context_window,
            "fingerprints": (f"docker:{self.id}",),
        }


class _RunningImage(WireModel):
    model_name: Text


class _RunningImages(RootModel[Entries[_RunningImage]]):
    """/engines/ps."""


class Docker(RunsLlamaCpp):
    kind = "docker"
    title = "Docker Model Runner"
    checked = "2026-07 (read)"
    start_hint = "Start it with `docker desktop enable model-runner --tcp 12434`"
    usual_ports = (12434,)
    owned_by = "docker"
    greeting = "Docker Model Runner is running"
    api_root = "/engines"
    listed_model = _DockerModel

    def list_models(self, ask: Ask, v1_models: ProbeReply, known: ModelListing) -> ModelListing:
        """Older versions list their models below /engines only."""
        root = self.root.removeprefix(self.endpoint.url)
        entries = entries_in(v1_models, _DockerModel)
        if not entries:
            entries = entries_in(ask(f"{root}/v1/models"), _DockerModel)
        details: dict[str, Facts] = {}
        if running := parse_reply(_RunningImages, ask(f"{root}/ps")):
            names = {each.model_name for each in running.root}
            details = {entry.id: {"loaded": entry.id in names} for entry in entries}
        return ModelListing(listed_models(self.endpoint, entries, details))
