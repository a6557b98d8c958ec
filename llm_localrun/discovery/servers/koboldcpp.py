"""KoboldCpp: one model, and its context elsewhere.

Pure. Source: KoboldCpp's API documentation.
"""

from llm_localrun.dialects.wire import Count, Text, WireModel
from llm_localrun.discovery.servers.listing import Entry, entries_in, listed
from llm_localrun.discovery.servers.reading import (
    Asked,
    Facts,
    Found,
    Maybe,
    Reading,
    ask,
)
from llm_localrun.reply import Answer


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
    about = (yield from ask("/api/extra/version", _About)) or _About()
    if len(entries) != 1:
        return Found(listed(asked.endpoint, entries), about.version or "")
    context = yield from ask("/api/extra/true_max_context_length", _Value)
    can = {"tools": True, "vision": about.vision, "audio": about.audio}
    facts: Facts = {
        "loaded": True,
        "context_loaded": context and context.value,
        "capabilities": tuple(name for name, has in can.items() if has),
    }
    return Found(listed(asked.endpoint, entries, {entries[0].id: facts}), about.version or "")
