"""KoboldCpp: one model, whose context and senses it reports elsewhere.

Source: KoboldCpp's API documentation (1.104).
"""

from collections.abc import Mapping, Sequence

from llm_localrun.servers.base import Facts, Sign
from llm_localrun.servers.fields import Maybe, Senses, capabilities_of
from llm_localrun.servers.openai_compatible import ListedModel, OpenAICompatible
from llm_localrun.wire.response import Ask, parse_reply
from llm_localrun.wire.shapes import Count, WireModel


class _KoboldContext(WireModel):
    """/api/extra/true_max_context_length."""

    value: Maybe[Count] = None


class KoboldCpp(OpenAICompatible):
    kind = "koboldcpp"
    title = "KoboldCpp"
    checked = "1.104 (read)"
    start_hint = "Start it with `koboldcpp --model FILE`"
    usual_ports = (5001,)
    owned_by = "koboldcpp"
    names_models_as_listed = True
    context_flag = "--contextsize {}"
    cuts_for_answer = True  # gpttype_adapter.cpp
    version_path = "/api/extra/version"
    rereads_version = True
    guarded_path = "/api/extra/generate/check"
    signs = (Sign("/api/extra/version", "result", "KoboldCpp", needs_no_key=True),)

    def details(self, ask: Ask, entries: Sequence[ListedModel]) -> Mapping[str, Facts]:
        if len(entries) != 1:
            # As a router it lists several, and reports about none.
            return {}
        senses = parse_reply(Senses, ask("/api/extra/version")) or Senses()
        context = parse_reply(_KoboldContext, ask("/api/extra/true_max_context_length"))
        facts: Facts = {
            "loaded": True,
            "context_loaded": context and context.value,
            "capabilities": capabilities_of(tools=True, vision=senses.vision, audio=senses.audio),
        }
        return {entries[0].id: facts}
