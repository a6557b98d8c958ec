"""vLLM. Source: the documentation of its OpenAI-compatible server (0.33)."""

from collections.abc import Mapping, Sequence

from llm_localrun.servers.base import Facts, Sign, WireOption, sent_as_named
from llm_localrun.servers.fields import Maybe, hub_fingerprint, path_fingerprint
from llm_localrun.servers.openai_compatible import (
    JSON_OBJECT,
    TEMPLATE_THINKING,
    ListedModel,
    OpenAICompatible,
)
from llm_localrun.wire.response import Ask
from llm_localrun.wire.shapes import Count, Text


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
    checked = "0.32 (run), 0.33 (read)"
    start_hint = "Start it with `vllm serve MODEL`"
    list_position = 3
    usual_ports = (8000,)
    owned_by = "vllm"
    names_models_as_listed = True
    key_variables = ("VLLM_API_KEY",)
    context_flag = "--max-model-len {}"
    template_flag = "--chat-template"
    tokenize_field = "prompt"
    reasoning_field = "reasoning"
    version_path = "/version"
    signs = (Sign("/version", "version", needs_no_key=True, rank=1, only_if_locked=True),)
    listed_model = VllmModel
    options = {
        **OpenAICompatible.options,
        **sent_as_named("top_k", "min_p"),
        "repeat_penalty": WireOption("repetition_penalty"),
        "json_object": JSON_OBJECT,
        "think": WireOption("chat_template_kwargs", TEMPLATE_THINKING),
    }

    def details(self, ask: Ask, entries: Sequence[VllmModel]) -> Mapping[str, Facts]:
        """An adapter has the context of the model that it is applied to.

        That model has an entry for each of its names, and replies have the first of them (0.32).
        """
        contexts = {entry.id: entry.max_model_len for entry in entries}
        bases = [(entry.id, entry.root) for entry in entries if entry.parent is None]
        facts: dict[str, Facts] = {}
        for entry in entries:
            if entry.parent is None:
                others = (name for name, root in bases if root == entry.root and name != entry.id)
                facts[entry.id] = {"also_named": tuple(others)}
            elif entry.parent in contexts and entry.max_model_len is None:
                context_size = contexts[entry.parent]
                facts[entry.id] = dict.fromkeys(("context_max", "context_loaded"), context_size)
        return facts
