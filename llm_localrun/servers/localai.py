"""LocalAI: a list of names, and another of what they can do.

Pure. Source: LocalAI's documentation and `core/http/endpoints/openai` (v4.9).
"""

from llm_localrun.servers.openai_compatible import Entry, entries_in, listed
from llm_localrun.servers.reading import Asked, Facts, Found, Maybe, Reading, able, ask, version_at
from llm_localrun.wire.response import Answer
from llm_localrun.wire.shapes import Count, Text, WireModel


class _Model(WireModel):
    id: Text
    capabilities: Maybe[tuple[Text, ...]] = None
    input_modalities: Maybe[tuple[Text, ...]] = None
    context_size: Maybe[Count] = None

    def facts(self) -> Facts:
        facts: Facts = {"context_loaded": self.context_size}
        if self.capabilities is None:
            return facts
        chats, embeds = "chat" in self.capabilities, "embeddings" in self.capabilities
        senses = self.input_modalities or ()
        sees = "vision" in self.capabilities or "image" in senses
        return {
            **facts,
            "purpose": "chat" if chats else "embedding" if embeds else None,
            "capabilities": able(tools=True, vision=sees, audio="audio" in senses),
        }


class _Capabilities(WireModel):
    """/v1/models/capabilities, since 2026."""

    data: tuple[_Model, ...]


def read_localai(asked: Asked, answer: Answer) -> Reading:
    """The models of the LocalAI whose list is `answer`."""
    entries = entries_in(answer, Entry)
    models = yield from ask("/v1/models/capabilities", _Capabilities)
    version = yield from version_at("/.well-known/localai.json", asked)
    more = {model.id: model.facts() for model in models.data} if models else {}
    return Found(listed(asked.endpoint, entries, more), version)
