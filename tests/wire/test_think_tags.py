"""Thinking that a server leaves in the text, between tags: taken apart however it is cut."""

from collections.abc import Iterable

import pytest

from llm_localrun.servers.base import Server
from llm_localrun.wire.events import Event, Finished, ReasoningDelta, TextDelta, ToolCall
from llm_localrun.wire.response import ResponseContext
from llm_localrun.wire.think_tags import ThinkTags, expect_thinking
from tests.support.replies import at_once, chunk, decode, ollama, streamed, whole
from tests.support.servers import OLLAMA, OPENAI

END = Finished("stop")
CALL = ToolCall("c1", "time", "{}")


def split(events: Iterable[Event], *, may_lack_opening: bool) -> list[Event]:
    tags = ThinkTags(expect_thinking(None, "", thinks=may_lack_opening))
    return [part for event in events for part in tags.feed(event)]


def joined(events: Iterable[Event]) -> list[Event]:
    """Neighbours of one kind made one, as llm does."""
    whole: list[Event] = []
    for event in events:
        last = whole[-1] if whole else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            whole[-1] = TextDelta(last.text + event.text)
        elif isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta):
            whole[-1] = ReasoningDelta(last.text + event.text)
        else:
            whole.append(event)
    return whole


# A text, and what it is of thinking and answer: with its opening tag, whoever the model is.
OPENED = {
    "<think>Hm.</think>Hi": ("Hm.", "Hi"),
    "<think>\nHm.\n</think>\n\nHi": ("Hm.\n", "Hi"),
    "<think>\n\n\nHm.</think>Hi": ("Hm.", "Hi"),
    "<think>  Hm.</think>Hi": ("  Hm.", "Hi"),
    " \n<think>Hm.</think>Hi": ("Hm.", "Hi"),
    "\n\n\t<think>\nHm.</think> \n Hi ": ("Hm.", "Hi "),
    "<think></think>Hi": ("", "Hi"),
    "<think>\n\n</think>\n\nHi": ("", "Hi"),
    "<think>Hm.</think>": ("Hm.", ""),
    "<think>Hm.</think>\n\n": ("Hm.", ""),
    "<think></think>": ("", ""),
    "<think>Hm.": ("Hm.", ""),
    "<think>": ("", ""),
    "<think>\n": ("", ""),
    "<think>Hm.</thin": ("Hm.</thin", ""),
    "<think>a < b </ c</think>Hi": ("a < b </ c", "Hi"),
    "<think>a</thing></think>Hi": ("a</thing>", "Hi"),
    "<think>a<</think>Hi": ("a<", "Hi"),
    "<think></thi</think>Hi": ("</thi", "Hi"),
    "<think>a<think>b</think>Hi": ("a<think>b", "Hi"),
    # The answer may write of tags as it likes.
    "<think>Hm.</think>Use <think> and </think>": ("Hm.", "Use <think> and </think>"),
    "<think>Hm.</think>Hi</think>": ("Hm.", "Hi</think>"),
    "<think>a</think><think>b</think>Hi": ("a", "<think>b</think>Hi"),
    "<think>Überlegung…</think>Grüß": ("Überlegung…", "Grüß"),
}

# Without one, the text of a model that is not known to think is its answer.
UNOPENED_ANSWERS = {
    "Hi": ("", "Hi"),
    "": ("", ""),
    "  Hi": ("", "  Hi"),
    "\n\nHi\n": ("", "\n\nHi\n"),
    "<thin": ("", "<thin"),
    "<": ("", "<"),
    "<think": ("", "<think"),
    "<thin air>": ("", "<thin air>"),
    "<thinker>Hm.</thinker>": ("", "<thinker>Hm.</thinker>"),
    "a <think>b</think> c": ("", "a <think>b</think> c"),
    "Use <think>": ("", "Use <think>"),
    "Hm.</think>Hi": ("", "Hm.</think>Hi"),
    "</think>Hi": ("", "</think>Hi"),
}

# What a model that is known to think may leave out the opening of.
UNOPENED_THOUGHTS = {
    "Hm.</think>Hi": ("Hm.", "Hi"),
    "\nHm.\n</think>\n\nHi": ("Hm.\n", "Hi"),
    "</think>Hi": ("", "Hi"),
    "\n</think>\n\nHi": ("", "Hi"),
    "Hm.</think>": ("Hm.", ""),
    "Hm. <think> Hm.</think>Hi": ("Hm. <think> Hm.", "Hi"),
    "Hm.</thin</think>Hi": ("Hm.</thin", "Hi"),
    "Hm.</think>Hi</think>": ("Hm.", "Hi</think>"),
    # It has not thought.
    "Hi": ("", "Hi"),
    "": ("", ""),
    "  Hi\n": ("", "  Hi\n"),
    "Hi <think>": ("", "Hi <think>"),
    "Hi</thin": ("", "Hi</thin"),
    "<thin": ("", "<thin"),
}

TEXTS = [
    *((text, False, *parts) for text, parts in {**OPENED, **UNOPENED_ANSWERS}.items()),
    *((text, True, *parts) for text, parts in {**OPENED, **UNOPENED_THOUGHTS}.items()),
]


def parts(thought: str, answer: str) -> list[Event]:
    thinking: list[Event] = [ReasoningDelta(thought)] if thought else []
    return [*thinking, TextDelta(answer)] if answer else thinking


def pieces(text: str) -> Iterable[list[Event]]:
    """`text` whole, cut at every position, cut at every two, and in single characters."""
    yield [TextDelta(text)] if text else []
    for at in range(1, len(text)):
        yield [TextDelta(text[:at]), TextDelta(text[at:])]
        for then in range(at + 1, len(text)):
            yield [TextDelta(text[:at]), TextDelta(text[at:then]), TextDelta(text[then:])]
    yield [TextDelta(character) for character in text]


@pytest.mark.parametrize(("text", "may_lack_opening", "thought", "answer"), TEXTS)
def test_texts(text: str, may_lack_opening: bool, thought: str, answer: str) -> None:
    for cut in pieces(text):
        found = split([*cut, END], may_lack_opening=may_lack_opening)
        assert joined(found) == [*parts(thought, answer), END], cut
        assert all(part.text for part in found if isinstance(part, TextDelta | ReasoningDelta))


@pytest.mark.parametrize(("text", "may_lack_opening", "thought", "answer"), TEXTS)
def test_what_is_held_back_comes_before_a_call(
    text: str, may_lack_opening: bool, thought: str, answer: str
) -> None:
    for cut in pieces(text):
        found = split([*cut, CALL, END], may_lack_opening=may_lack_opening)
        assert joined(found) == [*parts(thought, answer), CALL, END], cut


THOUGHT = ReasoningDelta("Hm.")


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param([THOUGHT, TextDelta("Hi")], [THOUGHT, TextDelta("Hi")], id="no tags"),
        pytest.param(
            [THOUGHT, TextDelta("a</think>b")], [THOUGHT, TextDelta("a</think>b")], id="closing"
        ),
        pytest.param(
            [THOUGHT, TextDelta("a <think>b</think>")],
            [THOUGHT, TextDelta("a <think>b</think>")],
            id="later tags",
        ),
        pytest.param(
            [TextDelta("\n"), THOUGHT, TextDelta("Hi")],
            [THOUGHT, TextDelta("Hi")],
            id="blanks before",
        ),
        pytest.param(
            [TextDelta("Hi"), THOUGHT, TextDelta(" there")],
            [TextDelta("Hi"), THOUGHT, TextDelta(" there")],
            id="text before",
        ),
        pytest.param(
            [THOUGHT, TextDelta("Hi"), THOUGHT, TextDelta("!")],
            [THOUGHT, TextDelta("Hi"), THOUGHT, TextDelta("!")],
            id="by turns",
        ),
        pytest.param([THOUGHT, CALL], [THOUGHT, CALL], id="a call"),
        # One of the server's, and one more that it has not seen.
        pytest.param(
            [THOUGHT, TextDelta("<think>So.</think>Hi")],
            [ReasoningDelta("Hm.So."), TextDelta("Hi")],
            id="another thought",
        ),
    ],
)
@pytest.mark.parametrize("may_lack_opening", [True, False])
def test_thinking_that_the_server_took_apart(
    may_lack_opening: bool, events: list[Event], expected: list[Event]
) -> None:
    assert joined(split([*events, END], may_lack_opening=may_lack_opening)) == [*expected, END]


@pytest.mark.parametrize(
    ("may_lack_opening", "expected"),
    [
        # An answer is not kept waiting.
        (False, [[TextDelta("Hi")], [TextDelta(" there")], [END]]),
        # It may turn out to be thinking.
        (True, [[], [], [TextDelta("Hi there"), END]]),
    ],
)
def test_what_is_held_back(may_lack_opening: bool, expected: list[list[Event]]) -> None:
    tags = ThinkTags(expect_thinking(None, "", thinks=may_lack_opening))
    fed: list[Event] = [TextDelta("Hi"), TextDelta(" there"), END]
    assert [[*tags.feed(event)] for event in fed] == expected


def test_thinking_is_not_kept_waiting() -> None:
    tags = ThinkTags(expect_thinking(None, "", thinks=True))
    fed = ["<think>", "Hm", ". <", "/th", "ings", "</thi", "nk>", "\n", "H", "i"]
    assert [[*tags.feed(TextDelta(text))] for text in fed] == [
        [],
        [ReasoningDelta("Hm")],
        [ReasoningDelta(". ")],
        [],
        [ReasoningDelta("</things")],
        [],
        [],
        [],
        [TextDelta("H")],
        [TextDelta("i")],
    ]


REPLIES = [
    ("<think>\nHm.\n</think>\n\nHi <think>", True, "Hm.\n", "Hi <think>"),
    ("<think>\nHm.\n</think>\n\nHi <think>", False, "Hm.\n", "Hi <think>"),
    ("Hm.</think>Hi", True, "Hm.", "Hi"),
    ("Hm.</think>Hi", False, "", "Hm.</think>Hi"),
    ("Hi", True, "", "Hi"),
]


@pytest.mark.parametrize(("text", "thinks", "thought", "answer"), REPLIES)
@pytest.mark.parametrize("dialect", [OPENAI, OLLAMA])
def test_replies(dialect: Server, text: str, thinks: bool, thought: str, answer: str) -> None:
    expected = ResponseContext(thinking=expect_thinking(None, "", thinks=thinks))
    if dialect is OLLAMA:
        one = at_once(ollama(True, content=text, done_reason="stop"))
        cuts = [
            streamed(
                dialect,
                ollama(False, content=text[:at]),
                ollama(False, content=text[at:]),
                ollama(True, done_reason="stop"),
            )
            for at in range(len(text))
        ]
    else:
        one = at_once(whole("stop", content=text))
        cuts = [
            streamed(OPENAI, chunk(content=text[:at]), chunk(content=text[at:]), chunk("stop"))
            for at in range(len(text))
        ]
    model = "qwen3-8b" if dialect is OLLAMA else None
    for head, body in (one, *cuts):
        outcome = decode(dialect, head, [body], expected)
        assert joined(outcome.events) == [*parts(thought, answer), Finished("stop", model)]
