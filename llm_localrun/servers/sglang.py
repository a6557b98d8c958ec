"""SGLang, whose list is vLLM's. Source: the documentation of its server (0.5)."""

from collections.abc import Mapping, Sequence

from llm_localrun.servers.base import ANSWER, CONTEXT, PROMPT, CallForcing, Facts
from llm_localrun.servers.fields import Maybe, capabilities_of
from llm_localrun.servers.vllm import CountsChats, Vllm, VllmModel
from llm_localrun.wire.response import Ask, parse_reply
from llm_localrun.wire.shapes import Text, WireModel


class _SglangInfo(WireModel):
    """/model_info."""

    is_generation: Maybe[bool] = None
    has_image_understanding: Maybe[bool] = None
    has_audio_understanding: Maybe[bool] = None
    reasoning_parser: Maybe[Text] = None
    tool_call_parser: Maybe[Text] = None

    def facts(self) -> Facts:
        # Without a parser, which older versions do not report, calls stay in the text.
        parses_calls = self.tool_call_parser or "tool_call_parser" not in self.model_fields_set
        capabilities = capabilities_of(
            tools=parses_calls,
            vision=self.has_image_understanding,
            audio=self.has_audio_understanding,
            thinking=self.reasoning_parser,
        )
        facts: Facts = {"capabilities": capabilities}
        return {**facts, "purpose": "embedding"} if self.is_generation is False else facts


class Sglang(CountsChats):
    kind = "sglang"
    title = "SGLang"
    checked = "0.5 (read)"
    start_hint = "Start it with `python -m sglang.launch_server --model-path MODEL`"
    usual_ports = (30000,)
    owned_by = "sglang"
    names_models_as_listed = True
    # A format wins over `tool_choice`, and needs no --tool-call-parser (its protocol.py).
    call_forcing = CallForcing.SCHEMA
    context_flag = "--context-length {}"
    template_flag = "--chat-template"
    # Of `TokenizerManager` (0.5.20). With --allow-auto-truncate it cuts a prompt instead.
    overflow_texts = (
        rf"input \({PROMPT} tokens\) is longer than the model's context length \({CONTEXT}",
        f"maximum context length of {CONTEXT} tokens.*?: {PROMPT} tokens from the input messages"
        f" and {ANSWER} tokens",
    )
    reasoning_field = "reasoning_content"
    # Of a server that runs with --enable-metrics.
    running_metric = "sglang:num_running_reqs"
    waiting_metric = "sglang:num_queue_reqs"
    version_path = "/server_info"
    listed_model = VllmModel
    options = {name: wire for name, wire in Vllm.options.items() if name != "grammar"}

    def details(self, ask: Ask, entries: Sequence[VllmModel]) -> Mapping[str, Facts]:
        info = parse_reply(_SglangInfo, ask("/model_info"))
        return {entry.id: info.facts() for entry in entries} if info else {}
