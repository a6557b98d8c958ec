"""mistral.rs: its list says which model is loaded. Source: mistral.rs's documentation (0.8)."""

from llm_localrun.servers.base import CONTEXT, CallForcing, Facts
from llm_localrun.servers.fields import Maybe
from llm_localrun.servers.openai_compatible import ListedModel, OpenAICompatible
from llm_localrun.wire.shapes import Text


class _MistralRsModel(ListedModel):
    status: Maybe[Text] = None

    def facts(self) -> Facts:
        facts = super().facts()
        if self.id == "default":
            # It stands for another entry.
            facts["purpose"] = None
        return {**facts, "loaded": self.status and self.status == "loaded"}


class MistralRs(OpenAICompatible):
    kind = "mistralrs"
    title = "mistral.rs"
    checked = "0.8 (read)"
    start_hint = "Start it with `mistralrs serve -m MODEL`"
    shared_ports = (1234,)
    overflow_texts = (f"prompt sequence length is greater than {CONTEXT}",)
    owned_by = "local"
    # Its `tool_choice` has no `required` (mistralrs-core, tools/request.rs).
    call_forcing = CallForcing.SCHEMA
    listed_model = _MistralRsModel
