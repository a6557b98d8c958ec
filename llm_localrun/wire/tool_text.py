"""Finds tool calls that a model writes as text, where its server does not.

`FORMS` lists the forms in which models write calls, `_Reader` reads them, and `ToolText` does so
for one response as it comes. Reading and checking arguments is left to `tool_arguments`, what is
done about an answer that is nearly a call to `chat.attempts`.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from llm_localrun.wire.events import Event, Finished, ReasoningDelta, TextDelta, ToolCall
from llm_localrun.wire.request import ToolSpec
from llm_localrun.wire.shapes import call_id, without_halves
from llm_localrun.wire.tool_arguments import (
    Incomplete,
    JsonReader,
    Malformed,
    Unexpected,
    fit_arguments,
)


class Lead(Enum):
    """What may stand before a form in an answer."""

    NOTHING = auto()
    LINES = auto()
    """Text, if the form begins a line."""
    TEXT = auto()
    """Text, if the form begins a line, or follows a sentence or a word directly."""


@dataclass(frozen=True, slots=True)
class Form:
    """What stands before, within and behind the calls of one form.

    What one form has counts in all of them, because models mix them and leave parts out.
    """

    openings: tuple[str, ...]
    closings: tuple[str, ...] = ()
    between: tuple[str, ...] = ()
    """What may stand between the name of a tool and its arguments."""
    lead: Lead = Lead.TEXT
    is_python: bool = False
    """Whether its calls may be NAME(…)."""


def _tag(*names: str, between: tuple[str, ...] = (), is_python: bool = False) -> Form:
    openings, closings = (tuple(f"<{end}{name}>" for name in names) for end in ("", "/"))
    return Form(openings, closings, between, is_python=is_python)


_B = "\uff5c"
"""DeepSeek's vertical line."""


def _deepseek(*names: str) -> tuple[str, ...]:
    return tuple(f"<{_B}{name}{_B}>" for name in names)


# llama.cpp: common/chat.cpp; vLLM: vllm/tool_parsers; Ollama: model/parsers; in November 2026.
FORMS = (
    _tag("tool_call"),  # Hermes, Qwen 2.5 and 3, GLM, Granite 4; vLLM, hermes_, glm4_moe_…
    _tag("tools", "tool", "function_call"),  # Qwen 2.5 Coder, Hermes 2 Pro; llama.cpp
    _tag("tool_calls", between=("<tool_sep>",)),  # Hunyuan, Jamba; vLLM, hunyuan_a13b_…
    _tag("function_calls", is_python=True),  # Olmo 3; vLLM, olmo3_tool_parser.py
    _tag("TOOLCALL"),  # Nemotron; vLLM, nemotron_nano_v2_tool_parser.py
    _tag("longcat_tool_call"),  # vLLM, longcat_tool_parser.py
    Form(("<functioncall>",)),  # Glaive's data, which many models have seen
    # Llama 3.1 and 3.2; llama.cpp. Qwen3-Coder, Seed-OSS; vLLM, qwen3coder_, seed_oss_…
    Form(("<function=", '<function name="'), ("</function>",), (">", '">')),
    Form(("<seed:tool_call>",), ("</seed:tool_call>",)),
    # Llama 3.1 and later: JSON, or NAME.call(…); llama.cpp
    Form(("<|python_tag|>",), between=(".call",), is_python=True),
    # Llama 4: [NAME(…)]; vLLM, llama4_pythonic_tool_parser.py
    Form(("<|python_start|>",), ("<|python_end|>",), is_python=True),
    # Mistral: a list, or since 2411 NAME[ARGS]{…}; vLLM, mistral_tool_parser.py. Servers that drop
    # its tokens leave NAME{…}.
    Form(("[TOOL_CALLS]",), ("[/TOOL_CALLS]",), ("[ARGS]",)),
    # Granite 3 and Phi-4-mini; vLLM, granite_, phi4mini_tool_parser.py
    Form(("<|tool_call|>", "<|tool_calls|>"), ("<|/tool_call|>", "</|tool_call|>")),
    Form(("functools",), lead=Lead.NOTHING),  # Phi-4-mini and Firefunction 2; vLLM, phi4mini_…
    # Cohere Command R7B and A; llama.cpp. Command R writes the word, as ReAct does.
    Form(("<|START_ACTION|>",), ("<|END_ACTION|>",)),
    Form(("Action:",), between=("Action Input:",), lead=Lead.LINES),
    # LM Studio's own, for models without tools in their template; lmstudio.ai/docs, tool-use
    Form(("[TOOL_REQUEST]",), ("[END_TOOL_REQUEST]",)),
    # LFM 2: [NAME(…)]; vLLM, lfm2_tool_parser.py
    Form(("<|tool_call_start|>",), ("<|tool_call_end|>",), is_python=True),
    # Kimi K2; vLLM, kimi_k2_tool_parser.py. Servers that drop its tokens leave functions.NAME:0{…}
    Form(
        ("<|tool_calls_section_begin|>", "<|tool_call_begin|>"),
        ("<|tool_call_end|>", "<|tool_calls_section_end|>"),
        ("<|tool_call_argument_begin|>",),
    ),
    Form(("functions.",), lead=Lead.NOTHING),
    # DeepSeek V3, R1 and V3.1, and how distilled models spell it; llama.cpp, vLLM, deepseekv3_…
    Form(
        _deepseek("tool▁calls▁begin", "tool▁call▁begin", "tool_calls_begin", "tool_call_begin"),
        _deepseek("tool▁call▁end", "tool▁calls▁end", "tool_call_end", "tool_calls_end"),
        (*_deepseek("tool▁sep", "tool_sep"), "```json"),
    ),
    Form(
        tuple(f"function{each}" for each in _deepseek("tool▁sep", "tool_sep")), (), (), Lead.NOTHING
    ),
    # DeepSeek V3.2; vLLM, deepseekv32_tool_parser.py
    Form(
        (
            *(f"<{_B}DSML{_B}{name}>" for name in ("function_calls", "tool_calls")),
            f'<{_B}DSML{_B}invoke name="',
        ),
        tuple(f"</{_B}DSML{_B}{name}>" for name in ("invoke", "function_calls", "tool_calls")),
    ),
    # MiniMax M2; vLLM, minimax_m2_tool_parser.py. Claude's old prompts have the same within.
    Form(("<minimax:tool_call>", '<invoke name="'), ("</invoke>", "</minimax:tool_call>")),
    # gpt-oss: developers.openai.com/cookbook/articles/openai-harmony
    Form(
        ("<|start|>assistant", "<|channel|>commentary", "<|channel|>analysis"),
        ("<|call|>",),
        ("<|channel|>commentary", "<|constrain|>json", "<|message|>", "json", "code"),
    ),
    # Servers that drop its tokens leave these.
    Form(("assistantcommentary to=",)),
    Form(("to=", "commentary to="), lead=Lead.NOTHING),
    # FunctionGemma and Gemma 4; Ollama, functiongemma.go, gemma4.go. Gemma 3 has fences.
    Form(("<start_function_call>",), ("<end_function_call>",)),
    Form(("<|tool_call>",), ("<tool_call|>",)),
    Form(("call:", "default_api."), lead=Lead.NOTHING),
    Form((">>>",), lead=Lead.NOTHING),  # Functionary 3.2; llama.cpp
    # Qwen 2.5 Coder, recorded
    Form(("<name>",), ("</arguments>",), ("</name>", "<arguments>"), Lead.NOTHING),
    # InternLM 2; vLLM, internlm2_tool_parser.py
    Form(("<|action_start|>", "<|plugin|>"), ("<|action_end|>",)),
    # Apertus: [{NAME: {…}}]; vLLM, apertus_tool_parser.py
    Form(("<|tools_prefix|>",), ("<|tools_suffix|>",)),
)
_FENCES = {
    # What else may stand in a fence shows what it is.
    **dict.fromkeys(("", "json", "jsonc", "json5", "xml"), False),
    # Gemma 3: ai.google.dev/gemma/docs/capabilities/function-calling; Qwen 2.5 Coder, recorded.
    **dict.fromkeys(("tool_code", "tool_call", "tool_calls", "function_call"), True),
}
"""The languages of code fences that may hold calls, and whether they hold nothing else."""
_ENDS = (
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "</s>", "<end_of_turn>", "<eos>", "<|end|>"),
    *("<|endoftext|>", "<|end_of_text|>", "<|return|>", f"<{_B}end▁of▁sentence{_B}>", "<turn|>"),
    *("<|eot|>", "<|END_OF_TURN_TOKEN|>", "<|tool_response>", "<start_function_response>"),
    *("<|observation|>", "[e~[", "[|endofturn|]", f"<{_B}tool▁outputs▁begin{_B}>"),
)
"""Tokens that end a turn, which servers with another template let through."""
_ATTRIBUTE = re.compile(r'([^<>"]{1,200})"[^<>]{0,100}>')
_PARAMETERS = (
    # GLM 4.5 and later
    ("<arg_key>", re.compile(r"([^<]{1,200})</arg_key>\s*<arg_value>"), "</arg_value>"),
    # Qwen3-Coder
    ("<parameter=", re.compile(r"([^<>]{1,200})>"), "</parameter>"),
    ('<param name="', _ATTRIBUTE, "</param>"),  # MiniCPM 5
    ('<parameter name="', _ATTRIBUTE, "</parameter>"),
    (f'<{_B}DSML{_B}parameter name="', _ATTRIBUTE, f"</{_B}DSML{_B}parameter>"),
)
"""What stands before, within and behind the parts of an argument: its name, and a raw value."""
_LONGEST_HEAD = 512

_VAGUE = ("tool", "function", "action")
"""Other data have them too: behind them, only an object is certain to be arguments."""
_NAMES = ("name", "tool_name", "function_name", *_VAGUE)
_ARGUMENTS = (
    *("arguments", "parameters", "args", "params", "kwargs", "input"),
    *("tool_input", "action_input"),
)
_LISTS = ("tool_calls", "function_calls", "tool_call", "function_call", "calls")
_LABELS = ("type", "id", "index", "tool_call_id", "call_id")
_KEYS = (*_NAMES, *_ARGUMENTS, *_LISTS, *_LABELS)
"""What an object that is a call, or holds calls, may have: OpenAI, Llama ("parameters"), xLAM,
Cohere ("tool_name"), LangChain ("action", "action_input"), smolagents ("tool"), Google ("args")."""
_DESCRIPTION = "description"
"""What makes an object the description of a tool."""
_PREFIXES = ("", "functions.", "default_api.")
_TYPES = ("function", "tool_call", "function_call", "tool_use")
_NOTHING: Final = object()


def _any_of(tokens: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))


_OPENINGS = tuple(opening for form in FORMS for opening in form.openings)
_CLOSINGS = (*(closing for form in FORMS for closing in form.closings), *_ENDS)
_BETWEEN = tuple(dict.fromkeys(token for form in FORMS for token in form.between))
_LEADS = {token: form.lead for form in FORMS for token in form.openings} | {
    f"```{language}": Lead.LINES for language, is_call in _FENCES.items() if is_call
}
_PYTHON = {token for form in FORMS if form.is_python for token in form.openings}
_AFTER_TEXT = tuple(token for token, lead in _LEADS.items() if lead is not Lead.NOTHING)
_CLOSING, _AFTER = _any_of(_CLOSINGS), _any_of(_AFTER_TEXT)
_TOKEN = _any_of((*_OPENINGS, *_CLOSINGS))
_ID = "[CALL_ID]"
_PASSED = re.compile(rf"{_any_of(_BETWEEN).pattern}|:\d*|{re.escape(_ID)}\w*")
"""Between a name and arguments; Kimi numbers its calls, and Mistral gives them ids."""
_FIRSTS = {token[0] for token in _AFTER_TEXT}
_LONGEST_TOKEN = max(map(len, (*_OPENINGS, *_CLOSINGS)))
_GAP = re.compile(r"[\s\ufeff,;]*")
_TAG = re.compile(r"<([A-Za-z_]{1,30})>")
_TAG_BEGUN = re.compile(r"<[A-Za-z_]{0,30}\Z")
"""What small models write around all that they say: <response>, <json> (Qwen 2.5 Coder)."""
_EXAMPLES = ("code", "example", "examples", "pre", "sample")
"""Tags around what is shown, not done."""
_BEGUN_CALL = re.compile(r"""\{\s*["']name["']""")
_UNKNOWN = re.compile(r"[A-Za-z_][\w-]{0,63}")
"""A name that a tool may have which is not offered."""
_LANGUAGE = re.compile(r"[ \t]*(\w*)")
_KEYWORD = re.compile(r"\s*([^\W\d]\w*)\s*(=|\Z)")
_BACKTICKS = re.compile(r"(?m)^[ \t>]*(?:```|~~~)")
_LINE = re.compile(r" {0,3}")
"""What may stand before an opening in its line; more spaces are how Markdown indents code."""
_SENTENCE = re.compile(r""".*(?:[^\s\d][.!?…] *|[。！？] *|\|>|[^\s"'`“‘«([{*_|>])""", re.DOTALL)  # noqa: RUF001
"""What it may follow in its line, other than quotes, lists and marks of Markdown."""

_MAX_HELD = 2**18
"""Characters of an answer that may become calls."""
_MAX_LEAD = 1000
_END_OF_LEAD = _MAX_LEAD + _LONGEST_TOKEN
_MAX_BLANKS = 2**12
_MAX_NESTED = 4
_MAX_TOKENS = 12
"""In a row, without a call."""
_MAX_CALLS = 16
"""Models that write more do not stop."""
_MAX_AFTER_ERROR = 2**12
_NO_PROSE = ("{", "[", "<", "```")
"""What begins what models write behind a call without saying anything: the result that they expect,
or the next call, of a tool that is not offered."""
_READ_AT_ONCE = 256
"""Up to so many characters are read again with each piece; then only when they are an eighth more,
so that the time grows with the length."""


class _NotCalls(Exception):
    """The text is not calls, whatever follows."""


class _Broken(Exception):
    """What follows the name of an offered tool is in no form."""


@dataclass(slots=True)
class _Found:
    """What an object has of a call."""

    tool: ToolSpec | None = None
    given: Any = _NOTHING
    key_of_given: str = ""
    is_vague: bool = False
    """Whether the key of the name is."""
    has_object: bool = False
    """Whether the arguments are one."""
    has_labels: bool = False
    """Other than its type."""
    is_description: bool = False

    @property
    def is_uncertain(self) -> bool:
        return self.is_vague and not self.has_object


class _Reader(JsonReader):
    """Reads a text that is nothing but calls. Raises `Incomplete`, `_NotCalls` or `_Broken`.

    Closing brackets may lack at the end of a text that `is_whole`: one that its model has ended.
    """

    def __init__(self, text: str, tools: Mapping[str, ToolSpec], *, is_whole: bool = False) -> None:
        super().__init__(text)
        self._tools = tools
        self._is_whole = is_whole
        self.calls: list[tuple[ToolSpec, Any]] = []
        self.named: ToolSpec | None = None
        """The tool of the call that is read, or of the last."""
        self.has_begun = False
        """Whether the text begins as in one of the forms."""
        self.described: list[ToolSpec] = []
        """Tools that are described as in the prompt: models repeat it before they call."""
        self.closing = ""
        """The end of the tag around all."""
        self._behind = 0
        """Where the part begins that follows whole calls."""
        self.goes_on = False
        """Whether other things follow."""
        self._has_arguments = self._is_closed = False
        """Whether a call has arguments; whether brackets lack."""
        self._takes_names = self._takes_python = False
        self._closers: list[str] = []
        self._tokens = 0

    def read(self) -> None:
        while True:
            self._skip_gap()
            if self.at == len(self.text):
                break
            if not self._closers and (self.calls or self.described):
                self._behind = self.at
            try:
                self._part()
            except _NotCalls:
                if not self._is_begun():
                    raise
                self.goes_on = True
                self.named = (*(tool for tool, _ in self.calls), *self.described)[0]
                raise _Broken from None
            if self.has_too_many:
                raise _Broken
        if self._closers and not self._is_whole:
            raise Incomplete

    @property
    def has_too_many(self) -> bool:
        """Whether there are more calls than a model means."""
        return len(self.calls) > _MAX_CALLS

    def _is_begun(self) -> bool:
        """Whether a text that is not nothing but calls begins with some, and goes on otherwise."""
        if self.calls:
            is_certain = self._behind > 0 and self._has_arguments
            return is_certain and self.text.startswith(_NO_PROSE, self._behind)
        return len(self.described) == 1 and bool(_BEGUN_CALL.match(self.text, self._behind))

    def is_near_error(self) -> bool:
        """Whether a text whose syntax is wrong is worth holding."""
        return len(self.text) - self.at <= _MAX_AFTER_ERROR

    def ends_like_a_call(self) -> bool:
        """Whether a text whose syntax is wrong ends as calls do, not with a sentence."""
        if self.has_too_many:
            return True
        text = self.text.rstrip()
        if self.goes_on and not self._is_whole:
            *_, line = text[self._behind :].rpartition("\n")
            return line.lstrip().startswith((*_NO_PROSE, "}", "]", '"'))
        ends = (*_ENDS, *filter(None, [self.closing]))
        while end := next((end for end in ends if text.endswith(end)), ""):
            text = text.removesuffix(end).rstrip()
        # The last is how the results of Qwen's and Hermes' templates end.
        return text.endswith(("}", "]", ")", "```", *_CLOSINGS, "</tool_response>"))

    def ends_here(self) -> bool:
        """As `JsonReader` has it: at the end of the text, or of what stands around the call."""
        closings = ("```", *filter(None, [self.closing]))
        is_end = self.at == len(self.text) or self.text.startswith(closings, self.at)
        is_end = self._is_whole and (is_end or bool(_CLOSING.match(self.text, self.at)))
        self._is_closed = self._is_closed or is_end
        return is_end

    def _part(self) -> None:
        """What comes next: a call, or what stands around calls."""
        if self._token() or self._fence() or self._bracket() or self._is_stray():
            self._tokens += 1
        else:
            self._call()
            self._tokens = 0
        if self._tokens > _MAX_TOKENS:
            raise _NotCalls

    def _skip_gap(self) -> None:
        if self.calls:
            match = _GAP.match(self.text, self.at)
            self.at = match.end() if match else self.at
        else:
            self.skip_blanks()
            if self.at > _MAX_BLANKS and not self.has_begun:
                raise _NotCalls

    def _token(self) -> bool:
        match = _TOKEN.match(self.text, self.at)
        if match is None and self._tag():
            return True
        if match is None:
            self._may_begin(_OPENINGS)
            self._may_begin(_CLOSINGS if self.calls or self.described else ())
            return False
        is_opening = match[0] in _LEADS
        if not (is_opening or self.calls or self.described):
            raise _NotCalls
        self.has_begun = True
        self._takes_names = self._takes_names or is_opening
        self._takes_python = self._takes_python or match[0] in _PYTHON
        self.at = match.end()
        return True

    def _tag(self) -> bool:
        """Passes the tag around all."""
        if self.closing:
            return bool(self.calls) and self.accepts(self.closing)
        if self.has_begun:
            return False
        match = _TAG.match(self.text, self.at)
        if match is None:
            if _TAG_BEGUN.match(self.text, self.at):
                raise Incomplete
            return False
        if match[1].lower() in _EXAMPLES:
            raise _NotCalls
        self.at, self.closing = match.end(), f"</{match[1]}>"
        return True

    def _may_begin(self, tokens: Sequence[str]) -> None:
        """Raises `Incomplete` if the text ends within one of `tokens`."""
        rest = self.text[self.at : self.at + _LONGEST_TOKEN]
        if len(rest) < _LONGEST_TOKEN and any(token.startswith(rest) for token in tokens):
            raise Incomplete

    def _fence(self) -> bool:
        if not self.accepts("```"):
            return False
        match = _LANGUAGE.match(self.text, self.at)
        language = match[1].lower() if match else ""
        self.at = match.end() if match else self.at
        if language not in _FENCES:
            is_begun = self.at == len(self.text)
            if is_begun and any(known.startswith(language) for known in _FENCES):
                raise Incomplete
            raise _NotCalls
        self.has_begun = True
        self._takes_names = self._takes_names or _FENCES[language]
        self._takes_python = self._takes_python or _FENCES[language]
        return True

    def _bracket(self) -> bool:
        """Passes what stands around several calls: [{…}, {…}], [NAME(…)], print(NAME(…))."""
        if self._closers and self.accepts(self._closers[-1]):
            self._closers.pop()
            return True
        if self.accepts("["):
            self._closers.append("]")
        elif self._takes_names and self.accepts("print("):
            self._closers.append(")")
        else:
            return False
        if len(self._closers) > _MAX_NESTED:
            raise _NotCalls
        return True

    def _is_stray(self) -> bool:
        """Passes a bracket that closes nothing: small models write one too many at the end."""
        is_stray = bool(self.calls) and self.text[self.at] in "}]"
        self.at += is_stray
        return is_stray

    def _call(self) -> None:
        if self.accepts("{"):
            self.at -= 1
            self.has_begun = True
            self._object(0)
            return
        self.named = tool = self._tool_here()
        self.has_begun = True
        self.calls.append((tool, self._after_name(tool)))
        self._has_arguments = True

    def _tool_here(self) -> ToolSpec:
        """The offered tool whose name stands here."""
        text, at = self.text, self.at
        longest = max(map(len, self._tools))
        rest = text[at : at + longest + 1]
        if len(rest) <= longest and any(name.startswith(rest) for name in self._tools):
            raise Incomplete
        names = [name for name in self._tools if rest.startswith(name)]
        name = max(names, key=len, default="")
        if not name or re.match(r"[\w-]", text[at + len(name) :][:1]):
            raise _NotCalls
        self.at += len(name)
        if not (self._takes_names or self._closers):
            self._bare_arguments()
        return self._tools[name]

    def _bare_arguments(self) -> None:
        """Checks that JSON follows, without which a name in no form is a word."""
        self.accepts("[ARGS]")
        if not (self.accepts('{"') or self.accepts("{}")):
            raise _NotCalls
        self.at -= len("{}")

    # Objects

    def _object(self, depth: int, key: str = "") -> None:
        """An object that is a call, that holds calls, or that holds the description of a tool.

        It is the value of `key` in another one.
        """
        if depth > _MAX_NESTED:
            raise _NotCalls
        count = len(self.calls) + len(self.described)
        self.at += 1
        found = _Found()
        try:
            self._entries(found, depth)
        except Unexpected:
            # Qwen 2.5 Coder copies other words of the schema behind the arguments.
            is_call = found.tool and found.key_of_given == "arguments"
            raise (_Broken if is_call else _NotCalls) from None
        except Malformed:
            raise (_Broken if found.tool else _NotCalls) from None
        tool, given = found.tool, found.given
        if tool is None and len(self.calls) + len(self.described) > count:
            return
        if tool is None or (found.has_labels and given is _NOTHING):
            raise _NotCalls
        if found.is_description:
            self.described.append(tool)
            return
        if given is _NOTHING and self._is_closed:
            raise Incomplete
        self.calls.append((tool, self._checked(tool, found, key)))
        self._has_arguments = self._has_arguments or given is not _NOTHING

    def _checked(self, tool: ToolSpec, found: "_Found", key: str) -> Any:
        return _checked(tool, found, key)

    def _entries(self, found: "_Found", depth: int) -> None:
        more = self._tools if self._takes_names else ()
        described = () if self.calls or self._closers or not depth else (_DESCRIPTION,)
        for key in self.keys((*_KEYS, *more, *described)):
            if key in _LISTS or (key in _NAMES and self._next() == "{"):
                self._held(depth, key)
            elif key in _NAMES:
                found.tool, found.is_vague = self._name(), key in _VAGUE
                self.named = None if found.is_uncertain else found.tool
            elif key == _DESCRIPTION:
                found.is_description, self.named = True, None
                self.value()
            elif key in _ARGUMENTS:
                found.has_object = self._next() == "{"
                self.named = None if found.is_uncertain else found.tool
                found.given, found.key_of_given = self.value(), key
            elif key in _LABELS:
                self._label(key)
                found.has_labels = found.has_labels or key != "type"
            else:
                self.named = found.tool = self._tools[key]
                found.given = self.value()

    def _next(self) -> str:
        if self.at == len(self.text):
            raise Incomplete
        return self.text[self.at]

    def _held(self, depth: int, key: str) -> None:
        """The value of a key like "tool_calls": one call, or a list of calls."""
        if self._next() == "{":
            self._object(depth + 1, key)
        elif self.accepts("["):
            for _ in self.items("]"):
                if self._next() != "{":
                    raise _NotCalls
                self._object(depth + 1)
        else:
            raise _NotCalls

    def _name(self) -> ToolSpec:
        names = {f"{prefix}{name}": name for name in self._tools for prefix in _PREFIXES}
        return self._tools[names[self.string(names)]]

    def _label(self, key: str) -> None:
        if key == "type":
            self.string(_TYPES)
        elif isinstance(self.value(), dict | list):
            raise _NotCalls

    # Names with arguments

    def _after_name(self, tool: ToolSpec) -> Any:
        while True:
            self.skip_blanks()
            if self.at == len(self.text):
                raise Incomplete
            if passed := _PASSED.match(self.text, self.at):
                self.at = passed.end()
                continue
            for read in (self._json_arguments, self._keywords, self._parameters):
                if (given := read(tool)) is not _NOTHING:
                    return given
            if _CLOSING.match(self.text, self.at):
                return {}
            self._may_begin((*_BETWEEN, _ID, *_CLOSINGS))
            # Within such a tag, it is nothing else.
            is_meant = self.text[: self.at].rstrip().endswith("<arguments>")
            raise _Broken if is_meant else _NotCalls

    def _json_arguments(self, _: ToolSpec) -> Any:
        return self._sound_value() if self._next() == "{" else _NOTHING

    def _sound_value(self) -> Any:
        try:
            return self.value()
        except (Malformed, Unexpected):
            raise _Broken from None

    def _keywords(self, tool: ToolSpec) -> Any:
        """Arguments as in Python: (city="Paris"), or ("Paris")."""
        if not (self._takes_python or self._closers) or not self.accepts("("):
            return _NOTHING
        names = [*(tool.parameters.get("properties") or {})]
        given: dict[str, Any] = {}
        try:
            for position, _ in enumerate(self.items(")")):
                keyword = _KEYWORD.match(self.text, self.at)
                if keyword and not keyword[2]:
                    raise Incomplete
                if keyword:
                    self.at = keyword.end()
                elif position >= len(names):
                    raise _Broken
                given[keyword[1] if keyword else names[position]] = self._sound_value()
        except Malformed:
            raise _Broken from None
        return given

    def _parameters(self, _: ToolSpec) -> Any:
        """Arguments as XML: <parameter=city>Paris</parameter>."""
        given: dict[str, str] = {}
        while True:
            found = next((each for each in _PARAMETERS if self.accepts(each[0])), None)
            if found is None:
                self._check_end(given)
                return given or _NOTHING
            head, closing = found[1:]
            match = head.match(self.text, self.at)
            if match is None:
                raise Incomplete if len(self.text) < self.at + _LONGEST_HEAD else _Broken
            end = self.text.find(closing, match.end())
            if end < 0:
                raise Incomplete
            value = self.text[match.end() : end]
            self.at = end + len(closing)
            if found[0] in value:
                # The end of an argument lacks.
                raise _Broken
            given[match[1].strip()] = re.sub(r"\A\r?\n|\r?\n\Z", "", value)
            self.skip_blanks()

    def _check_end(self, given: dict[str, str]) -> None:
        """Raises `_Broken` if other things follow arguments: what seemed to be the end is not."""
        if not given or self.at == len(self.text) or _TOKEN.match(self.text, self.at):
            return
        self._may_begin((*_OPENINGS, *_CLOSINGS))
        raise _Broken


def _checked(tool: ToolSpec, found: _Found, key: str) -> Any:
    """The arguments of an object, the value of `key`. Raises `_NotCalls` if it is no call."""
    given = found.given
    if given is _NOTHING or found.is_uncertain:
        # {"name": "current_time"} is a call, because models leave the arguments out if a tool needs
        # none, and because an answer of data rarely has nothing but such a name.
        given = {} if given is _NOTHING else given
        if fit_arguments(given, tool.parameters) is None:
            raise _NotCalls
    elif found.key_of_given == "parameters" and _describes(tool, given, key):
        raise _NotCalls
    return given


def _describes(tool: ToolSpec, given: Any, key: str) -> bool:
    """Whether "parameters" are how the tool itself is described.

    "arguments" are a call, whose model has copied the schema.
    """
    if not isinstance(given, dict) or not given:
        return given == {} and key == "function"
    if given.get("type") == "object" and isinstance(given.get("properties"), dict):
        return "properties" not in (tool.parameters.get("properties") or {})
    return _has_types(given) and fit_arguments(given, tool.parameters) is None


def _has_types(given: Any) -> bool:
    """Whether arguments are described by their types."""
    objects = given.values() if isinstance(given, dict) else ()
    # Some models write {"type": …, "value": …} for an argument.
    return any(isinstance(e, dict) and "type" in e and "value" not in e for e in objects)


class _UnknownReader(_Reader):
    """Reads calls by their form alone: their tools need not be offered.

    A bare object needs a name and an object "arguments" or "parameters", because other data have
    the rest too.
    """

    @property
    def unknown(self) -> tuple[str, ...]:
        """The tools of the calls that are not offered."""
        names = (tool.name for tool, _ in self.calls)
        return tuple(dict.fromkeys(name for name in names if name not in self._tools))

    def _name(self) -> ToolSpec:
        start = self.at
        try:
            name = self.string()
        except Incomplete:
            begun = self.text[start + 1 :]
            if begun and not _UNKNOWN.fullmatch(begun):
                raise _NotCalls from None
            raise
        if not _UNKNOWN.fullmatch(name):
            raise _NotCalls
        return self._tool_of(name)

    def _tool_here(self) -> ToolSpec:
        match = _UNKNOWN.match(self.text, self.at)
        if match is None or not self._takes_names:
            raise _NotCalls
        self.at = match.end()
        if self.at == len(self.text):
            raise Incomplete
        return self._tool_of(match[0])

    def _tool_of(self, name: str) -> ToolSpec:
        return self._tools.get(name) or ToolSpec(name, "", {})

    def _after_name(self, tool: ToolSpec) -> Any:
        given = super()._after_name(tool)
        if not given and self.text[self.at - 1] not in "})":
            # A word in a tag.
            raise _NotCalls
        return given

    def _checked(self, tool: ToolSpec, found: _Found, key: str) -> Any:
        has_usual = found.has_object and found.key_of_given in ("arguments", "parameters")
        is_usual = has_usual and not (found.is_vague or found.has_labels)
        is_described = found.key_of_given == "parameters" and (
            _describes(tool, found.given, key) or _has_types(found.given)
        )
        if is_described or not (is_usual or self._takes_names or key):
            raise _NotCalls
        return found.given


# Responses


class _State(Enum):
    HELD = auto()
    """The text may be calls."""
    LEAD = auto()
    """A text goes through that a call may follow."""
    TEXT = auto()


class ToolText:
    """Turns the text of one response into calls of `tools`, if it is nothing but calls.

    If `holds_unknown`, it holds calls of tools that are not offered too, which stay text.
    """

    def __init__(
        self,
        tools: Sequence[ToolSpec],
        is_answered: Callable[[str, str], bool] = lambda _name, _arguments: False,
        *,
        holds_unknown: bool = False,
    ) -> None:
        self.broken: ToolSpec | None = None
        """At the end: the tool that the answer looks like a call of, though it is no valid one."""
        self.unknown: tuple[str, ...] = ()
        """At the end: the tools that are not offered, if the answer is nothing but calls."""
        self.is_endless = False
        """Whether there are so many calls that the rest need not be read. `broken` is set then."""
        self._is_answered = is_answered
        self._holds_unknown = holds_unknown
        self._tools = {tool.name: tool for tool in tools if tool.name}
        self._state = _State.HELD if self._tools else _State.TEXT
        self._pieces: list[str] = []
        self._length = self._read_next = 0
        """Of the pieces; and the length from which on they are read again."""
        self._lead = ""
        self._passed = 0
        """The length of what has gone through of the lead."""

    def feed(self, event: Event) -> Iterable[Event]:
        """The events that `event` becomes; all but text go through as they are."""
        if isinstance(event, TextDelta) and self._state is not _State.TEXT:
            return (self._read_lead if self._state is _State.LEAD else self._hold)(event.text)
        if isinstance(event, TextDelta | ReasoningDelta):
            return (event,)
        return self._pass_on(event)

    def _pass_on(self, event: ToolCall | Finished) -> Iterator[Event]:
        if isinstance(event, Finished):
            yield from self._finish(is_whole=event.finish_reason == "stop")
        else:
            # The server finds calls itself.
            self.broken = None
            yield from self.flush()
        yield event

    def flush(self) -> Iterator[Event]:
        """Lets all text through, because there are no calls to take out of it."""
        text = "".join(self._pieces) + self._lead[self._passed :]
        self._pieces, self._lead, self._state = [], "", _State.TEXT
        if text:
            yield TextDelta(text)

    def leave(self) -> Iterator[Event]:
        """Lets the text of an answer through that is not read to its end: no call in it counts."""
        reader = _Reader("".join(self._pieces), self._tools)
        with suppress(Incomplete, _NotCalls, _Broken):
            reader.read()
        self.broken = reader.calls[0][0] if reader.calls else reader.named
        yield from self.flush()

    def _hold(self, text: str) -> Iterator[Event]:
        self._pieces.append(text)
        self._length += len(text)
        if self._length <= self._read_next:
            return
        held = "".join(self._pieces)
        self._pieces = [held]
        if self._length > _READ_AT_ONCE:
            self._read_next = self._length + self._length // 8
        reader = _Reader(held, self._tools)
        if self._length <= _MAX_HELD and _may_be_calls(reader):
            followed = reader.calls if reader.goes_on else reader.calls[:-1]
            if reader.has_too_many or any(map(self._was_answered, followed)):
                self.is_endless, self.broken = True, reader.named
            return
        if self._length <= _MAX_HELD and self._may_be_unknown(held):
            return
        self._pieces, self.broken = [], None
        if reader.has_begun or self._lead or self._length > _MAX_HELD:
            self._state = _State.TEXT
            yield TextDelta(held)
        else:
            self._state = _State.LEAD
            yield from self._read_lead(held)

    def _may_be_unknown(self, text: str) -> bool:
        if not self._holds_unknown:
            return False
        reader = _UnknownReader(text, self._tools)
        try:
            reader.read()
        except (_NotCalls, _Broken):
            return False
        except Incomplete:
            pass
        return True

    def _was_answered(self, call: tuple[ToolSpec, Any]) -> bool:
        """Whether a model makes a call again: if more follows it, it invents that without end."""
        tool, given = call
        arguments = fit_arguments(given, tool.parameters)
        return arguments is not None and self._is_answered(tool.name, json.dumps(arguments))

    def _read_lead(self, text: str) -> Iterator[Event]:
        self._lead += text
        lead, held = self._lead, ""
        found = next(
            filter(self._is_meant, _AFTER.finditer(lead, self._passed, _END_OF_LEAD)), None
        )
        end = found.start() if found else len(lead) - _begun_at_end(lead[self._passed :])
        if end > _MAX_LEAD:
            end, self._state = len(lead), _State.TEXT
        elif found:
            held, self._state = lead[end:], _State.HELD
        if end > self._passed:
            yield TextDelta(lead[self._passed : end])
        self._passed = end
        if self._state is not _State.LEAD:
            self._lead = self._lead[:end]
        if held:
            yield from self._hold(held)

    def _is_meant(self, found: re.Match[str]) -> bool:
        """Whether an opening that follows a text is meant, not mentioned or quoted."""
        before = self._lead[: min(found.start(), _MAX_LEAD)]
        *_, line = before.rpartition("\n")
        follows = _LEADS[found[0]] is Lead.TEXT and _SENTENCE.fullmatch(line)
        if not (_LINE.fullmatch(line) or follows) or line.count('"') % 2:
            return False
        if before.rstrip().endswith(_AFTER_TEXT):
            # It belongs to another one, which was not meant.
            return False
        *_, paragraph = before.rpartition("\n\n")
        return paragraph.count("`") % 2 == 0 and len(_BACKTICKS.findall(before)) % 2 == 0

    def _finish(self, *, is_whole: bool) -> Iterator[Event]:
        text = "".join(self._pieces)
        if calls := self._calls_in(text, is_whole=is_whole):
            self._pieces = []
            yield from calls
        elif self._holds_unknown and is_whole and self.broken is None:
            reader = _UnknownReader(text, self._tools, is_whole=True)
            with suppress(Incomplete, _NotCalls, _Broken):
                reader.read()
                self.unknown = reader.unknown
        yield from self.flush()

    def _calls_in(self, text: str, *, is_whole: bool) -> list[Event]:
        """The calls in a whole text that is nothing but calls, as far as they are valid."""
        reader = _Reader(text, self._tools, is_whole=is_whole)
        broken: ToolSpec | None = None
        try:
            reader.read()
            broken = reader.calls[0][0] if reader.described and reader.calls else None
        except _NotCalls:
            return []
        except Incomplete:
            broken = reader.named
        except _Broken:
            if not (reader.is_near_error() and reader.ends_like_a_call()):
                return []
            broken = reader.named
        # What the model invents behind a call, such as a result, shows that it is lost.
        is_none = bool(reader.described) or reader.has_too_many or reader.goes_on
        calls: list[Event] = []
        ids: set[str] = set()
        for called, given in () if is_none else reader.calls:
            arguments = fit_arguments(given, called.parameters)
            if arguments is None:
                broken = called
                break
            ids.add(id := call_id(None, ids))
            text = without_halves(json.dumps(arguments, ensure_ascii=False))
            calls.append(ToolCall(id, called.name, text))
        # What precedes a broken call is sound, and a model that gets its results can go on.
        self.broken = None if calls else broken
        return calls


def _may_be_calls(reader: _Reader) -> bool:
    try:
        reader.read()
    except _NotCalls:
        return False
    except Incomplete:
        return True
    except _Broken:
        return reader.is_near_error()
    return True


def _begun_at_end(text: str) -> int:
    """How many characters at the end of `text` may be the beginning of an opening."""
    start = max(0, len(text) - _LONGEST_TOKEN)
    places = (at for at in range(start, len(text)) if text[at] in _FIRSTS)
    begun = (at for at in places if any(token.startswith(text[at:]) for token in _AFTER_TEXT))
    return next((len(text) - at for at in begun), 0)
