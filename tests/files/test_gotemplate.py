"""Go's templates in Jinja: what the real engine writes by them is what Go writes.

The expected prompts are what Go's own text/template wrote, given what Ollama gives it.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_localrun.engine.launch import find_or_start
from llm_localrun.engine.settings import EngineRequest
from llm_localrun.engine.state import EngineSettings
from llm_localrun.engine.stop import stop
from llm_localrun.files.gotemplate import Untranslatable, to_jinja

Messages = list[dict[str, Any]]


@contextlib.contextmanager
def engine_with(template: str, model: Path, user_path: Path) -> Iterator[httpx.Client]:
    """A client of an engine that writes prompts by one of Go's templates."""
    settings = EngineSettings(context_size=512, threads=1, chat_template=to_jinja(template))
    folder = user_path / "localrun" / "engine"
    engine, _ = find_or_start(EngineRequest(str(model), "m", settings), folder, 60, 60)
    headers = {"Authorization": f"Bearer {engine.key}"}
    with httpx.Client(base_url=engine.url, headers=headers, timeout=60) as client:
        yield client
    stop(engine, folder)


def prompt(client: httpx.Client, messages: Messages, **more: Any) -> str:
    response = client.post("/apply-template", json={"messages": messages, **more})
    assert response.status_code == 200, response.text
    text: str = response.json()["prompt"]
    return text


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


TURNS = [
    turn("system", "Be\nbrief."),
    turn("user", "Hi \"you\" {{ x }} {% y %} \\ 'q'"),
    turn("assistant", "Hello."),
    turn("user", "Bye?"),
]
MERGED = [
    turn("system", "One."),
    turn("system", "Two."),
    turn("user", "A"),
    turn("user", "B"),
    turn("assistant", "C"),
    turn("system", "Three."),
    turn("user", "D"),
]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather",
        "parameters": {
            "type": "object",
            "required": ["city"],
            "properties": {
                "city": {"type": "string", "description": "Where"},
                "unit": {"type": "string", "description": "C or F"},
            },
        },
    },
}


def call(city: str, call_id: str) -> dict[str, Any]:
    function = {"name": "weather", "arguments": json.dumps({"city": city})}
    return {"id": call_id, "type": "function", "function": function}


CALLED = [
    turn("user", "Paris and Rome?"),
    turn("assistant", "", tool_calls=[call("Paris", "c1"), call("Rome", "c2")]),
    turn("tool", "rain", tool_call_id="c1"),
    turn("tool", "sun", tool_call_id="c2"),
]
THOUGHT = [turn("user", "A"), turn("assistant", "B", reasoning_content="hm"), turn("user", "C")]

CHATML = """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
LLAMA3 = """{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>

{{ .Content }}<|eot_id|>
{{- end }}<|start_header_id|>assistant<|end_header_id|>

"""
GEMMA = """{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}
{{- if or (eq .Role "user") (eq .Role "system") }}<start_of_turn>user
{{ .Content }}<end_of_turn>
{{ if $last }}<start_of_turn>model
{{ end }}
{{- else if eq .Role "assistant" }}<start_of_turn>model
{{ .Content }}{{ if not $last }}<end_of_turn>
{{ end }}
{{- end }}
{{- end }}"""
MISTRAL = """{{- range $index, $_ := .Messages }}
{{- if eq .Role "user" }}
{{- if and (le (len (slice $.Messages $index)) 2) $.Tools }}[TOOLS] {{ $.Tools }}[/TOOLS]
{{- end }}[INST] {{ if and (eq (len (slice $.Messages $index)) 1) $.System }}{{ $.System }}

{{ end }}{{ .Content }}[/INST]
{{- else if eq .Role "assistant" }}
{{- if .Content }} {{ .Content }}</s>
{{- else if .ToolCalls }}[TOOL_CALLS] [
{{- range $n, $_ := .ToolCalls }}{{ if $n }}, {{ end }}
{{- $f := .Function }}{"name": "{{ $f.Name }}", "arguments": {{ json $f.Arguments }}}
{{- end }}]</s>
{{- end }}
{{- else if eq .Role "tool" }}[TOOL_RESULTS] {"content": {{ json .Content }}}[/TOOL_RESULTS]
{{- end }}
{{- end }}"""
PHI = """{{ if .System }}<|system|>
{{ .System }}<|end|>
{{ end }}{{ if .Prompt }}<|user|>
{{ .Prompt }}<|end|>
{{ end }}<|assistant|>
{{ .Response }}<|end|>
"""
QWEN = """{{- $asked := -1 }}
{{- range $i, $m := .Messages }}{{ if eq $m.Role "user" }}{{ $asked = $i }}{{ end }}{{ end }}
{{- if or .System .Tools }}<|im_start|>system
{{- with .System }}
{{ . }}
{{- end }}
{{- if .Tools }}

# Tools
<tools>
{{- range .Tools }}
{"type": "function", "function": {{ .Function }}}
{{- end }}
</tools>
{{- end }}<|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}
{{- if and $.IsThinkSet (eq $i $asked) }} {{ if $.Think }}/think{{ else }}/no_think{{ end }}
{{- end }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ with .Thinking }}<think>{{ . }}</think>
{{ end }}{{ .Content }}
{{- range .ToolCalls }}<tool_call>
{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
</tool_call>
{{- end }}{{ if not $last }}<|im_end|>
{{ end }}
{{- else if eq .Role "tool" }}<|im_start|>user
<tool_response>
{{ .Content }}
</tool_response><|im_end|>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant
{{ end }}
{{- end }}"""

Case = tuple[Messages, dict[str, Any]]
CASES: dict[str, Case] = {
    "turns": (TURNS, {}),
    "merged": (MERGED, {}),
    "tools": (CALLED, {"tools": [WEATHER]}),
    "thought": (THOUGHT, {}),
    "thoughtless": (THOUGHT, {"chat_template_kwargs": {"enable_thinking": False}}),
}

EXPECTED = {
    ("chatml", "turns"): """<|im_start|>system
Be
brief.<|im_end|>
<|im_start|>user
Hi "you" {{ x }} {% y %} \\ 'q'<|im_end|>
<|im_start|>assistant
Hello.<|im_end|>
<|im_start|>user
Bye?<|im_end|>
<|im_start|>assistant
""",
    ("chatml", "merged"): """<|im_start|>system
One.

Two.<|im_end|>
<|im_start|>user
A

B<|im_end|>
<|im_start|>assistant
C<|im_end|>
<|im_start|>system
Three.<|im_end|>
<|im_start|>user
D<|im_end|>
<|im_start|>assistant
""",
    ("llama3", "turns"): """<|start_header_id|>system<|end_header_id|>

Be
brief.<|eot_id|><|start_header_id|>user<|end_header_id|>

Hi "you" {{ x }} {% y %} \\ 'q'<|eot_id|><|start_header_id|>assistant<|end_header_id|>

Hello.<|eot_id|><|start_header_id|>user<|end_header_id|>

Bye?<|eot_id|><|start_header_id|>assistant<|end_header_id|>

""",
    ("gemma", "turns"): """<start_of_turn>user
Be
brief.<end_of_turn>
<start_of_turn>user
Hi "you" {{ x }} {% y %} \\ 'q'<end_of_turn>
<start_of_turn>model
Hello.<end_of_turn>
<start_of_turn>user
Bye?<end_of_turn>
<start_of_turn>model
""",
    ("mistral", "turns"): """[INST] Hi "you" {{ x }} {% y %} \\ 'q'[/INST] Hello.</s>[INST] Be
brief.

Bye?[/INST]""",
    ("mistral", "tools"): (
        '[INST] Paris and Rome?[/INST][TOOL_CALLS] [{"name": "weather", "arguments":'
        ' {"city":"Paris"}}, {"name": "weather", "arguments": {"city":"Rome"}}]</s>'
        '[TOOL_RESULTS] {"content": "rain"}[/TOOL_RESULTS]'
        '[TOOL_RESULTS] {"content": "sun"}[/TOOL_RESULTS]'
    ),
    ("phi", "turns"): """<|system|>
Be
brief.<|end|>
<|user|>
Hi "you" {{ x }} {% y %} \\ 'q'<|end|>
<|assistant|>
Hello.<|end|>
<|user|>
Bye?<|end|>
<|assistant|>
""",
    ("phi", "merged"): """<|system|>
One.

Two.<|end|>
<|user|>
A

B<|end|>
<|assistant|>
C<|end|>
<|system|>
Three.<|end|>
<|user|>
D<|end|>
<|assistant|>
""",
    ("qwen", "turns"): """<|im_start|>system
Be
brief.<|im_end|>
<|im_start|>user
Hi "you" {{ x }} {% y %} \\ 'q'<|im_end|>
<|im_start|>assistant
Hello.<|im_end|>
<|im_start|>user
Bye? /think<|im_end|>
<|im_start|>assistant
""",
    ("qwen", "tools"): """<|im_start|>system

# Tools
<tools>
{"type": "function", "function": {"name":"weather","description":"Tells the weather","""
    """"parameters":{"type":"object","required":["city"],"properties":{"city":{"type":"string","""
    """"description":"Where"},"unit":{"type":"string","description":"C or F"}}}}}
</tools><|im_end|>
<|im_start|>user
Paris and Rome? /think<|im_end|>
<|im_start|>assistant
<tool_call>
{"name": "weather", "arguments": {"city":"Paris"}}
</tool_call><tool_call>
{"name": "weather", "arguments": {"city":"Rome"}}
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
rain
</tool_response><|im_end|>
<|im_start|>user
<tool_response>
sun
</tool_response><|im_end|>
<|im_start|>assistant
""",
    ("qwen", "thought"): """<|im_start|>user
A<|im_end|>
<|im_start|>assistant
<think>hm</think>
B<|im_end|>
<|im_start|>user
C /think<|im_end|>
<|im_start|>assistant
""",
    ("qwen", "thoughtless"): """<|im_start|>user
A<|im_end|>
<|im_start|>assistant
<think>hm</think>
B<|im_end|>
<|im_start|>user
C /no_think<|im_end|>
<|im_start|>assistant
""",
}
TEMPLATES = {
    "chatml": CHATML,
    "llama3": LLAMA3,
    "gemma": GEMMA,
    "mistral": MISTRAL,
    "phi": PHI,
    "qwen": QWEN,
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_prompt_is_what_go_writes(name: str, starter_model: Path, user_path: Path) -> None:
    cases = [case for template, case in EXPECTED if template == name]
    with engine_with(TEMPLATES[name], starter_model, user_path) as client:
        written = {case: prompt(client, CASES[case][0], **CASES[case][1]) for case in cases}
    assert written == {case: EXPECTED[name, case] for case in cases}


# Each construct by itself: what stands in the template, and what Go writes for it.
CONSTRUCTS = {
    "a {{- /* nothing */ -}} b": "ab",
    " {{- 1 -}} ": "1",
    "{{-3}} {{ -3 }} {{ 1.5 }}": "-3 -3 1.5",
    '{{ "a\\tb\\\\\\"" }} {{ `raw "\\n"` }}': 'a\tb\\" raw "\\n"',
    "{{ true }} {{ false }}": "true false",
    "{{ .System }}|{{ $.System }}": "Be\nbrief.|Be\nbrief.",
    "{{ if .System }}yes{{ else }}no{{ end }}": "yes",
    "{{ if .Tools }}yes{{ else if .System }}else if{{ else }}no{{ end }}": "else if",
    "{{ if $a := .System }}{{ len $a }}{{ end }}": "9",
    "{{ with .System }}[{{ . }}]{{ end }}": "[Be\nbrief.]",
    "{{ with .Tools }}yes{{ else }}no{{ end }}": "no",
    "{{ with $b := .System }}{{ $b }}{{ end }}": "Be\nbrief.",
    "{{ range .Messages }}{{ .Role }} {{ end }}": "system user assistant user ",
    "{{ range $c := .Messages }}{{ $c.Role }} {{ end }}": "system user assistant user ",
    "{{ range $i, $_ := .Messages }}{{ $i }}{{ end }}": "0123",
    "{{ range .Tools }}yes{{ else }}none{{ end }}": "none",
    "{{ range .Messages }}{{ if eq .Role `user` }}{{ break }}{{ end }}!{{ end }}": "!",
    "{{ range .Messages }}{{ if eq .Role `user` }}{{ continue }}{{ end }}!{{ end }}": "!!",
    "{{ $d := 0 }}{{ range $i, $_ := .Messages }}{{ $d = $i }}{{ end }}{{ $d }}": "3",
    "{{ $e := 1 }}{{ if true }}{{ $e := 2 }}{{ $e }}{{ end }}{{ $e }}": "21",
    "{{ (index .Messages 1).Role }}": "user",
    "{{ range slice .Messages 1 3 }}{{ .Role }} {{ end }}": "user assistant ",
    "{{ len (slice .Messages 1) }} {{ .Messages | len }}": "3 4",
    "{{ eq 1 1 }} {{ eq 1 2 }} {{ eq `a` `b` `a` }} {{ 1 | eq 1 }}": "true false true true",
    "{{ ne 1 2 }} {{ lt 1 2 }} {{ le 2 2 }} {{ gt 1 2 }} {{ ge 2 2 }}": "true true true false true",
    "{{ and .System `both` }} {{ or `` `either` }} {{ not .System }}": "both either false",
    "{{ and (eq 1 1) (or (eq 1 2) (not false)) }}": "true",
    "{{ json .System }}": '"Be\\nbrief."',
    "{{ .System | json }}": '"Be\\nbrief."',
    "{{ range .Messages }}{{ with .ToolCalls }}calls{{ end }}{{ .Thinking }}{{ end }}": "",
    "{{ `{{` }} {% x %} {# y #} '": "{{ {% x %} {# y #} '",
}


def test_every_construct(starter_model: Path, user_path: Path) -> None:
    """All in one template, so that one engine will do."""
    template = "\x1e".join(CONSTRUCTS)
    with engine_with(template, starter_model, user_path) as client:
        written = prompt(client, TURNS).split("\x1e")
    assert dict(zip(CONSTRUCTS, written, strict=True)) == CONSTRUCTS


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ('{{ define "x" }}{{ end }}', "'define'"),
        ('{{ template "x" . }}', "'template'"),
        ("{{ toTypeScriptType .Tools }}", "the function 'toTypeScriptType' of 1 values"),
        ('{{ printf "%s" .System }}', "the function 'printf' of 2 values"),
        ("{{ eq .System }}", "the function 'eq' of 1 values"),
        ("{{ .Foo }}", "'.Foo'"),
        ("{{ . }}", "'.'"),
        ("{{ range .Messages }}{{ .Foo }}{{ end }}", "the field '.Foo'"),
        ("{{ range .Tools }}{{ len .Type }}{{ end }}", "a type that is a list of types"),
        ("{{ $x }}", "the variable $x, which is not defined"),
        ("{{ $x = 1 }}", "the variable $x, which is not defined"),
        ("{{ if .System }}{{ $x := 1 }}{{ end }}{{ $x }}", "the variable $x, which is not defined"),
        ("{{ if .System }}", "'if' without its end"),
        ("{{ end }}", "'end' where nothing is open"),
        ("{{ else }}", "'else' where nothing is open"),
        ("{{ .System", "an action that is not closed"),
        ("{{ (.System }}", "a bracket that is not closed"),
        ("{{ .System ) }}", "')' in '.System )'"),
        ("{{ .System | }}", "nothing where a value belongs"),
        ("{{ .System | .Messages }}", "a pipe into something that is not a function"),
        ("{{}}", "nothing where a value belongs"),
        ('{{ "\\a" }}', 'the text "\\a"'),
        ("{{ 'a' }}", "''a''"),
        ("{{ .Messages.Foo }}", "the field '.Foo'"),
    ],
)
def test_what_is_not_understood(template: str, reason: str) -> None:
    with pytest.raises(Untranslatable) as refused:
        to_jinja(template)
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    "template",
    [
        "{{ if .System }}" * 2000,
        "{{ if .System }}" * 2000 + "{{ end }}" * 2000,
        "{{ " + "(" * 10_000 + " }}",
        "{{" * 30_000,
        "{{ .System }}" * 10_000,
        '{{ "' * 10_000,
        "{{" + " " * 60_000,
        "{{/*" * 16_000,
    ],
)
def test_template_that_is_made_to_harm(template: str) -> None:
    with pytest.raises(Untranslatable):
        to_jinja(template)
