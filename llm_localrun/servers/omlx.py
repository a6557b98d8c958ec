"""oMLX: MLX models, described in /v1/models/status. Source: what its clients read (2026-10)."""

from collections.abc import Iterator, Mapping, Sequence

from llm_localrun.models import RunsOn
from llm_localrun.servers.base import CONTEXT, PROMPT, Facts, Sign, local_url
from llm_localrun.servers.fields import Entries, Maybe, capabilities_of, stated_purpose
from llm_localrun.servers.openai_compatible import ListedModel, OpenAICompatible
from llm_localrun.system.json_files import setting
from llm_localrun.system.paths import user_home
from llm_localrun.wire.response import Ask, parse_reply
from llm_localrun.wire.shapes import Count, Text, WireModel


class _OMlxModel(ListedModel):
    max_model_len: Maybe[Count] = None

    def facts(self) -> Facts:
        return {**super().facts(), "context_max": self.max_model_len}


class _OMlxDetails(WireModel):
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
            facts["purpose"] = stated_purpose(self.model_type)
            facts["capabilities"] = capabilities_of(tools=True, vision=self.model_type == "vlm")
        if self.max_context_window:
            facts["context_max"] = self.max_context_window
        if self.distributed:
            facts["runs_on"] = RunsOn.UNKNOWN
        return facts


class _OMlxStatus(WireModel):
    """/v1/models/status."""

    models: Entries[_OMlxDetails]


class OMlx(OpenAICompatible):
    kind = "omlx"
    title = "oMLX"
    checked = "2026-10 (read)"
    start_hint = "Start it with `omlx serve`, or start its app"
    shared_ports = (8000,)
    found_by = ("its settings",)
    owned_by = "omlx"
    key_variables = ("OMLX_API_KEY",)
    version_path = "/api/status"
    overflow_texts = (f"prompt too long: {PROMPT} tokens exceeds max context window of {CONTEXT}",)
    signs = (Sign("/health", "engine_pool", needs_no_key=True),)
    listed_model = _OMlxModel

    @classmethod
    def addresses_in_settings(cls) -> Iterator[str]:
        port = setting(user_home() / ".omlx" / "settings.json", "server", "port")
        yield from local_url(port)

    def details(self, ask: Ask, entries: Sequence[ListedModel]) -> Mapping[str, Facts]:
        status = parse_reply(_OMlxStatus, ask("/v1/models/status"))
        facts = {}
        for model in status.models if status else ():
            # It lists some models under an alias.
            facts[model.id] = facts[model.model_alias or model.id] = model.facts()
        return facts
