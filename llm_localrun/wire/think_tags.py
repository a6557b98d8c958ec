"""Separates thinking from the answer where a server leaves both in the text.

Servers that do not know a model's template pass its `<think>…</think>` on as text. Where the
template itself opens the thinking, the opening tag is missing. `TAGS` lists the tags of all models,
`read_template` finds those of one model, and `ThinkTags` splits a response. Which template belongs
to a response is decided in `chat.run`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum, IntEnum, auto
from functools import cache
from itertools import chain, groupby

from llm_localrun.models import TemplateThinking
from llm_localrun.wire.events import Event, Finished, ReasoningDelta, TextDelta, ToolCall

# Any word of the kind counts: enable_thinking, [THINK], <thought>, reasoning_effort, gpt-oss's
# channels. A model must not be refused because it calls its thinking something else.
_TRACE = re.compile(r"think|thought|reason|<\|channel", re.IGNORECASE)


def may_think(template: str) -> bool:
    """Whether a chat template shows a trace of thinking; also if the template is unknown, ""."""
    return not template or _TRACE.search(template) is not None


@dataclass(frozen=True, slots=True)
class Tag:
    """One spelling of thinking, in lower case; models write it in any case, but for `[THINK]`."""

    openings: tuple[str, ...]
    closings: tuple[str, ...]
    answers: tuple[tuple[str, str], ...] = ()
    """What may stand before the answer and, if it does, what stands after it."""
    repeats: bool = False
    """Whether more thinking may follow the first directly."""
    closes_alone: bool = True
    """Whether its closing cannot mean something else where the opening is missing."""


def _named(name: str) -> Tag:
    return Tag((f"<{name}>",), (f"</{name}>",))


_THINK = _named("think")
_ROLES = ("<|start|>assistant", "")
_FINALS = tuple(
    f"{role}<|channel|>final{kind}<|message|>"
    for role in _ROLES
    for kind in ("", " <|constrain|>json", "<|constrain|>json", " json")
)
_HARMONY = Tag(
    tuple(f"{role}<|channel|>analysis<|message|>" for role in _ROLES),
    ("<|end|>", *_FINALS),
    (
        *((final, "<|return|>") for final in _FINALS),
        *((f"{role}<|channel|>commentary<|message|>", "<|end|>") for role in _ROLES),
    ),
    repeats=True,
    closes_alone=False,
)
_COMMON_WORDS = tuple(map(_named, ("reasoning", "reason", "thought")))
"""Which XML may have, too: Open WebUI, utils/middleware.py, and EXAONE Deep."""
TAGS = (
    _THINK,  # DeepSeek, Qwen, GLM, Olmo 3 and most others
    _named("thinking"),  # Claude's old prompts, and models trained on its answers
    *_COMMON_WORDS,
    # vLLM, vllm/reasoning: seedoss_, minimax_m3_, longcat_ and k2_horizon_reasoning_parser.py
    *map(_named, ("seed:think", "mm:think", "longcat_think")),
    *map(_named, ("ifm|think", "ifm|think_fast", "ifm|think_faster")),
    _named("think:opensource"),  # Hunyuan; mlx_lm, tokenizer_utils.py
    Tag(("[THINK]",), ("[/THINK]",)),  # Magistral; vLLM, mistral_reasoning_parser.py
    _HARMONY,  # gpt-oss; https://developers.openai.com/cookbook/articles/openai-harmony
    # Gemma 4; vLLM, gemma4_reasoning_parser.py
    Tag(("<|channel>thought", "<|channel>analysis"), ("<channel|>",), (("<|channel>final\n", ""),)),
    # Cohere Command A and R7B; llama.cpp, common/chat.cpp
    Tag(
        ("<|start_thinking|>",),
        ("<|end_thinking|>",),
        (("<|start_response|>", "<|end_response|>"),),
    ),
    Tag(("<|inner_prefix|>",), ("<|inner_suffix|>",)),  # Apertus; llama.cpp, common/chat.cpp
    Tag(("◁think▷",), ("◁/think▷",)),  # Kimi VL and Kimi-Dev; SGLang, separate_reasoning.md
    # Kimi K3; vLLM, kimi_k3_reasoning_parser.py
    Tag(
        ("<|open|>think<|sep|>",),
        ("<|close|>think<|sep|>",),
        (("<|open|>response<|sep|>", "<|close|>response<|sep|>"),),
    ),
    # Solar Open; llama.cpp, common/chat-auto-parser-analyzer.cpp
    Tag(
        ("<|think|>",),
        ("<|/think|>", "</|think|>", "<|end|>"),
        (("<|begin|>assistant<|content|>", ""), ("<|content|>", "")),
        closes_alone=False,
    ),
    Tag(("<|think:start|>",), ("<|think:end|>",)),  # Solar Open 2; vLLM, solar_open2_…
    # OpenThoughts and its descendants; Open WebUI
    Tag(
        ("<|begin_of_thought|>",),
        ("<|end_of_thought|>",),
        (("<|begin_of_solution|>", "<|end_of_solution|>"),),
    ),
)

_WRAPPERS = (("<answer>", "</answer>"), ("<response>", "</response>"))
"""What Hunyuan A13B and Granite 3.3 write around the answer after their thinking."""
_ASKS_FOR_ELEMENTS = re.compile(
    r"(?:<|&lt;)[ \t]{0,3}/?(?:answer|response)\b|\b(?:xml|tags?|elements?)\b"
)

_LONGEST_TAG = 80
_MAX_BLANKS = 256
"""Characters between two opening tags of which one repeats the other."""
_MAX_FIRST_BLANKS = 2**12
"""Characters before an opening tag: what comes behind more of them is the answer."""
_PIECE_LENGTH = 512
"""Characters that are read at once, because a piece is read again for each tag in it."""
_MAX_RESUMED = 100
"""How often thinking that has closed in doubt may begin again: all that follows is read again."""


@cache
def _pattern(texts: tuple[str, ...]) -> re.Pattern[str]:
    """Matches any of `texts`: `<think>` in any case, with blanks before its bracket."""
    parts = (
        rf"\[(?-i:{re.escape(text[1:])})"
        if text.startswith("[")
        else re.sub(r"([\w:])>$", r"\1[ \\t]*>", re.escape(text))
        for text in sorted(texts, key=len, reverse=True)
    )
    return re.compile("|".join(parts) or r"(?!)", re.IGNORECASE)


def _plain(matched: str) -> str:
    """A tag as the model wrote it, in the spelling of `Tag`, but for blanks."""
    matched = re.sub(r"[ \t]", "", matched)
    return matched if matched.startswith("[") else matched.lower()


def _begins(text: str, tags: Iterable[str]) -> bool:
    """Whether one of the tags may begin with `text`."""
    begun = text.rstrip(" \t")
    begun = begun if begun.startswith("[") else begun.lower()
    return any(tag.startswith(begun) for tag in tags)


def _begun_at_end(text: str, tags: Iterable[str]) -> int:
    """How many characters at the end of `text` may be the beginning of one of the tags."""
    tags = tuple(tags)
    starts = {tag[0] for tag in tags}
    start = max(0, len(text) - _LONGEST_TAG)
    places = (at for at in range(start, len(text)) if text[at] in starts)
    return next((len(text) - at for at in places if _begins(text[at:], tags)), 0)


# Templates


_MAX_TEMPLATE = 2**18
"""Characters. The largest templates have 30,000; a hostile one must not take time."""

# What a template may have behind the opening tag that it ends with: the end of its last actions.
_END_OF_TEMPLATE = re.compile(r"""(?:\\+n|\s|['"]|-?[}%]\}|\{[{%]-?\s*end\w*)*\Z""")
_BEFORE_ANSWER = re.compile(r"add_generation_prompt|\.(?:Content|Prompt|Response)\b")
_CONDITION = re.compile(r"\{[{%]-?\s*(if|elif|else)\b(.{0,300}?)-?[%}]\}", re.DOTALL)
_OFF_UNLESS_ASKED = re.compile(r"\s*not\s+(?!enable_)\w+\s*")
"""A condition on a variable that only `-o think` sets."""
_SWITCH = re.compile(
    r"""enable_thinking|\.Think|\bif\b[^%}]{0,200}?(?<![\w.'"<])thinking(?!['"\w>])"""
)
_BLANKS_IN_CODE = re.compile(r"""(?:\\+n|\s|['"+~])*""")
_NAME = r"[\w:|.-]{0,40}"
_NEW_NAME = re.compile(rf"</({_NAME}(?:think|thought|reason){_NAME})>", re.IGNORECASE)


def read_template(template: str) -> TemplateThinking:
    """What a chat template, Jinja or Go, shows of the model's thinking."""
    template = template[-_MAX_TEMPLATE:]
    found = [t for t in TAGS if _pattern((*t.openings, *t.closings)).search(template)]
    names = dict.fromkeys(_NEW_NAME.findall(template.lower()))
    found += [tag for tag in map(_named, names) if tag not in found]
    start = max((match.end() for match in _BEFORE_ANSWER.finditer(template)), default=0)
    opened = next((tag for tag in found if _opens(tag, template, start)), None)
    return TemplateThinking(
        tags=tuple(tag.openings[0] for tag in found),
        opened=opened.openings[0] if opened else "",
        always=opened is not None and _opens_always(opened, template),
        closes=opened is not None and _pattern(opened.closings).search(template) is not None,
        has_switch=_SWITCH.search(template) is not None,
    )


def _opens(tag: Tag, template: str, start: int) -> bool:
    """Whether a template opens thinking that stays open behind `start`, where the answer begins."""
    openings, closings = _pattern(tag.openings), _pattern(tag.closings)
    for match in openings.finditer(template, start):
        blanks = _BLANKS_IN_CODE.match(template, match.end())
        if blanks is None or not closings.match(template, blanks.end()):
            return True
    assigned = re.findall(rf"set\s+(\w+)\s*=\s*['\"](?:{openings.pattern})", template, re.I)
    return any(template.find(name, start) >= 0 for name in assigned)


def _opens_always(tag: Tag, template: str) -> bool:
    """Whether a template ends with the opening tag, unless `-o think` switches thinking off."""
    last = list(_pattern(tag.openings).finditer(template))[-1:]
    if not last or not _END_OF_TEMPLATE.match(template, last[0].end()):
        return False
    conditions = list(_CONDITION.finditer(template, 0, last[0].start()))
    if conditions and conditions[-1][1] == "else":
        return not _OFF_UNLESS_ASKED.fullmatch(conditions[-2][2] if conditions[1:] else "")
    return not conditions or not _TRACE.search(conditions[-1][2])


def tag_with(opening: str) -> Tag:
    """The tag with this opening, which `read_template` has found."""
    known = (tag for tag in TAGS if opening in tag.openings)
    return next(known, None) or _named(opening.strip("<>"))


@dataclass(frozen=True, slots=True)
class Thinking:
    """What is known of the thinking in a response before it comes."""

    tags: tuple[Tag, ...] = TAGS
    """Those with which the text may begin."""
    unsure: tuple[Tag, ...] = _COMMON_WORDS
    """Those of them that are thinking only if an answer follows."""
    unopened: tuple[Tag, ...] = ()
    """Those of which the closing may come alone. The text is kept until it does, or the end."""
    is_open: bool = False
    """Whether the text begins within the thinking of `unopened`, and its server lets it through."""
    named: tuple[Tag, ...] = ()
    """Those that the prompt names: an opening within their thinking is only mentioned."""
    wrappers: tuple[tuple[str, str], ...] = _WRAPPERS
    """What may stand around the answer, and is no part of it."""


NOT_EXPECTED = Thinking()


class Renderer(Enum):
    """What makes the prompt from the template."""

    UNKNOWN = auto()
    LLAMA_CPP = auto()
    ENGINE = auto()
    """llama.cpp with a prompt that ends as the template shows, and a model free to think."""


def expect_thinking(
    template: TemplateThinking | None,
    prompt: str,
    *,
    thinks: bool,
    is_off: bool = False,
    renderer: Renderer = Renderer.UNKNOWN,
) -> Thinking:
    """What to expect after `prompt` of a model that is known to think, or is not.

    `is_off` says that the user has switched thinking off. A tag that the prompt names counts only
    if it is the model's own: the user has asked about it, or for it.
    """
    known = template or TemplateThinking()
    own = tuple(map(tag_with, known.tags)) or ((_THINK,) if thinks else ())
    words = prompt.lower()
    named = tuple(tag for tag in (*own, *TAGS) if _is_named(tag, words))
    expected = Thinking(
        tags=(*own, *(tag for tag in TAGS if tag not in own and tag not in named)),
        unsure=() if thinks else tuple(tag for tag in _COMMON_WORDS if tag not in own),
        named=named,
        wrappers=() if _ASKS_FOR_ELEMENTS.search(words) else _WRAPPERS,
    )
    if is_off and (known.has_switch or not known.opened):
        return expected
    if known.opened:
        # llama.cpp (b11549) tells the thinking apart itself if the template has both a switch and
        # the closing, and never if it has neither.
        if known.always and known.has_switch and known.closes and renderer is not Renderer.UNKNOWN:
            return expected
        is_open = known.always and not (known.has_switch or known.closes)
        is_open = is_open and renderer is Renderer.ENGINE
        return replace(expected, unopened=(tag_with(known.opened),), is_open=is_open)
    possible = (own if known.tags else expected.tags) if thinks else ()
    return replace(expected, unopened=tuple(tag for tag in possible if tag.closes_alone))


def _is_named(tag: Tag, words: str) -> bool:
    """Whether a prompt in lower case has the tag, or its name: `<reason code="5">`, "a reason".

    To think is too common: it needs its bracket.
    """
    simple = re.fullmatch(r"([<\[])([\w:|]+)[>\]]", tag.openings[0].lower())
    if simple is None:
        return any(text in words for text in (*tag.openings, *tag.closings))
    bracket, name = simple.groups()
    if name not in words:
        return False
    before = r"(?:<|&lt;)" if bracket == "<" else r"\["
    word = re.escape(name) + r"\b"
    bare = "" if name == "think" else rf"|\b{word}"
    return re.search(rf"{before}[ \t]{{0,3}}/?[ \t]{{0,3}}{word}{bare}", words) is not None


# Code


class _Place(Enum):
    TEXT = auto()
    INLINE_CODE = auto()
    FENCE = auto()


@dataclass(frozen=True, slots=True)
class _Found:
    """A tag in a text, or the end of a fence, whose `tag` is ""."""

    start: int
    end: int
    tag: str
    place: _Place
    begins_line: bool = False


_FENCE = re.compile(
    # In lists and quotes too.
    r"(?:[ \t>]|[-*+][ \t]|\d{1,9}[.)][ \t])*(`{3,}(?=[^`]*\Z)|~{3,})"
)


@cache
def _marks(tags: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"{_pattern(tags).pattern}|\n|``*", re.IGNORECASE)


class _Scan:
    """Finds tags in a text that comes in pieces, and says which of them are in code.

    Fences are those of CommonMark. Backticks count if they are paired within a line.
    """

    def __init__(self, tags: Iterable[str]) -> None:
        self._tags = tuple(tags)
        self._marks = _marks(self._tags)
        self._rest = ""
        """The end of what has come, of which more may have to come."""
        self._at = 0
        """Where in the text `_rest` begins."""
        self._line: list[str] = []
        self._is_line_blank = True
        self._ticks = self._opened_by = 0
        """The backticks read last, and those that wait for as many."""
        self._fence = ""
        """What has opened it."""
        self._undecided: list[_Found] = []
        self._found: list[_Found] = []

    @property
    def decided(self) -> int:
        """The length of the beginning of the text in which no more tags are to be found."""
        return self._undecided[0].start if self._undecided else self._at

    def feed(self, text: str) -> list[_Found]:
        """What comes to light with `text`."""
        text = self._rest + text
        self._read(text, len(text) - _begun_at_end(text, self._tags))
        found, self._found = self._found, []
        return found

    def finish(self) -> list[_Found]:
        """What comes to light if the text ends here."""
        self._read(self._rest, len(self._rest))
        self._end_line()
        found, self._found = self._found, []
        return found

    def _read(self, text: str, end: int) -> None:
        last = 0
        for match in self._marks.finditer(text, 0, end):
            self._read_plain(text[last : match.start()])
            last = match.end()
            if match[0][0] == "`":
                self._ticks += len(match[0])
                self._line.append(match[0])
                self._is_line_blank = False
                continue
            self._end_ticks()
            if match[0] == "\n":
                self._end_line()
            else:
                self._read_tag(self._at + match.start(), match[0])
        self._read_plain(text[last:end])
        self._rest = text[end:]
        self._at += end

    def _read_plain(self, text: str) -> None:
        if text:
            self._end_ticks()
            self._line.append(text)
            self._is_line_blank = self._is_line_blank and text.isspace()

    def _read_tag(self, start: int, text: str) -> None:
        place = _Place.FENCE if self._fence else _Place.TEXT
        found = _Found(start, start + len(text), _plain(text), place, self._is_line_blank)
        (self._undecided if self._opened_by else self._found).append(found)
        self._line.append(text)
        self._is_line_blank = False

    def _end_ticks(self) -> None:
        ticks, self._ticks = self._ticks, 0
        if not ticks or self._fence:
            return
        if not self._opened_by:
            self._opened_by = ticks
        elif ticks == self._opened_by:
            self._opened_by = 0
            self._decide(_Place.INLINE_CODE)

    def _decide(self, place: _Place) -> None:
        self._found += [replace(found, place=place) for found in self._undecided]
        self._undecided.clear()

    def _end_line(self) -> None:
        self._end_ticks()
        line = "".join(self._line)
        self._line, self._is_line_blank, self._opened_by = [], True, 0
        if self._fence:
            end = line.strip(" \t\r>")
            if end == self._fence[0] * max(len(end), len(self._fence)):
                self._fence = ""
                self._found.append(_Found(self._at, self._at, "", _Place.TEXT))
        elif fence := _FENCE.match(line):
            self._fence = fence[1]
        self._decide(_Place.FENCE if self._fence else _Place.TEXT)


# Responses


class _State(Enum):
    BEGIN = auto()
    EITHER = auto()
    """No tag yet: the text may be thinking or the answer."""
    OPENED = auto()
    THINKING = auto()
    GAP = auto()
    """Between thinking and the answer."""
    ANSWER = auto()


class _Doubt(IntEnum):
    """Why a closing tag may be only mentioned. If no other one comes, the highest is meant."""

    CODE = auto()
    """It is in code."""
    OTHER_TAG = auto()
    """It is that of another tag."""
    OPEN_FENCE = auto()
    """It is in a fence that does not end."""
    NESTED = auto()
    """It may belong to an opening within the thinking, if that one is not only mentioned."""


def _joined(parts: Iterable[Event]) -> Iterator[Event]:
    """The texts in `parts`, with those that follow one of the same kind in one piece."""
    for kind, alike in groupby(parts, type):
        texts = [part.text for part in alike if isinstance(part, TextDelta | ReasoningDelta)]
        yield (TextDelta if kind is TextDelta else ReasoningDelta)("".join(texts))


class ThinkTags:
    """Splits the text of one response, whatever pieces it comes in.

    Within thinking, a closing tag may be meant or only mentioned: see `_Doubt`. What follows it is
    kept until another one shows that it was mentioned, or the end that it was meant.
    """

    def __init__(self, expected: Thinking = NOT_EXPECTED) -> None:
        self._expected = expected
        self._state = _State.BEGIN
        self._held = ""
        """What the state has not read yet."""
        alone = (tag for tag in expected.tags if tag.closes_alone)
        self._others = {tag.closings[0]: tag.openings[0] for tag in alone}
        """The closings of all tags, with their openings."""
        self._after_thinking = False
        self._answer_end = ""
        self._raw: list[str] | None = None
        """The text, as long as it may not be thinking after all."""
        self._withheld: list[Event] = []
        """What is made of it if it is."""
        self._unclosed: list[str] | None = None
        """The text that is taken for thinking because the prompt opens it."""
        self._start(_State.BEGIN, _THINK, ())
        self._steps = {
            _State.BEGIN: self._begin,
            _State.EITHER: self._either,
            _State.OPENED: self._opened,
            _State.THINKING: self._thinking,
            _State.GAP: self._gap,
            _State.ANSWER: self._answer,
        }

    def _start(self, state: _State, tag: Tag, tags: Iterable[str]) -> None:
        """Begins to look for `tags` in what follows."""
        self._state, self._tag = state, tag
        self._scan = _Scan(tags)
        self._kept: list[str] = []
        """What the state has read and not passed on."""
        self._passed = 0
        """The length of what it has passed on."""
        self._depth = 1
        self._is_nested = False
        """Whether an opening within the thinking begins its line, and so is not only mentioned."""
        self._doubts: dict[_Doubt, _Found] = {}
        self._others_opened: set[str] = set()

    def feed(self, event: Event) -> Iterable[Event]:
        """The events that `event` becomes; all but text go through as they are."""
        if not self._held and self._raw is None and self._lets_through(event):
            return (event,)
        if isinstance(event, TextDelta):
            return _joined(chain.from_iterable(map(self._read, self._pieces(event.text))))
        return self._pass_on(event)

    def _lets_through(self, event: Event) -> bool:
        """Whether `event` changes nothing: most pieces of an answer, and of a server's thinking."""
        if isinstance(event, TextDelta):
            return self._is_plain
        is_known = self._state is _State.BEGIN and self._after_thinking
        return is_known and isinstance(event, ReasoningDelta)

    @property
    def _is_plain(self) -> bool:
        """Whether nothing is looked for in what follows."""
        return self._state is _State.ANSWER and not self._answer_end

    def _pass_on(self, event: Event) -> Iterator[Event]:
        yield from self._sure(self._flush())
        if self._raw is not None:
            yield from self._settle(isinstance(event, ToolCall))
        if isinstance(event, ReasoningDelta):
            # The server separates thinking itself, so its text is the answer.
            self._expected = replace(self._expected, unopened=(), is_open=False)
            self._after_thinking = True
            if self._state is _State.EITHER:
                self._state = _State.ANSWER
        elif isinstance(event, Finished) and event.finish_reason == "stop" and self._unclosed:
            # It has not thought.
            yield TextDelta("".join(self._unclosed))
        self._unclosed = None
        yield event

    def _pieces(self, text: str) -> Iterator[str]:
        """`text` in pieces; nothing is looked for in most answers, so they come whole."""
        at = 0
        while at < len(text):
            end = len(text) if self._is_plain else at + _PIECE_LENGTH
            yield text[at:end]
            at = end

    def _read(self, text: str) -> Iterator[Event]:
        self._held += text
        if self._raw is not None:
            self._raw.append(text)
        yield from self._sure(self._split())

    def _sure(self, parts: Iterator[Event]) -> Iterator[Event]:
        """Those of `parts` that are what they seem: all, once an answer has followed thinking."""
        for part in parts:
            if self._raw is None:
                yield part
                continue
            self._withheld.append(part)
            if isinstance(part, TextDelta) and part.text.strip():
                self._raw = None
                yield from self._withheld

    def _settle(self, is_call: bool) -> Iterator[Event]:
        """What was thinking only if an answer or a call follows, now that there is no answer."""
        if is_call and self._state in (_State.GAP, _State.ANSWER):
            yield from self._withheld
        else:
            yield TextDelta("".join(self._raw or ()))
            self._state = _State.ANSWER
        self._raw = None

    def _flush(self) -> Iterator[Event]:
        """The events of the text that `feed` kept, now that nothing more belongs to it."""
        if self._state is _State.EITHER:
            self._find_alone(self._scan.finish())
            if self._doubts:
                self._begin_thinking(self._doubts[_Doubt.OPEN_FENCE])
        count = 0
        while self._state is _State.THINKING or (self._state is _State.OPENED and self._held):
            count += 1
            if count > _MAX_RESUMED:
                self._held, self._state = "".join((*self._kept, self._held)), _State.ANSWER
                break
            self._state = _State.THINKING
            yield from self._split()
            if self._state is not _State.THINKING:
                continue
            closing = self._closing_in(self._scan.finish())
            if closing is None and self._doubts:
                closing = self._doubts[max(self._doubts)]
            if closing is None:
                yield from self._think(self._scan.decided)
                break
            yield from self._close(closing)
            yield from self._split()
        text, self._held = self._held, ""
        if self._state is _State.EITHER:
            text = "".join(self._kept)
            self._begin_either()
        if text and (self._state is not _State.BEGIN or text.strip()):
            yield TextDelta(text)

    def _split(self) -> Iterator[Event]:
        before = None
        while self._held and before != (self._state, self._held):
            before = self._state, self._held
            yield from self._steps[self._state]()

    def _begin(self) -> Iterator[Event]:
        expected = self._expected
        if expected.is_open:
            self._unclosed = []
            self._read_thinking(expected.unopened[0])
        elif not self._enter(expected.tags, expected.tags, is_wrapped=self._after_thinking):
            if expected.unopened:
                self._begin_either()
            else:
                self._state = _State.ANSWER
        return iter(())

    def _enter(self, thoughts: Iterable[Tag], answers: Iterable[Tag], *, is_wrapped: bool) -> bool:
        """Reads an opening of `thoughts` or what stands before an answer of `answers`.

        False if the text cannot begin so.
        """
        text = self._held.lstrip()
        openings = {opening: tag for tag in thoughts for opening in tag.openings}
        ends = {before: (tag, end) for tag in answers for before, end in tag.answers}
        if is_wrapped and not self._tag.answers:
            ends |= {before: (self._tag, end) for before, end in self._expected.wrappers}
        match = _pattern((*openings, *ends)).match(text)
        if match is None:
            return len(self._held) < _MAX_FIRST_BLANKS and _begins(text, (*openings, *ends))
        found, raw, self._held = _plain(match[0]), self._held, text[match.end() :]
        if found in openings:
            self._raw = [raw] if openings[found] in self._expected.unsure else None
            self._read_thinking(openings[found])
        else:
            plain = {_plain(before): end for before, end in ends.items()}
            (self._tag, self._answer_end), self._state = plain[found], _State.GAP
        return True

    def _begin_either(self) -> None:
        closings = (closing for tag in self._expected.unopened for closing in tag.closings)
        self._start(_State.EITHER, _THINK, closings)

    def _either(self) -> Iterator[Event]:
        text, self._held = self._held, ""
        self._kept.append(text)
        self._find_alone(self._scan.feed(text))
        return iter(())

    def _find_alone(self, found: Iterable[_Found]) -> None:
        """Looks for a closing that comes alone; one in code is an example if its code ends."""
        for each in found:
            if not each.tag:
                self._doubts.clear()
            elif each.place is _Place.FENCE:
                self._doubts.setdefault(_Doubt.OPEN_FENCE, each)
            elif each.place is _Place.TEXT:
                self._begin_thinking(each)
                return

    def _begin_thinking(self, closing: _Found) -> None:
        """Reads what has been kept as thinking, which `closing` has shown it to be."""
        tags = (tag for tag in self._expected.unopened if closing.tag in tag.closings)
        self._held = "".join(self._kept).lstrip()
        self._read_thinking(next(tags))
        self._state = _State.THINKING

    def _read_thinking(self, tag: Tag) -> None:
        tags = *tag.openings, *tag.closings, *self._others, *self._others.values()
        self._start(_State.OPENED, tag, tags)

    def _opened(self) -> Iterator[Event]:
        """Templates put line ends after the opening tag, and some models repeat it."""
        opening = _pattern(self._tag.openings).pattern
        self._held = re.sub(rf"(?i)\A(?:\s*(?:{opening}))*[\r\n]*", "", self._held)
        text = self._held.lstrip()
        is_repeated = _begins(text, self._tag.openings) and len(self._held) < _MAX_BLANKS
        if self._held and not is_repeated:
            self._state = _State.THINKING
        return iter(())

    def _thinking(self) -> Iterator[Event]:
        text, self._held = self._held, ""
        self._kept.append(text)
        closing = self._closing_in(self._scan.feed(text))
        if closing is not None:
            yield from self._close(closing)
            return
        doubts = (doubt.start for doubt in self._doubts.values())
        yield from self._think(min((self._scan.decided, *doubts)))

    def _closing_in(self, found: Iterable[_Found]) -> _Found | None:
        """The closing that ends the thinking, as far as `found` shows."""
        for each in found:
            is_text = each.place is _Place.TEXT
            if not each.tag:
                if doubt := self._doubts.pop(_Doubt.OPEN_FENCE, None):
                    self._doubts.setdefault(_Doubt.CODE, doubt)
            elif each.tag in self._tag.openings:
                if is_text and (closing := self._open(each)):
                    return closing
            elif each.tag in map(_plain, self._tag.closings):
                self._depth -= is_text
                if self._depth == 0:
                    return each
                in_code = _Doubt.OPEN_FENCE if each.place is _Place.FENCE else _Doubt.CODE
                self._doubts.setdefault(_Doubt.NESTED if is_text else in_code, each)
            elif is_text and each.tag in self._others.values():
                self._others_opened.add(each.tag)
            elif is_text and self._others.get(each.tag) not in self._others_opened:
                self._doubts.setdefault(_Doubt.OTHER_TAG, each)
        return None

    def _open(self, found: _Found) -> _Found | None:
        """Counts an opening within the thinking. Returns the closing that it shows to be meant."""
        if self._tag in self._expected.named:
            return None
        closing = self._doubts.get(_Doubt.NESTED)
        if closing and not (self._is_nested and found.begins_line):
            return closing
        self._depth += 1
        self._is_nested = self._is_nested or found.begins_line
        return None

    def _close(self, closing: _Found) -> Iterator[Event]:
        yield from self._think(closing.start)
        self._held = "".join(self._kept)[closing.end - self._passed :]
        self._unclosed, self._after_thinking = None, True
        ends = {_plain(before): end for before, end in self._tag.answers}
        self._answer_end = ends.get(closing.tag, "")
        self._state = _State.GAP

    def _think(self, end: int) -> Iterator[Event]:
        """Passes the text up to `end` on as thinking."""
        if end <= self._passed:
            return
        text, length = "".join(self._kept), end - self._passed
        self._kept, self._passed = [text[length:]], end
        if self._unclosed is not None:
            self._unclosed.append(text[:length])
        yield ReasoningDelta(text[:length])

    def _gap(self) -> Iterator[Event]:
        """Models put blank lines between their thinking and their answer."""
        self._held = self._held.lstrip()
        again = [self._tag] if self._tag.repeats else []
        if self._held and not self._enter(again, [self._tag], is_wrapped=True):
            self._state = _State.ANSWER
        return iter(())

    def _answer(self) -> Iterator[Event]:
        text, end = self._held, self._answer_end
        match = _pattern((end,)).search(text) if end else None
        if match:
            text, self._held = text[: match.start()], text[match.end() :]
            self._answer_end = ""
            self._state = _State.GAP if self._tag.answers else _State.ANSWER
        else:
            kept = _begun_at_end(text, (end,)) if end else 0
            text, self._held = text[: len(text) - kept], text[len(text) - kept :]
        if text:
            yield TextDelta(text)
