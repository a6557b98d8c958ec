"""Parses a template of Go's text/template into a tree. Pure.

https://pkg.go.dev/text/template, as far as the templates of Ollama's library use it: anything else
raises `Untranslatable`. What the names in a template mean is left to `jinja`.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


class Untranslatable(ValueError):
    """The template uses something that is not translated. The message names it: "'define'"."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, a number, a boolean, or nil."""

    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Field:
    """`.A.B`: a field of the dot, or of the value `of`. Without names it is the dot itself."""

    of: "Expression | None"
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """`$name`; `$` alone stands for the globals."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """`function argument …`."""

    function: str
    arguments: tuple["Expression", ...]


Expression: TypeAlias = Literal | Field | Variable | Call


@dataclass(frozen=True, slots=True)
class Text:
    """Text outside the actions, which is written as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Print:
    """`{{ value }}`."""

    value: Expression


@dataclass(frozen=True, slots=True)
class Assign:
    """`{{ $name := value }}`, or with `=` for a variable that exists."""

    name: str
    value: Expression
    is_new: bool


@dataclass(frozen=True, slots=True)
class Branch:
    """`if`, `with` or `range`; `names` are the variables that it sets: `("$i", "$x")`."""

    kind: str
    names: tuple[str, ...]
    value: Expression
    body: tuple["Node", ...]
    otherwise: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Jump:
    """`break` or `continue`."""

    kind: str


Node: TypeAlias = Text | Print | Assign | Branch | Jump

_ACTION = re.compile(
    r"\{\{(?P<before>-(?=\s))?"
    r"(?P<code>\s*/\*.*?\*/\s*|(?:\"(?:\\.|[^\"\\\n])*\"|`[^`]*`|(?!-?\}\})[^\"`])*?)"
    r"(?P<after>(?<=\s)-)?\}\}",
    re.DOTALL,
)
_TARGETS = re.compile(r"(?P<names>\$\w*(?:\s*,\s*\$\w*)?)\s*(?P<sign>:?=)")
_TOKEN = re.compile(
    r"(?P<space>\s*)(?:(?P<text>\"(?:\\.|[^\"\\\n])*\"|`[^`]*`)"
    r"|(?P<number>[+-]?\d+(?:\.\d+)?(?!\w))"
    r"|(?P<variable>\$\w*)"
    r"|(?P<field>\.\w*)"
    r"|(?P<word>[^\W\d]\w*)"
    r"|(?P<sign>[|()]))"
)
_MAX_LENGTH = 2**16
_BRANCHES = ("if", "with", "range")
_CONSTANTS = {"true": True, "false": False, "nil": None}


def parse(template: str) -> tuple[Node, ...]:
    """The nodes of a template. Raises `Untranslatable`, and RecursionError for deep ones."""
    if len(template) > _MAX_LENGTH:
        raise Untranslatable(f"{len(template):,} characters")
    nodes, end = _block(_pieces(template))
    if end:
        raise Untranslatable(f"'{end}' where nothing is open")
    return nodes


def _pieces(template: str) -> Iterator[Text | str]:
    """The texts, trimmed as the actions beside them say, and the code of each action."""
    at, trims = 0, False
    while (start := template.find("{{", at)) >= 0:
        action = _ACTION.match(template, start)
        if action is None:
            raise Untranslatable("an action that is not closed")
        yield _trimmed(template[at:start], before=trims, after=bool(action["before"]))
        if not (code := action["code"].strip()).startswith("/*"):
            yield code
        at, trims = action.end(), bool(action["after"])
    yield _trimmed(template[at:], before=trims, after=False)


def _trimmed(text: str, *, before: bool, after: bool) -> Text:
    text = text.lstrip(" \t\r\n") if before else text
    return Text(text.rstrip(" \t\r\n") if after else text)


def _block(pieces: Iterator[Text | str]) -> tuple[tuple[Node, ...], str]:
    """The nodes up to the `end` or `else` of the block, and the code of that; "" if none comes."""
    nodes: list[Node] = []
    for piece in pieces:
        if isinstance(piece, Text):
            nodes += [piece] if piece.text else []
            continue
        word = piece.partition(" ")[0]
        if word in ("end", "else"):
            return tuple(nodes), piece
        if word in ("define", "block", "template"):
            raise Untranslatable(f"'{word}'")
        nodes.append(_branch(piece, pieces) if word in _BRANCHES else _simple(piece))
    return tuple(nodes), ""


def _branch(code: str, pieces: Iterator[Text | str]) -> Branch:
    kind, _, condition = code.partition(" ")
    names, _, value = _pipeline(condition)
    body, end = _block(pieces)
    otherwise: tuple[Node, ...] = ()
    if end.startswith("else "):
        # An {{ else if }} is an {{ if }} in the {{ else }}, and shares its {{ end }}.
        otherwise, end = (_branch(end[4:].strip(), pieces),), "end"
    elif end == "else":
        otherwise, end = _block(pieces)
    if end != "end":
        raise Untranslatable(f"'{kind}' without its end")
    return Branch(kind, names, value, body, otherwise)


def _simple(code: str) -> Node:
    if code in ("break", "continue"):
        return Jump(code)
    names, sign, value = _pipeline(code)
    return Assign(names[0], value, is_new=sign == ":=") if names else Print(value)


def _pipeline(code: str) -> tuple[tuple[str, ...], str, Expression]:
    """The variables that an action sets, `=` or `:=`, and the value."""
    targets = _TARGETS.match(code.strip())
    names = re.split(r"\s*,\s*", targets["names"]) if targets else []
    parser = _Parser(code.strip()[targets.end() if targets else 0 :])
    value = parser.pipeline()
    if parser.token.text:
        raise Untranslatable(f"'{parser.token.text}' in '{code}'")
    return tuple(names), targets["sign"] if targets else "", value


class _Token(NamedTuple):
    kind: str
    text: str
    is_apart: bool
    """Whether there is space before it: `.A .B` are two values, `.A.B` is one."""


_END = _Token("", "", is_apart=True)


def _tokens(code: str) -> Iterator[_Token]:
    at, end = 0, len(code.rstrip())
    while at < end:
        match = _TOKEN.match(code, at)
        if match is None:
            raise Untranslatable(f"'{code[at:].strip()}'")
        kind = str(match.lastgroup)
        yield _Token(kind, match[kind], is_apart=bool(match["space"]))
        at = match.end()


class _Parser:
    """Parses the value of an action. `token` is the next one, `_END` after the last."""

    def __init__(self, code: str) -> None:
        self._tokens = _tokens(code)
        self.token = next(self._tokens, _END)

    def advance(self) -> _Token:
        """Moves to the next token; returns the one before."""
        token, self.token = self.token, next(self._tokens, _END)
        return token

    def pipeline(self) -> Expression:
        """`command | function …`: a value becomes the last argument of what it is piped into."""
        value = self._command()
        while self.token.text == "|":
            self.advance()
            then = self._command()
            if not isinstance(then, Call):
                raise Untranslatable("a pipe into something that is not a function")
            value = Call(then.function, (*then.arguments, value))
        return value

    def _command(self) -> Expression:
        if self.token.kind != "word" or self.token.text in _CONSTANTS:
            return self._operand()
        function = self.advance().text
        arguments = []
        while self.token.text not in ("", "|", ")"):
            arguments.append(self._operand())
        return Call(function, tuple(arguments))

    def _operand(self) -> Expression:
        """A value, or a field of it."""
        value = self._term()
        names = []
        while self.token.kind == "field" and not self.token.is_apart and self.token.text != ".":
            names.append(self.advance().text[1:])
        if not names:
            return value
        if isinstance(value, Field):
            return Field(value.of, (*value.names, *names))
        return Field(value, tuple(names))

    def _term(self) -> Expression:
        kind, text, _ = self.advance()
        if text == "(":
            value = self.pipeline()
            if self.advance().text != ")":
                raise Untranslatable("a bracket that is not closed")
            return value
        if kind == "field":
            return Field(None, (text[1:],) if text != "." else ())
        if kind == "variable":
            return Variable(text)
        if kind == "text":
            return Literal(_unquoted(text))
        if kind == "number":
            return Literal(float(text) if "." in text else int(text))
        if kind == "word":
            return Literal(_CONSTANTS[text]) if text in _CONSTANTS else Call(text, ())
        raise Untranslatable(f"'{text}' for a value" if text else "nothing where a value belongs")


def _unquoted(text: str) -> str:
    if text.startswith("`"):
        return text[1:-1]
    try:
        value: str = json.loads(text)
    except ValueError:
        # Go has more escapes than JSON.
        raise Untranslatable(f"the text {text}") from None
    return value
