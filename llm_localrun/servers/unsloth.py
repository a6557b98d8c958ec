"""Unsloth Studio: files by repository and quantization, and models of other providers.

Source: Unsloth's `studio/backend` (2026.10).
"""

from llm_localrun.models import RunsOn
from llm_localrun.servers.base import Facts, Sign
from llm_localrun.servers.fields import Maybe, hub_fingerprint
from llm_localrun.servers.llamacpp import RunsLlamaCpp
from llm_localrun.servers.openai_compatible import ListedModel
from llm_localrun.wire.shapes import Count, Text


class _UnslothModel(ListedModel):
    loaded: Maybe[bool] = None
    quant: Maybe[Text] = None
    context_length: Maybe[Count] = None
    max_context_length: Maybe[Count] = None
    native_context_length: Maybe[Count] = None

    def facts(self) -> Facts:
        facts = super().facts()
        context_max = self.native_context_length or self.max_context_length
        # It has none of these for what other providers run.
        is_file = self.quant or context_max or self.context_length or self.loaded
        provider = {"runs_on": RunsOn.UNKNOWN, "remote_host": self.id.partition("/")[0]}
        return {
            **facts,
            **({} if is_file else provider),
            "quantization": self.quant or facts["quantization"],
            "loaded": self.loaded,
            "context_max": context_max,
            "context_loaded": self.context_length,
            "fingerprints": hub_fingerprint(f"{self.id}:{self.quant}") if self.quant else (),
        }


class Unsloth(RunsLlamaCpp):
    kind = "unsloth"
    title = "Unsloth Studio"
    checked = "2026.10 (read)"
    start_hint = "Start it with `unsloth studio`"
    usual_ports = (8888,)
    url_variables = ("UNSLOTH_STUDIO_URL",)
    owned_by = "unsloth-studio"
    version_path = "/api/health"
    signs = (Sign("/api/health", "service", "Unsloth UI Backend", needs_no_key=True),)
    listed_model = _UnslothModel
