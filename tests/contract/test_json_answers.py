"""Answers that are not the JSON that was asked for, as llm's commands and its Python API show them:
what came is printed and logged, and the error follows it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from llm_localrun.errors import AnswerCutOff, AnswerNotJson
from llm_localrun.models import LocalModel
from tests.fakes.http_server import StandIn
from tests.fakes.says import Says, in_turn
from tests.support.contract import (
    NAMES,
    STARTER,
    at_every_server,
    command,
    in_every_way,
    respond_as,
    saying,
    turns,
)
from tests.support.drive import ask
from tests.support.snapshots import point_at

# llm leaves files open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]

FLAGS = {
    "sync": [],
    "async": ["--async"],
    "sync unstreamed": ["--no-stream"],
    "async unstreamed": ["--async", "--no-stream"],
}
SCHEMA = ["--schema", "x int"]

BAD = [
    pytest.param('{"x": ', SCHEMA, "The answer is not JSON (Expecting value", id="broken"),
    pytest.param("I cannot do that.", SCHEMA, "not JSON: I cannot do that.", id="prose"),
    pytest.param("", SCHEMA, "The answer is empty instead of JSON.", id="nothing"),
    pytest.param('{"x": 1}\n\nDone.', SCHEMA, "goes on after its JSON: Done.", id="tail"),
    pytest.param('{"x": "1"}', SCHEMA, 'schema: $.x breaks type "integer"', id="type"),
    pytest.param('{"x": 1}', ["--schema-multi", "x int"], "it lacks 'items'", id="multi"),
]
AT_OLLAMA = [
    pytest.param("Hm.", ["-o", "json_object", "true"], "is not JSON: Hm.", id="no object"),
    pytest.param("[1]", ["-o", "json_object", "true"], "of another type than", id="list"),
]


@pytest.fixture(params=NAMES)
def box(request: pytest.FixtureRequest, user_path: Path) -> Iterator[tuple[str, list[Says]]]:
    """A configured server of each kind: its model, and what that says next."""
    says: list[Says] = []
    with StandIn(respond_as(request.param, lambda _: says.pop(0))) as server:
        point_at(user_path, server.url)
        yield f"local/box/{NAMES[request.param]}", says


def refused(
    box: tuple[str, list[Says]], way: str, arguments: list[str], text: str, error: str
) -> None:
    model, says = box
    says.append(Says(text))
    done = command("-m", model, "Hi", *FLAGS[way], *arguments)
    # A context that stays would change what the next command in this process does.
    assert click.get_current_context(silent=True) is None
    assert (done.exit_code, done.stdout) == (1, f"{text}\n")
    assert done.stderr.startswith("Error: ")
    assert error in done.stderr
    (turn,) = turns()
    assert (turn["response"], turn["response_json"]["finish_reason"]) == (text, "stop")
    assert f"Error: {turn['response_json']['error']}\n" == done.stderr
    assert turn["output_tokens"] is not None


@in_every_way
@pytest.mark.parametrize(("text", "arguments", "error"), BAD)
def test_prompt_prints_logs_and_fails(
    box: tuple[str, list[Says]], way: str, text: str, arguments: list[str], error: str
) -> None:
    refused(box, way, arguments, text, error)


@in_every_way
@pytest.mark.parametrize(("text", "arguments", "error"), AT_OLLAMA)
@pytest.mark.parametrize("box", ["ollama"], indirect=True)
def test_json_object(
    box: tuple[str, list[Says]], way: str, text: str, arguments: list[str], error: str
) -> None:
    refused(box, way, arguments, text, error)


@in_every_way
@pytest.mark.parametrize(
    "says_",
    [
        Says('{"x": 1}'),
        Says('```json\n{"x": 1}\n```'),
        Says('Of course!\n\n```json\n{"x": 1}\n```\nAnything else?'),
        Says(reasoning='{"x": 1}'),
        Says('{"x": 1}', reasoning='{"x": 2}'),
    ],
)
def test_prompt_prints_the_json(box: tuple[str, list[Says]], way: str, says_: Says) -> None:
    model, says = box
    says.append(says_)
    done = command("-m", model, "Hi", *FLAGS[way], *SCHEMA)
    assert (done.exit_code, done.stdout) == (0, '{"x": 1}\n')
    (turn,) = turns()
    assert turn["response"] == '{"x": 1}'
    assert "error" not in turn["response_json"]
    assert json.loads(command("logs", "--schema", "x int", "--data").stdout) == {"x": 1}


def test_logging_may_be_off(box: tuple[str, list[Says]]) -> None:
    model, says = box
    says.append(Says("No."))
    done = command("-m", model, "Hi", "--no-log", *SCHEMA)
    assert (done.exit_code, done.stdout) == (1, "No.\n")
    assert "The answer is not JSON: No." in done.stderr
    assert turns() == []


@pytest.mark.parametrize("box", ["ollama"], indirect=True)
def test_chat_goes_on(box: tuple[str, list[Says]], user_path: Path) -> None:
    model, says = box
    says += [Says("No."), Says('{"x": 1}')]
    done = command("chat", "-m", model, "-o", "json_object", "true", input="Hi\nAnd now?\nexit\n")
    assert done.exit_code == 0
    assert '{"x": 1}' in done.stdout
    assert done.stderr == (
        "\nError: The answer is not JSON: No. Ask for it in the prompt too, or try another model.\n"
    )
    assert [turn["response"] for turn in turns(2)] == ["No.", '{"x": 1}']


def test_template_with_a_schema(box: tuple[str, list[Says]], user_path: Path) -> None:
    model, says = box
    says.append(Says("No."))
    (user_path / "templates").mkdir()
    (user_path / "templates" / "x.yaml").write_text(
        "schema_object: {type: object, properties: {x: {type: integer}}}\n"
    )
    done = command("-m", model, "-t", "x", "Hi")
    assert (done.exit_code, done.stdout) == (1, "No.\n")
    assert [turn["response"] for turn in turns()] == ["No."]


@in_every_way
@at_every_server
def test_python_api_raises(kind: str, way: str) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    with saying(kind, Says("No.")) as (model, _), pytest.raises(AnswerNotJson) as caught:
        ask(model, "Hi", way, schema=schema)
    assert caught.value.problem == "The answer is not JSON: No."


# With the real engine, which drops these keywords

AB = {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 3, "maxItems": 3}
SMALL = {"type": "integer", "minimum": 1, "maximum": 6}
IGNORED = [
    pytest.param({**AB, "uniqueItems": True}, "uniqueItems", id="uniqueItems"),
    pytest.param({**SMALL, "multipleOf": 7}, "multipleOf", id="multipleOf"),
    pytest.param({"enum": ["a"], "not": {"const": "a"}}, "not", id="not"),
]
GREEDY = {"temperature": 0, "max_tokens": 40}


def of_engine(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"]}


@in_every_way
@pytest.mark.parametrize(("schema", "keyword"), IGNORED)
def test_engine_drops_keywords(
    plain: LocalModel, way: str, schema: dict[str, Any], keyword: str
) -> None:
    with pytest.raises(AnswerNotJson, match=rf"follow the schema: \$.a breaks {keyword} "):
        ask(plain, "Invent one", way, schema=of_engine(schema), **GREEDY)


@pytest.mark.parametrize(("schema", "keyword"), IGNORED)
def test_engine_without_jsonschema(
    plain: LocalModel, schema: dict[str, Any], keyword: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    options = [f for name, value in GREEDY.items() for f in ("-o", name, str(value))]
    arguments = ["--schema", json.dumps(of_engine(schema)), *options]
    done = command("-m", STARTER, "Invent one", *arguments)
    assert done.exit_code == 0
    assert done.stderr.startswith("The answer was not checked against ")
    assert keyword in done.stderr
    assert "llm install jsonschema" in done.stderr


def test_engine_drops_max_length_beside_a_pattern(plain: LocalModel) -> None:
    """llama.cpp cannot convert the pattern, and the string does not end."""
    schema = of_engine({"type": "string", "pattern": "^(?!x)[a-z]{3}$", "maxLength": 12})
    arguments = ["-o", "temperature", "0", "-o", "max_tokens", "40"]
    done = command("-m", STARTER, "Invent one", "--schema", json.dumps(schema), *arguments)
    assert done.exit_code == 1
    assert done.stderr.startswith(
        "The answer was not checked against maxLength, pattern in the schema, which the server may"
        " have ignored.\nError: The answer ended (length) before its JSON was complete."
    )
    (turn,) = turns()
    assert turn["response"].rstrip() == done.stdout.rstrip()
    assert turn["response_json"]["finish_reason"] == "length"


@in_every_way
def test_cut_json_is_raised_to_the_python_api(plain: LocalModel, way: str) -> None:
    with pytest.raises(AnswerCutOff):
        ask(plain, "Invent one", way, schema=of_engine({"type": "string"}), max_tokens=3)


@pytest.mark.parametrize(
    ("arguments", "imports"), [([], False), (SCHEMA, True), (["-o", "json_object", "1"], False)]
)
def test_jsonschema_is_imported_for_a_schema_only(
    arguments: list[str], imports: bool, user_path: Path
) -> None:
    code = (
        "import sys; from click.testing import CliRunner; import llm.cli\n"
        "done = CliRunner().invoke(llm.cli.cli, sys.argv[1:])\n"
        "assert done.exit_code == 0, done.output\n"
        "print(*sys.modules)"
    )
    with StandIn(respond_as("ollama", in_turn(Says('{"x": 1}')))) as server:
        point_at(user_path, server.url)
        model = f"local/box/{NAMES['ollama']}"
        done = subprocess.run(
            [sys.executable, "-c", code, "-m", model, "Hi", *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
    loaded = done.stdout.split()
    assert "llm_localrun.wire.json_answer" in loaded
    assert ("jsonschema" in loaded) == imports
