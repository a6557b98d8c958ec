"""LocalAI: a list of names, and another of what the models can do.

Source: LocalAI's documentation and `core/http/endpoints/openai` (4.9).
"""

from collections.abc import Mapping, Sequence

from llm_localrun.servers.base import Facts, Sign
from llm_localrun.servers.fields import Entries, Maybe, capabilities_of, stated_purpose
from llm_localrun.servers.openai_compatible import ListedModel, OpenAICompatible
from llm_localrun.wire.response import Ask, parse_reply
from llm_localrun.wire.shapes import Count, Text, WireModel


class _LocalAIModel(WireModel):
    id: Text
    capabilities: Maybe[Entries[Text]] = None
    input_modalities: Maybe[Entries[Text]] = None
    context_size: Maybe[Count] = None

    def facts(self) -> Facts:
        facts: Facts = {"context_loaded": self.context_size}
        if self.capabilities is None:
            return facts
        inputs = self.input_modalities or ()
        sees = "vision" in self.capabilities or "image" in inputs
        return {
            **facts,
            # A model that completes texts may lack a template to chat.
            "purpose": stated_purpose(*{*self.capabilities} - {"completion"}),
            "capabilities": capabilities_of(tools=True, vision=sees, audio="audio" in inputs),
        }


class _LocalAICapabilities(WireModel):
    """/v1/models/capabilities, since 2026."""

    data: Entries[_LocalAIModel]


class LocalAI(OpenAICompatible):
    kind = "localai"
    title = "LocalAI"
    checked = "4.9 (read)"
    start_hint = "Start it with `local-ai run`"
    shared_ports = (8080,)
    key_variables = ("LOCALAI_API_KEY",)
    version_path = "/.well-known/localai.json"
    signs = (Sign("/.well-known/localai.json", "endpoints", needs_no_key=True),)

    def details(self, ask: Ask, entries: Sequence[ListedModel]) -> Mapping[str, Facts]:
        models = parse_reply(_LocalAICapabilities, ask("/v1/models/capabilities"))
        return {model.id: model.facts() for model in models.data} if models else {}
