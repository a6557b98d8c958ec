"""Options against servers that answer as the real ones were seen to: each has its effect, or the
user is told.

The real replies are in `tests/transcripts`; `docs/design/options.md` has the whole table.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.http_server import Respond, StandIn
from tests.fakes.llama_server import llama_server
from tests.fakes.mlx import mlx
from tests.fakes.vllm import vllm
from tests.support.drive import WAYS, ask, failure, served
from tests.support.engines import in_file

JSON = {"json_object": True}
YES = {"grammar": 'root ::= "yes"'}
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
    ],
)
def test_option_that_would_have_no_effect(kind: str, options: dict[str, Any], said: str) -> None:
    with StandIn(FAKES[kind]()) as server:
        assert said in failure(lambda: ask(served(server.url, kind, "m"), "Hi", **options))


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
