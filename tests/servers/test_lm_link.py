"""Where LM Studio's models run: by its command, by the disk, and what becomes of the rest."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from llm_localrun import catalogue
from llm_localrun.catalogue import get_catalogue, read_snapshot
from llm_localrun.models import Endpoint, EndpointReport, LocalModel, RunsOn, ServerStatus, Snapshot
from llm_localrun.name_cache import CachePolicy
from llm_localrun.servers.discover import Discovery
from llm_localrun.servers.recognize import ServerCandidate
from tests.conftest import configure
from tests.fakes.http_server import StandIn
from tests.fakes.lmstudio import MODELS, LMStudio
from tests.support.drive import ask as prompt
from tests.support.drive import failure
from tests.support.models import local_model
from tests.support.trees import put_lmstudio_files

GEMMA = MODELS[0]
KEYS = [model.key for model in MODELS]
PEERS = [{"deviceIdentifier": "a1b2c3", "deviceName": "mac-studio", "status": "online"}]
ONLINE = {"enabled": True, "status": "online", "issues": [], "peers": PEERS, "deviceName": "laptop"}
OFFLINE = {"enabled": False, "status": "offline", "issues": ["deviceDisabled"], "peers": []}

Lms = Callable[..., Path]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home that conftest has set."""
    return tmp_path / "home"


@pytest.fixture
def lms(home: Path) -> Lms:
    """Puts a command `lms` where LM Studio has it, which notes what it is asked for."""

    def put(link: Any, devices: dict[str, str | None] | None = None) -> Path:
        folder = home / ".lmstudio" / "bin"
        folder.mkdir(parents=True, exist_ok=True)
        downloaded = [
            {"modelKey": key, "deviceIdentifier": (devices or {}).get(key), "type": "llm"}
            for key in KEYS
        ]
        for name, value in (("link", link), ("ls", downloaded)):
            text = value if isinstance(value, str) else json.dumps(value)
            (folder / f"{name}.json").write_text(text)
        script = f'#!/bin/sh\necho "$@" >> {folder}/asked\ncat {folder}/$1.json\n'
        (folder / "lms").write_text(script)
        (folder / "lms").chmod(0o755)
        return folder / "asked"

    return put


def hosts(models: Iterable[LocalModel]) -> dict[str, tuple[str, str]]:
    return {model.name: (model.runs_on, model.remote_host) for model in models}


def listed(box: StandIn, before: Iterable[EndpointReport] = ()) -> EndpointReport:
    """What a round finds at an LM Studio on its usual port."""
    endpoint = Endpoint(name="lmstudio", kind="lmstudio", url=box.url)
    (report,) = Discovery([ServerCandidate(endpoint)], before, CachePolicy.FRESH).run()
    return report


def test_models_that_lie_here_run_here(home: Path, lms: Lms) -> None:
    """The ordinary user: no LM Link, and nothing that has to be asked or allowed."""
    asked = lms(OFFLINE)
    put_lmstudio_files(home)
    with StandIn(LMStudio()) as box:
        report = listed(box)
    assert {*hosts(report.models).values()} == {(RunsOn.THIS_MACHINE, "")}
    assert len(report.models) > len(KEYS)
    assert not asked.exists()


def test_models_that_do_not_are_anywhere(home: Path) -> None:
    put_lmstudio_files(home, MODELS[2:4])
    with StandIn(LMStudio()) as box:
        found = hosts(listed(box).models)
    here = {name for name, where in found.items() if where == (RunsOn.THIS_MACHINE, "")}
    assert here == {model.key for model in MODELS[2:4]}
    assert {*found.values()} == {(RunsOn.THIS_MACHINE, ""), (RunsOn.UNKNOWN, "")}


def file(size: int, name: str = "m.gguf") -> dict[str, int]:
    return {f"publisher/repository/{name}": size}


SIZE = GEMMA.size_bytes


@pytest.mark.parametrize(
    ("files", "is_here"),
    [
        pytest.param(file(SIZE), True, id="the file"),
        pytest.param(file(SIZE + 5000), True, id="nearly so"),
        pytest.param(file(SIZE * 9 // 10), False, id="smaller"),
        pytest.param(file(SIZE * 11 // 10), False, id="larger"),
        pytest.param(
            {**file(SIZE - 2**30, "m-00001-of-00002.gguf"), **file(2**30, "m-00002-of-00002.gguf")},
            True,
            id="in parts",
        ),
        pytest.param(
            {**file(SIZE - 2**30), **file(2**30, "mmproj-F16.gguf")}, True, id="with its projector"
        ),
        pytest.param(
            {**file(SIZE), **file(2**30, "mmproj-F16.gguf")}, True, id="without its projector"
        ),
        pytest.param({**file(SIZE // 2, "a.gguf"), **file(SIZE // 2, "b.gguf")}, False, id="two"),
        pytest.param(
            {**file(SIZE - 2**28, "1.safetensors"), **file(2**28, "tokenizer.json")},
            True,
            id="MLX with all that belongs to it",
        ),
        pytest.param(
            {
                **file(SIZE // 2, "1.safetensors"),
                **file(SIZE - SIZE // 2, "2.safetensors"),
                **file(2**30, "tokenizer.json"),
            },
            True,
            id="MLX by its weights",
        ),
        pytest.param({"m.gguf": SIZE}, False, id="not where LM Studio has its models"),
        pytest.param({}, False, id="nothing"),
    ],
)
def test_file_that_a_model_is(files: dict[str, int], is_here: bool, home: Path) -> None:
    for name, size in files.items():
        path = home / ".lmstudio" / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as opened:
            opened.truncate(size)
    with StandIn(LMStudio(models=(GEMMA,))) as box:
        found = hosts(listed(box).models)
    assert {where for where, _ in found.values()} == {
        RunsOn.THIS_MACHINE if is_here else RunsOn.UNKNOWN
    }


def test_link_to_a_file_counts_as_the_file(home: Path, tmp_path: Path) -> None:
    with (tmp_path / "elsewhere.gguf").open("wb") as opened:
        opened.truncate(SIZE)
    folder = home / ".lmstudio" / "models" / "publisher" / "repository"
    folder.mkdir(parents=True)
    (folder / "m.gguf").symlink_to(tmp_path / "elsewhere.gguf")
    (folder / "dangling.gguf").symlink_to(tmp_path / "nowhere")
    (folder.parent / "file").touch()
    with StandIn(LMStudio(models=(GEMMA,))) as box:
        assert {where for where, _ in hosts(listed(box).models).values()} == {RunsOn.THIS_MACHINE}


@pytest.mark.parametrize("chosen", ["/nowhere", "\0", 5, ""])
def test_folder_that_cannot_be_looked_through(chosen: Any, home: Path) -> None:
    (home / ".lmstudio").mkdir(parents=True)
    (home / ".lmstudio" / "settings.json").write_text(json.dumps({"downloadsFolder": chosen}))
    with StandIn(LMStudio(models=(GEMMA,))) as box:
        assert {where for where, _ in hosts(listed(box).models).values()} == {RunsOn.UNKNOWN}


@pytest.fixture
def box(user_path: Path) -> Any:
    """A configured LM Studio, whose models do not lie here."""
    with StandIn(LMStudio()) as server:
        endpoints = [{"name": "box", "url": server.url}]
        configure(user_path, default_endpoints=False, endpoints=endpoints)
        yield server


def test_refresh_asks_where_models_are(box: StandIn, lms: Lms, user_path: Path) -> None:
    asked = lms(ONLINE, {GEMMA.key: "a1b2c3", KEYS[1]: "d4e5f6"})
    found = hosts(get_catalogue(CachePolicy.REFRESH).models)
    assert (
        found.pop(GEMMA.key)
        == found.pop(f"{GEMMA.key}@q8_0")
        == (
            RunsOn.ANOTHER_MACHINE,
            "mac-studio",
        )
    )
    assert found.pop(KEYS[1]) == (RunsOn.ANOTHER_MACHINE, "another device")
    assert {*found.values()} == {(RunsOn.THIS_MACHINE, "")}
    assert asked.read_text().splitlines() == ["link status --json", "ls --json"]
    # What it said holds for the rounds that follow.
    before = read_snapshot(user_path / "localrun")
    catalogue._memory.clear()
    report = listed(box, [before.endpoints[0]])
    assert hosts(report.models) == hosts(before.endpoints[0].models)
    assert len(asked.read_text().splitlines()) == 2


@pytest.mark.parametrize("entry", [None, 7, "a text", {}, {"modelKey": None}])
def test_bad_entry_of_what_is_said_costs_only_itself(entry: Any, box: StandIn, lms: Lms) -> None:
    asked = lms({**ONLINE, "peers": [entry, *PEERS]}, {GEMMA.key: "a1b2c3"})
    listed = json.loads((asked.parent / "ls.json").read_text())
    (asked.parent / "ls.json").write_text(json.dumps([entry, *listed]))
    found = hosts(get_catalogue(CachePolicy.REFRESH).models)
    assert found[GEMMA.key] == (RunsOn.ANOTHER_MACHINE, "mac-studio")
    assert found[KEYS[1]] == (RunsOn.THIS_MACHINE, "")


def test_model_whose_device_is_not_understood_is_not_here(box: StandIn, lms: Lms) -> None:
    asked = lms(ONLINE)
    listed = json.loads((asked.parent / "ls.json").read_text())
    listed[1]["deviceIdentifier"] = 7
    (asked.parent / "ls.json").write_text(json.dumps(listed))
    found = hosts(get_catalogue(CachePolicy.REFRESH).models)
    assert found[KEYS[1]] == (RunsOn.UNKNOWN, "")
    assert found[GEMMA.key] == (RunsOn.THIS_MACHINE, "")


def test_what_is_said_goes_before_what_lies_here(box: StandIn, lms: Lms, home: Path) -> None:
    """A preferred device wins over a local copy."""
    put_lmstudio_files(home)
    lms(ONLINE, {GEMMA.key: "a1b2c3"})
    assert hosts(get_catalogue(CachePolicy.IF_STALE).models)[GEMMA.key] == (
        RunsOn.THIS_MACHINE,
        "",
    )
    assert hosts(get_catalogue(CachePolicy.REFRESH).models)[GEMMA.key] == (
        RunsOn.ANOTHER_MACHINE,
        "mac-studio",
    )
    lms(OFFLINE)
    assert hosts(get_catalogue(CachePolicy.REFRESH).models)[GEMMA.key] == (
        RunsOn.THIS_MACHINE,
        "",
    )


@pytest.mark.parametrize(
    "link", [OFFLINE, {**ONLINE, "peers": []}, {**ONLINE, "status": "starting"}]
)
def test_without_a_link_everything_is_here(link: Any, box: StandIn, lms: Lms) -> None:
    lms(link)
    assert {*hosts(get_catalogue(CachePolicy.REFRESH).models).values()} == {
        (RunsOn.THIS_MACHINE, "")
    }


@pytest.mark.parametrize("link", ["", "{", "[]", "error: unknown command 'link'", {"status": 5}])
def test_command_that_says_nothing(link: Any, box: StandIn, lms: Lms) -> None:
    lms(link)
    assert {where for where, _ in hosts(get_catalogue(CachePolicy.REFRESH).models).values()} == {
        RunsOn.UNKNOWN
    }


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 3\n", "no script", None])
def test_command_that_fails(
    script: str | None, box: StandIn, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    if script is not None:
        folder = home / ".lmstudio" / "bin"
        folder.mkdir(parents=True)
        (folder / "lms").write_text(script)
        (folder / "lms").chmod(0o755)
    assert {where for where, _ in hosts(get_catalogue(CachePolicy.REFRESH).models).values()} == {
        RunsOn.UNKNOWN
    }


def test_nothing_is_asked_where_no_lmstudio_answers(user_path: Path, lms: Lms) -> None:
    asked = lms(OFFLINE)
    get_catalogue(CachePolicy.REFRESH)
    assert not asked.exists()


# Running them


def model_at(name: str) -> LocalModel:
    return next(model for model in get_catalogue(CachePolicy.IF_STALE).models if model.name == name)


def test_prompt_asks_where_a_model_is_before_it_is_refused(box: StandIn, lms: Lms) -> None:
    asked = lms(OFFLINE)
    model = model_at(GEMMA.key)
    assert (model.runs_on, asked.exists()) == (RunsOn.UNKNOWN, False)
    assert prompt(model, "Hi").text == "Hello."
    assert prompt(model_at(KEYS[1]), "Hi").text == "Hello."
    assert len(asked.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("link", "devices", "where"),
    [
        (ONLINE, {GEMMA.key: "a1b2c3"}, "runs on another machine (mac-studio)"),
        ("", {}, "runs on an unknown machine"),
    ],
)
def test_prompt_does_not_go_to_another_device(
    link: Any, devices: dict[str, str | None], where: str, box: StandIn, lms: Lms
) -> None:
    lms(link, devices)
    model = model_at(GEMMA.key)
    assert where in failure(lambda: prompt(model, "Hi"))
    assert {request.method for request in box.requests} == {"GET"}


def test_allowed_model_is_not_asked_about(box: StandIn, lms: Lms, user_path: Path) -> None:
    asked = lms(OFFLINE)
    endpoints = [{"name": "box", "url": box.url}]
    allow = [f"local/box/{GEMMA.key}"]
    configure(user_path, default_endpoints=False, endpoints=endpoints, allow=allow)
    assert prompt(model_at(GEMMA.key), "Hi").text == "Hello."
    assert not asked.exists()


# In the catalogue


def served_and_found(runs_on: Any, fingerprints: tuple[str, ...]) -> LocalModel:
    """A served model and a file that share their fingerprints, joined."""
    endpoint = Endpoint(name="jan", kind="jan", url="http://127.0.0.1:1337")
    model = local_model(
        id="local/jan/m", name="m", endpoint=endpoint, runs_on=runs_on, fingerprints=fingerprints
    )
    file = local_model(id="local/gguf/m", name="m", path="/m.gguf", fingerprints=fingerprints)
    report = EndpointReport(
        endpoint=endpoint, status=ServerStatus.ANSWERS, asked_at=0.0, models=(model,)
    )
    entry = {"path": "/m.gguf", "size": 1, "modified": 0.0, "model": file}
    snapshot = Snapshot.model_validate({"endpoints": [report], "files": [entry]})
    return snapshot.models[0]


@pytest.mark.parametrize(
    ("runs_on", "is_joined", "after"),
    [
        (RunsOn.THIS_MACHINE, True, RunsOn.THIS_MACHINE),
        (RunsOn.UNKNOWN, True, RunsOn.THIS_MACHINE),
        (RunsOn.ANOTHER_MACHINE, False, RunsOn.ANOTHER_MACHINE),
        (RunsOn.CLOUD, False, RunsOn.CLOUD),
    ],
)
def test_model_whose_file_is_here_runs_here(runs_on: str, is_joined: bool, after: str) -> None:
    model = served_and_found(runs_on, ("name:jan:m",))
    assert (model.on_disk is not None, model.runs_on) == (is_joined, after)


def test_unmarked_model_stays_where_it_is() -> None:
    assert served_and_found(RunsOn.UNKNOWN, ()).runs_on == RunsOn.UNKNOWN
