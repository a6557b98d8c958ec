"""text-generation-webui: one of its models is loaded. Source: its OpenAI extension (2026-05)."""

from collections.abc import Mapping, Sequence

from llm_localrun.servers.base import Facts
from llm_localrun.servers.fields import Maybe
from llm_localrun.servers.openai_compatible import ListedModel, OpenAICompatible
from llm_localrun.wire.response import Ask, parse_reply
from llm_localrun.wire.shapes import Text, WireModel


class _LoadedModel(WireModel):
    """/v1/internal/model/info."""

    model_name: Maybe[Text] = None


class TextGen(OpenAICompatible):
    kind = "textgen"
    title = "text-generation-webui"
    checked = "2026-05 (read)"
    start_hint = "Start it with `--api`"
    usual_ports = (5000,)
    owned_by = "user"
    names_models_as_listed = True  # It lists all models and answers with the one that is loaded.
    cuts_for_answer = True  # get_max_prompt_length in modules/text_generation.py

    def details(self, ask: Ask, entries: Sequence[ListedModel]) -> Mapping[str, Facts]:
        info = parse_reply(_LoadedModel, ask("/v1/internal/model/info"))
        if info is None:
            return {}
        return {entry.id: {"loaded": entry.id == info.model_name} for entry in entries}
