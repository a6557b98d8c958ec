"""Any other server with OpenAI's API: it may be a proxy to another machine."""

from typing import ClassVar

from llm_localrun.models import RunsOn
from llm_localrun.privacy import is_hosted, is_provider
from llm_localrun.servers.base import CONTEXT, PROMPT, Facts
from llm_localrun.servers.openai_compatible import ListedModel, OpenAICompatible
from llm_localrun.wire.sse import Payload


class MaybeRelayedModel(ListedModel):
    """An entry of a server that may be a proxy."""

    def facts(self) -> Facts:
        owner = self.owned_by or ""
        if is_provider(owner):
            return {**super().facts(), "runs_on": RunsOn.UNKNOWN, "remote_host": owner}
        where = {"runs_on": RunsOn.UNKNOWN} if is_hosted(self.id) else {}
        return {**super().facts(), **where}


class OpenAIServer(OpenAICompatible):
    """A server of an unknown kind."""

    kind = "openai"
    title = "OpenAI-compatible server"
    checked = "LiteLLM 1.110 (run)"
    is_product = False
    list_position = 99
    # OpenAI and most providers, TabbyAPI, Text Embeddings Inference.
    overflow_texts = (
        f"maximum context length is {CONTEXT} tokens.*?messages resulted in {PROMPT} tokens",
        "maximum context length",
        f"(?:prompt|context) length {PROMPT} is greater than max_seq_len {CONTEXT}",
        rf"must have less than {CONTEXT} tokens\. Given: {PROMPT}",
    )
    text_choice: ClassVar[Payload] = {"tool_choice": "none"}  # LiteLLM, TabbyAPI
    listed_model = MaybeRelayedModel
