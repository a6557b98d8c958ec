"""What servers say while a request waits: loading, other prompts, and how the prompt is read."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest

from llm_localrun.models import RunsOn
from llm_localrun.servers import base, llamacpp, lmstudio, ollama, vllm, waiting
from llm_localrun.servers.base import PreparedRequest, Server, ServeRequest, open_server
from llm_localrun.servers.waiting import Reading
from llm_localrun.system.progress import Progress
from llm_localrun.wire.request import ChatMessage, ChatRequest, Media, ToolSpec
from tests.fakes.http_server import Request, StandIn, chunk, head, transcript
from tests.fakes.moments import Events, Moments, metrics
from tests.support.drive import served

READING = Progress("waiting for the answer")
HELLO = ChatRequest((ChatMessage("user", "Hello"),), {}, stream=True)
TOOL = ToolSpec("f", "", {"type": "object"})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks again at once. Nothing is known of the speed."""
    for module in (base, llamacpp, lmstudio, ollama, vllm):
        monkeypatch.setattr(module, "POLL_S", 0.001)
    monkeypatch.setattr("llm_localrun.stats.rates.prompt_rate", lambda *_: None)


def request_for(
    url: str, kind: str, name: str, chat: ChatRequest = HELLO, **known: Any
) -> tuple[Server, ServeRequest, PreparedRequest]:
    model = served(url, kind, name, **known)
    assert model.served is not None
    server = open_server(model.served.endpoint, "secret-key")
    return server, ServeRequest(model, chat), PreparedRequest(server, "/chat", {}, name)


def seen(
    moments: Moments,
    kind: str,
    name: str = "m",
    chat: ChatRequest = HELLO,
    body: Mapping[str, Any] | None = None,
    **known: Any,
) -> list[Progress]:
    """What is known, one after the other, until the prompt is being read, or the `last` moment."""
    with StandIn(moments) as server:
        own, request, prepared = request_for(server.url, kind, name, chat, **known)
        prepared = replace(prepared, body=dict(body or {}))
        found = []
        for progress in own.watch(request, prepared, moments.is_over):
            found.append(progress)
            if progress == READING and not moments.last[1]:
                break
        # Nothing that loads a model.
        assert {each.path for each in server.requests if each.method != "GET"} <= {"/api/show"}
        keys = {each.headers.get("authorization") for each in server.requests}
        assert keys <= {"Bearer secret-key"}
    return [each for each, _ in groupby(found)]


# The prompt, as fast as others


@pytest.mark.parametrize(
    ("tokens", "rate", "seconds", "shown"),
    [
        (6000, 100.0, 0.0, (0, 6000)),
        (6000, 100.0, 25.5, (2550, 6000)),
        (6000, 100.0, 59.5, (5950, 6000)),
        # It takes longer than expected: nothing is known of the rest.
        (6000, 100.0, 60.0, None),
        (6000, 1e308, 1e10, None),
        (6000, None, 1.0, None),
        (None, 100.0, 1.0, None),
        (0, 100.0, 0.0, None),
    ],
)
def test_a_prompt_at_the_usual_rate(
    monkeypatch: pytest.MonkeyPatch,
    tokens: int | None,
    rate: float | None,
    seconds: float,
    shown: tuple[int, int] | None,
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1000.0 + seconds)
    estimate = Progress("reading the prompt", *(shown or (0, 0)), "tokens", is_estimate=True)
    assert Reading(tokens, rate, begun=1000.0).now() == (estimate if shown else READING)


LONG = ChatMessage("user", "The quick brown fox. " * 300)
SHORT, ANSWER = ChatMessage("user", "And?"), ChatMessage("assistant", "Yes.")
IMAGE = replace(SHORT, media=(Media("image/png", b"x"),))


def test_only_what_follows_the_last_answer_is_computed() -> None:
    def tokens(*messages: ChatMessage) -> int | None:
        chat = replace(HELLO, messages=messages)
        return request_for("http://127.0.0.1:1", "ollama", "m", chat)[1].new_tokens

    whole, short = tokens(LONG), tokens(SHORT)
    assert whole is not None and short is not None
    assert whole > 1000 > short
    assert tokens(LONG, ANSWER, SHORT) == short
    assert tokens(SHORT, ANSWER, LONG) == whole
    # How long a picture takes is not learned.
    assert tokens(LONG, IMAGE) is None
    assert tokens(LONG, IMAGE, ANSWER, SHORT) == short


@pytest.mark.parametrize("kind", ["openai", "mlx", "koboldcpp", "lmstudio", "vllm", "llamacpp"])
def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    asked = []

    def rate(model: str, endpoint: str) -> float:
        asked.append((model, endpoint))
        return 0.001

    monkeypatch.setattr("llm_localrun.stats.rates.prompt_rate", rate)
    with StandIn(Moments({})) as server:
        own, request, prepared = request_for(server.url, kind, "m")
        progress = next(own.watch(request, prepared, threading.Event()))
    assert asked == [(f"local/{kind}/m", kind)]
    expected = Progress("reading the prompt", 0, request.new_tokens, "tokens", is_estimate=True)
    assert progress == expected


# llama-server

MODELS, EVENTS, SLOTS = "/v1/models", "/models/sse", "/slots"
ROUTER_SLOTS = "/slots?model=coder&autoload=false"
RECORDED = {each.path: each.body for each in transcript("waiting", "llama-server-b10434")}


def listed(status: str) -> dict[str, Any]:
    return {"data": [{"id": "coder", "status": {"value": status}}, {"id": "other"}]}


def change(status: str, model: str = "coder", **progress: Any) -> dict[str, Any]:
    data = {"status": status, **({"progress": progress} if progress else {})}
    return {"model": model, "event": "status_change", "data": data}


def loading(value: float, stages: tuple[str, ...] = ("text_model",)) -> dict[str, Any]:
    return change("loading", stages=stages, current=stages[0], value=value)


def percent(done: int) -> Progress:
    return Progress("loading coder", done, 100, "%")


def test_a_router_that_loads_as_recorded() -> None:
    lines = [line.removeprefix(b"data: ") for line in RECORDED[EVENTS].split(b"\n\n") if line]
    moments = Moments({MODELS: [json.loads(RECORDED[MODELS])], EVENTS: [Events(lines)]})
    assert seen(moments, "llamacpp", "coder") == [
        Progress("loading coder"),
        percent(0),
        percent(100),
        READING,
    ]


END = change("loaded")
ODD = [
    change("loading", stages=["a"], current="a", value="x"),
    change("loading", stages=["a"], current="a", value=-1),
    change("loading", stages=["a"], current="a", value=1.5),
    change("loading", stages=["a"], current="b", value=0.5),
    change("loading", stages="a", current="a", value=0.5),
    change("loading", stages=[], current="a", value=0.5),
    b'{"model":"coder","data":{"status":"loading","progress":{"stages":["a"],"current":"a",'
    b'"value":NaN}}}',
    b'{"model":"coder","data":{"status":"loading","progress":{"stages":["a"],"current":"a",'
    b'"value":1' + b"0" * 300 + b"}}}",
]
STREAMS: dict[str, tuple[list[Any], list[Progress]]] = {
    "a part": ([loading(0.35), END], [percent(35)]),
    "several stages": (
        [
            loading(0.5, ("text_model", "mmproj")),
            change("loading", stages=["text_model", "mmproj"], current="mmproj", value=0.5),
            END,
        ],
        [percent(25), percent(75)],
    ),
    "another model": ([change("loading", "other", stages=["a"], current="a", value=0.5), END], []),
    "another is loaded": ([change("loaded", "other"), loading(0.5), END], [percent(50)]),
    "it fails": ([loading(0.5), change("unloaded")], [percent(50)]),
    "odd numbers": ([*ODD, loading(0.5), END], [percent(50)]),
    "odd events": ([{"model": "coder"}, {"data": {}}, {"model": 1, "data": 2}, END], []),
}


@pytest.mark.parametrize(("events", "parts"), STREAMS.values(), ids=STREAMS)
def test_how_far_a_router_has_loaded(events: list[Any], parts: list[Progress]) -> None:
    moments = Moments({MODELS: [listed("unloaded")], EVENTS: [Events(events)]})
    assert seen(moments, "llamacpp", "coder") == [Progress("loading coder"), *parts, READING]


LISTS: dict[str, tuple[dict[str, list[Any]], list[Progress]]] = {
    # The end of the load may come between two connections.
    "the stream ends": ({EVENTS: [Events([loading(0.5)], ends=True)]}, [percent(50)]),
    "no stream": ({}, []),
    "no JSON in it": ({EVENTS: [Events([b"{", loading(0.5)])]}, []),
    "not a stream": ({EVENTS: ["no stream"]}, []),
}


@pytest.mark.parametrize(("replies", "parts"), LISTS.values(), ids=LISTS)
def test_the_list_of_a_router_says_the_end(
    replies: dict[str, list[Any]], parts: list[Progress]
) -> None:
    models = [*map(listed, ("loading", "loading", "loaded"))]
    moments = Moments({MODELS: models, **replies})
    found = seen(moments, "llamacpp", "coder")
    assert [each for each in found if each != Progress("loading coder")] == [*parts, READING]
    assert found[0] == Progress("loading coder")


def test_a_loaded_model_of_a_router_is_not_loaded_again() -> None:
    moments = Moments({MODELS: [listed("loaded")]})
    assert seen(moments, "llamacpp", "coder") == [READING]
    assert moments.asked == {MODELS: 1, ROUTER_SLOTS: 1}


def slot(*, busy: bool = True, read: Any = 10, generated: Any = 0) -> dict[str, Any]:
    return {
        "id": 0,
        "is_processing": busy,
        "n_prompt_tokens": read,
        "next_token": [{"n_decoded": generated}],
    }


FREE, THEIRS, ANY = slot(busy=False), slot(generated=9), slot()
TOO_LONG = slot(read=5000)
"""A prompt longer than ours."""
WAITING = Progress("waiting for another prompt")
UNKNOWN = Progress("waiting for llama-server")
SLOT_CASES: dict[str, tuple[list[Any], list[Progress]]] = {
    "free": ([[FREE]], [READING]),
    "one of two is free": ([[THEIRS, FREE]], [READING]),
    "it generates": ([[THEIRS], [FREE]], [WAITING, READING]),
    "two": (
        [[THEIRS, TOO_LONG], [FREE, THEIRS]],
        [Progress("waiting for 2 other prompts"), READING],
    ),
    "one may be ours": ([[THEIRS, ANY], [THEIRS, FREE]], [READING]),
    "it becomes clear": ([[ANY], [TOO_LONG], [FREE]], [WAITING, READING]),
    "the next may be ours": ([[THEIRS], [ANY], [FREE]], [WAITING, UNKNOWN, READING]),
    "disabled": ([{"error": {"code": 501, "message": "no slots"}}], [READING]),
    "none": ([[]], [READING]),
    "no list": ([{"slots": []}, [THEIRS]], [READING]),
    "odd entries": ([[THEIRS, 1]], [READING]),
    "odd numbers": ([[slot(read=-1, generated="x")], [FREE]], [READING]),
    "huge": ([[slot(read=10**300)], [FREE]], [READING]),
    "an older build": ([[{"is_processing": True}], [{"is_processing": False}]], [READING]),
}


@pytest.mark.parametrize(("slots", "found"), SLOT_CASES.values(), ids=SLOT_CASES)
def test_slots(slots: list[Any], found: list[Progress]) -> None:
    assert seen(Moments({SLOTS: slots}), "llamacpp") == found


def test_slots_as_recorded() -> None:
    moments = Moments(
        {MODELS: [listed("loaded")], ROUTER_SLOTS: [json.loads(RECORDED[ROUTER_SLOTS]), []]}
    )
    assert seen(moments, "llamacpp", "coder") == [WAITING, READING]


@pytest.mark.parametrize(
    "chat",
    [
        replace(HELLO, stream=False),
        replace(HELLO, tools=(TOOL,)),
        replace(HELLO, schema={"type": "object"}),
        replace(HELLO, options={"json_object": True}),
    ],
)
def test_a_slot_that_generates_may_be_ours_if_the_answer_is_held_back(chat: ChatRequest) -> None:
    assert seen(Moments({SLOTS: [[THEIRS], [THEIRS], [FREE]]}), "llamacpp", chat=chat) == [READING]


TOLD = slot() | {"n_prompt_tokens_cache": 0}
ASKED = {"return_progress": True}


@pytest.mark.parametrize("chat", [HELLO, replace(HELLO, tools=(TOOL,))])
def test_a_slot_that_reads_is_not_ours_until_the_response_says_so(chat: ChatRequest) -> None:
    """b10434 sends the first `prompt_progress` when it begins to read the prompt."""
    two = Progress("waiting for 2 other prompts")
    slots = {SLOTS: [[TOLD, TOLD | THEIRS], [TOLD, FREE]]}
    assert seen(Moments(slots), "llamacpp", chat=chat, body=ASKED) == [two, READING]
    assert seen(Moments(slots), "llamacpp", chat=chat) == [READING]
    # An older build may say nothing before the prompt has been read.
    older = {SLOTS: [[ANY, TOLD], [FREE]]}
    assert seen(Moments(older), "llamacpp", chat=chat, body=ASKED) == [READING]


def test_the_engine_is_not_asked() -> None:
    moments = Moments({})
    assert seen(moments, "engine") == [READING]
    assert moments.asked == {}


# vLLM, SGLang

GAUGES: dict[str, tuple[list[bytes], list[Progress]]] = {
    "nobody": ([metrics(vllm__num_requests_running="1.0", vllm__num_requests_waiting="0.0")], []),
    "two before ours": (
        [
            metrics(vllm__num_requests_running="2.0", vllm__num_requests_waiting="1.0"),
            metrics(vllm__num_requests_running="1.0", vllm__num_requests_waiting="1.0"),
            metrics(vllm__num_requests_running="2.0", vllm__num_requests_waiting="0.0"),
        ],
        [Progress("waiting for 2 other prompts"), WAITING],
    ),
    "with labels": (
        [
            metrics(
                **{
                    'vllm__num_requests_running{engine="0",model_name="m"}': "1.0",
                    'vllm__num_requests_running{engine="1",model_name="m"}': "1.0",
                    'vllm__num_requests_waiting{engine="0",model_name="m"}': "1.0",
                    'vllm__num_requests_waiting{engine="1",model_name="m"}': "0.0",
                    'vllm__num_requests_waiting_by_reason{reason="capacity"}': "7.0",
                }
            ),
            metrics(),
        ],
        [Progress("waiting for 2 other prompts")],
    ),
    "only ours": (
        [metrics(vllm__num_requests_running="0.0", vllm__num_requests_waiting="1.0"), metrics()],
        [],
    ),
    "odd": ([metrics(vllm__num_requests_running="x", vllm__num_requests_waiting="NaN")], []),
    "infinite": ([metrics(vllm__num_requests_waiting="+Inf")], []),
    "negative": ([metrics(vllm__num_requests_waiting="-1")], []),
    "huge": ([metrics(vllm__num_requests_waiting="1e300")], []),
    "of Python": ([metrics(vllm__num_requests_waiting="7_0")], []),
}


@pytest.mark.parametrize(("pages", "found"), GAUGES.values(), ids=GAUGES)
def test_prompts_that_wait(pages: list[bytes], found: list[Progress]) -> None:
    assert seen(Moments({"/metrics": pages}), "vllm") == [*found, READING]


def test_numbers_of_the_step_before() -> None:
    idle = metrics(vllm__num_requests_running="0.0", vllm__num_requests_waiting="0.0")
    busy = metrics(vllm__num_requests_running="1.0", vllm__num_requests_waiting="2.0")
    moments = Moments({"/metrics": [idle, busy, idle]}, last=("/metrics", 3))
    assert seen(moments, "vllm") == [READING, Progress("waiting for 2 other prompts"), READING]


def test_sglang_has_other_names() -> None:
    busy = metrics(sglang__num_running_reqs="3.0", sglang__num_queue_reqs="1.0")
    moments = Moments({"/metrics": [busy, metrics()]})
    assert seen(moments, "sglang") == [Progress("waiting for 3 other prompts"), READING]


# Ollama

LOADING = Progress("loading m")
STARTING = Progress("loading m and reading the prompt")


def ps(*expires: str, name: str = "m") -> list[dict[str, Any]]:
    """/api/ps at some moments: when the model expires, "" while it is not listed."""
    return [{"models": [{"name": name, "expires_at": at}] if at else []} for at in expires]


PS_CASES: dict[str, tuple[list[Any], list[Progress]]] = {
    "loaded": (ps("9:00", "9:00"), [READING]),
    "not loaded": (
        ps("", "", "9:01", "9:02", "9:03", "9:03", "9:03"),
        [LOADING, STARTING, READING],
    ),
    "it begins to load": (ps("9:01", "9:02", "9:03", "9:03"), [STARTING, READING]),
    # Another answer has ended.
    "it expires later": (ps("9:00", "9:01", "9:01"), [READING]),
    "it says no time": ([{"models": [{"name": "m"}]}], [READING]),
    "another model": (
        ps("9:00", name="n")[:1] + ps("", "9:01", "9:01", "9:01"),
        [LOADING, STARTING, READING],
    ),
    "no answer": ([{"error": "?"}], [READING]),
    "odd": ([{"models": [1, {"name": 2}]}], [READING]),
}


@pytest.mark.parametrize(("moments", "found"), PS_CASES.values(), ids=PS_CASES)
def test_whether_ollama_has_loaded(moments: list[Any], found: list[Progress]) -> None:
    assert seen(Moments({"/api/ps": moments}), "ollama") == found


def test_ollama_loads_again_for_another_context() -> None:
    moments = Moments({"/api/ps": ps("9:00", "9:00", "", "9:01")}, last=("/api/ps", 5))
    assert seen(moments, "ollama") == [READING, LOADING, STARTING]


def test_a_cloud_loads_nothing_here() -> None:
    moments = Moments({"/api/ps": ps("")})
    assert seen(moments, "ollama", runs_on=RunsOn.CLOUD) == [READING]
    assert moments.asked == {}


# LM Studio


def instances(*ids: str) -> dict[str, Any]:
    loaded = [{"id": each} for each in ids]
    return {"models": [{"key": "m", "type": "llm", "loaded_instances": loaded}]}


@pytest.mark.parametrize(
    ("moments", "found"),
    [
        ([instances("m")], [READING]),
        ([instances(), instances(), instances("m")], [LOADING, READING]),
        ([{"error": "Unexpected endpoint"}], [READING]),
    ],
)
def test_whether_lm_studio_has_loaded(moments: list[Any], found: list[Progress]) -> None:
    assert seen(Moments({"/api/v1/models": moments}), "lmstudio") == found


# The thread


HANGS = {"llamacpp": MODELS, "vllm": "/metrics", "ollama": "/api/ps", "lmstudio": "/api/v1/models"}


@pytest.mark.parametrize("kind", HANGS)
def test_it_ends_while_the_server_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for module in (llamacpp, lmstudio, ollama, vllm):
        monkeypatch.setattr(module, "TIMEOUT_S", 20.0)
    is_over = threading.Event()

    def respond(_: Request) -> Iterator[bytes | float]:
        # The answer to the prompt begins.
        is_over.set()
        yield 60.0

    with StandIn(respond) as server:
        own, request, prepared = request_for(server.url, kind, "m")
        assert list(own.progress(request, prepared, is_over)) == []
        assert [each.path for each in server.requests] == [HANGS[kind]]
        # The question still waits for its reply.
        assert waiting.THREAD in [thread.name for thread in threading.enumerate()]


def endless(line: bytes) -> Callable[[Request], Iterator[bytes]]:
    def respond(request: Request) -> Iterator[bytes]:
        if request.path == MODELS:
            yield from Moments({MODELS: [listed("loading")]})(request)  # type: ignore[misc]
            return
        yield head("text/event-stream")
        while True:
            yield chunk(line)

    return respond


@pytest.mark.parametrize("line", [b"data: " + b"x" * 10000, b": \n\n" * 100, b"data: {}\n\n"])
def test_a_stream_without_end(line: bytes) -> None:
    with StandIn(endless(line)) as server:
        own, request, prepared = request_for(server.url, "llamacpp", "coder")
        is_over = threading.Event()
        for progress in own.progress(request, prepared, is_over):
            assert progress == Progress("loading coder")
            is_over.set()
        assert is_over.is_set()


def test_a_connection_that_is_refused() -> None:
    with StandIn(Moments({})) as server:
        url = server.url
    for kind in HANGS:
        own, request, prepared = request_for(url, kind, "m")
        assert next(own.watch(request, prepared, threading.Event())) == READING


def test_the_last_state_counts() -> None:
    is_over, may_go_on = threading.Event(), threading.Event()

    def work() -> Iterator[Progress]:
        yield from (Progress("loading", done) for done in range(1000))
        may_go_on.set()
        is_over.wait(60)

    may_go_on.clear()
    found = []
    for progress in waiting.until_over(work(), is_over):
        may_go_on.wait(60)
        found.append(progress.done)
        if progress.done == 999:
            is_over.set()
    assert found[-1] == 999 and len(found) <= 2
