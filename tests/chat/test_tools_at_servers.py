"""Tools and `tool_choice` at each kind of server, as the real ones were seen to take them.

The real replies are in `tests/transcripts`; `docs/design/options.md` has the whole table.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llm
import pytest

from llm_localrun.servers.base import CallForcing, server_kinds
from tests.fakes.http_server import Request, StandIn, events, json_reply, transcript, whole
from tests.fakes.openai_compatible import Server, completion
from tests.fakes.vllm import without_tool_parser
from tests.support.contract import chain
from tests.support.drive import WAYS, ask, failure, served
from tests.support.engines import in_file

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALL = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
CALLED = f"<tool_call>\n{CALL}\n</tool_call>"


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"Rain in {city}."


def clock() -> str:
    """The time."""
    return "noon"


TOOLS = [llm.Tool(name="get_weather", input_schema=CITY), llm.Tool(name="clock", input_schema={})]


@pytest.mark.parametrize(
    ("forcing", "kinds"),
    [
        (CallForcing.NONE, ["gpt4all", "mlx", "transformers"]),
        (
            CallForcing.NATIVE,
            ["gateway", "koboldcpp", "lmstudio", "localai", "omlx", "openai", "textgen"],
        ),
    ],
)
def test_how_a_kind_forces_calls(forcing: CallForcing, kinds: list[str]) -> None:
    """All others by the schema of a call: their own `tool_choice` binds too little, or nothing."""
    found = [name for name, kind in server_kinds().items() if kind.call_forcing is forcing]
    assert sorted(found) == kinds


class InTurn:
    """A server that sends one reply after the other, and notes each `tool_choice` that it gets."""

    def __init__(self, *replies: bytes | str) -> None:
        self.replies = [*replies]
        self.bodies: list[dict[str, Any]] = []

    @property
    def choices(self) -> list[Any]:
        return [body.get("tool_choice", "") for body in self.bodies]

    def __call__(self, request: Request) -> Iterator[bytes]:
        self.bodies.append(request.body)
        said = self.replies.pop(0)
        if isinstance(said, bytes):
            yield said
        elif request.body["stream"]:
            yield events({"choices": [{"delta": {"content": said}, "finish_reason": "stop"}]})
        else:
            yield json_reply(completion(said, finish_reason="stop"))


def recorded(index: int) -> bytes:
    exchange = transcript("tools", "llama-server-b10434")[index]
    return whole(exchange.body, exchange.content_type, exchange.status)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("index", "called", "has_format", "choices"),
    [
        (0, CALL, [False, True, False], ["", "none", ""]),
        (1, CALL, [False, True, False], ["", "none", ""]),
        (3, CALL, [False, True, False], ["", "none", ""]),
        (7, CALLED, [False] * 3, ["", "none", "none"]),
    ],
    ids=["broken call", "broken call in a stream", "text after a call", "grammar"],
)
def test_call_that_a_server_fails_to_read(
    index: int, called: str, has_format: list[bool], choices: list[str], way: str
) -> None:
    server = InTurn(recorded(index), called, "It rains.")
    with StandIn(server) as stand_in:
        name = "gguf/SmolLM2-135M-F16.gguf"
        model = served(stand_in.url, "llamacpp", name, capabilities=("tools",))
        responses = chain(model, "How is the weather?", way, tools=[get_weather])
    assert [response.text() for response in responses] == ["", "It rains."]
    assert server.choices == choices
    assert ["response_format" in body for body in server.bodies] == has_format
    assert all(body["tools"] for body in server.bodies)
    assert server.bodies[-1]["messages"][-1]["content"] == "Rain in Paris."


@pytest.mark.parametrize("kind", ["mlx", "openai"])
def test_call_that_a_server_drops_is_reported(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """mlx_lm 0.32.2 logs that it cannot read a call, and says only that there was one."""
    dropped = {"choices": [{"delta": {"tool_calls": []}, "finish_reason": "tool_calls"}]}
    with StandIn(InTurn(events(dropped))) as stand_in:
        model = served(stand_in.url, kind, "m", capabilities=("tools",))
        assert ask(model, "Hi", tools=TOOLS).text == ""
    assert "reports a tool call, but sent none" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["llamacpp", "vllm", "openai"])
def test_error_that_is_not_about_calls_is_shown(kind: str) -> None:
    server = InTurn(json_reply({"error": {"message": "out of paper"}}, 400))
    with StandIn(server) as stand_in:
        model = served(stand_in.url, kind, "m", capabilities=("tools",))
        assert "out of paper" in failure(lambda: ask(model, "Hi", tools=TOOLS))
    assert len(server.bodies) == 1


@pytest.mark.parametrize("way", WAYS)
def test_vllm_without_a_parser_is_asked_for_one_once(way: str) -> None:
    fake = Server({}, says=without_tool_parser)
    with StandIn(fake) as server:
        model = served(server.url, "vllm", "m", capabilities=("tools",))
        for _ in range(2):
            responses = chain(model, "What time is it?", way, tools=[clock])
            assert [response.text() for response in responses] == ["", "Hello."]
    choices = [request.body.get("tool_choice", "") for request in fake.asked]
    assert choices == ["", None, None, None, None]


@pytest.mark.parametrize(
    ("kind", "choice"),
    [
        ("llamacpp", "none"),
        ("llamaswap", "none"),
        ("openai", "none"),
        ("vllm", None),
        ("sglang", ""),
        ("localai", ""),
    ],
)
def test_tools_beside_a_format_are_only_described(kind: str, choice: str | None) -> None:
    """llama.cpp fails at both in one grammar, where calls have a form like <function=…>."""
    server = InTurn("It is noon.", '{"a": 1}')
    with StandIn(server) as stand_in:
        model = served(stand_in.url, kind, "m", capabilities=("tools",))
        assert ask(model, "What time is it?", tools=TOOLS, schema=SCHEMA).text == '{"a": 1}'
    assert server.choices == ["", choice]
    assert [len(body["tools"]) for body in server.bodies] == [2, 2]


@pytest.mark.parametrize("kind", ["openai", "koboldcpp", "localai"])
@pytest.mark.parametrize(("choice", "tools"), [("required", 2), ("clock", 1)])
def test_native_choice_is_a_word(kind: str, choice: str, tools: int) -> None:
    """LM Studio refuses an object: a tool that has to be called is the only one that is sent."""
    call = {"index": 0, "id": "a", "function": {"name": "clock", "arguments": "{}"}}
    said = {"choices": [{"delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    server = InTurn(events(said))
    with StandIn(server) as stand_in:
        model = served(stand_in.url, kind, "m", capabilities=("tools",))
        ask(model, "What time is it?", tools=TOOLS, tool_choice=choice)
    assert server.choices == ["required"]
    assert [len(body["tools"]) for body in server.bodies] == [tools]


@pytest.mark.parametrize("kind", ["mlx", "transformers", "gpt4all"])
@pytest.mark.parametrize(
    ("more", "said"),
    [({"tool_choice": "required"}, "cannot make a model call"), ({"schema": SCHEMA}, "schema")],
)
def test_kind_without_grammars_refuses_at_once(kind: str, more: dict[str, Any], said: str) -> None:
    server = InTurn()
    with StandIn(server) as stand_in:
        model = served(stand_in.url, kind, "m", capabilities=("tools",))
        assert said in failure(lambda: ask(model, "Hi", tools=TOOLS, **more))
    assert server.bodies == []


TAGS = """\
{%- if tools %}{{ '<|im_start|>system\\n# Tools\\n\\n<tools>' }}
{%- for tool in tools %}{{ '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\n</tools>\\n\\nReply in this format:\\n\\n<tool_call>\\n<function=example_name>\\n' }}
{{- '<parameter=example_parameter>\\nvalue\\n</parameter>\\n</function>\\n</tool_call>' }}
{{- '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
{%- if message.tool_calls %}{{ '<|im_start|>assistant\\n' + (message.content or '') }}
{%- for call in message.tool_calls %}
{{- '\\n<tool_call>\\n<function=' + call.function.name + '>\\n' }}
{%- for name, value in call.function.arguments | items %}
{{- '<parameter=' + name + '>\\n' + (value | string) + '\\n</parameter>\\n' }}{%- endfor %}
{{- '</function>\\n</tool_call>' }}{%- endfor %}{{ '<|im_end|>\\n' }}
{%- else %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"""
"""Calls in the form of Qwen3-Coder."""


def test_real_engine_forces_a_call_where_calls_have_tags(
    starter_model: Path, tmp_path: Path
) -> None:
    template = tmp_path / "tags.jinja"
    template.write_text(TAGS)
    options: dict[str, Any] = {"chat_template": str(template), "temperature": 0}
    answer = ask(
        in_file(starter_model), "What time is it?", tools=TOOLS, tool_choice="clock", **options
    )
    assert [part["name"] for part in answer.parts if part["type"] == "tool_call"] == ["clock"]
