"""Where servers are searched for: what variables say, and what the servers' own settings say."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.config import Config
from llm_localrun.servers.discover import candidates_for, normalize, usual_addresses
from llm_localrun.servers.lmstudio_home import models_folder, server_port
from llm_localrun.servers.ollama_address import url_from_variable


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())


def found(kind: str) -> list[str]:
    return [url for each, url in usual_addresses() if each == kind]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home that conftest has set."""
    return tmp_path / "home"


# What `_at` adds to the usual addresses of a kind, which come behind it.
LMSTUDIO, OMLX, MSTY = (
    ".lmstudio/.internal/http-server-config.json",
    ".omlx/settings.json",
    ".config/MstyStudio/Gifnoc.nosj",
)


@pytest.mark.parametrize(
    ("file", "settings", "kind", "port"),
    [
        (LMSTUDIO, {"port": 5678, "networkInterface": "0.0.0.0"}, "lmstudio", 5678),
        (LMSTUDIO, b'\xef\xbb\xbf{"port": 5678}', "lmstudio", 5678),
        (OMLX, {"server": {"host": "127.0.0.1", "port": 8100}}, "omlx", 8100),
        (MSTY, {"localAIService": {"host": "127.0.0.1:11999"}}, "ollama", 11999),
        (MSTY, {"localAIService": {"host": "http://localhost:11999/"}}, "ollama", 11999),
        (MSTY, {"mlxService": {"host": "127.0.0.1:11998"}}, "mlx", 11998),
    ],
)
def test_port_in_a_servers_own_settings(
    file: str, settings: Any, kind: str, port: int, home: Path
) -> None:
    before = [url for _, url in usual_addresses()]
    write(home / file, settings)
    after = [url for _, url in usual_addresses()]
    assert {*after} - {*before} == {f"http://127.0.0.1:{port}"}
    assert f"http://127.0.0.1:{port}" in found(kind)


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        (LMSTUDIO, {"port": 1234}),
        (LMSTUDIO, {"port": "5678"}),
        (LMSTUDIO, {"port": 0}),
        (LMSTUDIO, {"port": 70000}),
        (LMSTUDIO, {"port": None}),
        (LMSTUDIO, {}),
        (LMSTUDIO, [1]),
        (LMSTUDIO, b"{"),
        (LMSTUDIO, b"\xff\xfe"),
        (LMSTUDIO, b"[" * 100_000),
        # LM Studio's own processes talk there.
        *((LMSTUDIO, {"port": port}) for port in (41343, 52993, 16141, 39414, 22931)),
        (OMLX, {"server": 5}),
        (OMLX, {"server": {"port": True}}),
        # Another machine is asked only if the user says so to us.
        (MSTY, {"localAIService": {"host": "192.168.1.5:11999"}}),
        (MSTY, {"localAIService": {"host": "127.0.0.1:11999@example.com:1"}}),
        (MSTY, {"localAIService": {"host": "127.0.0.1"}}),
        (MSTY, {"localAIService": {"host": 11999}}),
    ],
)
def test_settings_that_say_nothing_new(file: str, settings: Any, home: Path) -> None:
    before = usual_addresses()
    write(home / file, settings)
    assert sorted(usual_addresses()) == sorted(before)


def test_home_of_lmstudio_is_where_it_points(home: Path, tmp_path: Path) -> None:
    write(home / LMSTUDIO, {"port": 1})
    (home / ".cache" / "lm-studio").mkdir(parents=True)
    write(home / ".cache" / "lm-studio" / ".internal" / "http-server-config.json", {"port": 2})
    assert server_port(home) == 2
    (home / ".lmstudio-home-pointer").write_text(f"{tmp_path / 'moved'}\n")
    write(tmp_path / "moved" / ".internal" / "http-server-config.json", {"port": 3})
    assert server_port(home) == 3
    assert models_folder(home) == tmp_path / "moved" / "models"
    write(tmp_path / "moved" / "settings.json", {"downloadsFolder": "/big/models"})
    assert models_folder(home) == Path("/big/models")


@pytest.mark.parametrize(
    ("variable", "kind", "value", "urls"),
    [
        ("LMSTUDIO_API_BASE", "lmstudio", "http://localhost:5678", ["http://localhost:5678"]),
        (
            "LMSTUDIO_API_BASE",
            "lmstudio",
            " http://192.168.1.40:1234/v1 , box:5678,",
            ["http://192.168.1.40:1234", "http://box:5678"],
        ),
        (
            "LMSTUDIO_API_BASE",
            "lmstudio",
            "http://me:secret@box:1/v1,me@box:2,http://me:secret@0.0.0.0:3",
            ["http://box:1", "http://box:2", "http://127.0.0.1:3"],
        ),
        ("LMSTUDIO_API_BASE", "lmstudio", "ftp://box,,http://", []),
        ("UNSLOTH_STUDIO_URL", "unsloth", "http://127.0.0.1:8899", ["http://127.0.0.1:8899"]),
    ],
)
def test_address_in_a_variable(
    variable: str, kind: str, value: str, urls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = found(kind)
    monkeypatch.setenv(variable, value)
    assert found(kind) == [*urls, *usual]


def test_ollama_is_looked_for_where_its_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "0.0.0.0:11500")
    assert found("ollama")[0] == "http://127.0.0.1:11500"
    assert "http://127.0.0.1:11434" not in found("ollama")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("   ", "http://127.0.0.1:11434"),
        ('""', "http://127.0.0.1:11434"),
        ("localhost", "http://localhost:11434"),
        ("example.com", "http://example.com:11434"),
        ("example.com:56789", "http://example.com:56789"),
        (" 'example.com:56789' ", "http://example.com:56789"),
        ('" example.com "', "http://example.com:11434"),
        ("http://example.com", "http://example.com:80"),
        ("https://example.com", "https://example.com:443"),
        ("https://example.com:8443", "https://example.com:8443"),
        ("http://example.com/", "http://example.com:80"),
        ("http://h:1/prefix", "http://h:1/prefix"),
        ("http://h:1/prefix/", "http://h:1/prefix"),
        ("https://h/prefix", "https://h:443/prefix"),
        ("h:1/prefix", "http://h:1/prefix"),
        ("ollama.com", "https://ollama.com:443"),
        ("ollama.com:80", "http://ollama.com:80"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:1234", "http://127.0.0.1:1234"),
        ("http://0.0.0.0", "http://127.0.0.1:80"),
        (":1234", "http://127.0.0.1:1234"),
        ("::", "http://[::1]:11434"),
        ("[::]:1234", "http://[::1]:1234"),
        ("::1", "http://[::1]:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("[::1]:1234", "http://[::1]:1234"),
        ("[2001:db8::1]:1234", "http://[2001:db8::1]:1234"),
        ("2001:db8::1", "http://[2001:db8::1]:11434"),
        ("example.com:port", "http://example.com:11434"),
        ("example.com:99999", "http://example.com:11434"),
        ("https://example.com:port", "https://example.com:443"),
        ("http://example.com:-1", "http://example.com:80"),
        ("example.com:", "http://example.com:11434"),
        ("example.com:0", "http://example.com:0"),
        ("Example.COM:1", "http://Example.COM:1"),
        ("[::1", "http://[::1]:11434"),
        ("0:0:0:0:0:0:0:1", "http://[::1]:11434"),
        ("ftp://h", "ftp://h:11434"),
        ("http://me:secret@h:1", "http://h:1"),
        ("http://me:se@cret@h/prefix", "http://h:80/prefix"),
        ("me:secret@h", "http://h:11434"),
        ("me@[::1]:1", "http://[::1]:1"),
    ],
)
def test_ollama_url(host: str, url: str) -> None:
    assert url_from_variable(host) == url


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("http://localhost:1234", "http://127.0.0.1:1234"),
        ("http://[::1]:1234/v1", "http://127.0.0.1:1234/v1"),
        ("https://localhost", "https://127.0.0.1"),
        ("http://localhost.example.com", "http://localhost.example.com"),
        ("http://[::1:2]:1", "http://[::1:2]:1"),
    ],
)
def test_spellings_of_this_machine(url: str, normal: str) -> None:
    assert normalize(url) == normal


@pytest.mark.parametrize("host", ["[::1", "::1]", "[", "]:1", "http://[", "://", "://:", "\x00"])
def test_nonsense_for_an_address_of_ollama_is_no_error(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = usual_addresses()
    monkeypatch.setattr("os.environ", {"OLLAMA_HOST": host})
    assert len(candidates_for(Config(), {})) == len(usual)
