"""Lemonade: models in files, and models of cloud providers.

Source: Lemonade's API documentation (10).
"""

from collections.abc import Mapping, Sequence

from llm_localrun.models import RunsOn
from llm_localrun.names.quantizations import quantization_in
from llm_localrun.servers.base import Facts, Sign, sent_as_named
from llm_localrun.servers.fields import (
    Entries,
    Maybe,
    capabilities_of,
    hub_fingerprint,
    stated_purpose,
)
from llm_localrun.servers.llamacpp import RunsLlamaCpp
from llm_localrun.servers.openai_compatible import ListedModel
from llm_localrun.wire.response import Ask, parse_reply
from llm_localrun.wire.shapes import Count, Rate, Text, WireModel

_MEDIA_RECIPES = ("whispercpp", "sd-cpp", "kokoro", "moonshine")
"""Recipes for sound and pictures."""


class _LemonadeModel(ListedModel):
    checkpoint: Maybe[Text] = None
    recipe: Maybe[Text] = None
    cloud_provider: Maybe[Text] = None
    size: Maybe[Rate] = None
    """Gigabytes."""
    downloaded: Maybe[bool] = None
    labels: Maybe[Entries[Text]] = None
    max_context_window: Maybe[Count] = None
    context_length: Maybe[Count] = None

    def facts(self) -> Facts:
        facts = super().facts()
        checkpoint, labels = self.checkpoint or "", self.labels or ()
        capabilities = capabilities_of(
            tools="tool-calling" in labels,
            vision="vision" in labels,
            thinking="reasoning" in labels,
        )
        if self.downloaded is False:
            facts["purpose"] = None
        elif self.recipe in _MEDIA_RECIPES:
            facts["purpose"] = "other"
        elif (stated := stated_purpose(*labels)) != "other":
            # Most labels are abilities.
            facts["purpose"] = stated
        return {
            **facts,
            **self._where(),
            "quantization": facts["quantization"] or quantization_in(checkpoint),
            "size": round(self.size * 1e9) if self.size else None,
            "context_max": self.max_context_window,
            "context_loaded": self.context_length,
            "capabilities": None if self.labels is None else capabilities,
            "fingerprints": hub_fingerprint(checkpoint),
        }

    def _where(self) -> Facts:
        if self.recipe == "cloud" or self.cloud_provider:
            return {"runs_on": RunsOn.CLOUD, "remote_host": self.cloud_provider or ""}
        # A collection passes a prompt on to one of several models.
        is_collection = (self.recipe or "").startswith("collection")
        return {"runs_on": RunsOn.UNKNOWN} if is_collection else {}


class _LoadOptions(WireModel):
    ctx_size: Maybe[Count] = None


class _LoadedByLemonade(WireModel):
    model_name: Text
    recipe_options: Maybe[_LoadOptions] = None


class _LemonadeHealth(WireModel):
    """/v1/health."""

    all_models_loaded: Entries[_LoadedByLemonade]


class Lemonade(RunsLlamaCpp):
    kind = "lemonade"
    title = "Lemonade"
    checked = "10 (read)"
    start_hint = "Start it with `lemonade-server serve`, or start its service"
    usual_ports = (13305,)
    shared_ports = (8000,)
    owned_by = "lemonade"
    key_variables = ("LEMONADE_API_KEY", "LEMONADE_ADMIN_API_KEY")
    version_path = "/v1/health"
    rereads_version = True
    signs = (Sign("/v1/health", "all_models_loaded"),)
    listed_model = _LemonadeModel
    options = {**RunsLlamaCpp.options, **sent_as_named("top_k", "repeat_penalty")}

    def details(self, ask: Ask, entries: Sequence[ListedModel]) -> Mapping[str, Facts]:
        health = parse_reply(_LemonadeHealth, ask("/v1/health"))
        if health is None:
            return {}
        loaded = {each.model_name: each.recipe_options for each in health.all_models_loaded}
        facts: dict[str, Facts] = {each.id: {"loaded": each.id in loaded} for each in entries}
        for name, options in loaded.items():
            if options and options.ctx_size:
                facts.setdefault(name, {})["context_loaded"] = options.ctx_size
        return facts
