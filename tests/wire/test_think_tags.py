"""Thinking that a server leaves in the text, between tags: taken apart however it is cut."""

from collections.abc import Callable, Iterable

import pytest

from llm_localrun.models import TemplateThinking
from llm_localrun.servers.base import Server
from llm_localrun.wire import think_tags
from llm_localrun.wire.events import Event, Finished, ReasoningDelta, TextDelta, ToolCall
from llm_localrun.wire.response import ResponseContext
from llm_localrun.wire.think_tags import (
    TAGS,
    Renderer,
    Thinking,
    ThinkTags,
    expect_thinking,
    read_template,
)
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


@pytest.mark.parametrize("blank", [" ", "\n"])
def test_blanks_without_an_end_are_not_held_back(blank: str) -> None:
    """Each piece would be joined to all that came before."""
    tags = ThinkTags(expect_thinking(None, "", thinks=False))
    assert sum(bool([*tags.feed(TextDelta(blank))]) for _ in range(10_000)) > 5000


@pytest.mark.parametrize("length", [1, 511, 512, 513, 2000])
def test_a_long_piece_is_one_event(length: int) -> None:
    """It is read in parts."""
    text = "word " * length
    fed: list[Event] = [TextDelta(f"<think>{text}</think>{text}"), END]
    tags = ThinkTags(expect_thinking(None, "", thinks=True))
    assert [part for event in fed for part in tags.feed(event)] == [
        ReasoningDelta(text),
        TextDelta(text),
        END,
    ]


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


# Every spelling, and what each looks like at a model.

SPELLINGS = {
    "DeepSeek": ("<think>", "</think>"),
    "Claude": ("<thinking>", "</thinking>"),
    "EXAONE Deep": ("<thought>", "</thought>"),
    "fine-tunes": ("<reasoning>", "</reasoning>"),
    "Seed-OSS": ("<seed:think>", "</seed:think>"),
    "MiniMax M3": ("<mm:think>", "</mm:think>"),
    "LongCat": ("<longcat_think>", "</longcat_think>"),
    "K2 Horizon": ("<ifm|think_fast>", "</ifm|think_fast>"),
    "Hunyuan": ("<think:opensource>", "</think:opensource>"),
    "Magistral": ("[THINK]", "[/THINK]"),
    "gpt-oss": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    "gpt-oss, its role too": (
        "<|start|>assistant<|channel|>analysis<|message|>",
        "<|end|>\n<|start|>assistant<|channel|>final<|message|>",
    ),
    "gpt-oss without an end": (
        "<|channel|>analysis<|message|>",
        "<|channel|>final<|message|>",
    ),
    "Gemma 4": ("<|channel>thought", "<channel|>"),
    "Gemma 4, the answer too": ("<|channel>thought", "<channel|><|channel>final\n"),
    "Command A": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "Command A, the answer too": ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    "Apertus": ("<|inner_prefix|>", "<|inner_suffix|>"),
    "Kimi VL": ("◁think▷", "◁/think▷"),
    "Kimi K3": ("<|open|>think<|sep|>", "<|close|>think<|sep|><|open|>response<|sep|>"),
    "Solar Open": ("<|think|>", "<|end|><|begin|>assistant<|content|>"),
    "Solar Open 2": ("<|think:start|>", "<|think:end|>"),
    "OpenThoughts": ("<|begin_of_thought|>", "<|end_of_thought|>\n\n<|begin_of_solution|>"),
    "a blank before the bracket": ("<think >", "</think\t>"),
}


def two_pieces(text: str) -> Iterable[list[Event]]:
    """`text` whole, cut at every position, and in single characters."""
    for at in range(len(text)):
        yield [TextDelta(part) for part in (text[:at], text[at:]) if part]
    yield [TextDelta(character) for character in text]


def check(text: str, thought: str, answer: str, expected: Thinking) -> None:
    for cut in two_pieces(text):
        tags = ThinkTags(expected)
        found = [part for event in [*cut, END] for part in tags.feed(event)]
        assert joined(found) == [*parts(thought, answer), END], cut


@pytest.mark.parametrize("spelled", [str, str.upper, str.lower])
@pytest.mark.parametrize(("opening", "closing"), SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("thinks", [True, False])
def test_spellings(opening: str, closing: str, spelled: Callable[[str], str], thinks: bool) -> None:
    expected = expect_thinking(None, "", thinks=thinks)
    if not opening.startswith("["):
        opening, closing = spelled(opening), spelled(closing)
    for text in (f"{opening}\nHm.\n{closing}Hi.", f" \n{opening}Hm.\n{closing}\n\nHi."):
        check(text, "Hm.\n", "Hi.", expected)
    check(f"{opening}\n\n{closing}Hi.", "", "Hi.", expected)
    # XML may have these.
    if thinks or opening.lower() not in ("<reasoning>", "<thought>"):
        check(f"{opening}\nHm.", "Hm.", "", expected)


def test_spellings_are_those_of_the_table() -> None:
    tried = {opening.lower() for opening, _ in SPELLINGS.values()}
    rest = {"reason", "ifm|think", "ifm|think_faster"}
    assert {f"<{name}>" for name in rest} == {
        tag.openings[0] for tag in TAGS if not tried & {opening.lower() for opening in tag.openings}
    }


# Closing tags that come alone, because the template has opened the thinking.
ALONE = [each for each in SPELLINGS if "gpt-oss" not in each and each != "Solar Open"]


@pytest.mark.parametrize("name", ALONE)
def test_closing_alone(name: str) -> None:
    opening, closing = SPELLINGS[name]
    expected = expect_thinking(None, "", thinks=True)
    check(f"\nHm.\n{closing}\n\nHi.", "Hm.\n", "Hi.", expected)
    learned = read_template(f"{{% if add_generation_prompt %}}{opening}\\n{{% endif %}}")
    check(f"Hm.{closing}Hi.", "Hm.", "Hi.", expect_thinking(learned, "", thinks=False))
    check(f"Hm.{closing}Hi.", "", f"Hm.{closing}Hi.", expect_thinking(None, "", thinks=False))


CONTROLS = {
    # Several messages of gpt-oss, and what ends them.
    "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Hi<|return|>": ("ab", "Hi"),
    "<|channel|>final<|message|>Hi": ("", "Hi"),
    "<|channel|>final<|message|>Hi<|return|>": ("", "Hi"),
    "<|channel|>commentary<|message|>I look.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Hi": ("", "I look.Hi"),
    "<|channel|>analysis<|message|>a<|end|>": ("a", ""),
    "<|channel|>analysis<|message|>a < b <|x|><|end|>Hi": ("a < b <|x|>", "Hi"),
    "<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>Hi<|END_RESPONSE|>": ("a", "Hi"),
    "<|START_RESPONSE|>Hi < there<|END_RESPONSE|>\n": ("", "Hi < there"),
    "<|START_RESPONSE|>Hi<|END_": ("", "Hi<|END_"),
    # How gpt-oss marks an answer that is JSON.
    **{
        f"<|channel|>analysis<|message|>a{end}<|channel|>final{kind}<|message|>{{}}<|return|>": (
            "a",
            "{}",
        )
        for end in ("<|end|><|start|>assistant", "")
        for kind in (" <|constrain|>json", "<|constrain|>json", " json")
    },
    "<|channel|>final <|constrain|>json<|message|>{}<|return|>": ("", "{}"),
    # Hunyuan A13B and Granite 3.3.
    "<think>\na\n</think>\n<answer>\nHi\n</answer>": ("a\n", "Hi\n"),
    "<think>a</think><response>Hi</response>": ("a", "Hi"),
    "<think>a</think><Answer>Hi": ("a", "Hi"),
    "<think>a</think><answer>Hi</answer> there": ("a", "Hi there"),
    "<think>a</think>Hi <answer>b</answer>": ("a", "Hi <answer>b</answer>"),
    "<answer>Hi</answer>": ("", "<answer>Hi</answer>"),
}


@pytest.mark.parametrize("text", CONTROLS)
def test_marks_around_the_answer(text: str) -> None:
    check(text, *CONTROLS[text], expect_thinking(None, "", thinks=False))


NESTED = {
    "<think>a<think>b</think>c</think>Hi": ("a<think>b</think>c", "Hi"),
    "<think>\na\n<think>\nb\n</think>\nc\n</think>\n\nHi": ("a\n<think>\nb\n</think>\nc\n", "Hi"),
    "<think>a<think>b<think>c</think>d</think>e</think>Hi": (
        "a<think>b<think>c</think>d</think>e",
        "Hi",
    ),
    # Only mentioned, or written twice.
    "<think>a <think> b</think>Hi": ("a <think> b", "Hi"),
    "<think>\n<think>\na</think>\nHi": ("a", "Hi"),
    "<think><think>a</think>Hi</think>": ("a", "Hi</think>"),
    "<think>a<thinking>b</thinking>c</think>Hi": ("a<thinking>b</thinking>c", "Hi"),
    "[THINK]a[THINK]b[/THINK]c[/THINK]Hi": ("a[THINK]b[/THINK]c", "Hi"),
    # What the answer has of tags is no part of the thinking.
    "<think>About <think> tags.</think>Write <think>plan</think> first.": (
        "About <think> tags.",
        "Write <think>plan</think> first.",
    ),
    "<think>About <think>.</think>Write:\n<think>\nb\n</think>\nc": (
        "About <think>.",
        "Write:\n<think>\nb\n</think>\nc",
    ),
    "<think>a\n<think>\nb</think>c\n<think>\nd</think>e</think>Hi": (
        "a\n<think>\nb</think>c\n<think>\nd</think>e",
        "Hi",
    ),
    "<think>the user`s</think>\nUse `<think>`a`</think>` here": (
        "the user`s",
        "Use `<think>`a`</think>` here",
    ),
    # The closing of another tag, if its own does not come.
    "<thinking>\na\n</think>\n\nHi": ("a\n", "Hi"),
    "<think>a</thinking>Hi": ("a", "Hi"),
    "<thinking>\na\n</think>\nb\n</thinking>\n\nHi": ("a\n</think>\nb\n", "Hi"),
    "<think>a <thinking>b</thinking> c": ("a <thinking>b</thinking> c", ""),
    # In code, where it is an example if another one follows.
    "<think>Say `</think>` here.</think>Hi": ("Say `</think>` here.", "Hi"),
    "<think>Say `<think>` here.</think>Hi</think>": ("Say `<think>` here.", "Hi</think>"),
    "<think>a\n```\n</think>\n```\nb</think>Hi": ("a\n```\n</think>\n```\nb", "Hi"),
    "<think>a\n```python\nx = 1\n</think>\n\nHi": ("a\n```python\nx = 1\n", "Hi"),
    "<think>a\n```python\n</think>\nb</think>\n```py\nx\n```": (
        "a\n```python\n",
        "b</think>\n```py\nx\n```",
    ),
}


@pytest.mark.parametrize("thinks", [True, False])
@pytest.mark.parametrize("text", NESTED)
def test_tags_within_thinking(text: str, thinks: bool) -> None:
    check(text, *NESTED[text], expect_thinking(None, "", thinks=thinks))


# Backticks and fences around which a closing that comes alone is still one.
ODD_CODE = {
    "a fence in a list": "P:\n- ```py\n  x\n  ```\nDone.\n",
    "in a numbered one": "1. ~~~\n   ```\n   ~~~\n",
    "in a quote": "> ```\n> x\n> ```\n",
    "a backtick alone": "The user`s name",
    "on another line": "The user`s name\nIt`s\n",
    "paired by others": "Say ``a ` b`` and `c`.",
    "a fence without an end": "a\n```py\nx\n",
    "code that begins a line": "```x``` is it.\n",
    "three in four": "````md\n```py\n````\n",
    "a longer end": "```\nx\n`````\n",
    "an end of another kind": "~~~\n```\n~~~\n",
    "an end with a name": "```\n```py\n```\n",
}


@pytest.mark.parametrize("thought", ODD_CODE.values(), ids=ODD_CODE)
def test_closing_after_odd_code(thought: str) -> None:
    expected = expect_thinking(None, "", thinks=True)
    for text in (f"{thought}</think>\n\nHi.", f"<think>{thought}</think>Hi."):
        check(text, thought, "Hi.", expected)


def test_closing_in_code_of_an_answer() -> None:
    expected = expect_thinking(None, "", thinks=True)
    for text in ("- ```\n  </think>\n  ```", "a ``</think> ` `` b", "````\n```\n</think>\n````\n"):
        check(text, "", text, expected)


OTHER_TEXTS = [
    "<thin air> is what I need.",
    "<thinkpad>Lenovo</thinkpad>",
    "<thoughts>Hm.</thoughts>",
    "<think",
    "<think id=1>Hm.</think>",
    "[THINKING CAP] on!",
    "[THIN",
    "[/THINK]",
    "<|channel|>",
    "<|channel|>none<|message|>Hi",
    "<|start|>assistantHi",
    "<channel|>Hi",
    "◁thin▷",
    "analysis of the matter",
    "  < 3 ",
    "```\n<think>Hm.</think>\n```",
    "```xml\n<thinking>\nHm.\n</thinking>\n```\nThat is all.",
    "`<think>` opens, `</think>` closes.",
    "~~~\n[THINK]a[/THINK]\n~~~",
    "The tags are <think> and <|channel|>analysis<|message|>.",
    "<!-- <think> -->",
    "\ufeff<think>Hm.</think>",
    "\r\n \tHi\r\n",
    "İ<",
    "[Think](https://example.org) is a site.",
    "[think]Hm.[/think]Hi",
]
# Those of a model that is not known to think: an element of XML, without more.
ELEMENTS = [
    "<reason>Timeout</reason>",
    " <reason>\n Timeout\n</reason>\n",
    "<reason>\n  Timeout",
    "<thought>I am</thought>",
    "<Reasoning>2+2",
]


@pytest.mark.parametrize("text", [*OTHER_TEXTS, *ELEMENTS])
def test_text_that_only_resembles_thinking_is_not_touched(text: str) -> None:
    check(text, "", text, expect_thinking(None, "", thinks=False))


@pytest.mark.parametrize(
    "text", [text for text in OTHER_TEXTS if "</think>" not in text or "`" in text]
)
def test_text_of_a_model_that_thinks(text: str) -> None:
    """It is kept until the end, unless a closing tag comes that is not in code."""
    if not text.startswith(("[/THINK]", "<channel|>")):
        check(text, "", text, expect_thinking(None, "", thinks=True))


# What a prompt names, and what the model's own template shows.

QWEN = """
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
QWEN_OPEN = """{{ m.content }}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- else %}
        {{- '<think>\\n' }}
    {%- endif %}
{%- endif %}
"""

TEMPLATES = {
    "none": ("{{ messages }}", TemplateThinking()),
    "Qwen 3": (QWEN, TemplateThinking(tags=("<think>",), has_switch=True)),
    "Qwen 3.5": (
        QWEN_OPEN,
        TemplateThinking(
            tags=("<think>",), opened="<think>", always=True, closes=True, has_switch=True
        ),
    ),
    "Qwen 3 Thinking": (
        "{% if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{% endif %}",
        TemplateThinking(tags=("<think>",), opened="<think>", always=True),
    ),
    "DeepSeek R1": (
        "{{m.split('</think>')}}{% if add_generation_prompt and not ns.is_tool %}"
        "{{'<\uff5cAssistant\uff5c><think>\\n'}}{% endif %}",
        TemplateThinking(tags=("<think>",), opened="<think>", always=True, closes=True),
    ),
    "DeepSeek R1, older": (
        "{{m.split('</think>')}}{% if add_generation_prompt %}{{'<|Assistant|>'}}{% endif %}",
        TemplateThinking(tags=("<think>",)),
    ),
    "DeepSeek V3.1": (
        "{% if add_generation_prompt %}{{'<|Assistant|>'}}{% if not thinking %}{{'</think>'}}"
        "{% else %}{{'<think>'}}{% endif %}{% endif %}",
        TemplateThinking(tags=("<think>",), opened="<think>", closes=True, has_switch=True),
    ),
    "GigaChat 3.5": (
        "{% if add_generation_prompt %}{{'assistant'}}{% if reasoning %}{{'<think>'}}{% endif %}"
        "{% endif %}",
        TemplateThinking(tags=("<think>",), opened="<think>"),
    ),
    "a fine-tune": (
        "{{ m }}{% if add_generation_prompt %}{{ '<thinking>\n' }}{% endif %}",
        TemplateThinking(tags=("<thinking>",), opened="<thinking>", always=True),
    ),
    "Kimi K2.5": (
        QWEN_OPEN.replace("enable_thinking", "thinking"),
        TemplateThinking(
            tags=("<think>",), opened="<think>", always=True, closes=True, has_switch=True
        ),
    ),
    "no switch": (
        "{% if m.thinking or 'thinking' in m %}{{ '<think>' }}{{ m.thinking }}{% endif %}"
        "{% if add_generation_prompt %}a{% endif %}",
        TemplateThinking(tags=("<think>",)),
    ),
    "a name of its own": (
        "{# <deep_think>…</deep_think> #}{% if add_generation_prompt %}a{% endif %}",
        TemplateThinking(tags=("<deep_think>",)),
    ),
    "Apertus": (
        "{% set inner_token = '<|inner_prefix|>' %}{% set outer_token = '<|inner_suffix|>' %}"
        "{% if add_generation_prompt %}{{ inner_token }}{% endif %}",
        TemplateThinking(tags=("<|inner_prefix|>",), opened="<|inner_prefix|>", closes=True),
    ),
    "gpt-oss": (
        "{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        TemplateThinking(
            tags=(
                "<|start|>assistant<|channel|>analysis<|message|>",
                "<|think|>",
            )
        ),
    ),
    "Ollama's Qwen 3": (
        "{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}<|im_end|>\n"
        "<|im_start|>assistant\n{{ if and $.IsThinkSet (not $.Think) -}}\n"
        "<think>\n\n</think>\n\n{{ end }}",
        TemplateThinking(tags=("<think>",), has_switch=True),
    ),
    "Ollama's DeepSeek R1": (
        "{{ .Content }}<\uff5cAssistant\uff5c><think>\n{{- end }}\n",
        TemplateThinking(tags=("<think>",), opened="<think>", always=True),
    ),
}


@pytest.mark.parametrize(("template", "expected"), TEMPLATES.values(), ids=TEMPLATES)
def test_templates(template: str, expected: TemplateThinking) -> None:
    assert read_template(template) == expected


def test_hostile_template_takes_no_time() -> None:
    for part in ("<think></think>", "{% if think", "</think", "set a = '", "{{ end "):
        assert read_template(f"add_generation_prompt{part * 10**5}").tags in (("<think>",), ())


OWN = read_template(TEMPLATES["a fine-tune"][0])
PLAIN = read_template("{{ messages }}")
XML = "<reasoning>a</reasoning>"
NAMED = "Answer in <thinking> and [THINK] tags."


@pytest.mark.parametrize(
    ("template", "thinks", "prompt", "text", "thought", "answer"),
    [
        (PLAIN, False, "Hi", "<thinking>a</thinking>b", "a", "b"),
        (PLAIN, False, NAMED, "<thinking>a</thinking>b", "", "<thinking>a</thinking>b"),
        (None, False, NAMED, "[THINK]a[/THINK]b", "", "[THINK]a[/THINK]b"),
        (None, False, NAMED.upper(), "[THINK]a[/THINK]b", "", "[THINK]a[/THINK]b"),
        (PLAIN, False, NAMED, "<think>a</think>b", "a", "b"),
        # Its own tags are thinking whatever the user writes.
        (OWN, False, NAMED, "<thinking>a</thinking>b", "a", "b"),
        (OWN, False, NAMED, "a</thinking>b", "a", "b"),
        (None, True, "What is </think>?", "<think>a</think>b", "a", "b"),
        (OWN, False, NAMED, "It is `</thinking>`.", "", "It is `</thinking>`."),
        # Where the template opens other tags, a closing alone is text.
        (OWN, False, "Hi", "a</think>b", "", "a</think>b"),
        (None, False, "What is <think>?", "<think> opens.", "", "<think> opens."),
        # Its own tags, which both the thinking and the answer write about.
        (
            None,
            True,
            "What is <think>?",
            "<think>a\n<think>\n</think>b</think>",
            "a\n<think>\n",
            "b</think>",
        ),
        # The tag's name is enough, but for a word as common as this one.
        (None, False, "XML: an element reasoning", f"{XML}<b/>", "", f"{XML}<b/>"),
        (None, False, 'Drop <reasoning code="5">', f"{XML}<b/>", "", f"{XML}<b/>"),
        (
            None,
            False,
            "Write &lt;thinking&gt;",
            "<thinking>a</thinking>b",
            "",
            "<thinking>a</thinking>b",
        ),
        (None, False, "Write < think >", "<think>a</think>b", "", "<think>a</think>b"),
        (None, False, "Do you think?", "<think>a</think>b", "a", "b"),
        (None, False, "Do you think?", "[THINK]a[/THINK]b", "a", "b"),
        (None, False, "Your reasonings?", f"{XML}b", "a", "b"),
        # The elements around an answer, too.
        (
            None,
            True,
            "Answer in <answer>",
            "<think>a</think><answer>b</answer>",
            "a",
            "<answer>b</answer>",
        ),
        (
            None,
            True,
            "Answer as XML",
            "<think>a</think><answer>b</answer>",
            "a",
            "<answer>b</answer>",
        ),
    ],
)
def test_tags_that_the_prompt_names(
    template: TemplateThinking | None,
    thinks: bool,
    prompt: str,
    text: str,
    thought: str,
    answer: str,
) -> None:
    check(text, thought, answer, expect_thinking(template, prompt, thinks=thinks))


OTHER, LLAMA_CPP, ENGINE = Renderer
HM = [ReasoningDelta("Hm.")]
TEXT = [TextDelta("Hm.")]


@pytest.mark.parametrize(
    ("template", "renderer", "is_off", "begun", "cut", "ended"),
    [
        # What comes at once, and what with the end: by the token limit, and by the model.
        # Only the closing can show whether it is thinking.
        ("Qwen 3.5", OTHER, False, [], TEXT, TEXT),
        ("DeepSeek R1", ENGINE, False, [], TEXT, TEXT),
        ("a fine-tune", LLAMA_CPP, False, [], TEXT, TEXT),
        ("GigaChat 3.5", ENGINE, False, [], TEXT, TEXT),
        # The prompt ends within the thinking, which llama.cpp does not see. An answer must be seen.
        ("a fine-tune", ENGINE, False, HM, [], TEXT),
        ("Ollama's DeepSeek R1", ENGINE, False, HM, [], TEXT),
        # llama.cpp sees it, so this is none, or it is switched off.
        ("Qwen 3.5", LLAMA_CPP, False, TEXT, [], []),
        ("Qwen 3.5", ENGINE, False, TEXT, [], []),
        ("Qwen 3.5", OTHER, True, TEXT, [], []),
        ("DeepSeek V3.1", ENGINE, True, TEXT, [], []),
        ("Qwen 3", ENGINE, False, TEXT, [], []),
    ],
)
def test_answer_that_ends_before_a_closing(
    template: str,
    renderer: Renderer,
    is_off: bool,
    begun: list[Event],
    cut: list[Event],
    ended: list[Event],
) -> None:
    known = TEMPLATES[template][1]
    expected = expect_thinking(known, "", thinks=False, is_off=is_off, renderer=renderer)
    for finish_reason, last in (("length", cut), ("stop", ended)):
        tags, end = ThinkTags(expected), Finished(finish_reason)
        assert [*tags.feed(TextDelta("Hm."))] == begun
        assert [*tags.feed(end)] == [*last, end]


def test_thinking_that_the_prompt_opens() -> None:
    expected = expect_thinking(TEMPLATES["a fine-tune"][1], "", thinks=False, renderer=ENGINE)
    for text in ("Hm.</thinking>Hi", "<thinking>\nHm.</thinking>\n\nHi", "\nHm.\n</think>\nHi"):
        check(text, "Hm.\n" if "</think>" in text else "Hm.", "Hi", expected)
    tags = ThinkTags(expected)
    assert [*tags.feed(TextDelta("Hm.")), *tags.feed(CALL), *tags.feed(END)] == [*HM, CALL, END]
    # The server has taken it apart.
    tags = ThinkTags(expected)
    events = (ReasoningDelta("a"), TextDelta("Hi"), END)
    assert [part for event in events for part in tags.feed(event)] == [*events]


def test_element_before_a_call() -> None:
    expected = expect_thinking(None, "", thinks=False)
    for text, event in (
        ("<reasoning>Hm.</reasoning>\n", HM[0]),
        ("<reasoning>Hm.", TextDelta("<reasoning>Hm.")),
    ):
        tags = ThinkTags(expected)
        assert [*tags.feed(TextDelta(text)), *tags.feed(CALL), *tags.feed(END)] == [
            event,
            CALL,
            END,
        ]


HOSTILE = {
    "closings in a fence": ("<think>```\n", "</think> x ", "\n```\n</think>Hi"),
    "quoted closings": ("<think>", "`</think>` x ", "</think>Hi"),
    "openings": ("<think>a", "<think> x ", "</think>Hi"),
    "quoted closings that come alone": ("", "x `</think>` y", "</think>Hi"),
    "backticks": ("<think>`", "</think>``", "</think>Hi"),
}


@pytest.mark.parametrize(("first", "each", "last"), HOSTILE.values(), ids=HOSTILE)
def test_each_character_is_read_a_few_times(
    first: str, each: str, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = 0
    read = think_tags._Scan._read

    def counted(scan: think_tags._Scan, text: str, end: int) -> None:
        nonlocal total
        total += len(text)
        read(scan, text, end)

    monkeypatch.setattr(think_tags._Scan, "_read", counted)
    tags, text = ThinkTags(expect_thinking(None, "", thinks=True)), [first, *[each] * 3000, last]
    for piece in text:
        list(tags.feed(TextDelta(piece)))
    assert joined(tags.feed(END))[-1] == END
    assert total < 3 * len("".join(text))


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
