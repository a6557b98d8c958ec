"""text-generation-webui: which of its models is loaded.

Pure. Source: its OpenAI extension (2026-05).
"""

from llm_localrun.servers.openai_compatible import Entry, entries_in, listed
from llm_localrun.servers.reading import Asked, Found, Maybe, Reading, ask
from llm_localrun.wire.response import Answer
from llm_localrun.wire.shapes import Text, WireModel


class _Info(WireModel):
    """text-generation-webui's /v1/internal/model/info."""

    model_name: Maybe[Text] = None


def read_textgen(asked: Asked, answer: Answer) -> Reading:
    """The models of the text-generation-webui whose list is `answer`."""
    entries = entries_in(answer, Entry)
    info = yield from ask("/v1/internal/model/info", _Info)
    loaded = info and info.model_name
    more = {entry.id: {"loaded": entry.id == loaded} for entry in entries} if info else {}
    return Found(listed(asked.endpoint, entries, more))
