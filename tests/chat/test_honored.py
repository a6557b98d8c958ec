"""Options against servers that answer as the real ones were seen to: each has its effect, or the
user is told.

The real replies are in `tests/transcripts`; `docs/design/options.md` has the whole table.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llm
import pytest

from llm_localrun.chat.models import LocalChat
from llm_localrun.errors import LocalRunError
from tests.fakes.http_server import Request, Respond, StandIn, chunk, events, head, json_reply
from tests.fakes.llama_server import llama_server
from tests.fakes.mlx import mlx
from tests.fakes.openai_compatible import completion
from tests.fakes.vllm import vllm
from tests.support.contract import chain
from tests.support.drive import WAYS, ask, failure, served
from tests.support.engines import in_file

JSON = {"json_object": True}
YES = {"grammar": 'root ::= "yes"'}
CLOCK = llm.Tool(name="clock", input_schema={})
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
FAKES: dict[str, Callable[[], Respond]] = {"llamacpp": llama_server, "vllm": vllm, "mlx": mlx}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        ("llamacpp", {}, "Hello."),
        ("llamacpp", JSON, '{"a": 1}'),
        ("llamacpp", YES, "yes"),
        ("vllm", {}, "Hello."),
        ("vllm", JSON, '{"a": 1}'),
        ("vllm", YES, "yes"),
        ("vllm", {"think": "low"}, "Hello."),
        ("mlx", {}, "Hello."),
        ("mlx", {"think": "on"}, "I think. Hello."),
        ("mlx", {"think": "off"}, "Hello."),
    ],
)
def test_option_has_its_effect(kind: str, options: dict[str, Any], text: str, way: str) -> None:
    with StandIn(FAKES[kind]()) as server:
        model = served(server.url, kind, "m", capabilities=("thinking",))
        assert ask(model, "Hi", way, **options).text == text


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("mlx", {"stop": ["l"]}, "mlx_lm.server does not support -o stop. Leave it out, or use"),
        ("mlx", JSON, "mlx_lm.server does not support -o json_object."),
        ("mlx", YES, "mlx_lm.server does not support -o grammar."),
        ("vllm", {"typical_p": 0.5}, "vLLM does not support -o typical_p."),
        ("vllm", {"stop": [*"abcde"]}, "List should have at most 4 items"),
        *((kind, YES | JSON, "-o grammar cannot be combined") for kind in ("llamacpp", "vllm")),
        *((kind, YES | {"schema": SCHEMA}, "-o grammar cannot") for kind in ("llamacpp", "vllm")),
        *((kind, YES | {"tools": [CLOCK]}, "-o grammar cannot") for kind in ("llamacpp", "vllm")),
    ],
)
def test_option_that_would_have_no_effect(kind: str, options: dict[str, Any], said: str) -> None:
    with StandIn(FAKES[kind]()) as server:
        assert said in failure(lambda: ask(served(server.url, kind, "m"), "Hi", **options))


CALL = {"index": 0, "id": "a", "function": {"name": "clock", "arguments": "{}"}}


class Constrained:
    """llama-server: with a format in the request, the model can do nothing but answer in JSON."""

    def __init__(self, *unconstrained: dict[str, Any]) -> None:
        self.unconstrained = [*unconstrained]
        self.formats: list[bool] = []

    def __call__(self, request: Request) -> Iterator[bytes]:
        is_constrained = "response_format" in request.body
        self.formats.append(is_constrained)
        message = {"content": '{"a": 1}'} if is_constrained else self.unconstrained.pop(0)
        reason = "tool_calls" if "tool_calls" in message else "stop"
        if request.body["stream"]:
            yield events({"choices": [{"delta": message, "finish_reason": reason}]})
        else:
            yield json_reply(completion("", finish_reason=reason, message=message))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "unconstrained", "formats", "texts"),
    [
        # It may call first, and then answers in JSON by itself, or because it is made to.
        ("llamacpp", [{"tool_calls": [CALL]}, {"content": '{"a": 2}'}], [0, 0], ["", '{"a": 2}']),
        (
            "llamacpp",
            [{"tool_calls": [CALL]}, {"content": "It is 1."}],
            [0, 0, 1],
            ["", '{"a": 1}'],
        ),
        ("llamacpp", [{"content": "It is 1."}], [0, 1], ['{"a": 1}']),
        ("llamacpp", [{"content": '```json\n{"a": 3}\n```'}], [0], ['{"a": 3}']),
        ("vllm", [{"tool_calls": [CALL]}, {"content": '{"a": 2}'}], [0, 0], ["", '{"a": 2}']),
        ("openai", [{"content": "It is 1."}], [0, 1], ['{"a": 1}']),
    ],
)
def test_tools_beside_a_schema(
    way: str, kind: str, unconstrained: list[Any], formats: list[int], texts: list[str]
) -> None:
    """A grammar for JSON leaves no way to call a tool (llama.cpp b10434, b11549; vLLM 0.32)."""

    def clock() -> str:
        return "noon"

    server = Constrained(*unconstrained)
    with StandIn(server) as stand_in:
        model = served(stand_in.url, kind, "m", capabilities=("tools",))
        responses = chain(model, "What time is it?", way, tools=[clock], schema=SCHEMA)
    assert [response.text() for response in responses] == texts
    assert server.formats == list(map(bool, formats))


@pytest.mark.parametrize("text", ["It is 1.", '{"a": '], ids=["prose", "JSON"])
@pytest.mark.parametrize(
    "end",
    [b"", b"data: [DONE]\n\n", b'data: {"error": "boom"}', b'data: {"error": "boom"}\n\n'],
    ids=["broken", "cut off", "error at the end", "error"],
)
def test_failure_beside_a_schema_and_tools_shows_what_came(text: str, end: bytes) -> None:
    """It is not asked again: only a whole answer shows that the model does not write JSON."""
    said = b"data: %s\n\n" % json.dumps({"choices": [{"delta": {"content": text}}]}).encode()
    pieces = [head("text/event-stream"), chunk(said), *([chunk(end), b"0\r\n\r\n"] if end else [])]
    with StandIn(lambda _: pieces) as server:
        model = served(server.url, "llamacpp", "m", capabilities=("tools",))
        answer = LocalChat(model).prompt("What time is it?", tools=[CLOCK], schema=SCHEMA)
        came: list[str] = []
        with pytest.raises(LocalRunError):
            came.extend(answer)
    assert came == [text]
    assert len(server.requests) == 1


def test_grammar_may_go_with_a_json_object_that_is_off() -> None:
    with StandIn(llama_server()) as server:
        model = served(server.url, "llamacpp", "m")
        assert ask(model, "Hi", json_object=False, **YES).text == "yes"


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({**JSON, "max_tokens": 300}, "{"),
        ({**YES, "max_tokens": 9}, "yes"),
        ({"logit_bias": {"9426": 100}, "max_tokens": 4}, " tumor"),
    ],
)
def test_real_engine(starter_model: Path, options: dict[str, Any], start: str) -> None:
    answer = ask(in_file(starter_model), "Say hi.", temperature=0, **options)
    assert answer.text.startswith(start)
