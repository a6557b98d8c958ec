"""Whatever comes from outside is read in a time that grows with its length, and no faster.

Each reader gets inputs made to take long: repeated, alternating, nested, nearly matching. Most are
a unit many times over.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from llm_localrun.engine import build_logs
from llm_localrun.engine.load_watch import phase_in
from llm_localrun.errors import LocalRunError
from llm_localrun.files.gotemplate import to_jinja
from llm_localrun.models import Endpoint
from llm_localrun.names import quantizations, roles
from llm_localrun.names.parse import parse_name, short_names
from llm_localrun.pull import refs
from llm_localrun.servers import fields
from llm_localrun.servers.base import ModelListing, find_overflow, server_kinds
from llm_localrun.servers.recognize import recognize
from llm_localrun.system.logins import hide_passwords, split_login
from llm_localrun.tokens.estimate import parts_of
from llm_localrun.wire import ollama, openai, shapes
from llm_localrun.wire.events import Event, Finished, TextDelta
from llm_localrun.wire.json_answer import JsonAnswer
from llm_localrun.wire.response import (
    PayloadDecoder,
    ProbeReply,
    ResponseContext,
    ResponseDecoder,
    ResponseHead,
)
from llm_localrun.wire.sse import EventStream, Framing, JsonLines, WholeBody, excerpt
from llm_localrun.wire.think_tags import TAGS, Thinking, ThinkTags, expect_thinking, read_template
from tests.support.growth import growth, is_linear

pytestmark = pytest.mark.pure

# Texts

UNITS = [
    *("a", "A", "0", " ", "\n", "-", "_", ".", "/", "\\", ":", "@", "'", '"', "`", "[", "(", "{"),
    *(
        "a-",
        "1.",
        "0_1_1",
        "a.1",
        "2-5-",
        "8x7b",
        "a3b",
        "a1a1a1a",
        "é",
        "日",
        "\t",
        "\r\n",
        "\\\\n",
    ),
    *("Q4_K_M-", "UD-", "8-bit-", "DWQ-v1", "-gguf_", "imatrix", "mmproj", "-00001-of-00002"),
    *("models--", "models--a--b/snapshots/x/", "9a+/", "//", "http://", "me:", "[::1]", "#", "?"),
    *("{{", "}}", "{{ if .A }}", "{{/*", '{{"', "{{ $a, ", "{% if x", "{%- elif", "if thinking"),
    *("set a = '<think> ", "</", "</a:think", "add_generation_prompt", "\\n", "<|channel|>"),
    *("Error: ", "Jinja Exception: ", " Error: for this template", "0.0 E a b: ", "GGML_ASSERT("),
    *("ImportError: ", "1 I load_tensors", "  a: b (1 MiB", "version: ", "FROM sha256-"),
    *("maximum context length is 5 tokens", "keep the first 5 tokens", "from the initial prompt"),
    *("\\\\n", "```", "```\n", "```{", "```json [1,", '{"a":', '"\\"', '"\\\\"'),
]

READERS: dict[str, Callable[[str], object]] = {
    "parse_name": parse_name.__wrapped__,
    "short_names": lambda text: short_names([text, f"{text}x"], {}),
    "quantization_in": quantizations.quantization_in,
    "with_quantization": lambda text: quantizations.with_quantization(text, "Q8_0"),
    "long_quantization": quantizations.long_quantization,
    "purpose_of_name": roles.purpose_of_name,
    "other_role": roles.other_role,
    "hub_fingerprint": fields.hub_fingerprint,
    "weights_in": fields.weights_in,
    "bytes_in": fields.bytes_in,
    "split_login": split_login,
    "hide_passwords": hide_passwords,
    "an address": lambda text: hide_passwords(f"http://a:b@{text}:["),
    "parse_ref": refs.parse_ref,
    "to_jinja": to_jinja,
    "an action": lambda text: to_jinja(f"{{{{ {text} }}}}"),
    "read_template": read_template,
    "expect_thinking": lambda text: expect_thinking(None, text, thinks=True),
    "reason_in": build_logs.reason_in,
    "blames_model": build_logs.blames_model,
    "fault_in": build_logs.fault_in,
    "phase_in": lambda text: phase_in(text.encode()),
    "find_overflow": find_overflow,
    "template_error_in": shapes.template_error_in,
    "error_in": lambda text: shapes.error_in({"error": text}),
    "call_arguments": shapes.call_arguments,
    "quoted arguments": lambda text: shapes.call_arguments(json.dumps(text)),
    "parts_of": lambda text: parts_of([text]),
    "excerpt": lambda text: excerpt(text.encode()),
    "a JSON answer": lambda text: [*JsonAnswer(None).feed(TextDelta(text)), *json_end(text)],
}


def json_end(text: str) -> Iterator[Any]:
    answer = JsonAnswer({"type": "array"})
    yield from answer.feed(TextDelta(f"Here: {text}"))
    yield from answer.feed(Finished("stop"))


@pytest.mark.parametrize("name", READERS)
@pytest.mark.usefixtures("user_path")
def test_texts(name: str) -> None:
    """`parse_ref` reads the user's list of recommended models."""

    def use(text: str) -> None:
        with suppress(ValueError, LocalRunError):
            READERS[name](text)

    def slow(unit: str, before: str, after: str) -> bool:
        def make(length: int) -> str:
            return before + unit * (length // len(unit)) + after

        return not is_linear(use, make, 8000)

    frames = (("", ""), ("a-", "!"))
    assert [unit for unit in UNITS for frame in frames if slow(unit, *frame)] == []


def test_excerpt_reads_the_beginning() -> None:
    """An error may quote 64 MiB."""
    assert growth(excerpt, lambda length: b"\xff" * length, 2**20) < 2


@pytest.mark.parametrize(
    "template",
    [
        "{{ if .System }}" * 300 + "{{ end }}" * 300,
        "{{ " + "(" * 2000 + ".System" + ")" * 2000 + " }}",
        "{{ if " + "(eq " * 7 + ".System" + " 1 2 3 4 5)" * 7 + " }}{{ end }}",
        "{{ " + "(json " * 9 + "(index .Messages 0)" + ".Arguments)" * 9 + " }}",
    ],
    ids=["blocks", "brackets", "comparisons", "arguments"],
)
def test_nested_templates(template: str) -> None:
    with pytest.raises(ValueError, match=r"too many blocks|a value of more"):
        to_jinja(template)


# Framings


def feed(make: Callable[[], Framing], size: int) -> Callable[[bytes], None]:
    def use(body: bytes) -> None:
        framing = make()
        with suppress(ValueError):
            for at in range(0, len(body), size):
                for _ in framing.feed(body[at : at + size]):
                    pass
            for _ in framing.close():
                pass

    return use


BODIES = [
    *((b"data: {\n", b"data:\n"), (b"data: [\n", b"data: 1,\n"), (b"", b"data:\r"), (b"", b"\n")),
    *((b"", b"\r"), (b"", b"\r\n"), (b"", b"x"), (b"data: ", b"x"), (b'data: {"a":"', b"x")),
    *((b"data: ", b'{"a":'), (b"data: ", b"["), (b'data: {"a":', b"9"), (b'data: {"a":1e', b"9")),
    *((b"data: {", b'"a":1,'), (b'data: {"a":"', b"\\ud800"), (b'data: {"a":"', b"\xff")),
    *((b"", b"error: x\n"), (b"", b'{"a":1}\n'), (b"", b"data: {}\n\n")),
]
"""How each begins, and what is repeated."""


@pytest.mark.parametrize("size", [1, 64, 2**16])
@pytest.mark.parametrize("make", [EventStream, JsonLines, WholeBody])
def test_framings(make: Callable[[], Framing], size: int) -> None:
    def slow(begun: bytes, unit: bytes) -> bool:
        begun = begun if make is EventStream else begun.removeprefix(b"data: ")
        length = 10_000 if size == 1 else 60_000
        return not is_linear(
            feed(make, size), lambda n: begun + unit * (n // len(unit)) + b"\n\n", length
        )

    assert [body for body in BODIES if slow(*body)] == []


# Answers

HARMONY = "<|channel|>analysis<|message|>a<|end|>"
TEXTS = [
    *(" ", "\n", "a", "<", "<think>", "</think>", "<think></think>", "`</think>`", "<reason>"),
    *("<|channel|>", HARMONY, "<|channel|>analysis<|message|>`<|end|>", "<|channel|>final"),
    *(f"{HARMONY}<|channel|>final<|message|>b<|return|>", "<|start|>assistant" + HARMONY),
    *("```\n</think>\n```\n", "~~~\n", "1. ", "> ", "[THINK]", "<answer>", "</answer>", "\ufeff"),
    *("<|start_thinking|>a<|end_thinking|><|start_response|>b<|end_response|>", "<think\t"),
]
BEGINNINGS = ["", "<think>", "<reason>", "<think>a", "<think>`", "<think>a</think>", "a"]
EXPECTED = {
    "a tag": Thinking(),
    "a closing alone": Thinking(unopened=tuple(tag for tag in TAGS if tag.closes_alone)),
    "open": Thinking(unopened=TAGS[:1], is_open=True),
}


@pytest.mark.parametrize("expected", EXPECTED)
@pytest.mark.parametrize("pieces", ["one", "many"])
def test_thinking(expected: str, pieces: str) -> None:
    def use(texts: Iterable[str]) -> None:
        tags, answer = ThinkTags(EXPECTED[expected]), JsonAnswer(None)
        with suppress(LocalRunError):
            events: list[Event] = [*map(TextDelta, texts), Finished("stop")]
            for event in events:
                for part in tags.feed(event):
                    for _ in answer.feed(part):
                        pass

    def slow(begun: str, unit: str) -> bool:
        def make(length: int) -> list[str]:
            if pieces == "many":
                return [text for text in (begun, *[unit] * (length // 32)) if text]
            return [begun + unit * (length // len(unit))]

        return not is_linear(use, make, 6000)

    assert [(b, unit) for b in BEGINNINGS for unit in TEXTS if slow(b, unit)] == []


FRAGMENTS: dict[str, Callable[[int, int], Any]] = {
    "arguments": lambda i, _: {
        "index": 0,
        "function": {"name": None if i else "f", "arguments": "x"},
    },
    "ids": lambda i, _: {"id": f"c{i}", "function": {"name": "f", "arguments": "{}"}},
    "indexes": lambda i, _: {"index": i, "function": {"name": "f", "arguments": "{}"}},
    # All of them have the same hash.
    "large indexes": lambda i, _: {"index": i * (2**61 - 1), "function": {"name": "f"}},
    "names": lambda *_: {"index": 0, "function": {"name": "f"}},
    "no ids": lambda *_: {"function": {"name": "f", "arguments": '{"a":1}'}},
    "open": lambda *_: {"function": {"name": "f", "arguments": "{"}},
    "blanks": lambda i, n: {
        "function": {"name": "f" * (i > n / 2), "arguments": " " if i < n / 2 else "{ "}
    },
    "other ids": lambda i, _: {
        "id": f"c{i}",
        "function": {"name": "f", "arguments": '{"a":' if i % 2 else "1}"},
    },
    "numbers": lambda *_: 1,
}


@pytest.mark.parametrize("fragment", FRAGMENTS.values(), ids=[*FRAGMENTS])
@pytest.mark.parametrize("is_one_list", [True, False])
def test_calls(fragment: Callable[[int, int], Any], is_one_list: bool) -> None:
    def make(count: int) -> list[Any]:
        calls = [fragment(i, count) for i in range(count)]
        lists = [calls] if is_one_list else [[call] for call in calls]
        deltas = [{"tool_calls": each} for each in lists]
        return [*({"choices": [{"delta": delta}]} for delta in deltas), END]

    def use(payloads: list[Any]) -> None:
        decoder = openai.OpenAIDecoder(["f", "other"])
        for payload in payloads:
            for _ in decoder.feed(payload):
                pass
        for _ in decoder.close():
            pass

    assert is_linear(use, make, 500)


END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
CONTEXTS = {
    "text": ResponseContext(),
    "JSON": ResponseContext(is_json=True, schema={"type": "string"}),
}
DELTAS: dict[str, Any] = {
    "content": "a",
    "reasoning_content": "{",
    "reasoning": "<think>",
    "content of parts": [{"type": "thinking", "thinking": "a"}, {"text": "b"}],
    "content of a half": "\ud800",
}


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", DELTAS)
@pytest.mark.parametrize("decoder", [openai.OpenAIDecoder, ollama.OllamaDecoder])
def test_responses(context: str, name: str, decoder: Callable[[], PayloadDecoder]) -> None:
    def make(count: int) -> bytes:
        delta = {name.partition(" ")[0]: DELTAS[name]}
        payload = {"choices": [{"delta": delta}], "message": delta}
        payloads = [payload] * count + [{**END, "message": {"content": ""}, "done": True}]
        return b"".join(b"data: %s\n\n" % json.dumps(each).encode() for each in payloads)

    def use(body: bytes) -> None:
        response = ResponseDecoder("it", decoder(), CONTEXTS[context])
        with suppress(LocalRunError):
            for piece in (ResponseHead(200, "text/event-stream"), body):
                for _ in response.feed(piece):
                    pass
            for _ in response.close():
                pass

    assert is_linear(use, make, 400)


# Lists of models


def entry(number: int) -> dict[str, Any]:
    name = f"m{number}"
    details = {"format": "gguf", "family": "llama", "parameter_size": "8B"}
    return {
        **dict.fromkeys(("id", "name", "model", "key", "root"), name),
        **{"type": "llm", "digest": f"{number:064x}", "size": 1000, "details": details},
    }


ENTRIES: dict[str, Callable[[int], list[Any]]] = {
    "different": lambda count: [entry(number) for number in range(count)],
    "the same": lambda count: [entry(0)] * count,
    "one root": lambda count: [{**entry(number), "root": "r"} for number in range(count)],
    "malformed": lambda count: [entry(0), *[{"id": 1}] * count],
}


@pytest.mark.parametrize("kind", server_kinds())
@pytest.mark.parametrize("shape", ENTRIES)
def test_lists(kind: str, shape: str) -> None:
    def use(entries: list[Any]) -> None:
        payload = {"object": "list", "data": entries, "models": entries}

        def ask(path: str, json: Any = None) -> ProbeReply:
            return ProbeReply(200, {} if path == "/" or json else payload, "")

        endpoint = Endpoint(name="x", kind=kind, url="http://127.0.0.1:1")
        recognize(ask, endpoint, ModelListing(), kind)

    assert is_linear(use, ENTRIES[shape], 300)


def test_a_list_is_read_up_to_a_length() -> None:
    def ask(path: str, json: Any = None) -> ProbeReply:
        return ProbeReply(200, {"data": ENTRIES["different"](20_000)}, "")

    endpoint = Endpoint(name="x", kind="openai", url="http://127.0.0.1:1")
    found = recognize(ask, endpoint, ModelListing(), "openai")
    assert found is not None
    assert len(found.models) == shapes.MAX_ENTRIES
