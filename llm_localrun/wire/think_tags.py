"""Separates thinking from the answer where a server leaves both in the text.

Servers that do not know a model's template pass its `<think>…</think>` on as text. Where the
template itself opens the thinking, the opening tag is missing. `TAGS` lists the tags of all models,
`read_template` finds those of one model, and `ThinkTags` splits a response. Which template belongs
to a response is decided in `chat.run`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cache

from llm_localrun.models import TemplateThinking
from llm_localrun.wire.events import Event, Finished, ReasoningDelta, TextDelta

# Any word of the kind counts: enable_thinking, [THINK], <thought>, reasoning_effort, gpt-oss's
# channels. A model must not be refused because it calls its thinking something else.
_TRACE = re.compile(r"think|thought|reason|<\|channel", re.IGNORECASE)


def may_think(template: str) -> bool:
    """Whether a chat template shows a trace of thinking; also if the template is unknown, ""."""
    return not template or _TRACE.search(template) is not None


@dataclass(frozen=True, slots=True)
class Tag:
    """One spelling of thinking, in lower case; models write it in any case."""

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
_FINAL = "<|channel|>final<|message|>"
_PREAMBLE = "<|channel|>commentary<|message|>"
_HARMONY = Tag(
    ("<|start|>assistant<|channel|>analysis<|message|>", "<|channel|>analysis<|message|>"),
    ("<|end|>", f"<|start|>assistant{_FINAL}", _FINAL),
    (
        *((start + _FINAL, "<|return|>") for start in ("<|start|>assistant", "")),
        *((start + _PREAMBLE, "<|end|>") for start in ("<|start|>assistant", "")),
    ),
    repeats=True,
    closes_alone=False,
)
TAGS = (
    _THINK,  # DeepSeek, Qwen, GLM, Olmo 3 and most others
    # Claude's old prompts, and models trained on its answers; Open WebUI, utils/middleware.py
    *map(_named, ("thinking", "reasoning", "reason")),
    _named("thought"),  # EXAONE Deep
    # vLLM, vllm/reasoning: seedoss_, minimax_m3_, longcat_ and k2_horizon_reasoning_parser.py
    *map(_named, ("seed:think", "mm:think", "longcat_think")),
    *map(_named, ("ifm|think", "ifm|think_fast", "ifm|think_faster")),
    _named("think:opensource"),  # Hunyuan; mlx_lm, tokenizer_utils.py
    Tag(("[think]",), ("[/think]",)),  # Magistral; vLLM, mistral_reasoning_parser.py
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

_LONGEST_TAG = 64


@cache
def _pattern(texts: tuple[str, ...]) -> re.Pattern[str]:
    """Matches any of `texts`, of which `<think>` may have blanks before its bracket."""
    parts = (
        re.sub(r"([\w:])>$", r"\1[ \\t]*>", re.escape(text))
        for text in sorted(texts, key=len, reverse=True)
    )
    return re.compile("|".join(parts) or r"(?!)", re.IGNORECASE)


def _plain(matched: str) -> str:
    """A tag as the model wrote it, in the spelling of `Tag`."""
    return re.sub(r"[ \t]", "", matched).lower()


def _begins(text: str, tags: Iterable[str]) -> bool:
    """Whether one of the tags may begin with `text`."""
    begun = text.rstrip(" \t").lower()
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
        has_switch="enable_thinking" in template or ".Think" in template,
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
    """Whether a template ends with the opening tag, unless thinking is switched off."""
    last = list(_pattern(tag.openings).finditer(template))[-1:]
    if not last or not _END_OF_TEMPLATE.match(template, last[0].end()):
        return False
    conditions = list(_CONDITION.finditer(template, 0, last[0].start()))
    return not conditions or conditions[-1][1] == "else" or not _TRACE.search(conditions[-1][2])


def tag_with(opening: str) -> Tag:
    """The tag with this opening, which `read_template` has found."""
    known = (tag for tag in TAGS if opening in tag.openings)
    return next(known, None) or _named(opening.strip("<>"))


@dataclass(frozen=True, slots=True)
class Thinking:
    """What is known of the thinking in a response before it comes."""

    tags: tuple[Tag, ...] = TAGS
    """Those with which the text may begin."""
    unopened: tuple[Tag, ...] = ()
    """Those of which the closing may come alone. The text is kept until it does, or the end."""
    is_open: bool = False
    """Whether the prompt ends within the thinking, as far as the template shows."""


NOT_EXPECTED = Thinking()


def expect_thinking(
    template: TemplateThinking | None, prompt: str, *, thinks: bool, is_off: bool = False
) -> Thinking:
    """What to expect after `prompt` of a model that is known to think, or is not.

    `is_off` says that the user has switched thinking off. A tag that the prompt names counts only
    if it is the model's own: the user has asked about it, or for it.
    """
    known = template or TemplateThinking()
    own = tuple(map(tag_with, known.tags)) or ((_THINK,) if thinks else ())
    named = prompt.lower()
    others = (tag for tag in TAGS if tag not in own)
    tags = (*own, *(t for t in others if not any(o in named for o in (*t.openings, *t.closings))))
    unopened: tuple[Tag, ...] = ()
    if is_off and (known.has_switch or not known.opened):
        return Thinking(tags)
    if known.opened:
        unopened = (tag_with(known.opened),)
    elif thinks:
        unopened = tuple(tag for tag in (own if known.tags else tags) if tag.closes_alone)
    return Thinking(tags, unopened, is_open=known.always)


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


class ThinkTags:
    """Splits the text of one response, whatever pieces it comes in.

    Within thinking, a closing tag in code, or after one more opening tag, may be meant or only
    mentioned. What follows it is kept: another closing tag shows that it was mentioned, the end
    that it was meant.
    """

    def __init__(self, expected: Thinking = NOT_EXPECTED) -> None:
        self._expected = expected
        self._state = _State.BEGIN
        self._held = ""
        self._searched = 0
        """Up to where in `_held` no more tags are to be found."""
        self._tag = _THINK
        self._depth = 1
        self._thought = ""
        self._doubtful: tuple[int, int] | None = None
        """Where in `_held` a closing tag begins and ends that may be only mentioned."""
        self._answer_end = ""
        self._steps = {
            _State.BEGIN: self._begin,
            _State.EITHER: self._either,
            _State.OPENED: self._opened,
            _State.THINKING: self._thinking,
            _State.GAP: self._gap,
            _State.ANSWER: self._answer,
        }

    def feed(self, event: Event) -> Iterator[Event]:
        """The events that `event` becomes; all but text go through as they are."""
        if isinstance(event, TextDelta):
            self._held += event.text
            yield from self._split()
            return
        if isinstance(event, ReasoningDelta):
            # The server separates thinking itself, so its text is the answer.
            self._expected = replace(self._expected, unopened=(), is_open=False)
        is_cut = isinstance(event, Finished) and event.finish_reason == "length"
        yield from self._flush(is_thinking=is_cut and self._expected.is_open)
        yield event

    def _flush(self, *, is_thinking: bool) -> Iterator[Event]:
        """The events of the text that `feed` kept, now that nothing more belongs to it.

        `is_thinking` says what it is if no tag has shown it.
        """
        text, self._held, self._searched = self._held, "", 0
        if self._state in (_State.OPENED, _State.THINKING):
            start, end = self._doubtful or (len(text), len(text))
            if start:
                yield ReasoningDelta(text[:start])
            if self._doubtful:
                self._state, self._doubtful = _State.ANSWER, None
                text = text[end:].lstrip()
            else:
                text = ""
        elif self._state is _State.EITHER and is_thinking and text:
            yield ReasoningDelta(text)
            return
        if text and (self._state is not _State.BEGIN or text.strip()):
            yield TextDelta(text)

    def _split(self) -> Iterator[Event]:
        before = None
        while self._held and before != (self._state, self._held):
            before = self._state, self._held
            yield from self._steps[self._state]()

    def _begin(self) -> Iterator[Event]:
        if not self._enter(self._expected.tags, self._expected.tags):
            self._state = _State.EITHER if self._expected.unopened else _State.ANSWER
        return iter(())

    def _enter(self, thoughts: Iterable[Tag], answers: Iterable[Tag]) -> bool:
        """Reads an opening of `thoughts` or what stands before an answer of `answers`.

        False if the text cannot begin so.
        """
        text = self._held.lstrip()
        openings = {opening: tag for tag in thoughts for opening in tag.openings}
        ends = {before: (tag, end) for tag in answers for before, end in tag.answers}
        match = _pattern((*openings, *ends)).match(text)
        if match is None:
            return _begins(text, (*openings, *ends))
        found, self._held, self._searched = _plain(match[0]), text[match.end() :], 0
        if found in openings:
            self._tag, self._state = openings[found], _State.OPENED
            self._depth, self._thought = 1, ""
        else:
            (self._tag, self._answer_end), self._state = ends[found], _State.GAP
        return True

    def _either(self) -> Iterator[Event]:
        closings = {closing: tag for tag in self._expected.unopened for closing in tag.closings}
        for match in _pattern(tuple(closings)).finditer(self._held, self._searched):
            if not _is_in_code(self._held[: match.start()]):
                self._tag, self._state = closings[_plain(match[0])], _State.THINKING
                self._held, self._searched = self._held.lstrip(), 0
                return iter(())
            self._searched = match.end()
        self._searched = max(self._searched, len(self._held) - _LONGEST_TAG)
        return iter(())

    def _opened(self) -> Iterator[Event]:
        """Templates put line ends after the opening tag, and some models repeat it."""
        opening = _pattern(self._tag.openings).pattern
        self._held = re.sub(rf"(?i)\A(?:\s*(?:{opening}))*[\r\n]*", "", self._held)
        if self._held and not _begins(self._held.lstrip(), self._tag.openings):
            self._state = _State.THINKING
        return iter(())

    def _thinking(self) -> Iterator[Event]:
        tag = self._tag
        for match in _pattern((*tag.openings, *tag.closings)).finditer(self._held, self._searched):
            self._searched = match.end()
            is_in_code = _is_in_code(self._thought + self._held[: match.start()])
            if _plain(match[0]) in tag.openings:
                self._depth += not is_in_code
                continue
            self._depth -= not is_in_code
            self._doubtful = match.span()
            if self._depth == 0:
                yield from self._close(_plain(match[0]))
                return
        kept = _begun_at_end(self._held, (*tag.openings, *tag.closings))
        yield from self._think(self._doubtful[0] if self._doubtful else len(self._held) - kept)
        self._searched = max(self._searched, len(self._held) - _LONGEST_TAG)

    def _close(self, closing: str) -> Iterator[Event]:
        start, end = self._doubtful or (0, 0)
        rest = self._held[end:]
        yield from self._think(start)
        self._held, self._doubtful, self._searched = rest, None, 0
        self._answer_end = dict(self._tag.answers).get(closing, "")
        self._state = _State.GAP

    def _think(self, length: int) -> Iterator[Event]:
        """Passes the beginning of the held text on as thinking."""
        thought, self._held = self._held[:length], self._held[length:]
        self._thought += thought
        self._searched = max(0, self._searched - length)
        if self._doubtful:
            self._doubtful = self._doubtful[0] - length, self._doubtful[1] - length
        if thought:
            yield ReasoningDelta(thought)

    def _gap(self) -> Iterator[Event]:
        """Models put blank lines between their thinking and their answer."""
        self._held = self._held.lstrip()
        again = [self._tag] if self._tag.repeats else []
        if self._held and not self._enter(again, [self._tag]):
            self._state = _State.ANSWER
        return iter(())

    def _answer(self) -> Iterator[Event]:
        text, end = self._held, self._answer_end
        match = _pattern((end,)).search(text) if end else None
        if match:
            text, self._held = text[: match.start()], text[match.end() :]
            self._answer_end, self._state = "", _State.GAP
        else:
            kept = _begun_at_end(text, (end,)) if end else 0
            text, self._held = text[: len(text) - kept], text[len(text) - kept :]
        if text:
            yield TextDelta(text)


_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)


def _is_in_code(text: str) -> bool:
    """Whether what follows `text` is within a code fence or between backticks."""
    line = text.rpartition("\n")[2]
    return len(_FENCE.findall(text)) % 2 == 1 or line.count("`") % 2 == 1
