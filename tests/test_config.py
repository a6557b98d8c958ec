"""What commands write into config.json: whole, valid, one after the other, or not at all."""

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


def test_change_is_in_the_file_and_the_rest_stays(path: Path) -> None:
    path.write_text('{"threads": 2,\n   "folders": ["~/modèles"], "allow": ["a"]}')
    config = update_config(allow("b"))
    assert config == read_config() == Config(threads=2, folders=("~/modèles",), allow=("a", "b"))
    assert path.read_text("utf-8") == (
        '{\n  "threads": 2,\n  "folders": [\n    "~/modèles"\n  ],\n'
        '  "allow": [\n    "a",\n    "b"\n  ]\n}\n'
    )


@pytest.mark.parametrize("there_is", ["no file", "no folder"])
def test_first_change_makes_the_file(path: Path, there_is: str) -> None:
    path.unlink()
    if there_is == "no folder":
        path.parent.rmdir()
    assert update_config(allow("a")).allow == ("a",)
    assert [entry.name for entry in path.parent.iterdir()] == ["config.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"threads": 0}', '{"more": 1}', '{"allow": "a"}', "\ufeff{}"],
)
def test_broken_file_is_left_alone(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
    assert f"{path} is not usable: " in failure(lambda: update_config(allow("a")))
    assert path.read_text("utf-8") == text


def test_change_that_would_break_the_file_is_not_made(path: Path) -> None:
    before = path.read_bytes()
    said = failure(lambda: update_config(lambda settings: settings.update(threads=0)))
    assert said.endswith(
        "threads: Input should be greater than or equal to 1. It was left as it was."
    )
    assert path.read_bytes() == before


def test_link_stays_one(path: Path, tmp_path: Path) -> None:
    target = path.rename(tmp_path / "dotfiles.json")
    path.symlink_to(target)
    update_config(allow("a"))
    assert path.is_symlink()
    assert json.loads(target.read_text())["allow"] == ["a"]


def test_folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()
    assert f"{path} cannot be read: Is a directory" in failure(lambda: update_config(allow("a")))


def test_place_that_cannot_be_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.unlink()
    path.parent.rmdir()
    path.parent.touch()
    assert failure(lambda: update_config(allow("a"))).startswith(f"{path} cannot be written: ")


def test_commands_at_once_lose_nothing(path: Path, user_path: Path) -> None:
    configure(user_path)
    code = (
        "import sys\nfrom llm_localrun.config import update_config\n"
        "for number in range(20):\n"
        "    name = f'{sys.argv[1]}{number}'\n"
        "    update_config(lambda settings: settings.setdefault('allow', []).append(name))\n"
    )
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen([*command, who], env=os.environ) for who in "abc"]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert sorted(read_config().allow) == sorted(f"{who}{n}" for who in "abc" for n in range(20))


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
def test_addresses_as_people_paste_them(url: str, root: str) -> None:
    assert ConfiguredEndpoint(name="box", url=url).url == root


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ({"url": "ftp://box"}, "url: only http:// and https:// are spoken"),
        ({"url": "http://"}, "url: it names no host"),
        ({"url": "http://box:port"}, "url: Port could not be cast"),
        ({"name": "My Box"}, "name: it is made of a-z"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_endpoint_that_cannot_be(path: Path, endpoint: dict[str, str], said: str) -> None:
    path.write_text(json.dumps({"endpoints": [{"name": "box", "url": "http://box"} | endpoint]}))
    assert f"is not usable: endpoints.0.{said}" in failure(read_config)
