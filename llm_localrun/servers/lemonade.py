"""Lemonade: files, and models of cloud providers.

Pure. Source: Lemonade's API documentation (v10).
"""

from llm_localrun.models import RunsOn
from llm_localrun.names.quantizations import quantization_in
from llm_localrun.servers.openai_compatible import Entry, entries_in, listed
from llm_localrun.servers.reading import Asked, Facts, Found, Maybe, Reading, able, ask, hub_mark
from llm_localrun.wire.response import Answer
from llm_localrun.wire.shapes import Count, Rate, Text, WireModel

_MEDIA = ("whispercpp", "sd-cpp", "kokoro", "moonshine")
"""Recipes for sound and pictures."""


class _Entry(Entry):
    checkpoint: Maybe[Text] = None
    recipe: Maybe[Text] = None
    cloud_provider: Maybe[Text] = None
    size: Maybe[Rate] = None
    """In GB."""
    downloaded: Maybe[bool] = None
    labels: Maybe[tuple[Text, ...]] = None
    max_context_window: Maybe[Count] = None
    context_length: Maybe[Count] = None

    def facts(self) -> Facts:
        facts = super().facts()
        checkpoint, labels = self.checkpoint or "", self.labels or ()
        capabilities = able(
            tools="tool-calling" in labels,
            vision="vision" in labels,
            thinking="reasoning" in labels,
        )
        if self.downloaded is False or self.recipe in _MEDIA or "reranking" in labels:
            facts["purpose"] = None
        elif "embeddings" in labels:
            facts["purpose"] = "embedding"
        return {
            **facts,
            **self._place(),
            "quantization": facts["quantization"] or quantization_in(checkpoint),
            "size": round(self.size * 1e9) if self.size else None,
            "context_max": self.max_context_window,
            "context_loaded": self.context_length,
            "capabilities": None if self.labels is None else capabilities,
            "fingerprints": hub_mark(checkpoint),
        }

    def _place(self) -> Facts:
        if self.recipe == RunsOn.CLOUD or self.cloud_provider:
            return {"runs_on": RunsOn.CLOUD, "remote_host": self.cloud_provider or ""}
        # A collection hands a prompt on to one of several models.
        return {"runs_on": RunsOn.UNKNOWN} if (self.recipe or "").startswith("collection") else {}


class _Options(WireModel):
    ctx_size: Maybe[Count] = None


class _Loaded(WireModel):
    model_name: Text
    recipe_options: Maybe[_Options] = None


class _Health(WireModel):
    version: Maybe[Text] = None
    all_models_loaded: tuple[_Loaded, ...]


def read_lemonade(asked: Asked, answer: Answer) -> Reading:
    """The models of the Lemonade whose list is `answer`."""
    entries = entries_in(answer, _Entry)
    health = yield from ask("/v1/health", _Health)
    if health is None:
        return Found(listed(asked.endpoint, entries), asked.version)
    running = {each.model_name: each.recipe_options for each in health.all_models_loaded}
    more: dict[str, Facts] = {entry.id: {"loaded": entry.id in running} for entry in entries}
    for name, options in running.items():
        if options and options.ctx_size:
            more.setdefault(name, {})["context_loaded"] = options.ctx_size
    return Found(listed(asked.endpoint, entries, more), health.version or "")
