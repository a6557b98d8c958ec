"""Options and keys: declared, stored, logged, and sent."""

import inspect
from pathlib import Path

import pytest
from llm.models import Conversation

from llm_localrun.chat.options import Options
from tests.fakes.http_server import StandIn
from tests.fakes.lmstudio import LMStudio
from tests.support.contract import (
    NAMES,
    ours,
    output,
    sent,
    turns,
)
from tests.support.snapshots import point_at

# llm leaves files open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]


def test_options_have_descriptions_and_no_defaults(box: StandIn) -> None:
    taken = set(inspect.signature(Conversation.prompt).parameters)
    taken |= set(inspect.signature(Conversation.chain).parameters)
    for name, field in Options.model_fields.items():
        assert name not in taken
        assert field.default is None
        assert field.description
    assert {each.model.Options for each in ours()} == {Options}
    assert all(each.async_model.Options is Options for each in ours())


def test_options_are_logged_as_they_were_given(box: StandIn) -> None:
    given = ("-o", "temperature", "0.5", "-o", "stop", "x", "-o", "keep_alive", "10m")
    output("-m", "local-gemma4", "hi", *given, "-o", "extra_body", '{"a": 1}')
    assert turns()[0]["options_json"] == {
        "temperature": 0.5,
        "stop": ["x"],
        "keep_alive": 600.0,
        "extra_body": {"a": 1},
    }
    output("-m", "local-gemma4", "hi")
    assert turns()[0]["options_json"] == {}


def test_stored_options_are_coerced(box: StandIn) -> None:
    for name, value in (("temperature", "0.5"), ("seed", "7"), ("stop", "x")):
        output("models", "options", "set", "local-gemma4", name, value)
    assert "temperature: 0.5" in output("models", "options", "show", "local-gemma4")
    output("-m", "local-gemma4", "hi")
    body = sent(box)[0]
    assert (body["temperature"], body["seed"], body["stop"]) == (0.5, 7, ["x"])


@pytest.mark.parametrize("source", ["--key", "keys.json", "environment", "none"])
def test_key_is_optional_and_sent_to_its_server_only(
    source: str, user_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: tuple[str, ...] = ()
    with StandIn(LMStudio()) as server, StandIn(LMStudio()) as other:
        point_at(user_path, server.url, other.url)
        if source == "--key":
            arguments = ("--key", "secret")
        elif source == "keys.json":
            output("keys", "set", "localrun-box", "--value", "secret")
        elif source == "environment":
            monkeypatch.setenv("LM_API_TOKEN", "secret")
        output("-m", f"local/box/{NAMES['lmstudio']}", "hi", *arguments)
    chat = server.requests[-1]
    assert chat.path == "/v1/chat/completions"
    assert chat.headers.get("authorization") == (None if source == "none" else "Bearer secret")
    assert not any("authorization" in request.headers for request in other.requests)
