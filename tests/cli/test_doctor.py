"""`llm localrun doctor`: what is well, what is not, and what mends it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from llm_localrun import catalogue
from llm_localrun.cli import doctor_findings
from llm_localrun.cli.doctor_findings import Finding, of_engine, of_memory, of_servers, of_stores
from llm_localrun.config import Config, ConfiguredEndpoint
from llm_localrun.engine.builds import Build, BuildReport, Device
from llm_localrun.models import EndpointReport, ScannedStore, ServerStatus, Snapshot
from llm_localrun.servers import discover
from tests.cli.test_allow import vllm
from tests.conftest import CONFIG, Invoke, Llm, configure, put_starter
from tests.fakes.http_server import StandIn
from tests.support.many_models import (
    BOX,
    FILES,
    LLAMACPP,
    MEMORY,
    NO_MODEL,
    OLLAMA,
    ON_OLLAMA,
    SNAPSHOT,
)

ADDED = Config(endpoints=(ConfiguredEndpoint(name="box", url=BOX.url),))


def said(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    return [(finding.text, finding.advice) for finding in findings]


def server(status: str, **known: Any) -> Snapshot:
    """What was found where a server has `status`."""
    report = {"endpoint": OLLAMA, "status": status, "asked_at": 1.0, **known}
    return Snapshot(endpoints=(EndpointReport.model_validate(report),))


AT_OLLAMA = "Ollama at http://127.0.0.1:11434"
AT_BOX = "vLLM at http://192.168.1.5:8000 (box)"


@pytest.mark.parametrize(
    ("snapshot", "config", "text", "advice"),
    [
        (server(ServerStatus.OFFLINE), Config(), "not running: Ollama (11434)", ""),
        (server(ServerStatus.UNRECOGNIZED), Config(), "not running: Ollama (11434)", ""),
        (
            server(ServerStatus.ANSWERS, version="0.32.15", models=ON_OLLAMA),
            Config(),
            "Ollama 0.32.15 at http://127.0.0.1:11434: answers, 10 models",
            "",
        ),
        (
            server(ServerStatus.OFFLINE, models=ON_OLLAMA[:1]),
            Config(),
            f"{AT_OLLAMA}: not running, 1 model known",
            "Start it with `ollama serve`",
        ),
        (
            server(ServerStatus.UNRECOGNIZED, models=ON_OLLAMA[:1]),
            Config(),
            f"{AT_OLLAMA}: is no model server, 1 model known",
            "Look whether another program has its port",
        ),
        (
            server(ServerStatus.TIMEOUT),
            Config(),
            f"{AT_OLLAMA}: does not answer in time",
            "Look whether it is busy or stuck, and restart it",
        ),
        (
            server(ServerStatus.NEEDS_KEY),
            Config(),
            f"{AT_OLLAMA}: needs a key",
            "Store it: llm keys set localrun-ollama",
        ),
        (
            server(ServerStatus.OFFLINE, endpoint=BOX),
            ADDED,
            f"{AT_BOX}: not running, on another machine",
            "Start it with `vllm serve MODEL`",
        ),
        (
            server(ServerStatus.UNRECOGNIZED, endpoint=BOX),
            ADDED,
            f"{AT_BOX}: is no model server, on another machine",
            "Check its address, or forget it: llm localrun endpoints remove box",
        ),
        (
            Snapshot(),
            Config(default_endpoints=False),
            "The usual ports are left out: default_endpoints is false",
            "",
        ),
    ],
)
def test_servers(snapshot: Snapshot, config: Config, text: str, advice: str) -> None:
    assert said(of_servers(snapshot, config)) == [(text, advice)]


def test_absent_servers_are_named_once_with_their_ports() -> None:
    urls = [LLAMACPP.url, "http://127.0.0.1:9931"]
    absent = tuple(
        EndpointReport(
            endpoint=LLAMACPP.model_copy(update={"url": url}),
            status=ServerStatus.OFFLINE,
            asked_at=1.0,
        )
        for url in urls
    )
    (finding,) = of_servers(Snapshot(endpoints=absent), Config())
    assert finding.text == "not running: llama-server (8080, 9931)"
    assert [each["endpoint"]["url"] for each in finding.facts["endpoints"]] == urls


def store(status: str, **known: Any) -> Snapshot:
    report = {"store": "lmstudio", "path": "/home/ada/lmstudio", "status": status, **known}
    return Snapshot(stores=(ScannedStore.model_validate(report),))


@pytest.mark.parametrize(
    ("snapshot", "text", "advice"),
    [
        (store("read", files=1), "/home/ada/lmstudio: 1 file", ""),
        (
            store("read", files=2).model_copy(update={"files": (NO_MODEL,)}),
            "/home/ada/lmstudio: 2 files, 1 skipped"
            " (broken.gguf: it ends in the middle of its header)",
            "",
        ),
        (store("missing"), "not there: lmstudio", ""),
        (
            store("missing", store="folders"),
            "/home/ada/lmstudio: not there",
            'Make it, or take it out of "folders"',
        ),
        (
            store("unreadable", problem="Permission denied"),
            "/home/ada/lmstudio: cannot be read (Permission denied)",
            "Mend its permissions",
        ),
        (
            store("read", files=3, problem="qwen: Permission denied"),
            "/home/ada/lmstudio: 3 files (qwen: Permission denied)",
            "Mend its permissions",
        ),
    ],
)
def test_stores(snapshot: Snapshot, text: str, advice: str) -> None:
    assert said(of_stores(snapshot)) == [(text, advice)]


GPU = Device(name="CUDA0", title="NVIDIA RTX 4090", memory=24 * 10**9)
WHEEL = Build(kind="xllamacpp", path="/site-packages", version="2026.10")
NATIVE = Build(kind="llama-server", path="/usr/bin/llama-server", version="b11549", devices=(GPU,))
OLD = NATIVE.model_copy(update={"version": "b1", "devices": (), "problem": "It lacks --fit"})
LOG = Path("/engine.log")


@pytest.mark.parametrize(
    ("snapshot", "report", "said_of_it"),
    [
        (SNAPSHOT, BuildReport((WHEEL,), WHEEL, "", ()), [("xllamacpp 2026.10, no GPU", "")]),
        (
            SNAPSHOT,
            BuildReport((NATIVE, WHEEL), NATIVE, "", (LOG,)),
            [
                ("llama-server b11549, NVIDIA RTX 4090 (24 GB)", ""),
                ("xllamacpp 2026.10, no GPU, not used", ""),
                ("llama.cpp's log: /engine.log", ""),
            ],
        ),
        (
            SNAPSHOT,
            BuildReport((OLD,), None, "no build can be used", ()),
            [("llama-server b1, no GPU", "It lacks --fit")],
        ),
        (Snapshot(), BuildReport((), None, "", ()), [("not installed; GGUF files need it", "")]),
        (
            Snapshot(files=SNAPSHOT.files[:2]),
            BuildReport((), None, "", ()),
            [("not installed: 2 files cannot be run", "llm install 'llm-localrun[gguf]'")],
        ),
    ],
)
def test_engine(snapshot: Snapshot, report: BuildReport, said_of_it: list[tuple[str, str]]) -> None:
    assert said(of_engine(snapshot, report, [])) == said_of_it


@pytest.mark.parametrize(
    ("memory", "text", "is_well"),
    [
        (10**12, "1000 GB in all", True),
        (None, "this system does not tell", True),
        (
            40 * 10**9,
            "40 GB in all; too little for local/gguf/Llama-3.3-70B-Instruct-Q4_K_M,"
            " local/gguf/Kimi-K2-Instruct-0905-UD-IQ1_S",
            False,
        ),
        (
            MEMORY // 6,
            "4.0 GB in all; too little for local/ollama/qwen3:8b, local/ollama/gemma3:27b,"
            " local/ollama/deepseek-r1:14b, 18 more",
            False,
        ),
    ],
)
def test_memory(memory: int | None, text: str, is_well: bool) -> None:
    (finding,) = of_memory(SNAPSHOT, memory)
    assert (finding.text, not finding.advice) == (text, is_well)


def test_policy(user_path: Path) -> None:
    config = Config(allow=("local/llamaswap/frontier", "local/ollama/gone:cloud"))
    assert said(doctor_findings.of_policy(SNAPSHOT, config))[1:] == [
        ("allowed to leave this machine: local/llamaswap/frontier", ""),
        ("refused, because they may leave this machine: local/ollama/gpt-oss:120b-cloud", ""),
    ]


@pytest.mark.parametrize(
    ("model", "build", "allow", ServerStatus.ANSWERS, "can"),
    [
        (FILES[0], "xllamacpp", (), False, True),
        (FILES[0], "", (), False, False),
        (ON_OLLAMA[1], "", (), True, True),
        (ON_OLLAMA[1], "xllamacpp", (), False, False),
        (ON_OLLAMA[0], "xllamacpp", (), False, True),
        (ON_OLLAMA[5], "xllamacpp", (), True, False),
        (ON_OLLAMA[5], "", (ON_OLLAMA[5].id,), True, True),
    ],
)
def test_what_can_run(
    model: Any, build: str, allow: tuple[str, ...], answers: bool, can: bool
) -> None:
    snapshot = server(ServerStatus.ANSWERS if answers else ServerStatus.OFFLINE, models=ON_OLLAMA)
    assert doctor_findings.can_run(model, snapshot, Config(allow=allow), build) is can


# The command


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not make the stand-ins late."""
    monkeypatch.setattr(discover, "DEADLINE", 10.0)


@pytest.mark.usefixtures("patient")
def test_all_is_well(user_path: Path, starter_model: Path, invoke: Invoke) -> None:
    put_starter(user_path, starter_model)
    with StandIn(vllm) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
        done = invoke("localrun", "doctor")
        asked = len(server.requests)
        assert f"  vLLM at {server.url} (box): answers, 2 models\n" in done.stdout
        # However fresh what is known is, it looks again.
        told = json.loads(invoke("localrun", "doctor", "--json").stdout)
        assert len(server.requests) == 2 * asked > 0
    assert (done.exit_code, done.stderr) == (0, "")
    assert "\n!" not in f"\n{done.stdout}"
    assert "  3 of 3 models can run\n" in done.stdout
    assert told["can_run"] is True
    assert {finding["section"] for finding in told["findings"]} >= {
        *("servers", "engine", "memory", "cache", "policy", "models")
    }
    assert all(finding["well"] for finding in told["findings"])


@pytest.mark.usefixtures("patient")
def test_server_that_has_been_stopped(user_path: Path, invoke: Invoke) -> None:
    with StandIn(vllm) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
        assert invoke("localrun", "doctor").exit_code == 0
    done = invoke("localrun", "doctor")
    assert (done.exit_code, done.stderr) == (1, "Nothing can run.\n")
    assert (
        f"! vLLM at {server.url} (box): not running, 2 models known\n"
        "    Start it with `vllm serve MODEL`\n"
    ) in done.stdout
    assert "! none of them can run\n    Get a small one: llm localrun pull starter" in done.stdout


def test_nothing_at_all(run_llm: Llm) -> None:
    done = run_llm("localrun", "doctor")
    assert (done.returncode, done.stderr) == (1, "Nothing can run.\n")
    assert "! none was found\n    Get a small one: llm localrun pull starter" in done.stdout


def test_broken_configuration(user_path: Path, invoke: Invoke) -> None:
    path = user_path / "localrun" / "config.json"
    path.write_text('{"threads": 0}')
    done = invoke("localrun", "doctor")
    assert done.exit_code == 1
    assert f"! {path} cannot be used\n    {path} is not usable: threads: " in done.stdout
    assert json.loads(invoke("localrun", "doctor", "--json").stdout)["can_run"] is False
    assert path.read_text() == '{"threads": 0}'


def test_cache_that_cannot_be_written(user_path: Path, invoke: Invoke) -> None:
    (user_path / "localrun" / "catalogue.json").mkdir()
    done = invoke("localrun", "doctor")
    assert "catalogue.json cannot be written, so every command looks anew\n" in done.stdout
    catalogue._memory.clear()
