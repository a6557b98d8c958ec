"""config.json: which values it accepts, and how commands change it."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.config import Config, ConfiguredEndpoint, read_config, update_config
from tests.conftest import configure
from tests.support.drive import failure

pytestmark = pytest.mark.usefixtures("user_path")


@pytest.fixture
def path(user_path: Path) -> Path:
    return user_path / "localrun" / "config.json"


def allow(model_id: str) -> Any:
    return lambda settings: settings.setdefault("allow", []).append(model_id)


def test_update_changes_one_key_and_keeps_the_others(path: Path) -> None:
    path.write_text('{"threads": 2,\n   "folders": ["~/modèles"], "allow": ["a"]}')
    config = update_config(allow("b"))
    assert config == read_config() == Config(threads=2, folders=("~/modèles",), allow=("a", "b"))
    assert path.read_text("utf-8") == (
        '{\n  "threads": 2,\n  "folders": [\n    "~/modèles"\n  ],\n'
        '  "allow": [\n    "a",\n    "b"\n  ]\n}\n'
    )


@pytest.mark.parametrize("missing", ["file", "folder"])
def test_first_update_creates_the_file(path: Path, missing: str) -> None:
    path.unlink()
    if missing == "folder":
        path.parent.rmdir()
    assert update_config(allow("a")).allow == ("a",)
    assert [entry.name for entry in path.parent.iterdir()] == ["config.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"threads": 0}', '{"more": 1}', '{"allow": "a"}', "\ufeff{}"],
)
def test_update_does_not_change_an_invalid_file(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
    assert f"{path} is not valid: " in failure(lambda: update_config(allow("a")))
    assert path.read_text("utf-8") == text


def test_update_to_an_invalid_value_is_refused(path: Path) -> None:
    before = path.read_bytes()
    message = failure(lambda: update_config(lambda settings: settings.update(threads=0)))
    assert message.endswith(
        "threads: Input should be greater than or equal to 1. The file was not changed."
    )
    assert path.read_bytes() == before


def test_update_writes_through_a_symbolic_link(path: Path, tmp_path: Path) -> None:
    target = path.rename(tmp_path / "dotfiles.json")
    path.symlink_to(target)
    update_config(allow("a"))
    assert path.is_symlink()
    assert json.loads(target.read_text())["allow"] == ["a"]


def test_directory_instead_of_the_file(path: Path) -> None:
    path.unlink()
    path.mkdir()
    assert f"{path} cannot be read: Is a directory" in failure(lambda: update_config(allow("a")))


def test_folder_that_cannot_be_created(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()
    path.parent.touch()
    assert failure(lambda: update_config(allow("a"))).startswith(f"{path} cannot be written: ")


def test_concurrent_updates_lose_nothing(path: Path, user_path: Path) -> None:
    configure(user_path)
    code = (
        "import sys\nfrom llm_localrun.config import update_config\n"
        "for number in range(20):\n"
        "    name = f'{sys.argv[1]}{number}'\n"
        "    update_config(lambda settings: settings.setdefault('allow', []).append(name))\n"
    )
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen([*command, letter], env=os.environ) for letter in "abc"]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert sorted(read_config().allow) == sorted(f"{x}{n}" for x in "abc" for n in range(20))


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("http://box:8000", "http://box:8000"),
        ("http://box:8000/v1/", "http://box:8000"),
        ("box:8000", "http://box:8000"),
        ("https://box/models/v1", "https://box/models"),
        ("http://0.0.0.0:8000", "http://127.0.0.1:8000"),
        ("http://[::]:8000", "http://[::1]:8000"),
    ],
)
def test_url_of_an_endpoint(url: str, root: str) -> None:
    assert ConfiguredEndpoint(name="box", url=url).url == root


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ({"url": "ftp://box"}, "url: only http:// and https:// are supported"),
        ({"url": "http://"}, "url: the URL has no host"),
        ({"url": "http://box:port"}, "url: its port is not a number"),
        ({"name": "My Box"}, "name: use a-z, 0-9, - and _ only"),
        ({"color": "red"}, "color: Extra inputs are not permitted"),
    ],
)
def test_invalid_endpoint(path: Path, endpoint: dict[str, str], message: str) -> None:
    path.write_text(json.dumps({"endpoints": [{"name": "box", "url": "http://box"} | endpoint]}))
    assert f"is not valid: endpoints.0.{message}" in failure(read_config)


GIB = 2**30


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("keep_alive", 90, 90.0),
        ("keep_alive", -1, -1.0),
        ("keep_alive", "10m", 600.0),
        ("keep_alive", "1h30m", 5400.0),
        ("keep_alive", " 45S ", 45.0),
        ("keep_alive", "-1", -1.0),
        ("engine_memory", 5, 5),
        ("engine_memory", "24GB", 24 * GIB),
        ("prompt_cache", "0.5 GiB", GIB // 2),
        ("prompt_cache", "512m", GIB // 2),
        ("quantization", "Q8_0", "Q8_0"),
        ("quantization", "q4_k_m", "Q4_K_M"),
        ("quantization", "fp16", "F16"),
        ("quantization", "ud-q4_k_xl", "UD-Q4_K_XL"),
        ("quantization", "4BIT", "4bit"),
        ("quantization", " awq ", "AWQ"),
    ],
)
def test_values_in_several_spellings(path: Path, key: str, given: object, value: object) -> None:
    path.write_text(json.dumps({key: given}))
    assert getattr(read_config(), key) == value


@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        ("keep_alive", "soon", "give seconds, or a duration such as 45s, 10m or 1h30m"),
        ("keep_alive", "inf", "Input should be a finite number"),
        ("engine_memory", "much", "give bytes, or a size such as 500MB or 12GB"),
        ("engine_memory", -1, "Input should be greater than or equal to 0"),
        *(
            ("quantization", text, f"{text!r} is not a quantization; examples are Q4_K_M, Q8_0")
            for text in ("nonsense", "my-Q4_K_M", "Q7_K_M", "")
        ),
    ],
)
def test_invalid_value_names_the_key_and_examples(
    path: Path, key: str, given: object, message: str
) -> None:
    path.write_text(json.dumps({key: given}))
    assert f"{path} is not valid: {key}: {message}" in failure(read_config)
