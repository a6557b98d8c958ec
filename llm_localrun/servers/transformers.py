"""transformers serve: what the Hugging Face cache holds, or the model that it was started with.

It loads a model for the first request. Sources: `cli/serving` in transformers 5.19 and 5.24.
"""

from llm_localrun.servers.base import CallForcing, Facts, Sign
from llm_localrun.servers.fields import LoadStatus, Maybe
from llm_localrun.servers.openai_compatible import TEMPLATE_THINKING, ListedModel, OpenAICompatible


class _TransformersModel(ListedModel):
    status: Maybe[LoadStatus] = None
    """Since 5.24."""

    def facts(self) -> Facts:
        return {**super().facts(), "loaded": self.status and self.status.is_loaded}


class Transformers(OpenAICompatible):
    kind = "transformers"
    title = "transformers serve"
    checked = "5.19 (run), 5.24 (read)"
    start_hint = "Start it with `transformers serve`"
    shared_ports = (8000,)
    signs_as_owner = True
    accepts_schemas = False
    call_forcing = CallForcing.NONE  # It says that it ignores `tool_choice`.
    # FastAPI's own description of a server without a page at its root.
    signs = (
        Sign("/openapi.json", "paths", "/load_model", rank=2, greeting={"detail": "Not Found"}),
    )
    no_list = (500, "Internal Server Error")
    empty_hint = (
        "It lists what is in the Hugging Face cache: `hf download OWNER/REPO` adds a model there"
    )
    listed_model = _TransformersModel
    # It says that it ignores presence_penalty, reasoning_effort and response_format.
    options = {
        **{k: v for k, v in OpenAICompatible.options.items() if k != "presence_penalty"},
        "think": TEMPLATE_THINKING,
    }
