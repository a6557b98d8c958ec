"""Unsloth Studio: files by repository and quantization, and models of other providers.

Pure. Source: `studio/backend` (2026.10).
"""

from llm_localrun.models import RunsOn
from llm_localrun.servers.openai_compatible import Entry, entries_in, listed
from llm_localrun.servers.reading import Asked, Facts, Found, Maybe, Reading, hub_mark, version_at
from llm_localrun.wire.response import Answer
from llm_localrun.wire.shapes import Count, Text


class _Entry(Entry):
    loaded: Maybe[bool] = None
    quant: Maybe[Text] = None
    context_length: Maybe[Count] = None
    max_context_length: Maybe[Count] = None
    native_context_length: Maybe[Count] = None

    def facts(self) -> Facts:
        facts = super().facts()
        context_max = self.native_context_length or self.max_context_length
        # Of what other providers run it knows none of this.
        is_file = self.quant or context_max or self.context_length or self.loaded
        return {
            **facts,
            **(
                {}
                if is_file
                else {"runs_on": RunsOn.UNKNOWN, "remote_host": self.id.partition("/")[0]}
            ),
            "quantization": self.quant or facts["quantization"],
            "loaded": self.loaded,
            "context_max": context_max,
            "context_loaded": self.context_length,
            "fingerprints": hub_mark(f"{self.id}:{self.quant}") if self.quant else (),
        }


def read_unsloth(asked: Asked, answer: Answer) -> Reading:
    """The models of the Unsloth Studio whose list is `answer`."""
    entries = entries_in(answer, _Entry)
    version = yield from version_at("/api/health", asked)
    return Found(listed(asked.endpoint, entries), version)
