"""vLLM. Sources: the documentation of its server (0.33); each option was tried (0.32)."""

from collections.abc import Mapping, Sequence

from llm_localrun.servers.base import Facts, Sign, WireOption, sent_as_named
from llm_localrun.servers.fields import Maybe, hub_fingerprint, path_fingerprint
from llm_localrun.servers.openai_compatible import (
    TEMPLATE_VARIABLES,
    ListedModel,
    OpenAICompatible,
)
from llm_localrun.wire.response import Ask
from llm_localrun.wire.shapes import Count, Text
from llm_localrun.wire.sse import Payload


def _thinking(variables: Payload) -> Payload:
    """What asks for thinking. gpt-oss has no template here: it takes the effort of the request."""
    effort = {name: value for name, value in variables.items() if name == "reasoning_effort"}
    return {"chat_template_kwargs": variables, **effort}


class VllmModel(ListedModel):
    root: Maybe[Text] = None
    """A path, or a repository."""
    parent: Maybe[Text] = None
    """The model that a LoRA adapter is applied to."""
    max_model_len: Maybe[Count] = None

    def facts(self) -> Facts:
        root = self.root or ""
        file = root if root.lower().endswith(".gguf") else None
        return {
            **super().facts(),
            "context_max": self.max_model_len,
            "context_loaded": self.max_model_len,
            "loaded": True,
            "fingerprints": path_fingerprint(file)
            or hub_fingerprint(root)
            or hub_fingerprint(self.id),
        }


class Vllm(OpenAICompatible):
    kind = "vllm"
    title = "vLLM"
    start_hint = "Start it with `vllm serve MODEL`"
    list_position = 3
    usual_ports = (8000,)
    owned_by = "vllm"
    key_variables = ("VLLM_API_KEY",)
    context_flag = "--max-model-len {}"
    tokenize_field = "prompt"
    reasoning_field = "reasoning"
    version_path = "/version"
    signs = (Sign("/version", "version", needs_no_key=True, rank=1, only_if_locked=True),)
    listed_model = VllmModel
    options = {
        **OpenAICompatible.options,
        **sent_as_named("top_k", "min_p"),
        "repeat_penalty": WireOption("repetition_penalty"),
        "json_object": WireOption("response_format.type", {True: "json_object"}),
        # It was `guided_grammar` before 0.12, which is ignored now.
        "grammar": WireOption("structured_outputs.grammar"),
        "think": WireOption(
            "", {level: _thinking(variables) for level, variables in TEMPLATE_VARIABLES.items()}
        ),
    }

    def details(self, ask: Ask, entries: Sequence[VllmModel]) -> Mapping[str, Facts]:
        """An adapter has the context of the model that it is applied to."""
        contexts = {entry.id: entry.max_model_len for entry in entries}
        return {
            entry.id: dict.fromkeys(("context_max", "context_loaded"), contexts[entry.parent])
            for entry in entries
            if entry.parent in contexts and entry.max_model_len is None
        }
