"""A tree of Go's template to Jinja, with Ollama's meaning of the names in it. Pure.

Ollama merges neighbouring messages of one role, collects the system prompts, and renders templates
that know no messages turn by turn (`template/template.go`, 0.32): the first lines of what is made
here do the same. Everything that is written stands in quotes, so that no text is taken for Jinja.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from llm_localrun.files.gotemplate.syntax import (
    Assign,
    Branch,
    Call,
    Expression,
    Field,
    Jump,
    Literal,
    Node,
    NotUnderstood,
    Print,
    Text,
    Variable,
    parse,
)

# What a template is given, and what it is in the Jinja that is made.
_GIVEN = {
    "Messages": "go.messages",
    "System": "go.system",
    "Tools": "(tools or [])",
    "Prompt": "go.prompt",
    "Response": "go.response",
    "Suffix": "''",
    "Think": "(enable_thinking if enable_thinking is defined else true)",
    "ThinkLevel": "(reasoning_effort or '')",
    # Ollama takes a model that can think to have been asked to.
    "IsThinkSet": "true",
}
_TURN = ("System", "Prompt", "Response")

# The fields of messages and tools: in Go, in JSON.
_FIELDS = {
    "Role": "role",
    "Content": "content",
    "Thinking": "reasoning_content",
    "Images": "images",
    "ToolCalls": "tool_calls",
    "ToolName": "name",
    "ToolCallID": "tool_call_id",
    "ID": "id",
    "Type": "type",
    "Function": "function",
    "Name": "name",
    "Description": "description",
    "Arguments": "arguments",
    "Parameters": "parameters",
    "Properties": "properties",
    "Required": "required",
    "Items": "items",
    "Enum": "enum",
}
_OF_MESSAGES = {
    "Thinking": "''",
    "Images": "[]",
    "ToolCalls": "[]",
    "ToolName": "''",
    "ToolCallID": "''",
}
"""Those that a message may lack, and what they are then."""
_TEXTS = ("Role", "Content", "Thinking", "System", "Prompt", "Response", "Name")
"""Those that are surely texts."""

_COMPACT = "tojson(separators=(',', ':'))"


def _joined(word: str) -> Callable[..., str]:
    return lambda *values: f"({f' {word} '.join(values)})"


# How many values a function takes, and what is made of them.
_FUNCTIONS: dict[str, tuple[int, int, Callable[..., str]]] = {
    "and": (1, 9, _joined("and")),
    "or": (1, 9, _joined("or")),
    "not": (1, 1, lambda value: f"(not {value})"),
    "eq": (2, 9, lambda value, *others: f"({' or '.join(f'{value} == {o}' for o in others)})"),
    "ne": (2, 2, _joined("!=")),
    "lt": (2, 2, _joined("<")),
    "le": (2, 2, _joined("<=")),
    "gt": (2, 2, _joined(">")),
    "ge": (2, 2, _joined(">=")),
    "len": (1, 1, lambda value: f"({value} | length)"),
    "index": (2, 9, lambda value, *places: value + "".join(f"[{place}]" for place in places)),
    "slice": (2, 3, lambda value, start, end="": f"{value}[{start}:{end}]"),
    "json": (1, 1, lambda value: f"({value} | {_COMPACT})"),
    "currentDate": (0, 0, lambda: "strftime_now('%Y-%m-%d')"),
}

# Go writes as JSON what is neither a text nor nothing.
_WRITE = f"""\
{{%- macro write(it) -%}}
{{%- if it is string -%}}{{{{ it }}}}
{{%- elif it is defined and it is not none -%}}{{{{ it | {_COMPACT} }}}}{{%- endif -%}}
{{%- endmacro -%}}
"""

_GATHER = """\
{%- set go = namespace(system='', prompt='', response='', messages=[]) -%}
{%- for m in messages -%}
{%- set content = m['content'] or '' -%}
{%- if m['role'] == 'system' -%}
{%- set go.system = go.system + ('\\n\\n' if go.system else '') + content -%}
{%- endif -%}
{%- if go.messages and go.messages[-1]['role'] == m['role'] and m['role'] != 'tool' -%}
{%- set before = go.messages[-1] -%}
{%- set before.content = before['content'] + '\\n\\n' + content -%}
{%- else -%}
{%- set message = namespace(role=m['role'], content=content<more>) -%}
{%- set go.messages = go.messages + [message] -%}
{%- endif -%}
{%- endfor -%}
"""

_TURN_BY_TURN = """\
{%- set go.system = '' -%}
{%- for m in go.messages -%}
{%- if (m['role'] == 'system' and (go.prompt or go.response))
 or (m['role'] == 'user' and go.response) -%}
{{ turn() }}
{%- set go.system = '' -%}{%- set go.prompt = '' -%}{%- set go.response = '' -%}
{%- endif -%}
{%- if m['role'] == 'system' -%}{%- set go.system = m['content'] -%}
{%- elif m['role'] == 'user' -%}{%- set go.prompt = m['content'] -%}
{%- elif m['role'] == 'assistant' -%}{%- set go.response = m['content'] -%}{%- endif -%}
{%- endfor -%}
"""


def to_jinja(template: str) -> str:
    """The Jinja that writes what Ollama writes by `template`. Raises `NotUnderstood`."""
    nodes = parse(template)
    names = {name.lower() for name in _names_in(nodes)}
    maker = _Maker()
    if "messages" in names:
        body = maker.block(nodes, _Scope())
    else:
        if "response" not in names:
            nodes = (*nodes, Print(Field(None, ("Response",))))
        turn = f"{{%- macro turn() -%}}{maker.block(nodes, _Scope())}{{%- endmacro -%}}"
        body = turn + _TURN_BY_TURN + maker.block(_up_to_response(nodes)[0], _Scope())
    more = "".join(
        f", {_FIELDS[name]}=m[{_quoted(_FIELDS[name])}] or {nothing}"
        for name, nothing in _OF_MESSAGES.items()
        if name in maker.fields
    )
    return f"{_WRITE}{_GATHER.replace('<more>', more)}{{%- set v = namespace() -%}}{body}"


def _names_in(nodes: Sequence[Node]) -> Iterator[str]:
    """The names of fields in a template."""
    for node in nodes:
        if isinstance(node, Print | Assign | Branch):
            yield from _names_of(node.value)
        if isinstance(node, Branch):
            yield from _names_in((*node.body, *node.otherwise))


def _names_of(value: Expression) -> Iterator[str]:
    if isinstance(value, Field):
        yield from value.names
        yield from _names_of(value.of) if value.of else ()
    elif isinstance(value, Call):
        for argument in value.arguments:
            yield from _names_of(argument)


def _up_to_response(nodes: Sequence[Node]) -> tuple[tuple[Node, ...], bool]:
    """The nodes up to the first that writes the response, which the model goes on with."""
    kept: list[Node] = []
    for node in nodes:
        if isinstance(node, Print) and "Response" in _names_of(node.value):
            return (*kept, node), True
        if isinstance(node, Branch):
            body, ends = _up_to_response(node.body)
            otherwise, ends_too = ((), True) if ends else _up_to_response(node.otherwise)
            kept.append(replace(node, body=body, otherwise=otherwise))
            if ends or ends_too:
                return tuple(kept), True
        else:
            kept.append(node)
    return tuple(kept), False


@dataclass(frozen=True, slots=True)
class _Scope:
    """What names mean at a place: `dot` is None where it is all that the template was given."""

    dot: str | None = None
    variables: dict[str, str] = field(default_factory=dict)

    def inner(self, dot: str | None = None) -> "_Scope":
        """The scope of a block in this one."""
        return _Scope(dot or self.dot, dict(self.variables))


class _Maker:
    """Makes Jinja of nodes; counts the names that it gives, and what it takes of messages."""

    def __init__(self) -> None:
        self.fields: set[str] = set()
        self._count = 0

    def block(self, nodes: Sequence[Node], scope: _Scope) -> str:
        return "".join(self._node(node, scope) for node in nodes)

    def _node(self, node: Node, scope: _Scope) -> str:
        if isinstance(node, Text):
            return f"{{{{- {_quoted(node.text)} -}}}}"
        if isinstance(node, Print):
            value = self._value(node.value, scope)
            return f"{{{{- {value if _is_text(node.value) else f'write({value})'} -}}}}"
        if isinstance(node, Jump):
            return f"{{%- {node.kind} -%}}"
        if isinstance(node, Assign):
            value = self._value(node.value, scope)
            return self._set(node.name, value, scope, is_new=node.is_new)
        return {"if": self._if, "with": self._with, "range": self._range}[node.kind](node, scope)

    def _if(self, node: Branch, scope: _Scope) -> str:
        inner = scope.inner()
        value = self._value(node.value, scope)
        before = self._set(node.names[0], value, inner) if node.names else ""
        condition = inner.variables[node.names[0]] if node.names else value
        return f"{before}{{%- if {condition} -%}}{self._ending(node, inner, inner, 'if')}"

    def _with(self, node: Branch, scope: _Scope) -> str:
        dot = self._name("d")
        inner = scope.inner(dot)
        start = f"{{%- set {dot} = {self._value(node.value, scope)} -%}}"
        if node.names:
            start += self._set(node.names[0], dot, inner)
        return f"{start}{{%- if {dot} -%}}{self._ending(node, inner, scope.inner(), 'if')}"

    def _range(self, node: Branch, scope: _Scope) -> str:
        dot, key = self._name("d"), self._name("k")
        inner = scope.inner(dot)
        value = self._value(node.value, scope)
        is_mapping = isinstance(node.value, Field) and node.value.names[-1:] == ("Properties",)
        if is_mapping:
            start = f"{{%- for {key}, {dot} in ({value} or {{}}) | dictsort -%}}"
        else:
            key = "loop.index0"
            start = f"{{%- for {dot} in ({value} or []) -%}}"
        for name, given in zip(node.names[::-1], (dot, key), strict=False):
            start += self._set(name, given, inner)
        return start + self._ending(node, inner, scope.inner(), "for")

    def _ending(self, node: Branch, body: _Scope, otherwise: _Scope, kind: str) -> str:
        made = self.block(node.body, body)
        if node.otherwise:
            made += f"{{%- else -%}}{self.block(node.otherwise, otherwise)}"
        return f"{made}{{%- end{kind} -%}}"

    def _set(self, name: str, value: str, scope: _Scope, *, is_new: bool = True) -> str:
        """Sets a variable. A namespace has them all: Jinja's own end with the loop they are in."""
        if is_new:
            scope.variables[name] = f"v.{self._name('x')}"
        if name not in scope.variables:
            raise NotUnderstood(f"the variable {name}, which is not there")
        return f"{{%- set {scope.variables[name]} = {value} -%}}"

    def _name(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"

    def _value(self, value: Expression, scope: _Scope) -> str:
        if isinstance(value, Literal):
            return _literal(value.value)
        if isinstance(value, Field):
            return self._field(value, scope)
        if isinstance(value, Call):
            return self._call(value, scope)
        if value.name not in scope.variables:
            raise NotUnderstood(f"the variable {value.name}, which is not there")
        return scope.variables[value.name]

    def _field(self, value: Field, scope: _Scope) -> str:
        names = value.names
        is_given = value.of == Variable("$") or (value.of is None and scope.dot is None)
        if is_given:
            if not names or names[0] not in _GIVEN:
                raise NotUnderstood(f"'.{'.'.join(names)}'")
            base, names = _GIVEN[names[0]], names[1:]
        else:
            base = self._value(value.of, scope) if value.of else str(scope.dot)
        for name in names:
            if name not in _FIELDS:
                raise NotUnderstood(f"the field '.{name}'")
            self.fields.add(name)
            base += f"[{_quoted(_FIELDS[name])}]"
        return base

    def _call(self, call: Call, scope: _Scope) -> str:
        least, most, make = _FUNCTIONS.get(call.function, (1, 0, str))
        if not least <= len(call.arguments) <= most:
            raise NotUnderstood(f"the function '{call.function}' of {len(call.arguments)} values")
        if call.function in ("len", "index", "slice") and _last_name(call.arguments[0]) == "Type":
            raise NotUnderstood("a type that is a list of types")
        values = [self._value(argument, scope) for argument in call.arguments]
        if call.function == "json" and _last_name(call.arguments[0]) == "Arguments":
            # They may be JSON already: llama.cpp hands them on as it has got them.
            return f"({values[0]} if {values[0]} is string else {make(*values)})"
        return make(*values)


def _last_name(value: Expression) -> str:
    return value.names[-1] if isinstance(value, Field) and value.names else ""


def _is_text(value: Expression) -> bool:
    """Whether a value is surely a text, which is written as it is."""
    if isinstance(value, Call):
        return value.function in ("json", "currentDate")
    return _last_name(value) in _TEXTS


_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _literal(value: str | int | float | bool | None) -> str:
    if isinstance(value, str):
        return _quoted(value)
    return "none" if value is None else json.dumps(value)


def _quoted(text: str) -> str:
    """A text in quotes, with those escapes alone that llama.cpp knows."""
    return "'" + "".join(_ESCAPES.get(character, character) for character in text) + "'"
