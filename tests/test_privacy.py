"""Where models run, judged by addresses and by what servers say."""

import socket
from typing import Any

import pytest

from llm_localrun.models import Endpoint, RunsOn
from llm_localrun.privacy import (
    host_of,
    is_hosted,
    is_loopback,
    is_provider,
    requires_consent,
    shown_host,
    where_relayed,
    where_runs,
)
from llm_localrun.servers.ollama import where_model_runs
from tests.support.models import local_model

HERE = [
    "http://127.0.0.1:11434",
    "http://127.0.0.1",
    "http://127.8.8.8:80/v1",
    "https://127.0.0.1:8443",
    "http://localhost:1234",
    "http://LocalHost:1234",
    "http://localhost.localdomain:1234",
    "http://ip6-localhost:1234",
    "http://box.localhost:1234",
    "http://[::1]:8080",
    "http://[0:0:0:0:0:0:0:1]:8080",
    "http://user:secret@127.0.0.1:8080",
]

ELSEWHERE = [
    "http://192.168.1.40:1234",
    "http://10.0.0.1",
    "http://128.0.0.1",
    "http://[2001:db8::1]:8080",
    "http://[fe80::1]:8080",
    "http://example.com",
    "https://ollama.com:443",
    "http://box:8000",
    "http://box.local:8000",
    # Names and addresses that only resemble those of this machine.
    "http://localhost.example.com:1234",
    "http://notlocalhost:1234",
    "http://127.0.0.1.example.com:1234",
    "http://127.0.0.1@example.com:1234",
    "http://localhost:1234@example.com",
    "http://example.com/127.0.0.1",
    "http://example.com:1234?localhost",
    "http://example.com#localhost",
    "http://127.0.0.1x",
]

NO_ADDRESS = ["", "http://", "http://:8080", "127.0.0.1", "localhost", "http://[", "http://[::1"]


@pytest.fixture(autouse=True)
def no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test that asks a name server, which would learn the addresses of the user."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a name server was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "gethostbyname", refuse)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        *((url, True) for url in HERE),
        *((url, False) for url in ELSEWHERE),
        *((url, False) for url in NO_ADDRESS),
    ],
)
def test_is_loopback(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected


@pytest.mark.parametrize(
    ("name", "remote_host", "is_cloud"),
    [
        ("smollm2:135m", "", False),
        ("gpt-oss:120b-cloud", "", True),
        ("glm-4.6:cloud", "", True),
        ("gpt-oss:20b:cloud", "", True),
        ("user/model:1b-cloud", "", True),
        # Ollama takes names in any case.
        ("GLM-4.6:Cloud", "", True),
        ("gpt-oss:120B-CLOUD", "", True),
        # A relayed model may have any name, and any host.
        ("mine:latest", "https://ollama.com:443", True),
        ("proxied:latest", "http://127.0.0.1:11434", True),
        ("gpt-oss:120b-cloud", "https://ollama.com:443", True),
        ("cloud:latest", "", False),
        ("cloud-llama:8b", "", False),
        ("llama:cloud-8b", "", False),
        ("", "", False),
    ],
)
@pytest.mark.parametrize(
    ("url", "otherwise"),
    [
        ("http://127.0.0.1:11434", RunsOn.THIS_MACHINE),
        ("http://localhost:11434", RunsOn.THIS_MACHINE),
        ("http://192.168.1.40:11434", RunsOn.ANOTHER_MACHINE),
        ("https://ollama.com", RunsOn.CLOUD),
    ],
)
def test_where_a_model_of_ollama_runs(
    url: str, otherwise: RunsOn, name: str, remote_host: str, is_cloud: bool
) -> None:
    assert where_model_runs(url, name, remote_host) == (RunsOn.CLOUD if is_cloud else otherwise)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8080", RunsOn.THIS_MACHINE),
        ("http://[::1]:8080", RunsOn.THIS_MACHINE),
        ("http://box:8080", RunsOn.ANOTHER_MACHINE),
        ("http://192.168.1.40:1234", RunsOn.ANOTHER_MACHINE),
        ("http://[", RunsOn.ANOTHER_MACHINE),
        ("https://ollama.com", RunsOn.CLOUD),
        ("https://OLLAMA.com:443/v1", RunsOn.CLOUD),
        ("http://ollama.com@box:8080", RunsOn.ANOTHER_MACHINE),
        ("http://ollama.com.box:8080", RunsOn.ANOTHER_MACHINE),
        ("http://127.0.0.1:8080/ollama.com", RunsOn.THIS_MACHINE),
    ],
)
def test_where_a_server_runs_its_models(url: str, expected: RunsOn) -> None:
    assert where_runs(url) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1234", RunsOn.UNKNOWN),
        ("http://box:1234", RunsOn.ANOTHER_MACHINE),
        ("https://ollama.com", RunsOn.CLOUD),
    ],
)
def test_where_a_server_that_relays_runs_its_models(url: str, expected: RunsOn) -> None:
    assert where_relayed(url) == expected


@pytest.mark.parametrize(
    ("runs_on", "url", "expected"),
    [
        (RunsOn.THIS_MACHINE, "http://127.0.0.1:1234", False),
        # A machine that the user added, and one that a server on this machine relays to.
        (RunsOn.ANOTHER_MACHINE, "http://box:1234", False),
        (RunsOn.ANOTHER_MACHINE, "http://127.0.0.1:1234", True),
        (RunsOn.CLOUD, "http://127.0.0.1:1234", True),
        (RunsOn.CLOUD, "https://ollama.com", True),
        (RunsOn.UNKNOWN, "http://127.0.0.1:1234", True),
        (RunsOn.UNKNOWN, "http://box:1234", True),
    ],
)
def test_models_that_require_consent(runs_on: RunsOn, url: str, expected: bool) -> None:
    endpoint = Endpoint(name="box", kind="openai", url=url)
    model = local_model(id="local/box/m", name="m", endpoint=endpoint, runs_on=runs_on)
    assert requires_consent(model) is expected


def test_file_requires_no_consent() -> None:
    assert not requires_consent(local_model(id="local/gguf/m", name="m", path="/m.gguf"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-4o", True),
        ("gpt-3.5-turbo", True),
        ("openai/gpt-5-mini", True),
        ("ChatGPT-4", True),
        ("o3", True),
        ("o4-mini", True),
        ("claude-opus-4-1", True),
        ("anthropic/claude-3-haiku", True),
        ("gemini-2.5-pro", True),
        ("grok-4", True),
        # Models that can be downloaded, or that are named after another model.
        ("gpt-oss-20b", False),
        ("openai/gpt-oss-120b", False),
        ("gpt2", False),
        ("gpt-j-6b", False),
        ("gpt4all-falcon", False),
        ("grok-1", False),
        ("o1lama", False),
        ("Qwen3-8B-claude-distill", False),
        ("gemma-3", False),
        ("", False),
    ],
)
def test_models_with_unpublished_weights(name: str, expected: bool) -> None:
    assert is_hosted(name) is expected


def test_owners_that_are_providers() -> None:
    assert all(map(is_provider, ["openai", "Anthropic", "google", "vertex_ai"]))
    assert not any(map(is_provider, ["", "me", "tabbyAPI", "library", "organization_owner"]))


@pytest.mark.parametrize(
    ("url", "host"),
    [("https://Ollama.com:443", "ollama.com"), ("http://[::1]:80", "::1"), ("http://[", "")],
)
def test_host_of(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@Ollama.com:443", "ollama.com"),
        ("me:secret@box:1", "box:1"),
        ("a provider", "a provider"),
        ("", ""),
    ],
)
def test_host_that_a_server_names(text: str, shown: str) -> None:
    assert shown_host(text) == shown
