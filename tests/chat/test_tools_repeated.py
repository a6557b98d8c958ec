"""Chains that end: a model that makes the same call again and again is told so, and then stopped.

llm's own limit of a chain is set aside, but for one test.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llm
import pytest

from llm_localrun.chat.tools import repeats_in, with_repeats_noted
from llm_localrun.errors import RepeatedCall
from llm_localrun.wire.request import ChatMessage, ChatRequest, Media, PastCall
from tests.fakes.http_server import StandIn
from tests.fakes.says import Call, Says
from tests.support.contract import NAMES, chain, command, respond_as, saying, sent, turns
from tests.support.drive import WAYS
from tests.support.snapshots import point_at
from tests.support.trees import put_lmstudio_files

in_every_way = pytest.mark.parametrize("way", WAYS)
at_every_server = pytest.mark.parametrize("kind", ["ollama", "lmstudio"])

QUESTION = "What is the weather in Paris?"
PARIS = Call("get_weather", {"city": "Paris", "days": 1})
FUNCTIONS = """
import itertools
ticks = itertools.count()
def get_weather(city: str, days: int) -> str:
    return "sunny"
def clock() -> int:
    return next(ticks)
"""
NOTE = "\n\n[You have made this call 3 times with the same arguments"
LOOP = "is in a loop: it has called"


# What counts as the same call with the same result

Made = tuple[str, Any, str]
"""A call's name, its arguments, and its result."""

A: Made = ("a", {"x": 1, "y": [1, 2]}, "r")
B: Made = ("b", {}, "r")
SWAPPED: Made = ("a", {"y": [1, 2], "x": 1}, "r")
EQUAL: Made = ("a", {"x": 1.0, "y": [1, 2]}, "r")
OTHER: Made = ("a", {"x": 2, "y": [1, 2]}, "r")
TRUE: Made = ("a", {"x": True, "y": [1, 2]}, "r")
CHANGED: Made = (*A[:2], "s")
ODD: Made = ("a", {"_raw": '{"city": "Par'}, "Error")
JSON_RESULTS = [
    (*A[:2], text) for text in ('{"b": 1, "c": 2}', '{"c":2,"b":1.0}', '{"c":2, "b":1}')
]

STOPPED: dict[str, list[list[Made]]] = {
    "three times": [[A], [A], [A]],
    "another order of arguments": [[A], [SWAPPED], [A]],
    "equal numbers": [[A], [EQUAL], [A]],
    "results that are the same JSON": [[each] for each in JSON_RESULTS],
    "arguments that are no object": [[ODD], [ODD], [ODD]],
    "another call between": [[A], [B], [A], [B], [A]],
    "another call with other arguments between": [[A], [OTHER], [A], [OTHER], [A]],
    "beside another call": [[A, B], [B, A], [A]],
    "twice in a turn counts once": [[A, A], [A], [A, A]],
    "after another result": [[CHANGED], [A], [A], [A]],
}
FREE: dict[str, list[list[Made]]] = {
    "never": [],
    "twice": [[A], [A]],
    "other arguments": [[A], [OTHER], [A]],
    "true is not 1": [[A], [TRUE], [A]],
    "another tool": [[A], [("b", A[1], "r")], [A]],
    "a result that differs each time": [[(*A[:2], str(n))] for n in range(9)],
    "a result that differs once": [[A], [A], [CHANGED], [A], [A]],
    "results that differ in one turn": [[A, CHANGED]] * 9,
    "many times in one turn": [[A] * 9],
}


def asked(made: list[list[Made]]) -> list[ChatMessage]:
    """A question, and the turns of calls with their results since then."""
    messages = [ChatMessage("user", QUESTION)]
    ids = itertools.count()
    for turn in made:
        calls = [PastCall(str(next(ids)), name, arguments) for name, arguments, _ in turn]
        messages.append(ChatMessage("assistant", "", calls=tuple(calls)))
        messages += [
            ChatMessage("tool", result, call_id=call.id, tool_name=call.name)
            for call, (_, _, result) in zip(calls, turn, strict=True)
        ]
    return messages


def is_stopped(messages: list[ChatMessage], made: Made = A) -> bool:
    try:
        repeats_in(messages).check("m", made[0], made[1])
    except RepeatedCall:
        return True
    return False


def noted(messages: list[ChatMessage]) -> list[int]:
    """The indexes of the messages that tell the model."""
    sent = with_repeats_noted(ChatRequest(tuple(messages), {}, stream=True)).messages
    return [i for i, message in enumerate(sent) if NOTE in message.text]


@pytest.mark.parametrize("case", STOPPED)
def test_call_is_stopped(case: str) -> None:
    messages = asked(STOPPED[case])
    made = ODD if "no object" in case else A
    assert is_stopped(messages, made)
    assert noted(messages) != []
    assert repeats_in(messages).may_end_chain


@pytest.mark.parametrize("case", FREE)
def test_call_is_free(case: str) -> None:
    messages = asked(FREE[case])
    assert not is_stopped(messages)
    assert noted(messages) == []


def test_each_of_two_calls_is_counted_and_told_once() -> None:
    messages = asked([[A], [B], [A], [B], [A], [B], [("c", {}, "r")]])
    assert noted(messages) == [10, 12]
    assert is_stopped(messages, A)
    assert is_stopped(messages, B)
    assert not is_stopped(messages, ("c", {}, "r"))


def test_question_begins_a_new_count() -> None:
    before = asked([[A], [A], [A]])
    messages = [*before, ChatMessage("assistant", "Sunny."), ChatMessage("user", "Sure?")]
    assert not is_stopped(messages)
    assert noted(messages) == []
    assert not is_stopped([*messages, *asked([[A], [A]])[1:]])
    # Without a text, too: llm keeps nothing of such a turn, and it is filled in.
    empty = [*before, ChatMessage("assistant", "Sunny."), ChatMessage("user", "")]
    assert not is_stopped(empty)


@pytest.mark.parametrize(("pictures", "stopped"), [("aaa", True), ("abc", False)])
def test_what_a_tool_attaches_is_a_part_of_its_result(pictures: str, stopped: bool) -> None:
    messages = asked([])
    for picture in pictures:
        shot = ChatMessage("user", "", media=(Media("image/png", picture.encode()),))
        messages += [*asked([[A]])[1:], shot]
    assert is_stopped(messages) is stopped


def test_error_names_the_call_shortly_and_printably() -> None:
    made: Made = ("a\x1b[2J", {"x": "\u202e" + "z" * 10_000}, "r")
    with pytest.raises(RepeatedCall) as caught:
        repeats_in(asked([[made]] * 3)).check("local/x/m", made[0], made[1])
    said = str(caught.value)
    assert said.startswith('local/x/m is in a loop: it has called a\\x1b[2J with {"x": "\\u202ezzz')
    assert "… 4 times, and the result was the same each time." in said
    assert len(said) < 500


# Chains of llm


SAME_CALL = Says(calls=(PARIS,))
TOOLS = ["--functions", FUNCTIONS, "--cl", "0"]


def get_weather(city: str, days: int) -> str:
    return "sunny"


@dataclass
class Box:
    """A configured server, and what its model says: to each request the next, at last the same."""

    model: str
    server: StandIn
    says: list[Says]


@pytest.fixture(params=["ollama", "lmstudio"])
def box(request: pytest.FixtureRequest, user_path: Path, tmp_path: Path) -> Iterator[Box]:
    put_lmstudio_files(tmp_path / "home")
    says = [SAME_CALL]
    with StandIn(
        respond_as(request.param, lambda _: says.pop(0) if says[1:] else says[0])
    ) as server:
        point_at(user_path, server.url)
        yield Box(f"local/box/{NAMES[request.param]}", server, says)


@in_every_way
@at_every_server
def test_model_that_always_makes_the_same_call(kind: str, way: str) -> None:
    with (
        saying(kind, *[SAME_CALL] * 9) as (model, server),
        pytest.raises(RepeatedCall, match=rf'{LOOP} get_weather with {{"city": "Paris".* 4 times'),
    ):
        chain(model, QUESTION, way, tools=[get_weather])
    bodies = sent(server)
    assert len(bodies) == 4
    results = [m["content"] for m in bodies[3]["messages"] if m["role"] == "tool"]
    assert results[:2] == ["sunny", "sunny"]
    assert results[2].startswith(f"sunny{NOTE}")


@pytest.mark.parametrize("more", [(), ("--no-stream",), ("--async",), ("--no-stream", "--async")])
def test_command_ends_with_the_error_and_logs_the_turns(box: Box, more: tuple[str, ...]) -> None:
    done = command("-m", box.model, QUESTION, *TOOLS, *more)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {box.model} {LOOP} get_weather with ")
    assert len(sent(box.server)) == 4
    logged = turns(9)
    assert len(logged) == 4
    assert [len(turn["tool_calls"]) for turn in logged] == [1, 1, 1, 0]
    outputs = [result["output"] for turn in logged for result in turn["tool_results"]]
    assert outputs == ["sunny"] * 3, "the log has what the tool returned"
    assert LOOP in logged[3]["response_json"]["error"]
    assert logged[3]["input_tokens"] > 0


def test_conversation_goes_on_after_a_loop(
    box: Box,
) -> None:
    box.says[:] = [*[SAME_CALL] * 4, Says("Sunny."), SAME_CALL]
    assert command("-m", box.model, QUESTION, *TOOLS).exit_code == 1
    done = command("-c", "And now?", "--functions", FUNCTIONS)
    assert (done.exit_code, done.stdout) == (0, "Sunny.\n")
    roles = [message["role"] for message in sent(box.server)[-1]["messages"]]
    assert roles == ["user", *["assistant", "tool"] * 3, "assistant", "user"]
    results = [m["content"] for m in sent(box.server)[-1]["messages"] if m["role"] == "tool"]
    assert results == ["sunny"] * 3


def test_chat_shows_the_error_and_goes_on(box: Box) -> None:
    box.says[:] = [*[SAME_CALL] * 4, SAME_CALL, Says("Sunny.")]
    arguments = ["chat", "-m", box.model, *TOOLS]
    done = command(*arguments, input=f"{QUESTION}\nAnd now?\nexit\n")
    assert done.exit_code == 0
    assert done.stderr.count(LOOP) == 1
    assert "Sunny." in done.stdout
    assert len(sent(box.server)) == 6


def test_clock_may_be_asked_for_ever(box: Box) -> None:
    ticks = [Says(calls=(Call("clock"),))] * 8
    box.says[:] = [*ticks, Says("Late.")]
    done = command("-m", box.model, "When?", *TOOLS)
    assert (done.exit_code, done.stdout.strip()) == (0, "Late.")
    assert len(sent(box.server)) == 9


def test_no_call_of_the_last_turn_runs(box: Box) -> None:
    """A new call beside the repeated one would let the chain go on."""
    last = Says("Again.", calls=(Call("clock"), PARIS))
    box.says[:] = [*[SAME_CALL] * 3, last]
    done = command("-m", box.model, QUESTION, *TOOLS)
    assert done.exit_code == 1
    assert len(sent(box.server)) == 4
    assert turns(1)[0]["response"] == "Again."
    assert turns(1)[0]["tool_calls"] == []


def test_limit_of_llm_stays(box: Box) -> None:
    done = command("-m", box.model, QUESTION, "--functions", FUNCTIONS, "--cl", "2")
    assert done.exit_code == 1
    assert "Chain limit of 2 exceeded" in done.stderr
    assert len(sent(box.server)) == 2


def test_other_calls_than_the_repeated_one_run() -> None:
    """While a loop may end the chain, calls are held back until the answer is complete."""
    turns_ = [*[SAME_CALL] * 3, Says("Hm.", calls=(Call("look"), Call("listen"))), Says("Done.")]

    def look() -> str:
        return "dark"

    def listen() -> str:
        return "silent"

    with saying("lmstudio", *turns_) as (model, server):
        responses = chain(model, QUESTION, tools=[get_weather, look, listen])
    assert responses[-1].text() == "Done."
    assert [call.name for call in responses[3].tool_calls()] == ["look", "listen"]
    parts = [part.to_dict()["type"] for m in responses[3].messages() for part in m.parts]
    assert parts == ["text", "tool_call", "tool_call"]
    assert isinstance(responses[3], llm.Response)
    assert len(sent(server)) == 5
