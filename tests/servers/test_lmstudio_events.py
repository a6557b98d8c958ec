"""LM Studio's /api/v1/chat: which questions go there, what its events say, and what if it refuses.

Its fake follows the documentation (April 2026): no real one was at hand.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import llm
import pytest
from llm import Attachment

from llm_localrun.chat.models import LocalChat
from llm_localrun.system.progress import Progress
from llm_localrun.wire.events import Finished
from llm_localrun.wire.lmstudio import LMStudioDecoder
from llm_localrun.wire.shapes import CutOff, ErrorReported
from tests.fakes.http_server import Request, Respond, StandIn, chunked, events, json_reply, text
from tests.fakes.lmstudio import LMStudio
from tests.fakes.says import Says
from tests.support.contract import PNG
from tests.support.drive import WAYS, ask, failure, served

GEMMA = "google/gemma-4-26b-a4b"
OWN, USUAL = "/api/v1/chat", "/v1/chat/completions"
LONG = "The quick brown fox jumps. " * 400


@pytest.fixture(autouse=True)
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_localrun.servers.lmstudio.is_shown", lambda: True)


def chats(server: StandIn) -> list[str]:
    return [each.path for each in server.requests if each.path in (OWN, USUAL)]


def bodies(server: StandIn, path: str) -> list[Any]:
    return [each.body for each in server.requests if each.path == path]


def loaded(context: int = 4096, **known: Any) -> LMStudio:
    lmstudio = LMStudio(**known)
    lmstudio.load(GEMMA, context_length=context)
    return lmstudio


SAYS = Says("Hello there.", reasoning="A greeting.")


def test_a_question_to_a_model_that_is_not_loaded() -> None:
    with StandIn(LMStudio(lambda _: SAYS)) as server:
        found = ask(served(server.url, "lmstudio", GEMMA), "Hi", temperature=0.5)
    assert chats(server) == [OWN]
    assert bodies(server, OWN) == [
        {"model": GEMMA, "input": "Hi", "stream": True, "store": False, "temperature": 0.5}
    ]
    assert (found.text, found.reasoning) == ("Hello there.", "A greeting.")
    assert (found.input, found.output, found.resolved_model) == (1, 6, GEMMA)
    assert found.details == {"reasoning_tokens": 3}
    assert found.json is not None
    assert found.json.pop("time_to_first_token") > 0
    assert found.json == {
        "finish_reason": "stop",
        "load_seconds": 2.656,
        "generation_tokens_per_second": 43.73,
        "endpoint": "lmstudio",
    }


@pytest.mark.parametrize("way", WAYS)
def test_both_paths_leave_the_same(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for is_shown in (True, False):
        monkeypatch.setattr("llm_localrun.servers.lmstudio.is_shown", lambda: is_shown)  # noqa: B023
        with StandIn(loaded(says=lambda _: SAYS)) as server:
            model = served(server.url, "lmstudio", GEMMA, context_loaded=4096, loaded=True)
            outcome = ask(model, LONG[:6000], way)
        expected = OWN if is_shown and "unstreamed" not in way else USUAL
        assert chats(server) == [expected]
        assert outcome.json is not None
        for name in ("time_to_first_token", "generation_tokens_per_second"):
            outcome.json.pop(name, None)
        found.append(outcome)
    assert found[0] == found[1]


def system(prompt: str) -> dict[str, Any]:
    return {"prompt": prompt, "system": "Be brief."}


PLACES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a short question": ({"prompt": "Hi"}, {"context_loaded": 4096}, USUAL),
    "a long one": ({"prompt": LONG[:6000]}, {"context_loaded": 4096}, OWN),
    "a system prompt": (system("Hi"), {}, OWN),
    "an option of both": ({"prompt": "Hi", "top_k": 5}, {}, OWN),
    "an option that is not sent": ({"prompt": "Hi", "timeout": 9}, {}, OWN),
    "a seed": ({"prompt": "Hi", "seed": 1}, {}, USUAL),
    "a limit": ({"prompt": "Hi", "max_tokens": 5}, {}, USUAL),
    "stop texts": ({"prompt": "Hi", "stop": "x"}, {}, USUAL),
    "thinking": ({"prompt": "Hi", "think": "on"}, {}, USUAL),
    "keep_alive": ({"prompt": "Hi", "keep_alive": "5m"}, {}, USUAL),
    "more fields": ({"prompt": "Hi", "extra_body": {"a": 1}}, {}, USUAL),
    "a schema": ({"prompt": "Hi", "schema": {"type": "object"}}, {}, USUAL),
    "a picture": ({"prompt": "Hi", "attachments": [Attachment(content=PNG)]}, {}, USUAL),
    "an empty prompt": ({"prompt": ""}, {}, USUAL),
    "unstreamed": ({"prompt": "Hi", "stream": False}, {}, USUAL),
    "a tool": (
        {"prompt": "Hi", "tools": [llm.Tool("f", "A tool.", {"type": "object"})]},
        {},
        USUAL,
    ),
    "an earlier answer": (
        {"messages": [llm.user("Hi"), llm.assistant("Hello"), llm.user("And?")]},
        {},
        USUAL,
    ),
}


@pytest.mark.parametrize(("given", "known", "path"), PLACES.values(), ids=PLACES)
def test_only_what_both_paths_take_goes_there(
    given: dict[str, Any], known: dict[str, Any], path: str
) -> None:
    says = Says('{"a": 1}')
    with StandIn(loaded(says=lambda _: says) if known else LMStudio(lambda _: says)) as server:
        model = served(server.url, "lmstudio", GEMMA, **known)
        LocalChat(model).prompt(**given).text()
    assert chats(server) == [path]


def test_the_system_prompt_is_a_field_of_its_own() -> None:
    with StandIn(LMStudio(lambda _: SAYS)) as server:
        LocalChat(served(server.url, "lmstudio", GEMMA)).prompt(**system("Hi")).text()
    (body,) = bodies(server, OWN)
    assert (body["system_prompt"], body["input"]) == ("Be brief.", "Hi")


def refusing(reply: bytes) -> Respond:
    lmstudio = LMStudio(lambda _: SAYS)

    def respond(request: Request) -> Iterator[bytes | float]:
        if request.path == OWN:
            yield reply
        else:
            yield from lmstudio(request)

    return respond


STARTED = {"type": "chat.start", "model_instance_id": GEMMA}
REFUSALS: dict[str, Respond] = {
    "an older version": LMStudio(lambda _: SAYS, api="v0"),
    "an unknown path": refusing(json_reply({"error": "Unexpected endpoint or method."})),
    "404": refusing(text("404 page not found", 404)),
    "400": refusing(json_reply({"error": {"message": "Unrecognized key(s): 'store'"}}, 400)),
    "a page": refusing(text("<!doctype html>", content_type="text/html")),
    "no type": refusing(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
    "an empty stream": refusing(chunked([], "text/event-stream")),
    "it ends at once": refusing(events(STARTED)),
}


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize("respond", REFUSALS.values(), ids=REFUSALS)
def test_a_refused_question_goes_the_usual_way(respond: Respond, way: str) -> None:
    with StandIn(respond) as server:
        found = ask(served(server.url, "lmstudio", GEMMA), "Hi", way)
    assert chats(server) == [OWN, USUAL]
    assert found.text == "Hello there."
    assert (found.input, found.output) == (1, 6)
    assert found.json is not None and found.json["finish_reason"] == "stop"


FAILURES: dict[str, tuple[Callable[[], Respond], str]] = {
    "no memory": (
        lambda: refusing(json_reply({"error": {"message": "Failed to load model"}}, 500)),
        "Failed to load model",
    ),
    "no token": (lambda: LMStudio(token="secret"), "An LM Studio API token is required"),
    "the model crashes": (
        lambda: LMStudio(lambda _: Says(fails_after=0, failure="The model has crashed")),
        "The model has crashed",
    ),
    "another model answers": (
        lambda: refusing(
            events(
                {"type": "chat.start", "model_instance_id": "other"},
                {"type": "message.delta", "content": "Hi"},
            )
        ),
        "answers with the model other instead of",
    ),
}


@pytest.mark.parametrize(("respond", "said"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_not_repeated(respond: Callable[[], Respond], said: str) -> None:
    with StandIn(respond()) as server:
        assert said in failure(lambda: ask(served(server.url, "lmstudio", GEMMA), "Hi"))
    assert chats(server) == [OWN]


def test_words_that_have_come_are_not_asked_for_again() -> None:
    reply = events(STARTED, {"type": "message.delta", "content": "Hel"})
    with StandIn(refusing(reply)) as server:
        assert "ends before it is complete" in failure(
            lambda: ask(served(server.url, "lmstudio", GEMMA), "Hi")
        )
    assert chats(server) == [OWN]


@pytest.mark.parametrize(
    ("context", "is_known", "prompt", "said", "reason"),
    [
        (4096, True, LONG[:6000], "Hello. " * 5, "stop"),
        (4096, True, LONG[:6000], "Hello. " * 2320, "length"),
        (4096, False, LONG[:6000], "Hello. " * 2320, "length"),
        (20, False, "Hi", "Hello. " * 9, "length"),
        (40, False, "Hi", "Hello. " * 9, "stop"),
    ],
)
def test_an_answer_that_fills_the_context(
    context: int, is_known: bool, prompt: str, said: str, reason: str
) -> None:
    """The events give no reason for the end."""
    known = {"context_loaded": context} if is_known else {}
    with StandIn(loaded(context, says=lambda _: Says(said))) as server:
        found = ask(served(server.url, "lmstudio", GEMMA, **known), prompt)
    assert chats(server) == [OWN]
    assert found.json is not None and found.json["finish_reason"] == reason


def test_the_id_of_an_instance_is_not_sent_there() -> None:
    lmstudio = LMStudio(lambda _: SAYS)
    lmstudio.load(GEMMA, identifier="mine", context_length=16384)
    with StandIn(lmstudio) as server:
        ask(served(server.url, "lmstudio", GEMMA, context_max=131072), LONG * 2)
    assert chats(server) == [USUAL]
    assert bodies(server, USUAL)[0]["model"] == "mine"


# The decoder

LOADING, READ = f"loading {GEMMA}", "reading the prompt"
STEPS: list[tuple[dict[str, Any], Progress | None]] = [
    (STARTED, None),
    ({"type": "model_load.start", "model_instance_id": GEMMA}, Progress(LOADING)),
    ({"type": "model_load.progress", "progress": 0.65}, Progress(LOADING, 65, 100, "%")),
    ({"type": "model_load.progress", "progress": 7}, Progress(LOADING)),
    ({"type": "model_load.end", "load_time_seconds": 12.34}, Progress(LOADING)),
    ({"type": "prompt_processing.start"}, Progress(READ)),
    ({"type": "prompt_processing.progress", "progress": 0.5}, Progress(READ, 50, 100, "%")),
    ({"type": "prompt_processing.progress", "progress": "x"}, Progress(READ)),
    ({"type": "prompt_processing.progress", "progress": float("nan")}, Progress(READ)),
    ({"type": "prompt_processing.progress", "progress": -(10**300)}, Progress(READ)),
    ({"type": "prompt_processing.progress", "progress": 1}, Progress(READ, 100, 100, "%")),
    ({"type": "something.new", "progress": {}}, Progress(READ, 100, 100, "%")),
    ({"type": "message.start"}, Progress(READ, 100, 100, "%")),
]


def test_what_the_events_say_before_the_answer() -> None:
    decoder = LMStudioDecoder(lambda: None)
    for event, progress in STEPS:
        assert list(decoder.feed(json.loads(json.dumps(event)))) == []
        assert decoder.progress == progress, event


def test_the_end_is_needed() -> None:
    decoder = LMStudioDecoder(lambda: None)
    decoder.feed({"type": "message.delta", "content": "Hi"})
    with pytest.raises(CutOff):
        list(decoder.close())
    decoder.feed({"type": "chat.end", "result": {"stats": {"input_tokens": "many"}}})
    assert list(decoder.close()) == [Finished("stop")]


def test_an_error_in_the_stream() -> None:
    with pytest.raises(ErrorReported, match="no memory"):
        LMStudioDecoder(lambda: None).feed({"type": "error", "error": {"message": "no memory"}})
