"""Tool calls as servers send them, whole, in fragments or cut anywhere: each comes out whole."""

import json
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import pytest

from llm_localrun.errors import BadReply
from llm_localrun.servers.base import Server
from llm_localrun.wire import openai
from llm_localrun.wire.events import Event, Finished, ReasoningDelta, TextDelta, ToolCall
from llm_localrun.wire.response import ResponseHead
from llm_localrun.wire.sse import Payload
from tests.fakes.http_server import transcript
from tests.support.replies import (
    Outcome,
    at_once,
    chunk,
    cut_anywhere,
    decode,
    dialect_of,
    head_of,
    recorded,
    sse,
    streamed,
    whole,
)
from tests.support.servers import OLLAMA, OPENAI

# What an Ollama has sent.

RECORDED = [
    ("tools_go", 0, "call_j23lfbic"),
    ("tools_go", 1, "call_u0hpr3g8"),
    ("tools_native", 0, "xAlUZf19eaU8eLTFY0ir5YqSNs8YY984"),
    ("tools_native", 1, "yXXLWGJ9e0ZjdEzkavGEP6eeWFBsAnYX"),
]


@pytest.mark.parametrize(("name", "index", "call_id"), RECORDED)
def test_recorded_calls(name: str, index: int, call_id: str) -> None:
    call, finished = recorded(name, index).events
    assert call == ToolCall(call_id, "get_weather", '{"city": "Paris"}')
    assert isinstance(finished, Finished)
    assert (finished.finish_reason, finished.completion_tokens) == ("stop", 31)


@pytest.mark.parametrize(("name", "index", "call_id"), RECORDED)
def test_recorded_calls_cut_at_every_byte(name: str, index: int, call_id: str) -> None:
    exchange = transcript(name)[index]
    dialect, head, body = dialect_of(exchange), head_of(exchange), exchange.body
    uncut = decode(dialect, head, [body])
    for at in range(len(body) + 1):
        assert decode(dialect, head, [body[:at], body[at:]]) == uncut
    assert [call.id for call in uncut.calls] == [call_id]


# What others say that servers send. A call is identified by its index; an id of "" stands for any.


def fragment(
    index: int | None = None, id: str | None = None, name: str | None = None, arguments: Any = None
) -> Payload:
    """A call or a piece of one, with what is not None."""
    function = {"name": name, "arguments": arguments}
    outer = {"index": index, "id": id, "type": "function" if id else None}
    return {
        **{key: value for key, value in outer.items() if value is not None},
        "function": {key: value for key, value in function.items() if value is not None},
    }


def calls(*fragments: Payload) -> Payload:
    return chunk(tool_calls=list(fragments))


ROME, OSLO = '{"city": "Rome"}', '{"city": "Oslo"}'
BOTH = [("a", "weather", ROME), ("b", "time", OSLO)]

FRAGMENTS: dict[str, tuple[list[Payload], list[tuple[str, str, str]]]] = {
    "whole, at once": (
        [calls(fragment(0, "a", "weather", ROME), fragment(1, "b", "time", OSLO))],
        BOTH,
    ),
    "whole, one after the other": (
        [calls(fragment(0, "a", "weather", ROME)), calls(fragment(1, "b", "time", OSLO))],
        BOTH,
    ),
    "arguments in pieces": (
        [
            calls(fragment(0, "a", "weather", "")),
            *(calls(fragment(0, arguments=character)) for character in ROME),
            calls(fragment(1, "b", "time", "")),
            *(calls(fragment(1, arguments=character)) for character in OSLO),
        ],
        BOTH,
    ),
    "interleaved": (
        [
            calls(fragment(0, "a", "weather")),
            calls(fragment(1, "b", "time")),
            calls(fragment(1, arguments=OSLO[:3]), fragment(0, arguments=ROME[:5])),
            calls(fragment(0, arguments=ROME[5:])),
            calls(fragment(1, arguments=OSLO[3:])),
        ],
        BOTH,
    ),
    "the id in every fragment": (
        [
            calls(fragment(0, "a", "weather", ROME[:4])),
            calls(fragment(0, "a", arguments=ROME[4:])),
            calls(fragment(1, "b", "time", OSLO)),
        ],
        BOTH,
    ),
    "an empty id and name in later fragments": (
        [
            calls(fragment(0, "a", "weather", ROME[:4])),
            calls(fragment(0, "", "", ROME[4:])),
            calls(fragment(1, "b", "time", OSLO)),
        ],
        BOTH,
    ),
    "an id that comes late": (
        [calls(fragment(0, None, "weather")), calls(fragment(0, "a", arguments=ROME))],
        [("", "weather", ROME)],
    ),
    "another id in every fragment": (
        [calls(fragment(0, "a", "weather")), calls(fragment(0, "x", arguments=ROME))],
        BOTH[:1],
    ),
    "a name in pieces": (
        [calls(fragment(0, "a", "wea")), calls(fragment(0, name="ther", arguments=ROME))],
        BOTH[:1],
    ),
    "indexes from one": (
        [calls(fragment(1, "a", "weather", ROME)), calls(fragment(2, "b", "time", OSLO))],
        BOTH,
    ),
    "in the order in which they begin": (
        [
            calls(fragment(7, "a", "weather")),
            calls(fragment(2, "b", "time", OSLO)),
            calls(fragment(7, arguments=ROME)),
        ],
        BOTH,
    ),
    "one index for different calls": (
        [calls(fragment(0, "a", "weather", ROME)), calls(fragment(0, "b", "time", OSLO))],
        BOTH,
    ),
    "one index for different calls, in pieces": (
        [
            calls(fragment(0, "a", "weather", "")),
            calls(fragment(0, arguments=ROME)),
            calls(fragment(0, "b", "time", "")),
            calls(fragment(0, arguments=OSLO)),
        ],
        BOTH,
    ),
    "no index": (
        [calls(fragment(None, "a", "weather", ROME)), calls(fragment(None, "b", "time", OSLO))],
        BOTH,
    ),
    "no index, at once": (
        [calls(fragment(None, "a", "weather", ROME), fragment(None, "b", "time", OSLO))],
        BOTH,
    ),
    "an index for one of them only": (
        [calls(fragment(1, "a", "weather", ROME)), calls(fragment(None, "b", "time", OSLO))],
        BOTH,
    ),
    "no ids": (
        [calls(fragment(0, None, "weather", ROME)), calls(fragment(1, None, "weather", OSLO))],
        [("", "weather", ROME), ("", "weather", OSLO)],
    ),
    "empty ids": (
        [calls(fragment(0, "", "weather", ROME)), calls(fragment(1, "", "weather", OSLO))],
        [("", "weather", ROME), ("", "weather", OSLO)],
    ),
    "numbers for ids, as LM Studio gives": (
        [calls(fragment(0, "365174485", "time", ROME)), calls(fragment(1, "1", "time", OSLO))],
        [("", "time", ROME), ("", "time", OSLO)],
    ),
    "one id for two calls": (
        [calls(fragment(0, "a", "time", ROME)), calls(fragment(1, "a", "time", OSLO))],
        [("a", "time", ROME), ("", "time", OSLO)],
    ),
    "no arguments": (
        [calls(fragment(0, "a", "weather")), calls(fragment(1, "b", "time", ""))],
        [("a", "weather", "{}"), ("b", "time", "{}")],
    ),
    "arguments that are cut off": (
        [calls(fragment(0, "a", "weather", ROME[:-2])), calls(fragment(1, "b", "time", OSLO))],
        [("a", "weather", ROME[:-2]), BOTH[1]],
    ),
    "arguments that are no JSON": (
        [calls(fragment(0, "a", "weather", "city=Rome"))],
        [("a", "weather", "city=Rome")],
    ),
    "arguments that are no object": (
        [calls(fragment(0, "a", "weather", '["Rome"]'))],
        [("a", "weather", '["Rome"]')],
    ),
    "one tool twice": (
        [calls(fragment(0, "a", "weather", ROME)), calls(fragment(1, "b", "weather", ROME))],
        [("a", "weather", ROME), ("b", "weather", ROME)],
    ),
    "none": ([calls()], []),
    "nothing, in place of the list": ([chunk(tool_calls=None), chunk(tool_calls="")], []),
    "nothing, in the list": ([chunk(tool_calls=[None]), chunk(tool_calls=[{}])], []),
    "a call with nothing in it, in each chunk": (
        [calls(fragment(0, "", "", ""))] * 3,
        [],
    ),
    # As MiniMax behind NVIDIA NIM, Fireworks and vLLM (GLM) send it.
    "the name in every fragment": (
        [
            calls(fragment(0, "a", "weather", ROME[:4])),
            calls(fragment(0, "a", "weather", ROME[4:9])),
            calls(fragment(0, "a", "weather", ROME[9:])),
            calls(fragment(1, "b", "time", OSLO[:4])),
            calls(fragment(1, "b", "time", OSLO[4:])),
        ],
        BOTH,
    ),
    "the name in every fragment, without ids": (
        [
            calls(fragment(0, None, "weather", "")),
            calls(fragment(0, None, "weather", ROME[:4])),
            calls(fragment(0, None, "weather", ROME[4:])),
        ],
        [("", "weather", ROME)],
    ),
    "the name again at the end, without arguments": (
        [calls(fragment(0, "a", "weather", ROME)), calls(fragment(0, "a", "weather", ""))],
        BOTH[:1],
    ),
    "a name in pieces, and whole at the end": (
        [
            calls(fragment(0, "a", "wea")),
            calls(fragment(0, None, "ther")),
            calls(fragment(0, "a", "weather", ROME)),
        ],
        BOTH[:1],
    ),
    # As Gemini's gateways and Continue's proxy send it.
    "no index, in pieces": (
        [
            calls(fragment(None, "a", "weather", "")),
            *(calls(fragment(arguments=character)) for character in ROME),
            calls(fragment(None, "b", "time", "")),
            *(calls(fragment(arguments=character)) for character in OSLO),
        ],
        BOTH,
    ),
    "no index, and the id in every fragment": (
        [
            calls(fragment(None, "a", "weather", ROME[:4])),
            calls(fragment(None, "b", "time", OSLO[:4])),
            calls(fragment(None, "a", arguments=ROME[4:])),
            calls(fragment(None, "b", arguments=OSLO[4:])),
        ],
        BOTH,
    ),
    "no index, and the id and the name in every fragment": (
        [
            calls(fragment(None, "a", "weather", ROME[:4])),
            calls(fragment(None, "a", "weather", ROME[4:])),
            calls(fragment(None, "b", "time", OSLO[:4])),
            calls(fragment(None, "b", "time", OSLO[4:])),
        ],
        BOTH,
    ),
    "no index and no id, in pieces": (
        [
            calls(fragment(name="weather")),
            calls(fragment(arguments=ROME[:4])),
            calls(fragment(arguments=ROME[4:])),
            calls(fragment(name="time", arguments=OSLO[:4])),
            calls(fragment(arguments=OSLO[4:])),
        ],
        [("", "weather", ROME), ("", "time", OSLO)],
    ),
    "no index and no id, the name in every fragment": (
        [
            calls(fragment(name="weather", arguments=ROME[:4])),
            calls(fragment(name="weather", arguments=ROME[4:])),
            calls(fragment(name="time", arguments=OSLO)),
        ],
        [("", "weather", ROME), ("", "time", OSLO)],
    ),
    "no index and no id, one whole call after the other": (
        [calls(fragment(name="weather", arguments=text)) for text in (ROME, OSLO, OSLO)],
        [("", "weather", ROME), ("", "weather", OSLO), ("", "weather", OSLO)],
    ),
    "no index and no id, whole calls at once": (
        [calls(fragment(name="time"), fragment(name="time"), fragment(name="time"))],
        [("", "time", "{}")] * 3,
    ),
    "an index that comes late": (
        [calls(fragment(None, "a", "weather", ROME[:4])), calls(fragment(0, arguments=ROME[4:]))],
        BOTH[:1],
    ),
    # As vLLM sent it with speculative decoding.
    "two fragments of one call at once": (
        [
            calls(fragment(0, "a", "weather"), fragment(0, arguments=ROME[:4])),
            calls(fragment(0, arguments=ROME[4:])),
        ],
        BOTH[:1],
    ),
    "two fragments of one call at once, without an index": (
        [
            calls(fragment(None, "a", "weather"), fragment(arguments=ROME[:4])),
            calls(fragment(arguments=ROME[4:])),
        ],
        BOTH[:1],
    ),
    # As LM Studio and Poolside have sent it.
    "another id in every fragment, without an index": (
        [
            calls(fragment(None, "a", "weather")),
            calls(fragment(None, "x", arguments=ROME[:4])),
            calls(fragment(None, "y", "", ROME[4:])),
            calls(fragment(None, "b", "time")),
            calls(fragment(None, "z", arguments=OSLO)),
        ],
        BOTH,
    ),
    "another id and the name in every fragment": (
        [
            calls(fragment(0, "a", "weather", ROME[:4])),
            calls(fragment(0, "x", "weather", ROME[4:])),
        ],
        BOTH[:1],
    ),
    # As Ollama's /v1, Gemini's and others' gateways number them.
    "one index for different calls, without ids": (
        [
            calls(fragment(0, "", "weather", ROME)),
            calls(fragment(0, "", "weather", OSLO)),
            calls(fragment(0, "", "time", OSLO[:4])),
            calls(fragment(0, "", "", OSLO[4:])),
        ],
        [("", "weather", ROME), ("", "weather", OSLO), ("", "time", OSLO)],
    ),
    "one index and one id for different calls": (
        [calls(fragment(0, "a", "weather", ROME)), calls(fragment(0, "a", "weather", OSLO))],
        [("a", "weather", ROME), ("", "weather", OSLO)],
    ),
    "texts for indexes": (
        [
            calls(
                {**fragment(None, "a", "weather", ROME[:4]), "index": "0"},
                {**fragment(None, "b", "time", OSLO[:4]), "index": "1"},
            ),
            calls(
                {**fragment(arguments=ROME[4:]), "index": "0"},
                {**fragment(arguments=OSLO[4:]), "index": "1"},
            ),
        ],
        BOTH,
    ),
    "null for what is not there": (
        [
            calls({**fragment(None, "a", "weather"), "index": None, "type": None}),
            calls(
                {
                    "index": None,
                    "id": None,
                    "type": None,
                    "function": {"name": None, "arguments": ROME},
                }
            ),
            calls({"index": None, "id": None, "function": None}),
        ],
        BOTH[:1],
    ),
    "numbers for ids that are no text": (
        [
            calls({**fragment(None, None, "weather", ROME[:4]), "id": 7}),
            calls({**fragment(None, None, "time", OSLO), "id": 8}),
            calls({**fragment(None, None, None, ROME[4:]), "id": 7}),
        ],
        [("", "weather", ROME), ("", "time", OSLO)],
    ),
    "a single call in place of the list": (
        [chunk(tool_calls=fragment(0, "a", "weather", ROME))],
        BOTH[:1],
    ),
    # As DeepSeek behind Qianfan streams them.
    "arguments that repeat what came before": (
        [calls(fragment(0, "a", "weather", ROME[:end])) for end in range(1, len(ROME) + 1)],
        BOTH[:1],
    ),
    "arguments that repeat what came before, and the name too": (
        [calls(fragment(0, "a", "weather", text)) for text in ("", ROME[:4], ROME, ROME)],
        BOTH[:1],
    ),
    "arguments in pieces that look like the beginning": (
        [calls(fragment(0, "a", "weather", '{"a": ')), calls(fragment(0, arguments='{"a": 1}}'))],
        [("a", "weather", '{"a": {"a": 1}}')],
    ),
    # As some of OpenAI's own models do.
    "arguments in pieces, and whole at the end": (
        [
            *(calls(fragment(0, "a", "weather", piece)) for piece in (ROME[:4], ROME[4:])),
            calls(fragment(0, "a", "weather", ROME.replace(" ", ""))),
        ],
        [("a", "weather", ROME.replace(" ", ""))],
    ),
    "an empty object before the arguments": (
        [
            calls(fragment(0, "a", "weather", "{}")),
            calls(fragment(0, arguments=ROME[:4])),
            calls(fragment(0, arguments=ROME[4:])),
            calls(fragment(1, "b", "time", {})),
            calls(fragment(1, "b", "time", OSLO)),
        ],
        BOTH,
    ),
    "null before the arguments": (
        [calls(fragment(0, "a", "weather", "null")), calls(fragment(0, arguments=ROME))],
        BOTH[:1],
    ),
    "two objects that one call cannot have": (
        [
            calls(fragment(0, "a", "weather", ROME)),
            calls(fragment(0, arguments=OSLO)),
            calls(fragment(1, "b", "time", OSLO)),
        ],
        [("a", "weather", ROME + OSLO), BOTH[1]],
    ),
    "an object in every fragment": (
        [calls(fragment(0, "a", "weather", json.loads(ROME)))] * 2,
        BOTH[:1],
    ),
    # As before `tool_calls`.
    "a function call": (
        [
            chunk(function_call={"name": "weather", "arguments": ""}),
            chunk(function_call={"arguments": ROME[:4]}),
            chunk(function_call={"name": "weather", "arguments": ROME[4:]}),
            chunk(function_call=None),
        ],
        [("", "weather", ROME)],
    ),
    "a function call that is a tool call too": (
        [
            chunk(
                tool_calls=[fragment(0, "a", "weather", ROME)],
                function_call={"name": "weather", "arguments": ROME},
            )
        ],
        BOTH[:1],
    ),
}


def calls_of(outcome: Outcome, expected: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The calls, with "" for an id that is not the server's, and does not matter."""
    given = {call_id for call_id, _, _ in expected}
    return [
        (call.id if call.id in given else "", call.name, call.arguments) for call in outcome.calls
    ]


TOOLS = ("weather", "time")


@pytest.mark.parametrize("case", FRAGMENTS)
@pytest.mark.parametrize(
    ("finish_reason", "tools"), [("tool_calls", TOOLS), ("tool_calls", ()), ("stop", TOOLS)]
)
def test_fragments(finish_reason: str, tools: tuple[str, ...], case: str) -> None:
    chunks, expected = FRAGMENTS[case]
    head, body = streamed(OPENAI, *chunks, chunk(finish_reason))
    outcome = decode(OPENAI, head, [body], tools=tools)
    assert calls_of(outcome, expected) == expected
    assert outcome.events == [*outcome.calls, Finished(finish_reason)]
    ids = [call.id for call in outcome.calls]
    assert len({*ids}) == len(ids)
    assert not any(call_id == "" or call_id.isdigit() for call_id in ids)
    for cut in cut_anywhere(OPENAI, head, body, tools=tools):
        assert calls_of(cut, expected) == expected


# Names in pieces, and the calls that they mean with these tools.

NAMES: list[tuple[list[str], tuple[str, ...], list[str]]] = [
    (["add", "add"], ("add",), ["add"]),
    (["add", "add"], ("addadd",), ["addadd"]),
    (["add", "add"], ("add", "addadd"), ["add"]),
    (["add", "add"], (), ["add"]),
    (["add"] * 5, ("add", "time"), ["add"]),
    (["ad", "d"], ("add",), ["add"]),
    (["ad", "d"], (), ["add"]),
    (["a", "d", "d"], ("add", "a_d"), ["add"]),
    (["a", "dd", "add"], ("add",), ["add"]),
    (["ad", "add"], ("add",), ["add"]),
    (["ad", "add"], ("adadd",), ["adadd"]),
    (["time", "date"], ("time", "date"), ["time", "date"]),
    (["time", "date"], ("timedate",), ["timedate"]),
    (["get", "get_all"], ("get", "get_all"), ["get", "get_all"]),
    (["nothing"], ("add",), ["nothing"]),
    (["ge", "get_we", "get_weather"], ("get_weather", "get_time"), ["get_weather"]),
    (["ge", "get_we", "get_weather"], (), ["get_weather"]),
    (["g", "ge", "get", "get_", "get_all", "get_all"], ("get_all",), ["get_all"]),
    (["ge", "get", "time"], ("get", "time"), ["get", "time"]),
]


@pytest.mark.parametrize(("pieces", "tools", "expected"), NAMES)
@pytest.mark.parametrize("index", [0, None])
def test_names_in_pieces(
    index: int | None, pieces: list[str], tools: tuple[str, ...], expected: list[str]
) -> None:
    chunks = [calls(fragment(index, name=piece)) for piece in pieces]
    head, body = streamed(OPENAI, *chunks, calls(fragment(index, arguments=ROME)), chunk("stop"))
    outcome = decode(OPENAI, head, [body], tools=tools)
    *before, last = [(call.name, call.arguments) for call in outcome.calls]
    assert [name for name, _ in (*before, last)] == expected
    assert last[1] == ROME
    assert all(arguments == "{}" for _, arguments in before)
    for cut in cut_anywhere(OPENAI, head, body, tools=tools):
        assert [call.name for call in cut.calls] == expected


# What takes a long time if the time grows with the square of the pieces: counted, not timed.

MANY: dict[str, tuple[Callable[[int], Payload], int, str]] = {
    # A piece, the calls that 400 of them make, and the arguments of the first.
    "an empty object in each": (lambda _: calls(fragment(0, None, "add", "{}")), 1, "{}"),
    "one object in each": (lambda _: calls(fragment(0, None, "add", ROME)), 1, ROME),
    "an id in each": (lambda n: calls(fragment(0, f"x{n}", "add", "a")), 1, "a" * 400),
    "a call in each": (lambda n: calls(fragment(n, f"x{n}", "add", "{}")), 400, "{}"),
    "a call in each, without an index": (
        lambda n: calls(fragment(None, f"x{n}", "add", ROME)),
        400,
        ROME,
    ),
    "a name in each": (lambda _: calls(fragment(0, None, "a" * 30)), 1, "{}"),
}


def steps(act: Callable[[], object]) -> int:
    """How many lines of the package are executed, a line of a loop once for each round."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace if "llm_localrun" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(("piece", "made", "arguments"), MANY.values(), ids=MANY)
def test_many_pieces(piece: Callable[[int], Payload], made: int, arguments: str) -> None:
    def outcome(count: int) -> Outcome:
        head, body = streamed(OPENAI, *map(piece, range(count)), chunk("stop"))
        return decode(OPENAI, head, [body])

    found = outcome(400).calls
    assert (len(found), found[0].arguments) == (made, arguments)
    assert steps(lambda: outcome(400)) < 3 * steps(lambda: outcome(200))


@pytest.mark.parametrize("text", ["{}", ROME, "a"])
def test_pieces_are_not_read_again_for_each_that_follows(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def counting(pieces: Sequence[str]) -> str:
        read.append(len(pieces))
        return arguments_in(pieces)

    arguments_in = openai._arguments_in
    monkeypatch.setattr(openai, "_arguments_in", counting)
    chunks = [calls(fragment(0, f"x{n}" if text == "a" else None, "add", text)) for n in range(999)]
    head, body = streamed(OPENAI, *chunks, chunk("stop"))
    assert len(decode(OPENAI, head, [body]).calls) == 1
    assert read[-1] == 999
    assert len(read) <= 101


def test_no_two_replies_share_an_id() -> None:
    """LM Studio counts from the beginning each time."""
    head, body = streamed(OPENAI, calls(fragment(0, "1", "time", "{}")), chunk("tool_calls"))
    ids = [decode(OPENAI, head, [body]).calls[0].id for _ in range(100)]
    assert len({*ids}) == 100


# Whole messages, streamed or not: what comes of the same calls in each dialect.


def at_openai(call_id: str | None, name: str, arguments: str) -> Payload:
    return fragment(None, call_id, name, arguments)


def at_ollama(call_id: str | None, name: str, arguments: str) -> Payload:
    return fragment(None, call_id, name, json.loads(arguments))


def messages(dialect: Server, made: list[Payload], **said: Any) -> tuple[Payload, Payload]:
    """A message that ends its reply, as a piece of a stream and at once."""
    if dialect is OLLAMA:
        payload = {"message": {"tool_calls": made, **said}, "done": True}
        return payload, payload
    return chunk("stop", tool_calls=made, **said), whole("stop", tool_calls=made, **said)


WHOLE: dict[str, tuple[list[tuple[str | None, str, str]], list[tuple[str, str, str]]]] = {
    "one": ([("a", "weather", ROME)], [("a", "weather", ROME)]),
    "several, in their order": (
        [("z", "weather", ROME), ("a", "time", OSLO), ("m", "weather", "{}")],
        [("z", "weather", ROME), ("a", "time", OSLO), ("m", "weather", "{}")],
    ),
    "without ids": (
        [(None, "weather", ROME), (None, "weather", ROME)],
        [("", "weather", ROME), ("", "weather", ROME)],
    ),
    "with empty ids": (
        [("", "weather", ROME), ("", "time", OSLO)],
        [("", "weather", ROME), ("", "time", OSLO)],
    ),
    "with one id": (
        [("a", "weather", ROME), ("a", "time", OSLO)],
        [("a", "weather", ROME), ("", "time", OSLO)],
    ),
    "with numbers for ids": (
        [("0", "weather", ROME), ("1", "time", OSLO)],
        [("", "weather", ROME), ("", "time", OSLO)],
    ),
}


@pytest.mark.parametrize("case", WHOLE)
@pytest.mark.parametrize("dialect", [OPENAI, OLLAMA])
@pytest.mark.parametrize("way", ["streamed", "unstreamed"])
def test_whole_calls(way: str, dialect: Server, case: str) -> None:
    made, expected = WHOLE[case]
    wire = at_ollama if dialect is OLLAMA else at_openai
    piece, one = messages(dialect, [wire(*call) for call in made])
    head, body = at_once(one) if way == "unstreamed" else streamed(dialect, piece)
    outcome = decode(dialect, head, [body])
    assert calls_of(outcome, expected) == expected
    ids = [call.id for call in outcome.calls]
    assert len({*ids}) == len(ids)
    assert not any(call_id == "" or call_id.isdigit() for call_id in ids)
    for cut in cut_anywhere(dialect, head, body):
        assert calls_of(cut, expected) == expected


def test_calls_in_several_lines_of_ollama_have_ids_of_their_own() -> None:
    lines: list[Payload] = [
        {"message": {"tool_calls": [at_ollama("a", name, "{}")]}, "done": False}
        for name in ("one", "two", "three")
    ]
    head, body = streamed(OLLAMA, *lines, {"message": {}, "done": True})
    made = decode(OLLAMA, head, [body]).calls
    assert [call.name for call in made] == ["one", "two", "three"]
    assert made[0].id == "a"
    assert len({call.id for call in made}) == 3


@pytest.mark.parametrize(
    "said",
    [
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": None, "tool_calls": None},
        {"role": "assistant", "content": "", "tool_calls": [], "function_call": None},
        {"tool_calls": "none"},
        {"tool_calls": False, "function_call": False},
        {"tool_calls": 0, "function_call": "none"},
        {"tool_calls": [False, 0, None, ""]},
    ],
)
def test_no_calls(said: Payload) -> None:
    for head, body in (
        at_once(whole("stop", **said)),
        streamed(OPENAI, chunk(**said), chunk("stop", **said)),
    ):
        assert decode(OPENAI, head, [body]).events == [Finished("stop")]
    head, body = at_once({"message": {**said, "content": "Hi"}, "done": True})
    assert decode(OLLAMA, head, [body]).events == [TextDelta("Hi"), Finished("stop")]


@pytest.mark.parametrize(
    ("dialect", "events"),
    [
        pytest.param(
            dialect,
            [
                ReasoningDelta("Hm."),
                TextDelta("See."),
                ToolCall("a", "weather", ROME),
                Finished("stop"),
            ],
            id=name,
        )
        for name, dialect in (("OpenAI", OPENAI), ("Ollama", OLLAMA))
    ],
)
@pytest.mark.parametrize("way", ["streamed", "unstreamed"])
def test_thinking_and_text_come_before_the_calls(
    way: str, dialect: Server, events: list[Event]
) -> None:
    wire = at_ollama if dialect is OLLAMA else at_openai
    key = "thinking" if dialect is OLLAMA else "reasoning_content"
    piece, one = messages(dialect, [wire("a", "weather", ROME)], content="See.", **{key: "Hm."})
    head, body = at_once(one) if way == "unstreamed" else streamed(dialect, piece)
    assert decode(dialect, head, [body]).events == events


def test_calls_of_an_answer_that_breaks_off_are_not_made() -> None:
    """Their arguments may be half of what the model would have written."""
    body = sse(calls(fragment(0, "a", "weather", ROME)))
    outcome = decode(OPENAI, ResponseHead(200, "text/event-stream"), [body])
    assert (outcome.calls, outcome.error) == ([], BadReply)


# One whole call, as it is sent, and what it means: its name and its arguments.


def quoted(text: str) -> str:
    return json.dumps(text)


MEANINGS: dict[str, tuple[Any, tuple[str, str]]] = {
    "an object": (fragment(0, "a", "weather", json.loads(ROME)), ("weather", ROME)),
    "a text": (fragment(0, "a", "weather", ROME), ("weather", ROME)),
    "a text in a text": (fragment(0, "a", "weather", quoted(ROME)), ("weather", ROME)),
    "no arguments": (fragment(0, "a", "time"), ("time", "{}")),
    "null": ({"id": "a", "function": {"name": "time", "arguments": None}}, ("time", "{}")),
    "null as text": (fragment(0, "a", "time", "null"), ("time", "{}")),
    "null in a text": (fragment(0, "a", "time", quoted("null")), ("time", "{}")),
    "empty": (fragment(0, "a", "time", ""), ("time", "{}")),
    "blank": (fragment(0, "a", "time", " \n\t"), ("time", "{}")),
    "an empty object": (fragment(0, "a", "time", {}), ("time", "{}")),
    "an empty text in a text": (fragment(0, "a", "time", quoted("")), ("time", "{}")),
    "a list": (fragment(0, "a", "weather", ["Rome"]), ("weather", '["Rome"]')),
    "a number": (fragment(0, "a", "weather", 7), ("weather", "7")),
    "false": (fragment(0, "a", "weather", False), ("weather", "false")),
    "prose": (fragment(0, "a", "weather", "Rome"), ("weather", "Rome")),
    "prose in a text": (fragment(0, "a", "weather", quoted("Rome")), ("weather", quoted("Rome"))),
    "half an object": (fragment(0, "a", "weather", ROME[:-1]), ("weather", ROME[:-1])),
    "half a surrogate pair": (
        fragment(0, "a", "weather", '{"city": "\ud83d"}'),
        ("weather", '{"city": "\ufffd"}'),
    ),
    "parameters": (
        {"id": "a", "function": {"name": "weather", "parameters": json.loads(ROME)}},
        ("weather", ROME),
    ),
    "without a function": ({"id": "a", "name": "weather", "arguments": ROME}, ("weather", ROME)),
    "beside a null function": (
        {"id": "a", "function": None, "name": "weather", "arguments": json.loads(ROME)},
        ("weather", ROME),
    ),
    "a name for the function": (
        {"id": "a", "function": "weather", "arguments": ROME},
        ("weather", ROME),
    ),
    "of another type": (
        {**fragment(0, "a", "weather", ROME), "type": "tool"},
        ("weather", ROME),
    ),
    "with a text for its index": (
        {**fragment(None, "a", "weather", ROME), "index": "first"},
        ("weather", ROME),
    ),
    "with an object for its id": (
        {**fragment(0, None, "weather", ROME), "id": {"a": 1}},
        ("weather", ROME),
    ),
    "an empty list": (fragment(0, "a", "time", []), ("time", "{}")),
    "an empty list as text": (fragment(0, "a", "time", "[]"), ("time", "{}")),
    "input": ({"id": "a", "name": "weather", "input": json.loads(ROME)}, ("weather", ROME)),
    "args": ({"function": {"name": "weather", "args": json.loads(ROME)}}, ("weather", ROME)),
    "args beside null": (
        {"name": "weather", "arguments": None, "args": json.loads(ROME)},
        ("weather", ROME),
    ),
    "arguments beside the function": (
        {"id": "a", "function": {"name": "weather"}, "arguments": ROME},
        ("weather", ROME),
    ),
    # What has no meaning is an error for the model, which is told.
    "a text for a call": ("weather", ("", "weather")),
    "a list for a call": (["weather"], ("", '["weather"]')),
    "an id alone": ({"id": "a"}, ("", "{}")),
    "no name": ({"function": {"arguments": json.loads(ROME)}}, ("", ROME)),
    "null for a name": ({"function": {"name": None, "arguments": ROME}}, ("", ROME)),
}


@pytest.mark.parametrize("case", MEANINGS)
@pytest.mark.parametrize("dialect", [OPENAI, OLLAMA])
@pytest.mark.parametrize("way", ["streamed", "unstreamed"])
def test_meanings(way: str, dialect: Server, case: str) -> None:
    """The call beside it, and the text before it, are what they are in any case."""
    sent, expected = MEANINGS[case]
    good = fragment(1, "b", "time", json.loads(OSLO) if dialect is OLLAMA else OSLO)
    piece, one = messages(dialect, [sent, good], content="See.")
    head, body = at_once(one) if way == "unstreamed" else streamed(dialect, piece)
    outcome = decode(dialect, head, [body], tools=TOOLS)
    assert outcome.text == "See."
    made = [(call.name, call.arguments) for call in outcome.calls]
    assert made == [expected, ("time", OSLO)]
    assert all(call.id for call in outcome.calls)
    for cut in cut_anywhere(dialect, head, body, tools=TOOLS):
        assert [(call.name, call.arguments) for call in cut.calls] == made
