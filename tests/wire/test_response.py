"""One reply, whole or in pieces, to events or to a message that says what to do."""

import json
import sys
from dataclasses import asdict, dataclass
from math import inf, nan
from typing import Any

import pytest

from llm_localrun.errors import AnswerCutOff, BadReply, PromptTooLong, ServerRefused, WrongModel
from llm_localrun.servers.base import Server
from llm_localrun.tokens.window import Limits
from llm_localrun.wire.events import Finished, ReasoningDelta, TextDelta
from llm_localrun.wire.openai import OpenAIDecoder
from llm_localrun.wire.response import ResponseContext, ResponseDecoder, ResponseHead
from llm_localrun.wire.sse import Payload
from llm_localrun.wire.think_tags import TAGS, Thinking
from tests.fakes.http_server import TRANSCRIPTS, Exchange, transcript
from tests.support.replies import (
    ANYTHING,
    EVENTS,
    HTML,
    JSON,
    LINES,
    MODEL,
    Outcome,
    at_once,
    chunk,
    cut_anywhere,
    decode,
    dialect_of,
    head_of,
    limited,
    nd,
    ollama,
    recorded,
    single_bytes,
    sse,
    streamed,
    whole,
)
from tests.support.servers import OLLAMA, OPENAI

# What an Ollama has sent.

RECORDED = [
    pytest.param(exchange, id=f"{file.stem} {index}")
    for file in sorted(TRANSCRIPTS.glob("*/*.txt"))
    for index, exchange in enumerate(transcript(file.stem, file.parent.name))
    if exchange.path in (OLLAMA.chat_path, OPENAI.chat_path)
]


@pytest.mark.parametrize("exchange", RECORDED)
def test_recorded_bytes_may_be_cut_anywhere(exchange: Exchange) -> None:
    dialect, head, body = dialect_of(exchange), head_of(exchange), exchange.body
    uncut = decode(dialect, head, [body])
    for outcome in cut_anywhere(dialect, head, body):
        assert outcome == uncut


@pytest.mark.parametrize(
    ("name", "index", "reasoning", "text", "finished"),
    [
        (
            "chat_stream",
            0,
            "",
            "The capital of France is Paris.",
            Finished(
                finish_reason="stop",
                model="smollm2:135m",
                prompt_tokens=16,
                completion_tokens=8,
                load_seconds=0.000726186,
                prompt_tokens_per_second=16e9 / 129513000,
                generation_tokens_per_second=8e9 / 120920000,
            ),
        ),
        (
            "think_native",
            0,
            "The user asks a simple sum.\n",
            "Five.",
            Finished(
                finish_reason="stop",
                model="smollm2-native",
                prompt_tokens=87,
                completion_tokens=20,
                load_seconds=0.001916673,
                prompt_tokens_per_second=87e9 / 1433613000,
                generation_tokens_per_second=20e9 / 439371000,
            ),
        ),
        (
            "num_predict",
            1,
            "",
            "The",
            Finished(
                finish_reason="length",
                model="smollm2:135m",
                prompt_tokens=10,
                completion_tokens=1,
                load_seconds=0.829648211,
                prompt_tokens_per_second=10e9 / 114975000,
                generation_tokens_per_second=1e6,
            ),
        ),
        ("chat_load_unload", 0, "", "", Finished("load", "smollm2:135m")),
        (
            "openai",
            2,
            "",
            "The capital of France is Paris.",
            Finished("stop", "smollm2:135m", prompt_tokens=16, completion_tokens=8),
        ),
        (
            "openai",
            3,
            "",
            "The capital of France",
            Finished("length", "smollm2:135m", prompt_tokens=16, completion_tokens=4),
        ),
    ],
)
def test_recorded_answers(
    name: str, index: int, reasoning: str, text: str, finished: Finished
) -> None:
    outcome = recorded(name, index)
    assert (outcome.reasoning, outcome.text) == (reasoning, text)
    assert outcome.finished == [finished]
    assert outcome.error is None


@pytest.mark.parametrize(
    ("streamed", "unstreamed"),
    [
        (("chat_stream", 0), ("chat_nostream", 0)),
        (("think_native", 0), ("think_native", 1)),
        (("tools_native", 0), ("tools_native", 1)),
    ],
)
def test_recorded_answers_are_the_same_streamed_and_not(
    streamed: tuple[str, int], unstreamed: tuple[str, int]
) -> None:
    first, second = recorded(*streamed), recorded(*unstreamed)
    assert (first.reasoning, first.text) == (second.reasoning, second.text)
    for fact in ("finish_reason", "model", "prompt_tokens", "completion_tokens"):
        assert getattr(first.finished[0], fact) == getattr(second.finished[0], fact)


def test_recorded_answer_that_breaks_off() -> None:
    outcome = recorded("midstream", 0)
    assert outcome.text.startswith("In a land of ancient magic and ancient magic, the Dragon of")
    assert outcome.finished == []
    assert outcome.error is ServerRefused


@pytest.mark.parametrize(
    ("name", "index", "message"),
    [
        (
            "tools_unsupported",
            0,
            "Box says: registry.ollama.ai/library/smollm2:135m does not support tools (HTTP 400)."
            " Choose a model that calls tools.",
        ),
        (
            "think_errors",
            0,
            'Box says: "smollm2:135m" does not support thinking (HTTP 400).'
            " Leave out -o think, or choose a model that thinks.",
        ),
        (
            "format_bad",
            1,
            "Box says: Field 'json_schema': \"json_schema\": JSON schema conversion failed:"
            ' Unrecognized schema: {"type":"foo"} (HTTP 400). Simplify the schema: objects, lists,'
            " strings, numbers and enums work everywhere.",
        ),
        (
            "tools_go",
            3,
            "Box says: Value looks like object, but can't find closing '}' symbol (HTTP 400)."
            " The server's own log says more.",
        ),
    ],
)
def test_recorded_refusals(name: str, index: int, message: str) -> None:
    outcome = recorded(name, index)
    assert (outcome.error, outcome.message) == (ServerRefused, message)
    assert outcome.events == []


# What their documentation says that servers send: streamed and at once, the same answer.

USAGE = {"usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}}
DETAILED = {
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "completion_tokens_details": {"reasoning_tokens": 1},
        "prompt_tokens_details": {"cached_tokens": 3},
    }
}
TIMINGS = {
    "timings": {
        "cache_n": 5,
        "prompt_n": 4,
        "prompt_ms": 20.0,
        "prompt_per_second": 200.0,
        "predicted_n": 2,
        "predicted_ms": 50.0,
        "predicted_per_second": 40,
    }
}
COUNTED = Finished("stop", "qwen3-8b", prompt_tokens=9, completion_tokens=2)


@dataclass(frozen=True)
class Answer:
    """One answer: its chunks, the same at once, and what both come to."""

    chunks: list[Payload]
    at_once: Payload
    text: str
    finished: Finished
    reasoning: str = ""


ODD_COUNTS: Payload = {
    "usage": {
        "prompt_tokens": -1,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": "few"},
        "completion_tokens_details": "none",
    },
    "timings": {"cache_n": 1.5, "prompt_per_second": "fast", "predicted_per_second": 40.0},
}

OPENAI_ANSWERS = {
    "content alone": Answer(
        [chunk(role="assistant", content="Hel"), chunk(content="lo"), chunk("stop")],
        whole("stop", role="assistant", content="Hello"),
        "Hello",
        Finished("stop"),
    ),
    "content that is null or empty": Answer(
        [chunk(role="assistant", content=None), chunk(content=""), chunk("length", content=None)],
        whole("length", role="assistant", content=None),
        "",
        Finished("length"),
    ),
    "usage in a last chunk whose choices are empty": Answer(
        [
            {**chunk(role="assistant", content="Hi"), **MODEL, "usage": None},
            {**chunk("stop"), **MODEL, "usage": None},
            {"choices": [], **MODEL, **USAGE},
        ],
        {**whole("stop", content="Hi"), **MODEL, **USAGE},
        "Hi",
        COUNTED,
    ),
    "usage in a last chunk without choices": Answer(
        [chunk("stop", content="Hi"), {**MODEL, **USAGE}],
        {**whole("stop", content="Hi"), **MODEL, **USAGE},
        "Hi",
        COUNTED,
    ),
    "usage in every chunk": Answer(
        [
            {**chunk(content="H"), **MODEL, "usage": {"prompt_tokens": 9, "completion_tokens": 1}},
            {**chunk("stop", content="i"), **MODEL, **USAGE},
        ],
        {**whole("stop", content="Hi"), **MODEL, **USAGE},
        "Hi",
        COUNTED,
    ),
    "usage whose details are null": Answer(
        [
            chunk("stop", content="Hi"),
            {"usage": {"prompt_tokens_details": None, "completion_tokens_details": None}},
        ],
        {**whole("stop", content="Hi"), "usage": {"prompt_tokens_details": None}},
        "Hi",
        Finished("stop"),
    ),
    "llama-server": Answer(
        [
            {**chunk(role="assistant", content=None), **MODEL},
            {**chunk(reasoning_content="Hm"), **MODEL},
            {**chunk(reasoning_content="m."), **MODEL},
            {**chunk(content="Hi"), **MODEL},
            {**chunk("stop"), **MODEL},
            {"choices": [], **MODEL, **USAGE, **TIMINGS},
        ],
        {**whole("stop", reasoning_content="Hmm.", content="Hi"), **MODEL, **USAGE, **TIMINGS},
        "Hi",
        Finished(
            "stop",
            "qwen3-8b",
            prompt_tokens=9,
            completion_tokens=2,
            cached_tokens=5,
            prompt_tokens_per_second=200.0,
            generation_tokens_per_second=40.0,
        ),
        reasoning="Hmm.",
    ),
    "vLLM": Answer(
        [
            {**chunk(role="assistant", content="", reasoning=None), **MODEL},
            {**chunk(reasoning="Hmm."), **MODEL},
            {**chunk(content="Hi"), **MODEL},
            {**chunk("stop", content=""), **MODEL, "prompt_token_ids": None},
            {"choices": [], **MODEL, **USAGE},
        ],
        {
            **whole("stop", role="assistant", content="Hi", reasoning="Hmm.", tool_calls=[]),
            **MODEL,
            **USAGE,
            "prompt_logprobs": None,
        },
        "Hi",
        COUNTED,
        reasoning="Hmm.",
    ),
    "LM Studio": Answer(
        [
            {**chunk(role="assistant", reasoning_content="Hmm."), **MODEL},
            {**chunk(content="Hi"), **MODEL},
            {**chunk("stop"), **MODEL},
            {"choices": [], **MODEL, **DETAILED},
        ],
        {
            **whole("stop", role="assistant", reasoning_content="Hmm.", content="Hi"),
            **MODEL,
            **DETAILED,
            "stats": {"tokens_per_second": 51.4, "stop_reason": "eosFound"},
            "model_info": {"arch": "qwen3", "context_length": 4096},
        },
        "Hi",
        Finished(
            "stop",
            "qwen3-8b",
            prompt_tokens=9,
            completion_tokens=2,
            cached_tokens=3,
            reasoning_tokens=1,
        ),
        reasoning="Hmm.",
    ),
    "reasoning and content at once": Answer(
        [chunk("stop", reasoning="Hmm.", content="Hi")],
        whole("stop", reasoning="Hmm.", content="Hi"),
        "Hi",
        Finished("stop"),
        reasoning="Hmm.",
    ),
    "reasoning under both names": Answer(
        [chunk(reasoning="Hmm.", reasoning_content="Hmm."), chunk("stop", content="Hi")],
        whole("stop", reasoning="Hmm.", reasoning_content="Hmm.", content="Hi"),
        "Hi",
        Finished("stop"),
        reasoning="Hmm.",
    ),
    "a cached prompt, by usage and by timings": Answer(
        [chunk("stop", content="Hi"), {**MODEL, **DETAILED, "timings": {"cache_n": 7}}],
        {**whole("stop", content="Hi"), **MODEL, **DETAILED, "timings": {"cache_n": 7}},
        "Hi",
        Finished(
            "stop",
            "qwen3-8b",
            prompt_tokens=9,
            completion_tokens=2,
            cached_tokens=3,
            reasoning_tokens=1,
        ),
    ),
    "null for what is not there": Answer(
        [
            chunk(content="Hi", reasoning=None, reasoning_content=None, tool_calls=None),
            chunk("stop", content=None, function_call=None),
            {"model": None, "choices": [], "usage": None, "timings": None},
        ],
        {**whole("stop", content="Hi", reasoning=None, tool_calls=None), "usage": None},
        "Hi",
        Finished("stop"),
    ),
    "text in parts": Answer(
        [
            chunk(content=[{"type": "text", "text": "H"}]),
            chunk("stop", content=[{"type": "text", "text": "i"}, {"type": "text", "text": "!"}]),
        ],
        whole("stop", content=[{"type": "text", "text": "Hi"}, "!"]),
        "Hi!",
        Finished("stop"),
    ),
    "thinking in parts": Answer(
        [
            chunk(
                content=[{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}],
            ),
            chunk("stop", content=[{"type": "thinking", "thinking": "m."}, {"text": "Hi"}]),
        ],
        whole(
            "stop",
            content=[{"type": "thinking", "thinking": "Hmm."}, {"type": "text", "text": "Hi"}],
        ),
        "Hi",
        Finished("stop"),
        reasoning="Hmm.",
    ),
    "counts and rates that are none": Answer(
        [chunk("stop", content="Hi"), {**MODEL, **ODD_COUNTS}],
        {**whole("stop", content="Hi"), **MODEL, **ODD_COUNTS},
        "Hi",
        Finished("stop", "qwen3-8b", completion_tokens=2, generation_tokens_per_second=40.0),
    ),
    "a text for the usage, a list for the timings": Answer(
        [chunk("stop", content="Hi"), {"model": 7, "usage": "9", "timings": [9]}],
        {**whole("stop", content="Hi"), "model": 7, "usage": "9", "timings": [9]},
        "Hi",
        Finished("stop"),
    ),
}

COUNTS: dict[str, Any] = {"prompt_eval_count": 9, "eval_count": 2}

ODD_METRICS: dict[str, Any] = {
    "total_duration": "1s",
    "load_duration": "1.5s",
    "prompt_eval_count": -1,
    "prompt_eval_duration": [45_000_000],
    "eval_count": 2,
    "eval_duration": 0.5,
}

OLLAMA_ANSWERS = {
    "thinking and content": Answer(
        [
            ollama(False, thinking="Hm"),
            ollama(False, thinking="m."),
            ollama(False, content="Hi"),
            ollama(True, done_reason="stop", **COUNTS),
        ],
        ollama(True, thinking="Hmm.", content="Hi", done_reason="stop", **COUNTS),
        "Hi",
        COUNTED,
        reasoning="Hmm.",
    ),
    "content in the last chunk": Answer(
        [ollama(False, content="H"), ollama(True, content="i", done_reason="length")],
        ollama(True, content="Hi", done_reason="length"),
        "Hi",
        Finished("length", "qwen3-8b"),
    ),
    "no reason for the end": Answer(
        [ollama(False, content="Hi"), ollama(True)],
        ollama(True, content="Hi"),
        "Hi",
        Finished("stop", "qwen3-8b"),
    ),
    "durations": Answer(
        [
            ollama(False, content="Hi"),
            ollama(
                True,
                **COUNTS,
                load_duration=1_500_000_000,
                prompt_eval_duration=45_000_000,
                eval_duration=50_000_000,
            ),
        ],
        ollama(
            True,
            content="Hi",
            **COUNTS,
            load_duration=1_500_000_000,
            prompt_eval_duration=45_000_000,
            eval_duration=50_000_000,
        ),
        "Hi",
        Finished(
            "stop",
            "qwen3-8b",
            prompt_tokens=9,
            completion_tokens=2,
            load_seconds=1.5,
            prompt_tokens_per_second=200.0,
            generation_tokens_per_second=40.0,
        ),
    ),
    **{
        f"{cached} cached tokens of 9": Answer(
            [
                ollama(False, content="Hi"),
                ollama(True, **COUNTS, prompt_eval_cached_count=cached, prompt_eval_duration=10**9),
            ],
            ollama(
                True,
                content="Hi",
                **COUNTS,
                prompt_eval_cached_count=cached,
                prompt_eval_duration=10**9,
            ),
            "Hi",
            Finished(
                "stop",
                "qwen3-8b",
                prompt_tokens=9,
                completion_tokens=2,
                cached_tokens=logged,
                prompt_tokens_per_second=rate,
            ),
        )
        for cached, logged, rate in ((0, 0, 9.0), (5, 5, 4.0), (9, 9, None), (10, None, None))
    },
    "an answer from elsewhere": Answer(
        [ollama(False, content="Hi"), ollama(True, remote_host="https://ollama.com:443")],
        ollama(True, content="Hi", remote_host="https://ollama.com:443"),
        "Hi",
        Finished("stop", "qwen3-8b", remote_host="https://ollama.com:443"),
    ),
    "a prompt of which all was cached": Answer(
        [ollama(False, content="Hi"), ollama(True, eval_count=2, eval_duration=0)],
        ollama(True, content="Hi", eval_count=2),
        "Hi",
        Finished("stop", "qwen3-8b", completion_tokens=2),
    ),
    "null for what is not there": Answer(
        [
            {"message": {"content": None, "thinking": "Hm"}, "done": False, **MODEL},
            {"message": {"content": None, "thinking": "m.", "tool_calls": None}, "done": None},
            {"message": {"content": "Hi", "thinking": None}, "done": False, "done_reason": None},
            {"message": None, "done": True, **MODEL, "load_duration": None, "eval_count": None},
        ],
        {
            "message": {"content": "Hi", "thinking": "Hmm.", "tool_calls": None},
            "done": True,
            **MODEL,
            "done_reason": None,
        },
        "Hi",
        Finished("stop", "qwen3-8b"),
        reasoning="Hmm.",
    ),
    "nothing at all": Answer(
        [{"message": None, "done": True}],
        {"message": {"content": None}, "done": True},
        "",
        Finished("stop"),
    ),
    "counts and durations that are none": Answer(
        [ollama(False, content="Hi"), ollama(True, **ODD_METRICS)],
        ollama(True, content="Hi", **ODD_METRICS),
        "Hi",
        Finished("stop", "qwen3-8b", completion_tokens=2),
    ),
    "a model that repeats itself, stopped without a word": Answer(
        [ollama(False, content=" ha")] * 31,
        ollama(False, content=" ha" * 31),
        " ha" * 31,
        Finished("cut off", "qwen3-8b"),
    ),
}

ANSWERS = [
    pytest.param(dialect, answer, id=name)
    for dialect, answers in ((OPENAI, OPENAI_ANSWERS), (OLLAMA, OLLAMA_ANSWERS))
    for name, answer in answers.items()
]


@pytest.mark.parametrize(("dialect", "answer"), ANSWERS)
@pytest.mark.parametrize("way", ["streamed", "with comments", "unstreamed"])
def test_answers(way: str, dialect: Server, answer: Answer) -> None:
    is_whole = way == "unstreamed"
    head, body = at_once(answer.at_once) if is_whole else streamed(dialect, *answer.chunks)
    if way == "with comments":
        body = b"\n" + body.replace(b"\n\n", b"\n\n: keep-alive\n\n")
    outcome = decode(dialect, head, [body])
    assert (outcome.error, outcome.reasoning, outcome.text, outcome.finished) == (
        None,
        answer.reasoning,
        answer.text,
        [answer.finished],
    )
    assert outcome.events[-1] == answer.finished
    deltas = [e for e in outcome.events if isinstance(e, TextDelta | ReasoningDelta)]
    assert all(delta.text for delta in deltas)
    assert decode(dialect, head, single_bytes(body)) == outcome


def test_what_is_known_without_the_server_is_added() -> None:
    facts = {"context_size": 8192, "load_seconds": 1.5}
    outcome = decode(
        OPENAI,
        ResponseHead(200, EVENTS),
        [sse(chunk("stop", content="Hi"))],
        ResponseContext(facts=facts),
    )
    assert outcome.events == [
        TextDelta("Hi"),
        Finished("stop", context_size=8192, load_seconds=1.5),
    ]


# What can go wrong. Every message is two sentences: what is wrong, and what to do.

Sent = Payload | tuple[str, bytes]
"""A JSON body, or a body with its Content-Type."""


def failure(
    dialect: Server, status: int, sent: Sent, expected: ResponseContext = ANYTHING
) -> Outcome:
    """What a reply comes to that must fail, in one piece and in many."""
    content_type, body = (JSON, json.dumps(sent).encode()) if isinstance(sent, dict) else sent
    head = ResponseHead(status, content_type)
    outcome = decode(dialect, head, [body], expected)
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    assert decode(dialect, head, pieces, expected) == outcome
    assert outcome.finished == []
    return outcome


NAMES_FROM_CPP = [
    "_Map_base::at",
    "map::at: key not found",
    "unordered_map::at: key not found",
    "vector::_M_range_check: __n (which is 5) >= this->size() (which is 0)",
    "vector",
    "basic_string::substr: __pos (which is 9) > this->size() (which is 4)",
    "stoi",
    "invalid stoi argument",
    "invalid vector subscript",
    "std::out_of_range",
    "bad optional access",
]


@pytest.mark.parametrize("name", NAMES_FROM_CPP)
def test_error_that_only_names_an_exception(name: str) -> None:
    outcome = failure(OPENAI, 500, {"error": {"code": 500, "message": name}})
    assert outcome.error is ServerRefused
    assert outcome.message == (
        f"Box failed internally ({name}, HTTP 500). The model's file may be damaged, or too new for"
        " it: download the file again, or install a newer version of Box."
    )


@pytest.mark.parametrize(
    ("said", "begins"),
    [
        ("std::bad_alloc", "Box failed internally (std::bad_alloc, HTTP 500). It got no more mem"),
        ("vectors are not supported", "Box says: vectors are not supported (HTTP 500). "),
        ("string too long", "Box says: string too long (HTTP 500). "),
        ("map is missing", "Box says: map is missing (HTTP 500). "),
        ("invalid mapping", "Box says: invalid mapping (HTTP 500). "),
        ("stop must be a list", "Box says: stop must be a list (HTTP 500). "),
    ],
)
def test_other_errors_with_such_words(said: str, begins: str) -> None:
    assert failure(OPENAI, 500, {"error": said}).message.startswith(begins)


LOG = "The server's own log says more."
KEY = "Give its key with --key, or store it with `llm keys set`."
LISTING = "`llm localrun models` lists what it serves."
BUSY = "It is loading or busy: try again in a moment."

SCHEMA = "Simplify the schema: objects, lists, strings, numbers and enums work everywhere."
GRAMMAR = "Fix the grammar: llama.cpp's folder grammars/ has examples."
NO_TOOLS = "Choose a model that calls tools."
NO_THINKING = "Leave out -o think, or choose a model that thinks."
BLIND = "Choose a model that can see."
DEAF = "Choose a model that can hear."
NO_IMAGE = "Check that the file is a complete PNG, JPEG, WebP or GIF."
SHARED = "Other prompts fill it at the moment: try again later."

BEGUN = sse(chunk(content="Hi"))
UNEXPECTED = "Unexpected endpoint or method. (POST /v1/chat/completions)"

REFUSALS: dict[str, tuple[Server, int, Sent, str]] = {
    "model 'nope' not found (HTTP 404)": (
        OLLAMA,
        404,
        {"error": "model 'nope' not found"},
        LISTING,
    ),
    "The model `x` does not exist (HTTP 404)": (
        OPENAI,
        404,
        {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError"}},
        LISTING,
    ),
    "404 page not found (HTTP 404)": (OPENAI, 404, ("text/plain", b"404 page not found"), LISTING),
    "Not Found (HTTP 404)": (OPENAI, 404, {"detail": "Not Found"}, LISTING),
    UNEXPECTED: (OPENAI, 200, {"error": UNEXPECTED}, LOG),
    "Invalid API Key (HTTP 401)": (
        OPENAI,
        401,
        {"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}},
        KEY,
    ),
    "unauthorized (HTTP 401)": (
        OLLAMA,
        401,
        {"error": "unauthorized", "signin_url": "https://example.com"},
        KEY,
    ),
    "no reason given (HTTP 403)": (OLLAMA, 403, ("", b""), KEY),
    "Loading model (HTTP 503)": (
        OPENAI,
        503,
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        BUSY,
    ),
    "server busy, please try again. maximum pending requests exceeded (HTTP 503)": (
        OLLAMA,
        503,
        {"error": "server busy, please try again.  maximum pending requests\nexceeded"},
        BUSY,
    ),
    "'response_format.type' must be 'json_schema' or 'text' (HTTP 400)": (
        OPENAI,
        400,
        {"error": "'response_format.type' must be 'json_schema' or 'text'"},
        LOG,
    ),
    "internal_error (HTTP 500)": (
        OPENAI,
        500,
        {"error": {"type": "internal_error", "code": None}},
        LOG,
    ),
    '{"code": 7} (HTTP 500)': (OPENAI, 500, {"error": {"code": 7}}, LOG),
    '["a", 1] (HTTP 500)': (OPENAI, 500, {"error": ["a", 1]}, LOG),
    '["bad"] (HTTP 400)': (OPENAI, 400, (JSON, b'["bad"]'), LOG),
    "no reason given (HTTP 307)": (OPENAI, 307, (HTML, b""), LOG),
    "<html> <h1>502 Bad Gateway</h1> </html> (HTTP 502)": (
        OPENAI,
        502,
        (HTML, b"<html>\n <h1>502 Bad Gateway</h1>\n</html>\n"),
        LOG,
    ),
    f"{'x' * 80}… (HTTP 500)": (OPENAI, 500, (HTML, b"x" * 100_000), LOG),
    "Bad schema (HTTP 400)": (
        OLLAMA,
        400,
        {"error": '{"error":{"code":400,"message":"Bad\\nschema"}}'},
        SCHEMA,
    ),
    "JSON schema conversion failed: Unrecognized schema (HTTP 400)": (
        OPENAI,
        400,
        {"error": {"message": "JSON schema conversion failed:\nUnrecognized schema"}},
        SCHEMA,
    ),
    "Schema is not valid": (OPENAI, 200, (EVENTS, sse({"error": "Schema is not valid"})), SCHEMA),
    "Failed to parse grammar (HTTP 400)": (
        OPENAI,
        400,
        {"error": {"code": 400, "message": "Failed to parse grammar"}},
        GRAMMAR,
    ),
    "x/y:1b does not support tools (HTTP 400)": (
        OLLAMA,
        400,
        {"error": "x/y:1b does not support tools"},
        NO_TOOLS,
    ),
    '"y:1b" does not support thinking (HTTP 400)': (
        OLLAMA,
        400,
        {"error": '"y:1b" does not support thinking'},
        NO_THINKING,
    ),
    "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
    " (HTTP 500)": (
        OPENAI,
        500,
        {
            "error": {
                "code": 500,
                "message": "image input is not supported - hint: if this is unexpected,"
                " you may need to provide the mmproj",
            }
        },
        BLIND,
    ),
    "audio input is not supported - hint: see the mmproj (HTTP 500)": (
        OPENAI,
        500,
        {"error": {"message": "audio input is not supported - hint: see the mmproj"}},
        DEAF,
    ),
    "Failed to load image or audio file (HTTP 400)": (
        OPENAI,
        400,
        {"error": {"code": 400, "message": "Failed to load image or audio file"}},
        NO_IMAGE,
    ),
    "Context size has been exceeded (HTTP 500)": (
        OPENAI,
        500,
        {"error": {"code": 500, "message": "Context size has been exceeded."}},
        SHARED,
    ),
    # Its text tells more than its number.
    "this model does not support images (HTTP 404)": (
        OLLAMA,
        404,
        {"error": "this model does not support images"},
        BLIND,
    ),
    "At most 0 image(s) may be provided in one prompt (HTTP 400)": (
        OPENAI,
        400,
        {"error": {"message": "At most 0 image(s) may be provided in one prompt."}},
        BLIND,
    ),
    "At most 0 audio(s) may be provided in one prompt (HTTP 400)": (
        OPENAI,
        400,
        {"error": {"message": "At most 0 audio(s) may be provided in one prompt."}},
        DEAF,
    ),
    "SmolLM2-135M-Instruct is not a multimodal model (HTTP 400)": (
        OPENAI,
        400,
        {"error": {"message": "SmolLM2-135M-Instruct is not a multimodal model"}},
        "Choose a model that can see or hear what you attach: `llm localrun recommend --for"
        " vision`.",
    ),
    "{x} is no template (HTTP 400)": (OLLAMA, 400, {"error": "{x} is no template"}, LOG),
    "too long (HTTP 400)": (OPENAI, 400, {"error": {"message": "too long", "n_ctx": 256}}, LOG),
    "unexpected EOF": (
        OLLAMA,
        200,
        (LINES, nd(ollama(False, content="Hi"), {"error": "unexpected EOF"})),
        LOG,
    ),
    "an object": (OPENAI, 200, (EVENTS, BEGUN + sse({"error": {"message": "an object."}})), LOG),
    "a string": (OPENAI, 200, (EVENTS, BEGUN + sse({"error": "a string"})), LOG),
    "an event": (
        OPENAI,
        200,
        (EVENTS, BEGUN + b'event: error\ndata: {"error":{"message":"an event"}}\n\n'),
        LOG,
    ),
    "a line": (OPENAI, 200, (EVENTS, BEGUN + b'error: {"message":"a line"}\n\n'), LOG),
    "too late": (OPENAI, 200, (EVENTS, sse(chunk("stop"), {"error": "too late"})), LOG),
}


@pytest.mark.parametrize(("said", "case"), REFUSALS.items(), ids=[*REFUSALS])
def test_what_a_server_says_is_passed_on(said: str, case: tuple[Server, int, Sent, str]) -> None:
    dialect, status, sent, remedy = case
    outcome = failure(dialect, status, sent)
    assert outcome.error is ServerRefused
    assert outcome.message == f"Box says: {said}. {remedy}"


HALF = b'{"choices":[{"message":{"content":"Hel'
DAMAGED = "JSON that is incomplete or damaged"
INCOMPLETE = "an answer that ends before it is complete"
MESSAGE_CONTENT = "an answer whose choices.0.message.content is not what its API says"


@pytest.mark.parametrize(
    ("dialect", "sent", "what"),
    [
        (OPENAI, (HTML, b"<p>It\r\n works</p>"), f"{HTML} instead of an answer: <p>It works</p>"),
        (OPENAI, (HTML, b""), f"{HTML} instead of an answer"),
        (OPENAI, ("", b""), "data without a type instead of an answer"),
        (OPENAI, (JSON, HALF), f"{DAMAGED}: {HALF.decode()}"),
        (OPENAI, (EVENTS, b"data: " + HALF), f"{DAMAGED}: {HALF.decode()}"),
        (OLLAMA, (LINES, nd(ollama(False, content="Hi")) + b'{"mess'), f'{DAMAGED}: {{"mess'),
        (OPENAI, (JSON, b'[{"choices":[]}]'), 'JSON that is not an object: [{"choices":[]}]'),
        (OPENAI, (EVENTS, b"data: 1\n\n"), "JSON that is not an object: 1"),
        (OLLAMA, (LINES, b'"Hi"\n'), 'JSON that is not an object: "Hi"'),
        (
            OPENAI,
            whole("stop", content=5),
            MESSAGE_CONTENT,
        ),
        (
            OPENAI,
            (EVENTS, sse({"choices": [{"delta": "Hi"}]})),
            "an answer whose choices.0.delta is not what its API says",
        ),
        (OPENAI, {"choices": {"a": 1}}, "an answer whose choices is not what its API says"),
        (
            OLLAMA,
            {"message": "Hi", "done": True},
            "an answer whose message is not what its API says",
        ),
        (OPENAI, whole("stop", content=["Hi", 5]), MESSAGE_CONTENT),
        (OPENAI, (EVENTS, BEGUN), INCOMPLETE),
        (OPENAI, (EVENTS, b"data: [DONE]\n\n"), INCOMPLETE),
        (OPENAI, (EVENTS, b""), INCOMPLETE),
        (OPENAI, (JSON, b""), INCOMPLETE),
        (OPENAI, {"status": "ok"}, INCOMPLETE),
        (OLLAMA, (LINES, b""), INCOMPLETE),
        (OLLAMA, (JSON, b""), INCOMPLETE),
        (OLLAMA, {"status": "ok"}, INCOMPLETE),
        (OLLAMA, {"response": "Hi", "done": True}, INCOMPLETE),
        (OLLAMA, {"message": None, "done": False}, INCOMPLETE),
    ],
)
def test_what_no_server_should_send(dialect: Server, sent: Sent, what: str) -> None:
    outcome = failure(dialect, 200, sent)
    assert outcome.error is BadReply
    assert outcome.message == (
        f"Box sent {what}."
        " Try again; if it happens again, check whether another program uses its port."
    )


@pytest.mark.parametrize(
    ("dialect", "content_type", "body"),
    [
        (OLLAMA, LINES, nd(ollama(False, content="Hi"), {"error": "x"})),
        (OLLAMA, LINES, nd(ollama(False, content="Hi")) + b"{"),
        (OPENAI, EVENTS, BEGUN + sse({"error": "x"})),
        (OPENAI, EVENTS, BEGUN + sse({"choices": 1})),
        (OPENAI, EVENTS, BEGUN),
    ],
)
def test_what_came_before_a_failure_is_not_lost(
    dialect: Server, content_type: str, body: bytes
) -> None:
    outcome = decode(dialect, ResponseHead(200, content_type), [body])
    assert outcome.events == [TextDelta("Hi")]
    assert outcome.error is not None


HELD = {
    "text that may be thinking": ResponseContext(thinking=Thinking(unopened=(TAGS[0],))),
    "text that may hold JSON": ResponseContext(is_json=True),
    "both": ResponseContext(is_json=True, thinking=Thinking(unopened=(TAGS[0],))),
    "half a character": ResponseContext(),
}
ENDS: list[tuple[Server, bytes, type[Exception]]] = [
    (OLLAMA, nd({"error": "boom"}), ServerRefused),
    (OLLAMA, b"{", BadReply),
    (OLLAMA, nd({"message": 5}), BadReply),
    (OPENAI, sse({"error": {"message": "boom"}}), ServerRefused),
    (OPENAI, sse({"choices": 1}), BadReply),
    (OPENAI, b"data: {\n\n", BadReply),
    (OPENAI, b"", BadReply),
]


@pytest.mark.parametrize("expected", HELD.values(), ids=HELD)
@pytest.mark.parametrize(("dialect", "end", "error"), ENDS)
def test_what_was_held_comes_before_the_failure(
    dialect: Server, end: bytes, error: type[Exception], expected: ResponseContext
) -> None:
    pieces = ["These ", "are ", "five ", "pieces ", "of text.\ud83d"]
    if dialect is OLLAMA:
        head, body = ResponseHead(200, LINES), nd(*(ollama(False, content=p) for p in pieces))
    else:
        head, body = ResponseHead(200, EVENTS), sse(*(chunk(content=p) for p in pieces))
    for cut in ([body + end], [body, end], single_bytes(body + end)):
        outcome = decode(dialect, head, cut, expected)
        assert (outcome.text, outcome.error) == ("These are five pieces of text.\ufffd", error)
        assert (outcome.reasoning, outcome.finished) == ("", [])


def test_nothing_is_shown_of_another_model() -> None:
    pieces = [{**chunk(content="Hm."), "model": "a"}, {**chunk(content="Hi"), "model": "b"}]
    expected = ResponseContext(model="a", is_json=True, is_other_model=lambda name: name != "a")
    head, body = streamed(OPENAI, *pieces)
    outcome = decode(OPENAI, head, [body], expected)
    assert (outcome.events, outcome.error) == ([], WrongModel)


NOTHING: list[Any] = ["", [], 0, False, None, {}]
ODD: dict[str, list[Payload]] = {
    "an object for reasoning": [chunk(content="Hi", reasoning={"effort": "low"})],
    "a number for reasoning_content": [chunk(content="Hi", reasoning_content=5)],
    "a list of numbers for reasoning": [chunk(content="Hi", reasoning=[5, None])],
    "null among the parts": [chunk(content=["H", None, {"text": "i"}, {"text": None}])],
    "nothing but null": [chunk(content=[None]), chunk(content="Hi")],
    "a number for the finish reason": [
        {"choices": [{"delta": {"content": "Hi"}, "finish_reason": 0}]},
    ],
    "null among the choices": [{"choices": [None]}, chunk(content="Hi"), {"choices": [None, None]}],
    "nothing for a delta": [
        *({"choices": [{"delta": nothing}]} for nothing in NOTHING),
        chunk(content="Hi"),
    ],
    "nothing for a message": [{"choices": [{"delta": {"content": "Hi"}, "message": ""}]}],
}  # fmt: skip


@pytest.mark.parametrize("chunks", ODD.values(), ids=ODD)
def test_odd_values_cost_only_themselves(chunks: list[Payload]) -> None:
    head, body = streamed(OPENAI, *chunks, chunk("stop"))
    assert decode(OPENAI, head, [body]).text == "Hi"
    lines: list[Payload] = []
    for each in chunks:
        delta = (each["choices"][0] or {}).get("delta")
        if isinstance(delta, dict):
            delta = {"content": delta.get("content"), "thinking": delta.get("reasoning")}
        lines.append({"message": delta, "done": False})
    head, body = streamed(OLLAMA, *lines, ollama(True))
    outcome = decode(OLLAMA, head, [body])
    assert (outcome.text, outcome.reasoning, outcome.error) == ("Hi", "", None)


def overflow(prompt_tokens: int, context_size: int) -> Payload:
    """As llama-server reports it."""
    return {
        "error": {
            "code": 400,
            "message": f"request ({prompt_tokens} tokens) exceeds the available context size"
            f" ({context_size} tokens), try increasing it",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": prompt_tokens,
            "n_ctx": context_size,
        }
    }


@pytest.mark.parametrize(
    ("dialect", "status", "sent"),
    [
        (OPENAI, 400, overflow(1210, 256)),
        (OPENAI, 200, (EVENTS, sse(overflow(1210, 256)))),
        (OLLAMA, 400, {"error": json.dumps(overflow(1210, 256))}),
        (OLLAMA, 200, (LINES, nd({"error": json.dumps(overflow(1210, 256))}))),
    ],
)
def test_prompt_that_does_not_fit(dialect: Server, status: int, sent: Sent) -> None:
    outcome = failure(dialect, status, sent)
    assert outcome.error is PromptTooLong
    assert outcome.message == (
        "The prompt takes 1,210 tokens and Box holds 256."
        " Shorten it, or enlarge the context with -o context_size 4096."
    )


def test_recorded_prompt_that_does_not_fit() -> None:
    outcome = recorded("context_overflow", 2)
    assert outcome.error is PromptTooLong
    assert outcome.message.startswith("The prompt takes 1,210 tokens and Box holds 256. ")


ANOTHER_MODEL = "Shorten it, or choose a model with a larger context: this one was trained for"
ENLARGE = "Shorten it, or enlarge the context with -o context_size"
START_WITH = "Shorten it, or start the server with"
LESS_MEMORY = (
    "Shorten it, or use less memory per token with -o kv_cache_type q8_0: the memory is enough for"
    " a context of"
)


@pytest.mark.parametrize(
    ("prompt_tokens", "context_size", "limits", "remedy"),
    [
        (3072, 2048, Limits(), f"{ENLARGE} 4096."),
        (3073, 2048, Limits(), f"{ENLARGE} 8192."),
        (9001, 8192, Limits(131072), f"{ENLARGE} 16384."),
        (30000, 8192, Limits(32768), f"{ENLARGE} 32768."),
        (35000, 4096, Limits(40960), f"{ENLARGE} 40960."),
        (9001, 4096, Limits(8192), f"{ANOTHER_MODEL} 8,192 tokens."),
        (200000, 4096, Limits(131072), f"{ANOTHER_MODEL} 131,072 tokens."),
        (9001, 8192, Limits(fixed=True), f"{START_WITH} a larger context."),
        (9001, 8192, Limits(fixed=True, flag="-c {}"), f"{START_WITH} -c 16384."),
        (9001, 8192, Limits(131072, affordable=8192), f"{LESS_MEMORY} 8,192."),
    ],
)
def test_ways_out_of_a_prompt_that_does_not_fit(
    prompt_tokens: int, context_size: int, limits: Limits, remedy: str
) -> None:
    expected = limited(limits)
    outcome = failure(OPENAI, 400, overflow(prompt_tokens, context_size), expected)
    assert outcome.message == (
        f"The prompt takes {prompt_tokens:,} tokens and Box holds {context_size:,}. {remedy}"
    )


def call(name: str, arguments: Any = "{}") -> Payload:
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(made: Payload) -> Payload:
    return {"message": {"content": "", "tool_calls": [made]}, "done": True}


def nested(depth: int) -> Payload:
    value: Payload = {}
    for _ in range(depth):
        value = {"a": value}
    return value


DEEP_CALL = call("t", '{"a":' * 10**5)

HOSTILE: dict[str, tuple[Server, Payload]] = {
    "a huge count": (OPENAI, {**whole("stop"), "usage": {"prompt_tokens": 10**30}}),
    "a huge count at Ollama": (OLLAMA, ollama(True, prompt_eval_count=10**30)),
    "a count beyond floats": (OLLAMA, ollama(True, eval_count=10**400, eval_duration=1)),
    "a duration beyond floats": (OLLAMA, ollama(True, load_duration=10**400)),
    "a rate that is no number": (OPENAI, {**whole("stop"), "timings": {"prompt_per_second": nan}}),
    "an endless rate": (OPENAI, {**whole("stop"), "timings": {"predicted_per_second": inf}}),
    "half a character": (OPENAI, whole("stop", content="\ud83d")),
    "half a character at Ollama": (OLLAMA, ollama(True, content="\ude00")),
    "half a character of reasoning": (OPENAI, whole("stop", reasoning="\ud83d", content="Hi")),
    "half a character in an error": (OPENAI, {"error": "\ud83d"}),
    "half a character in a tool's name": (OPENAI, whole("stop", tool_calls=[call("\ud83d")])),
    "half a character in arguments": (OPENAI, whole("stop", tool_calls=[call("t", "\ud83d")])),
    "half a character in a call's id": (
        OPENAI,
        whole("stop", tool_calls=[{**call("t"), "id": "\ud83d"}]),
    ),
    "half a character in a name at Ollama": (OLLAMA, calling(call("\ud83d", {}))),
    "half a character in arguments at Ollama": (OLLAMA, calling(call("t", {"\ud83d": "\ude00"}))),
    "half a character in a call's id at Ollama": (
        OLLAMA,
        calling({**call("t", {}), "id": "\ud83d"}),
    ),
    "half a character in the model's name": (OPENAI, {**whole("stop"), "model": "\ud83d"}),
    "half a character in the end's reason": (OPENAI, whole("\ud83d", content="Hi")),
    "arguments that are nested deeply": (OLLAMA, calling(call("t", nested(900)))),
    "arguments that are nested too deeply": (OPENAI, whole("stop", tool_calls=[DEEP_CALL])),
    "an error that is nested too deeply": (OLLAMA, {"error": '{"a":' * 10**5}),
    "an overflow beyond reason": (OPENAI, overflow(9 * 10**4299, 1)),
}


@pytest.mark.parametrize(("dialect", "payload"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("status", [200, 400])
def test_no_value_does_harm(status: int, dialect: Server, payload: Payload) -> None:
    """What comes out can be printed, and kept as JSON and in SQLite."""
    outcome = decode(dialect, ResponseHead(status, JSON), [json.dumps(payload).encode()])
    assert bool(outcome.finished) == (outcome.error is None)
    kept = json.dumps([asdict(event) for event in outcome.events], ensure_ascii=False)
    assert f"{kept}{outcome.message}".encode()
    facts = [value for event in outcome.finished for value in asdict(event).values()]
    assert all(abs(value) < 2**63 for value in facts if isinstance(value, int | float))


HALVES: dict[str, tuple[list[Payload], str, str, str]] = {
    "text": ([{"content": "a\ud83d"}, {"content": "\ude00b"}], "a😀b", "", ""),
    "nothing but halves": ([{"content": "\ud83d"}, {"content": "\ude00"}], "😀", "", ""),
    "two in a row": (
        [{"content": "\ud83d"}, {"content": "\ude00\ud83d"}, {"content": "\ude00"}],
        "😀😀",
        "",
        "",
    ),
    "no second half": ([{"content": "a\ud83d"}, {"content": "b"}], "a\ufffdb", "", ""),
    "the end after a half": ([{"content": "a\ud83d"}], "a\ufffd", "", ""),
    "no first half": ([{"content": "\ude00b"}], "\ufffdb", "", ""),
    "two first halves": ([{"content": "\ud83d"}, {"content": "\ud83d\ude00"}], "\ufffd😀", "", ""),
    "reasoning": (
        [{"reasoning": "a\ud83d"}, {"reasoning": "\ude00b"}, {"content": "c"}],
        "c",
        "a😀b",
        "",
    ),
    "half in reasoning, half in text": (
        [{"reasoning": "\ud83d"}, {"content": "\ude00"}],
        "\ufffd",
        "\ufffd",
        "",
    ),
    "thinking in the text": (
        [{"content": "<think>\ud83d"}, {"content": "\ude00</think>\ud83d"}, {"content": "\ude00"}],
        "😀",
        "😀",
        "",
    ),
    "arguments": (
        [
            {"content": "\ud83d", "tool_calls": [{"index": 0, **call("t", '{"a":"\ud83d')}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": '\ude00"}'}}]},
        ],
        "\ufffd",
        "",
        '{"a":"😀"}',
    ),
}


@pytest.mark.parametrize(("deltas", "text", "reasoning", "arguments"), HALVES.values(), ids=HALVES)
def test_characters_in_two_halves(
    deltas: list[Payload], text: str, reasoning: str, arguments: str
) -> None:
    head, body = streamed(OPENAI, *(chunk(**delta) for delta in deltas), chunk("stop"))
    outcome = decode(OPENAI, head, [body])
    assert (outcome.text, outcome.reasoning) == (text, reasoning)
    assert [made.arguments for made in outcome.calls] == ([arguments] if arguments else [])
    if not arguments:
        lines = [
            ollama(False, thinking=delta.get("reasoning", ""), content=delta.get("content", ""))
            for delta in deltas
        ]
        head, body = streamed(OLLAMA, *lines, ollama(True, done_reason="stop"))
        assert decode(OLLAMA, head, [body]).events[:-1] == outcome.events[:-1]


def test_secret_is_not_shown() -> None:
    """Servers like to repeat a key that they do not know."""
    secret = "sk-12345"
    refusal = {"error": f"Incorrect key {secret}; {secret} is unknown"}
    outcome = failure(OPENAI, 401, refusal, ResponseContext(secrets=(secret,)))
    assert outcome.message == f"Box says: Incorrect key …; … is unknown (HTTP 401). {KEY}"
    page = (HTML, f"<p>{secret}</p>".encode())
    assert failure(OPENAI, 200, page, ResponseContext(secrets=(secret,))).message.startswith(
        f"Box sent {HTML} instead of an answer: <p>…</p>. "
    )


# What is known of a reply before it comes.


@pytest.mark.parametrize(
    ("answers", "is_other"),
    [("gemma-3-4b", True), ("gemma-3-4b", False), (None, True), ("", True)],
)
@pytest.mark.parametrize(
    "message", [{"content": "Hi"}, {"reasoning": "Hm."}, {"tool_calls": [call("t")]}, {}]
)
@pytest.mark.parametrize("way", ["streamed", "unstreamed"])
def test_another_model_than_was_asked(
    way: str, message: Payload, answers: str | None, is_other: bool
) -> None:
    said = {"model": answers}
    head, body = (
        at_once({**whole("stop", **message), **said})
        if way == "unstreamed"
        else streamed(OPENAI, {**chunk(**message), **said}, {**chunk("stop"), **said})
    )
    context = ResponseContext(model="qwen3-8b", is_other_model=lambda _: is_other)
    outcome = decode(OPENAI, head, [body], context)
    if not answers or not is_other:
        assert outcome.error is None
        assert len(outcome.events) == 1 + len(message)
        return
    assert (outcome.events, outcome.error) == ([], WrongModel)
    assert outcome.message == (
        "Box answers with the model gemma-3-4b instead of qwen3-8b. Have it serve qwen3-8b, or run"
        " the other one: `llm localrun models` lists it."
    )


WHOLE_JSON, CUT_JSON = '{"city": "Paris"}', '{"city": "Par'
REMEDY = "Use a larger -o max_tokens, or a larger -o context_size."


@pytest.mark.parametrize(
    ("text", "finish_reason", "is_wanted", "is_cut"),
    [
        pytest.param(CUT_JSON, "length", True, True, id="cut off"),
        pytest.param(CUT_JSON, "length", False, False, id="JSON was not asked for"),
        pytest.param(WHOLE_JSON, "length", True, False, id="whole at the limit"),
        pytest.param(f" {WHOLE_JSON}\n", "length", True, False, id="blanks around it"),
        pytest.param(WHOLE_JSON, "stop", True, False, id="whole"),
        pytest.param("[1, 2", "length", True, True, id="a list that is cut off"),
        pytest.param("", "length", True, True, id="nothing"),
        pytest.param("[" * 100_000, "length", True, True, id="runaway brackets"),
        pytest.param('{"a":' * 100_000, "length", True, True, id="runaway objects"),
    ],
)
@pytest.mark.parametrize("dialect", [OPENAI, OLLAMA])
@pytest.mark.parametrize("way", ["streamed", "unstreamed"])
def test_json_that_is_cut_off(
    way: str, dialect: Server, text: str, finish_reason: str, is_wanted: bool, is_cut: bool
) -> None:
    half = len(text) // 2
    if dialect is OLLAMA:
        last = ollama(True, content=text[half:], done_reason=finish_reason)
        chunks = [ollama(False, content=text[:half]), last]
        one = ollama(True, content=text, done_reason=finish_reason)
    else:
        chunks = [chunk(content=text[:half]), chunk(finish_reason, content=text[half:])]
        one = whole(finish_reason, content=text)
    head, body = at_once(one) if way == "unstreamed" else streamed(dialect, *chunks)
    outcome = decode(dialect, head, [body], ResponseContext(is_json=is_wanted))
    assert outcome.text == text
    if is_cut:
        assert outcome.error == AnswerCutOff
        assert outcome.message == (
            f"The answer ended ({finish_reason}) before its JSON was complete. {REMEDY}"
        )
    else:
        assert outcome.error is None
    assert [finished.finish_reason for finished in outcome.finished] == [finish_reason]


def test_json_of_a_model_that_repeats_itself() -> None:
    """Ollama stops it without a word."""
    head, body = streamed(OLLAMA, *[ollama(False, content="[")] * 31)
    outcome = decode(OLLAMA, head, [body], ResponseContext(is_json=True))
    assert outcome.message == "The answer ended (cut off) before its JSON was complete. Try again."


@pytest.mark.parametrize("finish_reason", ["tool_calls", "stop", "length"])
def test_asking_for_a_tool_is_no_answer_in_json_yet(finish_reason: str) -> None:
    said = whole(finish_reason, content="Let me see.", tool_calls=[call("t")])
    outcome = decode(OPENAI, *_pieces(said), ResponseContext(is_json=True))
    assert (outcome.error, len(outcome.calls), len(outcome.finished)) == (None, 1, 1)


def test_recorded_json_that_is_cut_off() -> None:
    exchange = transcript("format_json")[0]
    outcome = decode(OLLAMA, head_of(exchange), [exchange.body], ResponseContext(is_json=True))
    assert (outcome.error, outcome.message) == (
        AnswerCutOff,
        f"The answer ended (length) before its JSON was complete. {REMEDY}",
    )


def test_thinking_is_no_part_of_the_json() -> None:
    said = whole("length", content=f"<think>Hm.</think>{WHOLE_JSON}")
    outcome = decode(OPENAI, *_pieces(said), ResponseContext(is_json=True))
    assert (outcome.error, outcome.text) == (None, WHOLE_JSON)


def _pieces(payload: Payload) -> tuple[ResponseHead, list[bytes]]:
    head, body = at_once(payload)
    return head, [body]


@pytest.mark.parametrize(
    ("key_name", "command"),
    [
        ("localrun-llamacpp", "llm keys set localrun-llamacpp"),
        ("my box", "llm keys set 'my box'"),
        ("", "llm keys set"),
    ],
)
@pytest.mark.parametrize("status", [401, 403])
def test_refused_key_is_named(key_name: str, command: str, status: int) -> None:
    context = ResponseContext(key_name=key_name)
    decoder = ResponseDecoder("box", OPENAI.decoder(), context)
    list(decoder.feed(ResponseHead(status, JSON)))
    with pytest.raises(ServerRefused) as refused:
        list(decoder.close())
    assert refused.value.remedy == f"Give its key with --key, or store it with `{command}`"


@pytest.mark.parametrize("piece", [b"x", b"x" * 100_000, b'{"error": "' + b"x" * 100_000])
def test_an_error_without_an_end_is_given_up(piece: bytes) -> None:
    reply = ResponseDecoder("Box", OPENAI.decoder(), ANYTHING)
    list(reply.feed(ResponseHead(500, JSON)))
    with pytest.raises(ServerRefused, match=r"^Box says: .{80,100} \(HTTP 500\)\."):
        for _ in range(2**17 // len(piece) + 1):
            list(reply.feed(piece))


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize(
    "said", ["x" * 100_000, f"for this template\nError: {'x' * 100_000}"], ids=["text", "template"]
)
def test_a_message_has_a_length(status: int, said: str) -> None:
    reply = ResponseDecoder("Box", OPENAI.decoder(), ANYTHING)
    body = json.dumps({"error": said[:60_000]}).encode()
    with pytest.raises(ServerRefused) as caught:
        for received in (ResponseHead(status, JSON), body):
            list(reply.feed(received))
        list(reply.close())
    assert len(caught.value.message) < 5000


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_a_plain_piece_takes_few_calls(field: str) -> None:
    """Most answers are thousands of them, in which nothing is looked for."""
    piece = sse(chunk(**{field: " fox"}))

    def calls_for(pieces: int) -> int:
        response = ResponseDecoder("S", OpenAIDecoder(), ResponseContext())
        calls: list[str] = []
        sys.setprofile(lambda _frame, event, _: calls.append(event) if event == "call" else None)
        try:
            list(response.feed(ResponseHead(200, EVENTS)))
            for _ in range(pieces):
                assert len(list(response.feed(piece))) == 1
        finally:
            sys.setprofile(None)
        return len(calls)

    calls_for(1)  # compiles expressions
    assert (calls_for(200) - calls_for(100)) / 100 < 45
