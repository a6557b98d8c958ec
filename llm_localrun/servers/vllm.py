"""vLLM, and SGLang, whose list is the same.

Pure. Sources: the documentation of their servers (vLLM 0.33, SGLang 0.5).
"""

from llm_localrun.servers.openai_compatible import Entry, entries_in, listed
from llm_localrun.servers.reading import (
    Asked,
    Facts,
    Found,
    Maybe,
    Reading,
    able,
    ask,
    hub_mark,
    path_mark,
    version_at,
)
from llm_localrun.wire.response import Answer
from llm_localrun.wire.shapes import Count, Text, WireModel


class _Entry(Entry):
    root: Maybe[Text] = None
    """A path, or a repository."""
    parent: Maybe[Text] = None
    """The model that a LoRA is applied to."""
    max_model_len: Maybe[Count] = None

    def facts(self) -> Facts:
        root = self.root or ""
        file = root if root.lower().endswith(".gguf") else None
        return {
            **super().facts(),
            "context_max": self.max_model_len,
            "context_loaded": self.max_model_len,
            "loaded": True,
            "fingerprints": path_mark(file) or hub_mark(root) or hub_mark(self.id),
        }


def read_vllm(asked: Asked, answer: Answer) -> Reading:
    """The models of the vLLM whose list is `answer`."""
    entries = entries_in(answer, _Entry)
    version = yield from version_at("/version", asked)
    contexts = {entry.id: entry.max_model_len for entry in entries}
    more = {
        entry.id: {"context_max": contexts[entry.parent], "context_loaded": contexts[entry.parent]}
        for entry in entries
        if entry.parent in contexts and entry.max_model_len is None
    }
    return Found(listed(asked.endpoint, entries, more), version)


class _ModelInfo(WireModel):
    """SGLang's /model_info."""

    is_generation: Maybe[bool] = None
    has_image_understanding: Maybe[bool] = None
    has_audio_understanding: Maybe[bool] = None
    reasoning_parser: Maybe[Text] = None
    tool_call_parser: Maybe[Text] = None

    def facts(self) -> Facts:
        # Without a parser, which older versions do not tell of, calls stay in the text.
        parses_calls = self.tool_call_parser or "tool_call_parser" not in self.model_fields_set
        capabilities = able(
            tools=parses_calls,
            vision=self.has_image_understanding,
            audio=self.has_audio_understanding,
            thinking=self.reasoning_parser,
        )
        facts: Facts = {"capabilities": capabilities}
        return {**facts, "purpose": "embedding"} if self.is_generation is False else facts


def read_sglang(asked: Asked, answer: Answer) -> Reading:
    """The model of the SGLang whose list is `answer`."""
    entries = entries_in(answer, _Entry)
    info = yield from ask("/model_info", _ModelInfo)
    version = yield from version_at("/server_info", asked)
    more = {entry.id: info.facts() for entry in entries} if info else {}
    return Found(listed(asked.endpoint, entries, more), version)
