"""Every backend in all four ways: what is sent, what llm's response holds, who receives the key."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import llm
import pytest

from llm_localrun.catalogue import get_catalogue, model_at
from llm_localrun.engine import state
from llm_localrun.errors import NotAllowed
from llm_localrun.models import LocalModel, RunsOn
from llm_localrun.name_cache import CachePolicy
from llm_localrun.wire.http import HttpRequest
from tests.conftest import CONFIG, Llm, configure, store_key
from tests.fakes.http_server import (
    Exchange,
    Request,
    StandIn,
    events,
    json_reply,
    transcript,
    whole,
)
from tests.fakes.openai_compatible import completion
from tests.support.drive import WAYS, Outcome, ask, failure, served
from tests.support.models import served_route

in_every_way = pytest.mark.parametrize("way", WAYS)

Recording = tuple[str, int]


def is_streamed(way: str) -> bool:
    return "unstreamed" not in way


def recorded(recording: Recording) -> Exchange:
    name, index = recording
    return transcript(name)[index]


def said(
    text: str,
    tokens: tuple[int, int],
    model: str,
    *,
    reasoning: str = "",
    details: dict[str, int] | None = None,
    **facts: Any,
) -> Outcome:
    """What llm's response has to hold after a reply; `tokens` go in and come out."""
    parts = [{"type": "reasoning", "text": reasoning}] if reasoning else []
    parts.append({"type": "text", "text": text})
    return Outcome(text, reasoning, parts, *tokens, details, model, facts)


def without_clock(outcome: Outcome) -> Outcome:
    """`outcome` without the one figure that differs from time to time."""
    facts = dict(outcome.json or {})
    assert 0 <= facts.pop("time_to_first_token") < 5
    return replace(outcome, json=facts)


# Ollama

RECORDED: dict[Recording, Outcome] = {
    ("chat_stream", 0): said(
        "The capital of France is Paris.",
        (16, 8),
        "smollm2:135m",
        finish_reason="stop",
        load_seconds=0.0007,
        prompt_tokens_per_second=123.5397,
        generation_tokens_per_second=66.1594,
        endpoint="ollama",
    ),
    ("chat_nostream", 0): said(
        "The capital of France is Paris.",
        (16, 8),
        "smollm2:135m",
        finish_reason="stop",
        load_seconds=0.0009,
        prompt_tokens_per_second=756.7874,
        generation_tokens_per_second=66.268,
        endpoint="ollama",
    ),
    ("think_native", 0): said(
        "Five.",
        (87, 20),
        "smollm2-native",
        reasoning="The user asks a simple sum.\n",
        finish_reason="stop",
        load_seconds=0.0019,
        prompt_tokens_per_second=60.6858,
        generation_tokens_per_second=45.5196,
        endpoint="ollama",
    ),
    ("think_native", 1): said(
        "Five.",
        (87, 20),
        "smollm2-native",
        reasoning="The user asks a simple sum.\n",
        finish_reason="stop",
        load_seconds=0.001,
        prompt_tokens_per_second=3228.0806,
        generation_tokens_per_second=48.7204,
        endpoint="ollama",
    ),
    ("think_go", 0): said(
        "The answer is 6.",
        (93, 22),
        "smollm2-go",
        reasoning="The user asks about three.\n",
        finish_reason="stop",
        load_seconds=0.0011,
        prompt_tokens_per_second=62.1111,
        generation_tokens_per_second=28.5239,
        endpoint="ollama",
    ),
    ("think_go", 1): said(
        "The answer is 3.",
        (93, 22),
        "smollm2-go",
        reasoning="The user asks about three.\n",
        finish_reason="stop",
        load_seconds=0.0017,
        prompt_tokens_per_second=1268.9143,
        generation_tokens_per_second=43.4902,
        endpoint="ollama",
    ),
    ("num_predict", 1): said(
        "The",
        (10, 1),
        "smollm2:135m",
        finish_reason="length",
        load_seconds=0.8296,
        prompt_tokens_per_second=86.9754,
        # So it says: one token in a microsecond.
        generation_tokens_per_second=1e6,
        endpoint="ollama",
    ),
}


@in_every_way
@pytest.mark.parametrize(
    ("streamed", "unstreamed"),
    [
        (("chat_stream", 0), ("chat_nostream", 0)),
        (("think_native", 0), ("think_native", 1)),
        (("think_go", 0), ("think_go", 1)),
    ],
)
def test_ollama(streamed: Recording, unstreamed: Recording, way: str) -> None:
    def respond(request: Request) -> list[bytes]:
        return [recorded(streamed if request.body["stream"] else unstreamed).reply()]

    expected = RECORDED[streamed if is_streamed(way) else unstreamed]
    with StandIn(respond) as server:
        outcome = ask(served(server.url, "ollama", expected.resolved_model or ""), "Hello", way)
    assert without_clock(outcome) == expected


@in_every_way
@pytest.mark.parametrize(
    "recording", [("chat_stream", 0), ("chat_nostream", 0), ("num_predict", 1)]
)
def test_ollama_streams_or_not_whatever_was_asked(recording: Recording, way: str) -> None:
    with StandIn(lambda _: [recorded(recording).reply()]) as server:
        outcome = ask(served(server.url, "ollama"), "Hello", way)
    assert without_clock(outcome) == RECORDED[recording]


@in_every_way
def test_known_facts_of_the_model_are_added(way: str) -> None:
    with StandIn(lambda _: [recorded(("chat_stream", 0)).reply()]) as server:
        model = served(server.url, "ollama", quantization="Q4_1", context_loaded=4096)
        loaded = ask(model, "Hello", way).json or {}
        chosen = ask(model, "Hello", way, context_size=8192).json or {}
    assert (loaded["quantization"], loaded["context_size"]) == ("Q4_1", 4096)
    assert chosen["context_size"] == 8192


# What is sent

OPTIONS: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "presence_penalty": 0.25,
    "frequency_penalty": -0.5,
    "seed": 7,
    "max_tokens": 24,
    "stop": "END",
    "timeout": 30,
}
AT_OPENAI: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "presence_penalty": 0.25,
    "frequency_penalty": -0.5,
    "seed": 7,
    "max_tokens": 24,
    "stop": ["END"],
}
MORE_OPTIONS = {"top_k": 40, "min_p": 0.05, "repeat_penalty": 1.1, "json_object": True}


@in_every_way
@pytest.mark.parametrize(
    ("kind", "path", "options", "sent"),
    [
        ("ollama", "/api/chat", {}, {"truncate": False, "shift": False}),
        (
            "ollama",
            "/api/chat",
            {
                **OPTIONS,
                **MORE_OPTIONS,
                "typical_p": 0.8,
                "context_size": 8192,
                "keep_alive": "10m",
                "gpu_layers": 0,
                "threads": 2,
            },
            {
                "truncate": False,
                "shift": False,
                "options": {
                    "temperature": 0.5,
                    "top_p": 0.9,
                    "top_k": 40,
                    "min_p": 0.05,
                    "typical_p": 0.8,
                    "repeat_penalty": 1.1,
                    "presence_penalty": 0.25,
                    "frequency_penalty": -0.5,
                    "seed": 7,
                    "num_predict": 24,
                    "stop": ["END"],
                    "num_ctx": 8192,
                    "num_gpu": 0,
                    "num_thread": 2,
                },
                "format": "json",
                "keep_alive": 600,
            },
        ),
        ("openai", "/v1/chat/completions", {}, {}),
        ("openai", "/v1/chat/completions", OPTIONS, AT_OPENAI),
        (
            "lmstudio",
            "/v1/chat/completions",
            {**OPTIONS, "top_k": 40, "repeat_penalty": 1.1, "keep_alive": 60},
            {**AT_OPENAI, "top_k": 40, "repeat_penalty": 1.1, "ttl": 60},
        ),
        (
            "llamacpp",
            "/v1/chat/completions",
            {**OPTIONS, **MORE_OPTIONS, "typical_p": 0.8},
            {
                **AT_OPENAI,
                "top_k": 40,
                "min_p": 0.05,
                "typical_p": 0.8,
                "repeat_penalty": 1.1,
                "response_format": {"type": "json_object", "schema": {"type": "object"}},
            },
        ),
        (
            "vllm",
            "/v1/chat/completions",
            {**OPTIONS, **MORE_OPTIONS},
            {
                **AT_OPENAI,
                "top_k": 40,
                "min_p": 0.05,
                "repetition_penalty": 1.1,
                "response_format": {"type": "json_object"},
            },
        ),
    ],
)
def test_sends_this_and_no_more(
    kind: str, path: str, options: dict[str, Any], sent: dict[str, Any], way: str
) -> None:
    with StandIn(lambda _: [json_of(kind)]) as server:
        ask(
            served(server.url, kind, "smollm2:135m"),
            "And of Italy?",
            way,
            system="Be brief.",
            messages=[
                llm.system("Be brief."),
                llm.user("Capital?"),
                llm.assistant("Paris é\u2028"),
            ],
            **options,
        )
    (request,) = server.requests
    counted = kind != "ollama" and is_streamed(way)
    assert (request.method, request.path) == ("POST", path)
    assert request.headers["content-type"] == "application/json"
    assert request.body == {
        "model": "smollm2:135m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Capital?"},
            {"role": "assistant", "content": "Paris é\u2028"},
            {"role": "user", "content": "And of Italy?"},
        ],
        "stream": is_streamed(way),
        **({"stream_options": {"include_usage": True}} if counted else {}),
        **sent,
    }


def answer_of(kind: str) -> bytes:
    """A reply that a server of `kind` may give to anything."""
    if kind == "ollama":
        return recorded(("chat_nostream", 0)).reply()
    return json_reply(completion("Hello", finish_reason="stop"))


def json_of(kind: str) -> bytes:
    """A reply that a server of `kind` may give to a request for JSON."""
    if kind == "ollama":
        message = {"role": "assistant", "content": "{}"}
        return json_reply({"message": message, "done": True, "done_reason": "stop"})
    return json_reply(completion("{}", finish_reason="stop"))


# OpenAI-compatible servers


def delta(finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    """A chunk as all of them send it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1763900000,
        "model": "qwen/qwen3-8b",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }


def thinking(field: str, **at_the_end: Any) -> list[dict[str, Any]]:
    """A stream with its reasoning in `field`, and more fields in its last chunk."""
    return [
        delta(role="assistant", content=""),
        delta(**{field: "Hm"}),
        delta(**{field: "m."}),
        delta(content="Fo"),
        delta(content="ur"),
        delta("stop"),
        {**delta(), "choices": [], **at_the_end},
    ]


LMSTUDIO_USAGE = {
    "prompt_tokens": 24,
    "completion_tokens": 9,
    "total_tokens": 33,
    "completion_tokens_details": {"reasoning_tokens": 5},
}
VLLM_USAGE = {
    "prompt_tokens": 24,
    "total_tokens": 33,
    "completion_tokens": 9,
    "prompt_tokens_details": {"cached_tokens": 16},
}


@in_every_way
@pytest.mark.parametrize(
    ("kind", "field", "usage", "details", "facts"),
    [
        ("lmstudio", "reasoning_content", LMSTUDIO_USAGE, {"reasoning_tokens": 5}, {}),
        ("lmstudio", "reasoning", LMSTUDIO_USAGE, {"reasoning_tokens": 5}, {}),
        ("vllm", "reasoning", VLLM_USAGE, {"cached_tokens": 16}, {"cached_tokens": 16}),
        ("vllm", "reasoning", {**VLLM_USAGE, "prompt_tokens_details": None}, None, {}),
    ],
)
def test_reasoning_and_usage(
    kind: str,
    field: str,
    usage: dict[str, Any],
    details: dict[str, int] | None,
    facts: dict[str, Any],
    way: str,
) -> None:
    def respond(request: Request) -> list[bytes]:
        if request.body["stream"]:
            return [events(*thinking(field, usage=usage))]
        message = {field: "Hmm."}
        more = {"model": "qwen/qwen3-8b", "usage": usage}
        return [json_reply(completion("Four", finish_reason="stop", message=message, **more))]

    with StandIn(respond) as server:
        outcome = ask(served(server.url, kind, "qwen/qwen3-8b"), "Two and two?", way)
    assert without_clock(outcome) == said(
        "Four",
        (24, 9),
        "qwen/qwen3-8b",
        reasoning="Hmm.",
        details=details,
        finish_reason="stop",
        endpoint=kind,
        **facts,
    )


@in_every_way
def test_server_that_counts_nothing_and_gives_no_name(way: str) -> None:
    with StandIn(lambda _: [answer_of("openai")]) as server:
        outcome = ask(served(server.url, "openai"), "Hello", way)
    assert without_clock(outcome) == Outcome(
        *("Hello", "", [{"type": "text", "text": "Hello"}], None, None, None, None),
        {"finish_reason": "stop", "endpoint": "openai"},
    )


# The engine's own port is a real server of that kind.

COLOURS = "Name the primary colours"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 24}


def test_real_llama_server(
    user_path: Path, warm: Path, run_llm: Llm, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_file = ask(model_at(next((warm / "localrun" / "models").iterdir())), COLOURS, **GREEDY)
    engine = state.list_running(warm / "localrun" / "engine")[0]
    monkeypatch.setenv("LLM_USER_PATH", str(user_path))
    store_key(user_path, "box-key", engine.key)
    configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": engine.url, "key": "box-key"}])

    (report,) = get_catalogue(CachePolicy.REFRESH).endpoints
    (model,) = report.models
    assert (report.status, report.endpoint.kind) == ("answers", "llamacpp")
    assert model.id == "local/box/SmolLM2-135M-Instruct.Q4_1"

    for way in WAYS:
        outcome = ask(model, COLOURS, way, key="box-key", **GREEDY)
        assert (outcome.parts, outcome.input, outcome.output, outcome.resolved_model) == (
            by_file.parts,
            by_file.input,
            by_file.output,
            by_file.resolved_model,
        )
        facts, facts_by_file = outcome.json or {}, by_file.json or {}
        for same in ("finish_reason", "quantization", "context_size"):
            assert facts[same] == facts_by_file[same]
        assert facts["endpoint"] == "box"
        assert facts["generation_tokens_per_second"] > 0

    options = [word for option in GREEDY.items() for word in ("-o", *map(str, option))]
    for arguments in ((), ("--async", "--no-stream", "--key", engine.key)):
        done = run_llm("-m", model.id, COLOURS, *options, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{by_file.text}\n"
    (turn,) = json.loads(run_llm("logs", "--json", "-n", "1").stdout)
    assert (turn["model"], turn["response"]) == (model.id, by_file.text)

    wrong = run_llm("-m", model.id, COLOURS, "--key", "wrong")
    assert (wrong.returncode, wrong.stderr) == (
        1,
        f"Error: llama-server at {engine.url} says: Invalid API Key (HTTP 401). {KEY_REMEDY}\n",
    )


# Keys

KEY = "sk-of-the-box"
KEY_REMEDY = "Give its key with --key, or store it with `llm keys set box-key`."


def with_key(model: LocalModel, alias: str) -> LocalModel:
    """`model`, at a server whose key has a name."""
    endpoint = served_route(model).endpoint.model_copy(update={"key_alias": alias})
    return model.with_served(endpoint=endpoint)


def authorizations(server: StandIn) -> list[str | None]:
    return [request.headers.get("authorization") for request in server.requests]


@in_every_way
@pytest.mark.parametrize(
    ("alias", "explicit", "sent"),
    [
        ("box", None, f"Bearer {KEY}"),
        ("box", "sk-other", "Bearer sk-other"),
        (RunsOn.UNKNOWN, None, None),
        (RunsOn.UNKNOWN, "box", f"Bearer {KEY}"),
        (None, None, None),
        (None, "sk-other", "Bearer sk-other"),
        (None, "box", f"Bearer {KEY}"),
    ],
)
def test_key(
    user_path: Path, alias: str | None, explicit: str | None, sent: str | None, way: str
) -> None:
    store_key(user_path, "box", KEY)
    with StandIn(lambda _: [answer_of("openai")]) as server:
        model = served(server.url, "openai")
        ask(with_key(model, alias) if alias else model, "Hello", way, key=explicit)
    assert authorizations(server) == [sent]


def vllm(request: Request) -> list[bytes]:
    """A server with one model, called model."""
    if request.method == "POST":
        return [answer_of("vllm")]
    return [json_reply({"object": "list", "data": [{"id": "model", "owned_by": "vllm"}]})]


def test_key_is_sent_to_its_server_only(user_path: Path) -> None:
    store_key(user_path, "box", KEY)
    with StandIn(vllm) as box, StandIn(vllm) as other:
        endpoints = [
            {"name": "box", "url": box.url, "key": "box"},
            {"name": "other", "url": other.url},
        ]
        configure(user_path, **CONFIG, endpoints=endpoints)
        for model in get_catalogue(CachePolicy.REFRESH).models:
            for way in WAYS:
                ask(model, "Hello", way)
    # Its list, its version, and four prompts.
    assert authorizations(box) == [f"Bearer {KEY}"] * 6
    assert authorizations(other) == [None] * 6


def test_key_on_the_command_line(user_path: Path, run_llm: Llm) -> None:
    with StandIn(vllm) as box:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": box.url}])
        get_catalogue(CachePolicy.REFRESH)
        done = run_llm("-m", "local/box/model", "Hello", "--key", "sk-typed")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello\n", "")
    assert authorizations(box) == [None, None, "Bearer sk-typed"]


@in_every_way
@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, {"error": {"message": "Invalid API Key", "code": 401}}),
        (401, {"error": {"message": f"Incorrect API key provided: {KEY}.", "code": 401}}),
        (500, {"error": f"no route for Bearer {KEY}"}),
        (200, [KEY]),
    ],
)
def test_key_is_in_no_error(status: int, said: Any, way: str) -> None:
    with StandIn(lambda _: [json_reply(said, status)]) as server:
        model = served(server.url, "openai")
        message = failure(lambda: ask(model, "Hello", way, key=KEY))
    assert authorizations(server) == [f"Bearer {KEY}"]
    assert KEY not in message


@in_every_way
@pytest.mark.parametrize("key", ["sk-schlüssel", "sk-“quoted”", "sk-line\n", "sk-\x00"])
def test_key_that_http_cannot_carry(key: str, way: str) -> None:
    with StandIn(lambda _: [answer_of("openai")]) as server:
        message = failure(lambda: ask(served(server.url, "openai"), "Hello", way, key=key))
    assert server.requests == []
    assert "key" in message.lower()
    assert key not in message


def test_key_is_not_shown() -> None:
    call = HttpRequest("http://box/v1", {}, "the box", "Start it", key=KEY)
    assert "http://box/v1" in repr(call)
    assert KEY not in repr(call)


# Proxies


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


@in_every_way
@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_proxy_does_not_see_what_stays_here(
    user_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, way: str
) -> None:
    with StandIn(vllm) as server, StandIn(vllm) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        for name, host in (("address", "127.0.0.1"), ("name", "localhost")):
            configure(
                user_path,
                **CONFIG,
                endpoints=[{"name": name, "url": f"http://{host}:{server.port}"}],
            )
            (model,) = get_catalogue(CachePolicy.REFRESH).models
            assert ask(model, "Hello", way).text == "Hello"
        assert proxy.requests == []
        ask(served("http://box.example:8000", "vllm"), "Hello", way)
        assert [request.path for request in proxy.requests] == [
            "http://box.example:8000/v1/chat/completions"
        ]


@in_every_way
@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "ftp://127.0.0.1:9"])
def test_proxy_of_a_kind_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, proxy: str, way: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    message = failure(lambda: ask(served("http://box.example:8000", "vllm"), "Hello", way))
    assert "proxy" in message.lower()


# Models that run elsewhere


def cloud_model(url: str, runs_on: str) -> LocalModel:
    return served(url, "ollama", "gpt-oss:120b-cloud", runs_on=runs_on)


def nameless_answer() -> bytes:
    """What Ollama answers, without the name of a model."""
    message = {"role": "assistant", "content": "Paris."}
    return json_reply({"message": message, "done": True, "done_reason": "stop"})


@in_every_way
@pytest.mark.parametrize(
    ("runs_on", "where"), [(RunsOn.CLOUD, "in a cloud"), (RunsOn.UNKNOWN, "on an unknown machine")]
)
def test_prompt_does_not_leave_the_machine_unasked(
    user_path: Path, runs_on: str, where: str, way: str
) -> None:
    with StandIn(lambda _: [nameless_answer()]) as server:
        model = cloud_model(server.url, runs_on)
        with pytest.raises(NotAllowed) as caught:
            ask(model, "Hello", way)
        assert server.requests == []
        assert caught.value.message == (
            f"local/ollama/gpt-oss:120b-cloud runs {where}, so the prompt would leave this machine."
            " To allow it: `llm localrun allow local/ollama/gpt-oss:120b-cloud`."
        )
        configure(user_path, **CONFIG, allow=["local/ollama/gpt-oss", "local/ollama/other"])
        with pytest.raises(NotAllowed):
            ask(model, "Hello", way)
        assert server.requests == []
        configure(user_path, **CONFIG, allow=["local/ollama/gpt-oss:120b-cloud"])
        assert ask(model, "Hello", way).text == "Paris."
    assert [request.path for request in server.requests] == ["/api/chat"]


@in_every_way
def test_model_on_this_machine_needs_no_consent(way: str) -> None:
    with StandIn(lambda _: [nameless_answer()]) as server:
        assert ask(cloud_model(server.url, RunsOn.THIS_MACHINE), "Hello", way).text == "Paris."


# An answer that ends early


@in_every_way
def test_answer_that_ollama_ends_without_a_word(
    way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ollama 0.32.15 stops a model that repeats itself: no `done`, no reason, no counts."""
    message = {"role": "assistant", "content": " ha"}
    line = {"model": "m", "message": message, "done": False}
    lines = b"".join(json.dumps(line).encode() + b"\n" for _ in range(31))

    def respond(request: Request) -> list[bytes]:
        if not request.body["stream"]:
            return [json_reply({**line, "message": {**message, "content": " ha" * 31}})]
        return [whole(lines, "application/x-ndjson")]

    with StandIn(respond) as server:
        outcome = ask(served(server.url, "ollama", "m"), "Hello", way)
        said = capsys.readouterr().err
    assert outcome.text == " ha" * 31
    assert (outcome.json or {})["finish_reason"] == "cut off"
    assert said == (
        f"Ollama at {server.url} ended the answer early without a reason. It stops a model that"
        " repeats itself: try -o repeat_penalty 1.1.\n"
    )
