"""GPT4All: no streams, no tools, no schemas. Source: GPT4All's documentation (3.10)."""

from llm_localrun.servers.base import CallForcing, Facts
from llm_localrun.servers.openai import MaybeRelayedModel
from llm_localrun.servers.openai_compatible import OpenAICompatible


class _Gpt4AllModel(MaybeRelayedModel):
    """It calls a file that it did not download by the file's name."""

    def facts(self) -> Facts:
        return {
            **super().facts(),
            "capabilities": (),
            "fingerprints": (f"name:gpt4all:{self.id}",),
        }


class Gpt4All(OpenAICompatible):
    kind = "gpt4all"
    title = "GPT4All"
    checked = "3.10 (read)"
    start_hint = "Start the app, and switch on its local API server in the settings"
    usual_ports = (4891,)
    owned_by = "humanity"
    streams = False
    overflow_texts = ("prompt size exceeds the context window size",)
    accepts_schemas = False
    call_forcing = CallForcing.NONE
    listed_model = _Gpt4AllModel
