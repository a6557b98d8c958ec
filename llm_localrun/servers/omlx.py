"""oMLX: MLX models, with what is known of each in /v1/models/status.

Pure. Source: what its clients read (2026-10).
"""

from llm_localrun.models import RunsOn
from llm_localrun.servers.openai_compatible import Entry, entries_in, listed
from llm_localrun.servers.reading import Asked, Facts, Found, Maybe, Reading, able, ask, version_at
from llm_localrun.wire.response import Answer
from llm_localrun.wire.shapes import Count, Text, WireModel


class _Entry(Entry):
    max_model_len: Maybe[Count] = None

    def facts(self) -> Facts:
        return {**super().facts(), "context_max": self.max_model_len}


class _Model(WireModel):
    id: Text
    model_alias: Maybe[Text] = None
    model_type: Maybe[Text] = None
    loaded: Maybe[bool] = None
    estimated_size: Maybe[Count] = None
    max_context_window: Maybe[Count] = None
    distributed: Maybe[bool] = None
    """Over several machines."""

    def facts(self) -> Facts:
        facts: Facts = {"loaded": self.loaded, "size": self.estimated_size}
        if self.model_type is not None:
            facts["purpose"] = _PURPOSES.get(self.model_type)
            facts["capabilities"] = able(tools=True, vision=self.model_type == "vlm")
        if self.max_context_window:
            facts["context_max"] = self.max_context_window
        if self.distributed:
            facts["runs_on"] = RunsOn.UNKNOWN
        return facts


_PURPOSES = {"llm": "chat", "vlm": "chat", "embedding": "embedding"}


class _Status(WireModel):
    models: tuple[_Model, ...]


def read_omlx(asked: Asked, answer: Answer) -> Reading:
    """The models of the oMLX whose list is `answer`, which calls some by an alias."""
    entries = entries_in(answer, _Entry)
    models = yield from ask("/v1/models/status", _Status)
    version = yield from version_at("/api/status", asked)
    more = {}
    for model in models.models if models else ():
        more[model.id] = more[model.model_alias or model.id] = model.facts()
    return Found(listed(asked.endpoint, entries, more), version)
