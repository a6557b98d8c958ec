"""Reads Go's text/template into a tree. Pure.

https://pkg.go.dev/text/template, as far as the templates of Ollama's library go; whatever else
stands in one is `NotUnderstood`. What the names in it mean is `jinja`'s business.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


class NotUnderstood(ValueError):
    """The template has something that is not translated; the message says what."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A text, a number, a truth, or nil."""

    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Field:
    """`.A.B`: fields of the dot, or of another value; no fields are that itself."""

    of: "Expression | None"
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """`$name`; `$` alone is what the template was given."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """`function argument …`."""

    function: str
    arguments: tuple["Expression", ...]


Expression: TypeAlias = Literal | Field | Variable | Call


@dataclass(frozen=True, slots=True)
class Text:
    """What is written as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Print:
    """`{{ value }}`."""

    value: Expression


@dataclass(frozen=True, slots=True)
class Assign:
    """`{{ $name := value }}`, or `=` for a variable that is there."""

    name: str
    value: Expression
    is_new: bool


@dataclass(frozen=True, slots=True)
class Branch:
    """`if`, `with` or `range`; `names` are the variables that it sets, `$i, $x` say."""

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
    """The nodes of a template. Raises `NotUnderstood`."""
    if len(template) > _MAX_LENGTH:
        raise NotUnderstood(f"{len(template):,} characters")
    try:
        nodes, end = _Pieces(list(_pieces(template))).block()
    except RecursionError:
        raise NotUnderstood("too many blocks within blocks") from None
    if end:
        raise NotUnderstood(f"'{end}' where nothing is open")
    return nodes


def _pieces(template: str) -> Iterator[Text | str]:
    """Texts, with what actions trim off them gone, and the code of the actions in between."""
    at, trims = 0, False
    while (start := template.find("{{", at)) >= 0:
        action = _ACTION.match(template, start)
        if action is None:
            raise NotUnderstood("an action that is not closed")
        yield _trimmed(template[at:start], before=trims, after=bool(action["before"]))
        if not (code := action["code"].strip()).startswith("/*"):
            yield code
        at, trims = action.end(), bool(action["after"])
    yield _trimmed(template[at:], before=trims, after=False)


def _trimmed(text: str, *, before: bool, after: bool) -> Text:
    text = text.lstrip(" \t\r\n") if before else text
    return Text(text.rstrip(" \t\r\n") if after else text)


class _Pieces:
    """The pieces of a template, read from the first to the last."""

    def __init__(self, pieces: list[Text | str]) -> None:
        self._pieces = pieces[::-1]

    def block(self) -> tuple[tuple[Node, ...], str]:
        """Nodes up to an `end` or `else` that belongs to somebody further out, and that."""
        nodes: list[Node] = []
        while self._pieces:
            piece = self._pieces.pop()
            if isinstance(piece, Text):
                nodes += [piece] if piece.text else []
                continue
            word = piece.partition(" ")[0]
            if word in ("end", "else"):
                return tuple(nodes), piece
            if word in ("define", "block", "template"):
                raise NotUnderstood(f"'{word}'")
            nodes.append(self._branch(piece) if word in _BRANCHES else _simple(piece))
        return tuple(nodes), ""

    def _branch(self, code: str) -> Branch:
        kind, _, condition = code.partition(" ")
        names, _, value = _pipeline(condition)
        body, end = self.block()
        otherwise: tuple[Node, ...] = ()
        if end.startswith("else "):
            # An {{ else if }} is an {{ if }} in the {{ else }}, and shares its {{ end }}.
            otherwise, end = (self._branch(end[4:].strip()),), "end"
        elif end == "else":
            otherwise, end = self.block()
        if end != "end":
            raise NotUnderstood(f"'{kind}' without its end")
        return Branch(kind, names, value, body, otherwise)


def _simple(code: str) -> Node:
    if code in ("break", "continue"):
        return Jump(code)
    names, sign, value = _pipeline(code)
    return Assign(names[0], value, is_new=sign == ":=") if names else Print(value)


def _pipeline(code: str) -> tuple[tuple[str, ...], str, Expression]:
    """The variables that an action sets, the sign by which it does, and the value."""
    targets = _TARGETS.match(code.strip())
    names = re.split(r"\s*,\s*", targets["names"]) if targets else []
    tokens = _Tokens(code.strip()[targets.end() if targets else 0 :])
    value = tokens.piped()
    if tokens.token.text:
        raise NotUnderstood(f"'{tokens.token.text}' in '{code}'")
    return tuple(names), targets["sign"] if targets else "", value


class _Token(NamedTuple):
    kind: str
    text: str
    is_apart: bool
    """Whether there is space before it: `.A .B` are two values, `.A.B` is one."""


class _Tokens:
    """The tokens of an action; `token` is the next one, and without a text behind the last."""

    def __init__(self, code: str) -> None:
        self._code = code
        self._at = 0
        self.token = _Token("", "", False)
        self.advance()

    def advance(self) -> _Token:
        """Goes on to the next token; returns the one that it was at."""
        token = self.token
        match = _TOKEN.match(self._code, self._at)
        rest = self._code[self._at :].strip()
        if match is None and rest:
            raise NotUnderstood(f"'{rest}'")
        kind = (match.lastgroup or "") if match else ""
        self.token = (
            _Token(kind, match[kind], bool(match["space"])) if match else _Token("", "", True)
        )
        self._at = match.end() if match else len(self._code)
        return token

    def piped(self) -> Expression:
        """`command | function …`: a value becomes the last argument of what it is piped into."""
        value = self._command()
        while self.token.text == "|":
            self.advance()
            then = self._command()
            if not isinstance(then, Call):
                raise NotUnderstood("a pipe into what is no function")
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
        """A value and the fields that are taken of it."""
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
            value = self.piped()
            if self.advance().text != ")":
                raise NotUnderstood("a bracket that is not closed")
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
        raise NotUnderstood(f"'{text}' for a value" if text else "nothing where a value belongs")


def _unquoted(text: str) -> str:
    if text.startswith("`"):
        return text[1:-1]
    try:
        value: str = json.loads(text)
    except ValueError:
        # Go has more escapes than JSON.
        raise NotUnderstood(f"the text {text}") from None
    return value
