"""Translates the tree of a Go template to Jinja, with the names that Ollama defines. Pure.

Ollama merges adjacent messages of one role, joins the system prompts, and renders templates that do
not use `.Messages` turn by turn (`template/template.go`, 0.32). The first lines of each translation
do the same. Text of the template is written as quoted strings, so that none of it is read as Jinja.
Parsing is left to `syntax`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from llm_localrun.files.gotemplate.syntax import (
    Assign,
    Branch,
    Call,
    Expression,
    Field,
    Jump,
    Literal,
    Node,
    Print,
    Text,
    Untranslatable,
    Variable,
    parse,
)

# The values that Ollama passes to a template, and the Jinja for each.
_GLOBALS = {
    "Messages": "go.messages",
    "System": "go.system",
    "Tools": "(tools or [])",
    "Prompt": "go.prompt",
    "Response": "go.response",
    "Suffix": "''",
    "Think": "(enable_thinking if enable_thinking is defined else true)",
    "ThinkLevel": "(reasoning_effort or '')",
    # For a model that can think, Ollama sets it by default.
    "IsThinkSet": "true",
}
# The fields of messages and tools by their names in Go, with their names in JSON.
_SAME_IN_LOWER_CASE = (
    *("Role", "Content", "Images", "ID", "Type", "Function", "Name", "Description", "Arguments"),
    *("Parameters", "Properties", "Required", "Items", "Enum"),
)
_FIELDS = {
    **{name: name.lower() for name in _SAME_IN_LOWER_CASE},
    "Thinking": "reasoning_content",
    "ToolCalls": "tool_calls",
    "ToolName": "name",
    "ToolCallID": "tool_call_id",
}
_OPTIONAL_FIELDS = {
    "Thinking": "''",
    "Images": "[]",
    "ToolCalls": "[]",
    "ToolName": "''",
    "ToolCallID": "''",
}
"""The fields that a message may lack, with the Jinja for their defaults."""
_STRING_FIELDS = ("Role", "Content", "Thinking", "System", "Prompt", "Response", "Name")
"""The fields and globals that are always strings."""

_MAX_VALUE = 2**14
"""Characters. Some functions repeat their arguments, so that nested ones grow without limit."""
_COMPACT = "tojson(separators=(',', ':'))"


def _joined(word: str) -> Callable[..., str]:
    return lambda *values: f"({f' {word} '.join(values)})"


# For each function: the fewest and the most arguments, and the Jinja for a call.
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
    "index": (2, 9, lambda value, *keys: value + "".join(f"[{key}]" for key in keys)),
    "slice": (2, 3, lambda value, start, end="": f"{value}[{start}:{end}]"),
    "json": (1, 1, lambda value: f"({value} | {_COMPACT})"),
    "currentDate": (0, 0, lambda: "strftime_now('%Y-%m-%d')"),
}

# Ollama writes a value that is neither a string nor nil as JSON.
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
    """The Jinja that renders the same prompts as `template` in Ollama. Raises `Untranslatable`."""
    try:
        return _translated(parse(template))
    except RecursionError:
        raise Untranslatable("too many blocks within blocks") from None


def _translated(nodes: Sequence[Node]) -> str:
    translator = _Translator()
    body = translator.block(nodes, _Scope())
    if "Messages" not in translator.names:
        if "Response" not in translator.names:
            nodes = (*nodes, Print(Field(None, ("Response",))))
            body += translator.block(nodes[-1:], _Scope())
        turn = f"{{%- macro turn() -%}}{body}{{%- endmacro -%}}"
        last_turn = _Translator(up_to_response=True).block(nodes, _Scope())
        body = turn + _TURN_BY_TURN + last_turn
    more = "".join(
        f", {_FIELDS[name]}=m[{_quoted(_FIELDS[name])}] or {default}"
        for name, default in _OPTIONAL_FIELDS.items()
        if name in translator.names
    )
    return f"{_WRITE}{_GATHER.replace('<more>', more)}{{%- set v = namespace() -%}}{body}"


@dataclass(frozen=True, slots=True)
class _Scope:
    """The Jinja for the dot and the variables in a block of the template."""

    dot: str | None = None
    """None: the dot is the globals."""
    variables: dict[str, str] = field(default_factory=dict)

    def inner(self, dot: str | None = None) -> "_Scope":
        """The scope of a block in this one; its dot is the same if `dot` is None."""
        return _Scope(dot or self.dot, dict(self.variables))


class _Translator:
    """Translates nodes to Jinja.

    `up_to_response` leaves out what follows the first print of the response: the prompt ends there,
    and the model continues. `names` collects the globals and fields that the template reads.
    """

    def __init__(self, *, up_to_response: bool = False) -> None:
        self.names: set[str] = set()
        self._up_to_response = up_to_response
        self._is_over = False
        self._count = 0

    def block(self, nodes: Sequence[Node], scope: _Scope) -> str:
        return "".join(self._node(node, scope) for node in nodes if not self._is_over)

    def _node(self, node: Node, scope: _Scope) -> str:
        if isinstance(node, Text):
            return f"{{{{- {_quoted(node.text)} -}}}}"
        if isinstance(node, Print):
            self._is_over = self._up_to_response and "Response" in _names_of(node.value)
            value = self._value(node.value, scope)
            return f"{{{{- {value if _is_text(node.value) else f'write({value})'} -}}}}"
        if isinstance(node, Jump):
            return f"{{%- {node.kind} -%}}"
        if isinstance(node, Assign):
            value = self._value(node.value, scope)
            return self._set(node.name, value, scope, is_new=node.is_new)
        return self._range(node, scope) if node.kind == "range" else self._if(node, scope)

    def _if(self, node: Branch, scope: _Scope) -> str:
        """`if`; or `with`, whose body has the value as its dot."""
        inner, start = scope.inner(), ""
        condition = self._value(node.value, scope)
        if node.names or node.kind == "with":
            name = node.names[0] if node.names else "dot"
            start = self._set(name, condition, inner)
            condition = inner.variables[name]
        body = inner.inner(condition) if node.kind == "with" else inner
        return f"{start}{{%- if {condition} -%}}{self._ending(node, body, inner, 'if')}"

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
        jinja = self.block(node.body, body)
        if node.otherwise:
            jinja += f"{{%- else -%}}{self.block(node.otherwise, otherwise)}"
        return f"{jinja}{{%- end{kind} -%}}"

    def _set(self, name: str, value: str, scope: _Scope, *, is_new: bool = True) -> str:
        """Sets a variable, in a namespace: Jinja's own variables end with the loop around them."""
        if is_new:
            scope.variables[name] = f"v.{self._name('x')}"
        return f"{{%- set {_variable(name, scope)} = {value} -%}}"

    def _name(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"

    def _value(self, value: Expression, scope: _Scope) -> str:
        """The Jinja for a value. Raises `Untranslatable`."""
        jinja = self._unbounded(value, scope)
        if len(jinja) > _MAX_VALUE:
            raise Untranslatable(f"a value of more than {_MAX_VALUE:,} characters")
        return jinja

    def _unbounded(self, value: Expression, scope: _Scope) -> str:
        if isinstance(value, Literal):
            return _literal(value.value)
        if isinstance(value, Field):
            return self._field(value, scope)
        if isinstance(value, Call):
            return self._call(value, scope)
        return _variable(value.name, scope)

    def _field(self, value: Field, scope: _Scope) -> str:
        names = value.names
        is_global = value.of == Variable("$") or (value.of is None and scope.dot is None)
        if is_global:
            if not names or names[0] not in _GLOBALS:
                raise Untranslatable(f"'.{'.'.join(names)}'")
            self.names.add(names[0])
            base, names = _GLOBALS[names[0]], names[1:]
        else:
            base = self._value(value.of, scope) if value.of else str(scope.dot)
        for name in names:
            if name not in _FIELDS:
                raise Untranslatable(f"the field '.{name}'")
            self.names.add(name)
            base += f"[{_quoted(_FIELDS[name])}]"
        return base

    def _call(self, call: Call, scope: _Scope) -> str:
        fewest, most, write = _FUNCTIONS.get(call.function, (1, 0, str))
        if not fewest <= len(call.arguments) <= most:
            raise Untranslatable(f"the function '{call.function}' of {len(call.arguments)} values")
        first = _last_name(call.arguments[0]) if call.arguments else ""
        if call.function in ("len", "index", "slice") and first == "Type":
            raise Untranslatable("a type that is a list of types")
        values = [self._value(argument, scope) for argument in call.arguments]
        if call.function == "json" and first == "Arguments":
            # llama.cpp passes them as it received them, which may be JSON already.
            return f"({values[0]} if {values[0]} is string else {write(*values)})"
        return write(*values)


def _variable(name: str, scope: _Scope) -> str:
    if name not in scope.variables:
        raise Untranslatable(f"the variable {name}, which is not defined")
    return scope.variables[name]


def _names_of(value: Expression) -> Iterator[str]:
    """The names of all fields in an expression."""
    if isinstance(value, Field):
        yield from value.names
        yield from _names_of(value.of) if value.of else ()
    elif isinstance(value, Call):
        for argument in value.arguments:
            yield from _names_of(argument)


def _last_name(value: Expression) -> str:
    return value.names[-1] if isinstance(value, Field) and value.names else ""


def _is_text(value: Expression) -> bool:
    """Whether a value is always a string, which is written as it is."""
    if isinstance(value, Call):
        return value.function in ("json", "currentDate")
    return _last_name(value) in _STRING_FIELDS


_ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
"""The only ones that llama.cpp knows."""


def _literal(value: str | int | float | bool | None) -> str:
    if isinstance(value, str):
        return _quoted(value)
    return "none" if value is None else json.dumps(value)


def _quoted(text: str) -> str:
    return f"'{text.translate(_ESCAPES)}'"
