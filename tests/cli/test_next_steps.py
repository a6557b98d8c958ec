"""`llm localrun` alone: the next steps for each state that a machine can be in."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.cli.next_steps import MachineState, next_steps
from llm_localrun.engine import builds, hardware
from llm_localrun.engine.build_probe import Build, Device
from llm_localrun.engine.builds import BuildReport
from llm_localrun.engine.hardware import Gpu, Hardware, Vendor
from llm_localrun.models import EndpointReport, LocalModel, RunsOn, ServerStatus, Snapshot
from tests.conftest import CONFIG, Invoke, configure, put_starter
from tests.support.many_models import (
    BOX,
    FILES,
    LLAMACPP,
    LMSTUDIO,
    OLLAMA,
    ON_BOX,
    ON_LMSTUDIO,
    ON_OLLAMA,
    put,
)
from tests.support.models import local_model

ENGINE = Build(kind="xllamacpp", path="x", version="2026.10")
ON_GPU = ENGINE.model_copy(
    update={"devices": (Device(name="CUDA0", title="NVIDIA RTX 4090", memory=24 * 10**9),)}
)
BROKEN = ENGINE.model_copy(update={"problem": "it does not start"})
READY = BuildReport((ENGINE,), ENGINE, "", ())
NOT_INSTALLED = BuildReport((), None, "", ())
UNUSABLE = BuildReport((BROKEN,), None, "it cannot be used", ())

NO_GPU = Hardware("linux", "x64")
RTX = Hardware("linux", "x64", (Gpu(Vendor.NVIDIA, "NVIDIA RTX 4090", "580.95", 8.9),))
WITHOUT_DRIVER = Hardware(
    "linux", "x64", (Gpu(Vendor.NVIDIA, "an NVIDIA GPU", obstacle="Install NVIDIA's driver"),)
)
INTEGRATED = Hardware("linux", "x64", (Gpu(Vendor.INTEL, "an Intel GPU", is_integrated=True),))

FILE = FILES[0]
(CLOUD,) = (model for model in ON_OLLAMA if model.runs_on is RunsOn.CLOUD)
LLAMA = ON_OLLAMA[1]
PATH_AT_SERVER = local_model(id="local/llamacpp/x", name="x", endpoint=LLAMACPP)


def server(
    status: ServerStatus, *models: LocalModel, endpoint: Any = OLLAMA, **more: Any
) -> EndpointReport:
    return EndpointReport(endpoint=endpoint, status=status, asked_at=1.0, models=models, **more)


def machine(
    *servers: EndpointReport, files: tuple[LocalModel, ...] = (), **facts: Any
) -> MachineState:
    """The state of a machine whose best model is the first of its files, else of its servers."""
    found = [
        {"path": f"/{file.name}.gguf", "size": 1, "modified": 1.0, "model": file} for file in files
    ]
    snapshot = Snapshot.model_validate({"endpoints": servers, "files": found})
    best = next((m for m in [*files, *snapshot.models] if m.purpose == "chat"), None)
    return MachineState(snapshot, **{"builds": READY, "hardware": NO_GPU, "best": best, **facts})


ANSWERS = server(ServerStatus.ANSWERS, LLAMA)
OFF = ServerStatus.OFFLINE.obstacle
RECOMMEND = "llm localrun recommend"
STARTER = "llm localrun pull starter"
DOCTOR = "llm localrun doctor"
REFRESH = "llm localrun refresh"
HELP = "llm localrun --help"
MODELS = "llm localrun models"
ENGINE_INSTALL = "llm install 'llm-localrun[gguf]'"
ASK = 'llm -m local "prompt"'
ASK_DEFAULT = 'llm "prompt"'
SET_DEFAULT = "llm models default local"
KEY = "llm keys set localrun-ollama"

STATES: dict[str, tuple[MachineState, list[str]]] = {
    "nothing": (machine(), [RECOMMEND, STARTER, DOCTOR, HELP]),
    "nothing, not even an engine": (
        machine(builds=NOT_INSTALLED),
        [ENGINE_INSTALL, RECOMMEND, STARTER, DOCTOR],
    ),
    "a server that is off and has no models": (
        machine(server(ServerStatus.OFFLINE)),
        [RECOMMEND, STARTER, DOCTOR, HELP],
    ),
    "files without an engine": (
        machine(files=(FILE,), builds=NOT_INSTALLED),
        [ENGINE_INSTALL, ASK, SET_DEFAULT, MODELS],
    ),
    "files and a broken engine": (
        machine(files=(FILE,), builds=UNUSABLE),
        [DOCTOR, ASK, SET_DEFAULT, MODELS],
    ),
    "a server, no engine, and no files that need one": (
        machine(ANSWERS, builds=NOT_INSTALLED),
        [ASK, SET_DEFAULT, MODELS, HELP],
    ),
    "models and no default": (machine(files=(FILE,)), [ASK, SET_DEFAULT, MODELS, HELP]),
    "a default of ours": (
        machine(files=(FILE,), default=FILE.id),
        [ASK_DEFAULT, MODELS, HELP],
    ),
    "a default of another plugin": (
        machine(files=(FILE,), default="gpt-4o"),
        [ASK, MODELS, HELP],
    ),
    "a default that is gone": (
        machine(files=(FILE,), default="local/gguf/gone"),
        [ASK, SET_DEFAULT, MODELS, HELP],
    ),
    "a default at a server that has not answered": (
        machine(server(ServerStatus.BUSY), files=(FILE,), default="local/ollama/x"),
        [ASK, MODELS, HELP],
    ),
    "a default by the id of its file": (
        machine(server(ServerStatus.ANSWERS, ON_OLLAMA[0]), default="local/gguf/qwen3:8b"),
        [ASK_DEFAULT, MODELS, HELP],
    ),
    "a server that needs a key": (
        machine(server(ServerStatus.NEEDS_KEY)),
        [KEY, RECOMMEND, STARTER, DOCTOR],
    ),
    "a server that needs a key, and models": (
        machine(server(ServerStatus.NEEDS_KEY), files=(FILE,)),
        [KEY, ASK, SET_DEFAULT, MODELS],
    ),
    "three servers that need keys": (
        machine(*(server(ServerStatus.NEEDS_KEY, endpoint=e) for e in (OLLAMA, BOX, LMSTUDIO))),
        [KEY, "llm keys set localrun-box", RECOMMEND, STARTER],
    ),
    "a busy server": (
        machine(server(ServerStatus.BUSY)),
        [REFRESH, RECOMMEND, STARTER, DOCTOR],
    ),
    "a server that is loading": (
        machine(server(ServerStatus.LOADING)),
        [REFRESH, RECOMMEND, STARTER, DOCTOR],
    ),
    "models, and a busy server": (
        machine(server(ServerStatus.BUSY), files=(FILE,)),
        [ASK, SET_DEFAULT, MODELS, HELP],
    ),
    "models of a server that is off": (
        machine(server(ServerStatus.OFFLINE, LLAMA), obstacle=OFF),
        ["ollama serve", STARTER, MODELS, HELP],
    ),
    "models of LM Studio, which is off": (
        machine(
            server(ServerStatus.OFFLINE, ON_LMSTUDIO[1], endpoint=LMSTUDIO),
            obstacle=OFF,
        ),
        ["lms server start", STARTER, MODELS, HELP],
    ),
    "a server that is off and wants a file to start": (
        machine(
            server(ServerStatus.OFFLINE, PATH_AT_SERVER, endpoint=LLAMACPP),
            obstacle=OFF,
        ),
        [DOCTOR, STARTER, MODELS, HELP],
    ),
    "a file that could not be loaded": (
        machine(files=(FILE,), obstacle="it could not be loaded"),
        [DOCTOR, STARTER, MODELS, HELP],
    ),
    "models in a cloud alone": (
        machine(server(ServerStatus.ANSWERS, CLOUD)),
        ["llm localrun allow local/ollama/gpt-oss:120b-cloud", STARTER, MODELS, HELP],
    ),
    "models in a cloud that are allowed": (
        machine(server(ServerStatus.ANSWERS, CLOUD), allowed=frozenset({CLOUD.id})),
        [ASK, SET_DEFAULT, MODELS, HELP],
    ),
    "models on a machine that was added": (
        machine(server(ServerStatus.ANSWERS, ON_BOX[0], endpoint=BOX)),
        [ASK, SET_DEFAULT, MODELS, HELP],
    ),
    "models for embeddings alone": (
        machine(server(ServerStatus.ANSWERS, ON_OLLAMA[6])),
        [RECOMMEND, STARTER, DOCTOR, HELP],
    ),
    "a GPU that is not used": (
        machine(files=(FILE,), hardware=RTX),
        [ASK, "llm localrun engine install cuda", SET_DEFAULT, MODELS],
    ),
    "a GPU without its driver": (
        machine(files=(FILE,), hardware=WITHOUT_DRIVER),
        [ASK, DOCTOR, SET_DEFAULT, MODELS],
    ),
    "a GPU that is used": (
        machine(files=(FILE,), hardware=RTX, builds=BuildReport((ON_GPU,), ON_GPU, "", ())),
        [ASK, SET_DEFAULT, MODELS, HELP],
    ),
    "a GPU within the processor": (
        machine(files=(FILE,), hardware=INTEGRATED),
        [ASK, SET_DEFAULT, MODELS, HELP],
    ),
    "a GPU, and models of servers alone": (
        machine(ANSWERS, hardware=RTX),
        [ASK, SET_DEFAULT, MODELS, HELP],
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_next_steps(name: str) -> None:
    state, commands = STATES[name]
    steps = next_steps(state)
    assert [command for command, _ in steps] == commands
    assert len(steps) <= 4
    # Beside a command of 32 characters, which most are shorter than.
    assert all(len(what) <= 44 for _, what in steps)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this machine had none."""
    monkeypatch.setattr(hardware, "detect", lambda: NO_GPU)


def shown(invoke: Invoke, columns: int = 80) -> list[str]:
    done = invoke("localrun", env={"COLUMNS": str(columns)})
    assert (done.exit_code, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= columns
    return str(done.stdout).splitlines()


def test_the_whole_status_at_80_columns(
    user_path: Path, starter_model: Path, invoke: Invoke, no_gpu: None
) -> None:
    put_starter(user_path, starter_model)
    head, steps = shown(invoke)[:4], shown(invoke)[5:]
    assert head[:3] == [
        "models   1: 0 on servers, 1 in files only",
        "local    local/gguf/SmolLM2-135M-Instruct.Q4_1",
        "servers  none answers",
    ]
    assert head[3].startswith("engine   xllamacpp ")
    assert steps == [
        '  llm -m local "prompt"     ask the best model',
        "  llm models default local  ask it without -m from now on",
        "  llm localrun models       list 1 model",
        "  llm localrun --help       list all commands",
    ]


def test_the_default_model_is_read_and_its_loss_is_noticed(
    user_path: Path, starter_model: Path, invoke: Invoke, no_gpu: None
) -> None:
    file = put_starter(user_path, starter_model)
    assert invoke("models", "default", "local").exit_code == 0
    assert '  llm "prompt"         ask the default model' in shown(invoke)
    other = file.with_name("SmolLM2-other.gguf")
    file.rename(other)
    replaced = "  llm models default local  replace the default model, which is gone"
    assert replaced in shown(invoke)
    assert invoke("models", "default", "local").exit_code == 0
    assert replaced not in shown(invoke)


@pytest.mark.usefixtures("still_there", "no_gpu")
@pytest.mark.parametrize(
    ("report", "row"),
    [
        (server(ServerStatus.ANSWERS, LLAMA, version="0.40"), "Ollama 0.40"),
        (server(ServerStatus.NEEDS_KEY), "Ollama needs a key"),
        (server(ServerStatus.LOADING), "Ollama is loading its model"),
        (server(ServerStatus.BUSY), "http://127.0.0.1:11434 has not answered yet"),
        (server(ServerStatus.OFFLINE), "none answers"),
    ],
)
def test_servers_are_shown(
    user_path: Path, invoke: Invoke, report: EndpointReport, row: str
) -> None:
    put(user_path, Snapshot(endpoints=(report,)))
    assert f"servers  {row}" in shown(invoke)


@pytest.mark.usefixtures("still_there", "no_gpu")
@pytest.mark.parametrize(
    ("report", "row"),
    [
        (
            server(ServerStatus.OFFLINE, LLAMA),
            "local    local/ollama/llama3.2:latest (its server is off)",
        ),
        (
            server(ServerStatus.ANSWERS, CLOUD),
            "local    local/ollama/gpt-oss:120b-cloud (not allowed yet)",
        ),
    ],
)
def test_a_best_model_that_cannot_run_is_shown(
    user_path: Path, invoke: Invoke, report: EndpointReport, row: str
) -> None:
    put(user_path, Snapshot(endpoints=(report,)))
    assert row in shown(invoke)


@pytest.mark.usefixtures("still_there", "no_gpu")
def test_long_commands_have_their_purpose_below(user_path: Path, invoke: Invoke) -> None:
    put(user_path, Snapshot(endpoints=(server(ServerStatus.NEEDS_KEY),)))
    lines = shown(invoke, columns=50)
    place = lines.index("  llm keys set localrun-ollama")
    assert lines[place + 1] == "      store the key of ollama"


@pytest.mark.parametrize(
    ("report", "row"),
    [(READY, "xllamacpp 2026.10"), (NOT_INSTALLED, "not installed"), (UNUSABLE, "cannot be used")],
)
def test_the_engine_is_shown(
    user_path: Path,
    invoke: Invoke,
    no_gpu: None,
    monkeypatch: pytest.MonkeyPatch,
    report: BuildReport,
    row: str,
) -> None:
    configure(user_path, **CONFIG)
    monkeypatch.setattr(builds, "report", lambda *_: report)
    assert f"engine   {row}" in shown(invoke)
    value = json.loads(invoke("localrun", "--json").stdout)
    assert value["engine"] == (row if report is READY else None)
