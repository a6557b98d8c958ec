"""KoboldCpp: one model, and its context elsewhere.

Pure. Source: KoboldCpp's API documentation.
"""

from llm_localrun.servers.openai_compatible import Entry, entries_in, listed
from llm_localrun.servers.reading import Asked, Facts, Found, Maybe, Reading, able, ask
from llm_localrun.wire.response import Answer
from llm_localrun.wire.shapes import Count, Text, WireModel


class _About(WireModel):
    """KoboldCpp's /api/extra/version."""

    version: Maybe[Text] = None
    vision: Maybe[bool] = None
    audio: Maybe[bool] = None


class _Value(WireModel):
    value: Maybe[Count] = None


def read_koboldcpp(asked: Asked, answer: Answer) -> Reading:
    """The model of the KoboldCpp whose list is `answer`; as a router it lists several."""
    entries = entries_in(answer, Entry)
    about = (yield from ask("/api/extra/version", _About)) or _About(version=asked.version)
    version = about.version or ""
    if len(entries) != 1:
        return Found(listed(asked.endpoint, entries), version)
    context = yield from ask("/api/extra/true_max_context_length", _Value)
    facts: Facts = {
        "loaded": True,
        "context_loaded": context and context.value,
        "capabilities": able(tools=True, vision=about.vision, audio=about.audio),
    }
    return Found(listed(asked.endpoint, entries, {entries[0].id: facts}), version)
