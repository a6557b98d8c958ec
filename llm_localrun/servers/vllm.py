"""vLLM. Sources: the documentation of its server (0.33), its code and its answers (0.32)."""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from llm_localrun.servers.base import (
    ANSWER,
    CONTEXT,
    PROMPT,
    TOOLS,
    CallForcing,
    Facts,
    PreparedRequest,
    ServeRequest,
    Sign,
    WireOption,
    sent_as_named,
)
from llm_localrun.servers.fields import Maybe, hub_fingerprint, path_fingerprint
from llm_localrun.servers.openai_compatible import (
    TEMPLATE_VARIABLES,
    ListedModel,
    OpenAICompatible,
)
from llm_localrun.servers.waiting import POLL_S, TIMEOUT_S, count_in, text_of, waiting_for
from llm_localrun.system.progress import Progress
from llm_localrun.tokens.window import Size
from llm_localrun.wire.response import Ask, parse_reply
from llm_localrun.wire.shapes import Count, Text, WireModel
from llm_localrun.wire.sse import Payload

_MAX_NAMES = 100
"""Names of one model, each of which is listed with the others."""
_LENGTH = f"maximum context length is {CONTEXT} tokens"


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


class _Counted(WireModel):
    """/tokenize."""

    count: Count


class CountsChats(OpenAICompatible):
    """A server whose /tokenize takes a chat request, too; of old versions, only a text.

    The whole request is sent, since its other fields decide on the prompt and are accepted.
    """

    tokenize_field = "prompt"
    measured: ClassVar[Payload] = {"ignore_eos": True}
    lists_trained_context = False
    running_metric: ClassVar[str]
    """What /metrics calls the number of prompts that it answers."""
    waiting_metric: ClassVar[str]
    """The same of those that wait."""

    def count_tokens(self, body: Payload) -> Size | None:
        with self.probe() as probe:
            counted = parse_reply(_Counted, probe.ask("/tokenize", body))
        return Size(counted.count, is_exact=True) if counted else None

    def watch(
        self, request: ServeRequest, prepared: PreparedRequest, is_over: threading.Event
    ) -> Iterator[Progress]:
        """The prompts that wait count as including ours: they are answered in their order.

        The numbers are those of the last step of the engine, so a first 0 decides nothing.
        """
        metrics = self.http_request("GET", "/metrics", timeout_s=TIMEOUT_S)
        reading = None
        while text := text_of(metrics):
            running, waiting = (_gauge(n, text) for n in (self.running_metric, self.waiting_metric))
            if waiting and running + waiting > 1:
                reading = None
                yield waiting_for(running + waiting - 1)
            else:
                reading = reading or self.reading(request)
                yield reading.now()
            if is_over.wait(POLL_S):
                return
        yield from self.watch_reading(request, is_over)


def _gauge(name: str, metrics: str) -> int:
    """A number of prompts in the text of /metrics, of all engines together; 0 if it has none."""
    values = re.findall(rf"^{name}(?:\{{[^\n]*\}})? +(\S+)", metrics, re.MULTILINE)
    return sum(map(count_in, values))


class Vllm(CountsChats):
    kind = "vllm"
    title = "vLLM"
    checked = "0.32 (run), 0.33 (read)"
    start_hint = "Start it with `vllm serve MODEL`"
    list_position = 3
    usual_ports = (8000,)
    owned_by = "vllm"
    names_models_as_listed = True
    key_variables = ("VLLM_API_KEY",)
    counts_prompts = True
    # Its own `tool_choice` binds the tag of a call but no argument, and needs a parser (0.32).
    call_forcing = CallForcing.SCHEMA
    # Without --tool-call-parser it refuses `auto`. null keeps the tools in the prompt, which `none`
    # does not if it runs with --exclude-tools-when-tool-choice-none (0.32).
    text_choice: ClassVar[Payload] = {"tool_choice": None}
    tool_refusals = ("tool choice requires",)
    context_flag = "--max-model-len {}"
    template_flag = "--chat-template"
    reasoning_field = "reasoning"
    running_metric = "vllm:num_requests_running"
    waiting_metric = "vllm:num_requests_waiting"
    version_path = "/version"
    overflow_texts = (
        # 0.32. It counts one token too many at most, and none of a text with too many characters.
        rf"{_LENGTH}.*?(?:requested {ANSWER} output tokens.*?)?prompt contains"
        rf" (?P<least>at least )?{PROMPT} input tokens",
        rf"{_LENGTH}.*?upper bound for (?P<above>\d{{1,12}}) input tokens",
        f"max_(?:completion_)?tokens={ANSWER} cannot be greater than [a-z_=]*={CONTEXT}",
        # Older versions.
        rf"{_LENGTH}.*?\({PROMPT} in (?:the messages|your prompt)(?:, {TOOLS} in the functions)?"
        rf"[,;] (?:and )?{ANSWER} (?:in|for) the completion\)",
        f"(?:is too large: {ANSWER}.*?)?{_LENGTH}.*?request(?:ed| has) {PROMPT} (?:input )?tokens",
        f"(?:passed {PROMPT} input.*?requested {ANSWER} .*?)?context length is only {CONTEXT}",
        rf"(?:input|prompt) (?:length \(|\(length ){PROMPT}\) .*?maximum (?:context length \(|model"
        rf" length of ){CONTEXT}",
    )
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
        """An adapter has the context of the model that it is applied to.

        That model has an entry for each of its names, and replies have the first of them (0.32).
        """
        contexts = {entry.id: entry.max_model_len for entry in entries}
        names: dict[str | None, list[str]] = {}
        for entry in entries:
            if entry.parent is None:
                names.setdefault(entry.root, []).append(entry.id)
        facts: dict[str, Facts] = {}
        for entry in entries:
            if entry.parent is None:
                alike = names[entry.root][:_MAX_NAMES]
                facts[entry.id] = {"also_named": tuple(n for n in alike if n != entry.id)}
            elif entry.parent in contexts and entry.max_model_len is None:
                context_size = contexts[entry.parent]
                facts[entry.id] = dict.fromkeys(("context_max", "context_loaded"), context_size)
        return facts
