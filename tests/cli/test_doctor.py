"""`llm localrun doctor`: its findings, and their advice."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from llm_localrun import catalogue
from llm_localrun.cli.doctor_findings import (
    Finding,
    can_run,
    engine_findings,
    hardware_findings,
    memory_finding,
    policy_findings,
    problem_findings,
    rpc_findings,
    server_findings,
    store_findings,
)
from llm_localrun.config import Config, ConfiguredEndpoint
from llm_localrun.engine.build_probe import Build, Device
from llm_localrun.engine.builds import NAMED, BuildReport
from llm_localrun.engine.hardware import Gpu, Hardware, Vendor
from llm_localrun.models import (
    Endpoint,
    EndpointReport,
    ScannedFile,
    ScannedStore,
    ServerStatus,
    Snapshot,
)
from llm_localrun.servers import discover
from llm_localrun.servers.llamacpp_rpc import RpcReport
from tests.conftest import CONFIG, Invoke, Llm, configure, put_starter
from tests.fakes.http_server import StandIn
from tests.fakes.rpc_server import RpcServer
from tests.fakes.vllm import vllm
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
from tests.support.models import changed, file_route, local_model

MLX = Endpoint(name="mlx", kind="mlx", url="http://127.0.0.1:8080")
ADDED = Config(endpoints=(ConfiguredEndpoint(name="box", url=BOX.url),))


def texts_of(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    return [(finding.text, finding.advice) for finding in findings]


def server(status: str, **known: Any) -> Snapshot:
    """A snapshot with one server that has `status`."""
    report = {"endpoint": OLLAMA, "status": status, "asked_at": 1.0, **known}
    return Snapshot(endpoints=(EndpointReport.model_validate(report),))


AT_OLLAMA = "Ollama at http://127.0.0.1:11434"
AT_BOX = "vLLM at http://192.168.1.5:8000 (box)"


@pytest.mark.parametrize(
    ("snapshot", "config", "text", "advice"),
    [
        (server(ServerStatus.OFFLINE), Config(), "not found: Ollama (11434)", ""),
        (server(ServerStatus.UNRECOGNIZED), Config(), "not found: Ollama (11434)", ""),
        (
            server(ServerStatus.ANSWERS, version="0.32.15", models=ON_OLLAMA),
            Config(),
            "Ollama 0.32.15 at http://127.0.0.1:11434: answers, 10 models",
            "",
        ),
        (
            server(ServerStatus.OFFLINE, models=ON_OLLAMA[:1]),
            Config(),
            f"{AT_OLLAMA}: offline, 1 model known",
            "Start it with `ollama serve`",
        ),
        (
            server(ServerStatus.UNRECOGNIZED, models=ON_OLLAMA[:1]),
            Config(),
            f"{AT_OLLAMA}: is not a model server, 1 model known",
            "Check whether another program uses its port",
        ),
        (
            server(ServerStatus.TIMEOUT),
            Config(),
            f"{AT_OLLAMA}: cannot be reached",
            "Check its address, and whether its machine is on",
        ),
        (
            server(ServerStatus.BUSY),
            Config(),
            "unknown server at http://127.0.0.1:11434: has not answered yet",
            "It accepts connections but did not answer within 0 s."
            " Run this again when it is less busy",
        ),
        (
            server(ServerStatus.NEEDS_KEY),
            Config(),
            f"{AT_OLLAMA}: needs a key",
            "Store its key: llm keys set localrun-ollama",
        ),
        (
            server(ServerStatus.ANSWERS, endpoint=MLX),
            Config(),
            "mlx_lm.server at http://127.0.0.1:8080: answers",
            "It lists nothing without the Hugging Face cache: `mkdir -p ~/.cache/huggingface/hub`",
        ),
        (
            server(ServerStatus.OFFLINE, endpoint=BOX),
            ADDED,
            f"{AT_BOX}: offline, on another machine",
            "Start it with `vllm serve MODEL`",
        ),
        (
            server(ServerStatus.UNRECOGNIZED, endpoint=BOX),
            ADDED,
            f"{AT_BOX}: is not a model server, on another machine",
            "Check its URL, or remove it: llm localrun endpoints remove box",
        ),
        (
            Snapshot(),
            Config(default_endpoints=False),
            "default ports are not checked: default_endpoints is false",
            "",
        ),
    ],
)
def test_servers(snapshot: Snapshot, config: Config, text: str, advice: str) -> None:
    assert texts_of(server_findings(snapshot, config)) == [(text, advice)]


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
    (finding,) = server_findings(Snapshot(endpoints=absent), Config())
    assert finding.text == "not found: llama-server (8080, 9931)"
    assert [each["url"] for each in finding.facts["endpoints"]] == urls


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
            " (broken.gguf: it is cut off in the middle of its header)",
            "",
        ),
        (
            store("read", files=2).model_copy(
                update={"files": (NO_MODEL.model_copy(update={"name": "five:4b"}),)}
            ),
            "/home/ada/lmstudio: 2 files, 1 skipped"
            " (five:4b: it is cut off in the middle of its header)",
            "",
        ),
        (store("missing"), "not found: lmstudio", ""),
        (
            store("missing", store="folders"),
            "/home/ada/lmstudio: not found",
            'Create it, or remove it from "folders"',
        ),
        (
            store("unreadable", problem="Permission denied"),
            "/home/ada/lmstudio: cannot be read (Permission denied)",
            "Fix its permissions",
        ),
        (
            store("unreadable", problem="Input/output error"),
            "/home/ada/lmstudio: cannot be read (Input/output error)",
            "Check its disk",
        ),
        (
            store("read", files=3, problem="qwen: Permission denied"),
            "/home/ada/lmstudio: 3 files (qwen: Permission denied)",
            "Fix its permissions",
        ),
    ],
)
def test_stores(snapshot: Snapshot, text: str, advice: str) -> None:
    assert texts_of(store_findings(snapshot)) == [(text, advice)]


def test_files_that_cannot_be_loaded() -> None:
    cut = changed(FILES[0], problem="it is cut off: 1 byte of at least 2")
    entry = ScannedFile(path="/m", size=1, modified=1.0, model=cut)
    path = file_route(cut).path
    snapshot = Snapshot(files=(entry,))
    (finding,) = problem_findings(snapshot)
    assert finding.text == f"{path}: it is cut off: 1 byte of at least 2"
    assert finding.advice == (
        "Download it again, or delete it. To try it again:"
        " llm -m local/gguf/SmolLM2-135M-Instruct.Q4_1"
    )
    assert not can_run(cut, snapshot, Config(), "xllamacpp 2026.10")
    assert list(problem_findings(SNAPSHOT)) == []


GPU = Device(name="CUDA0", title="NVIDIA RTX 4090", memory=24 * 10**9)
WHEEL = Build(kind="xllamacpp", path="/site-packages", version="2026.10")
NATIVE = Build(kind="llama-server", path="/usr/bin/llama-server", version="b11549", devices=(GPU,))
OLD = NATIVE.model_copy(update={"version": "b1", "devices": (), "problem": "It lacks --fit"})
GONE = Build(kind="llama-server", path="/no", problem="there is no such program")
LOST = NATIVE.model_copy(update={"gpu_problem": "device lost"})
LOG = Path("/engine.log")


@pytest.mark.parametrize(
    ("snapshot", "report", "expected"),
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
            [
                (
                    "llama-server b1: It lacks --fit",
                    "Choose another build: llm localrun engine use auto",
                )
            ],
        ),
        (
            SNAPSHOT,
            BuildReport((GONE,), None, f"/no cannot be used: {GONE.problem}", (), "Correct it"),
            [("llama-server (/no): there is no such program", "Correct it")],
        ),
        (
            SNAPSHOT,
            BuildReport((LOST,), LOST, "", (), reasons={LOST.path: LOST.gpu_problem}),
            [
                (
                    "llama-server b11549, NVIDIA RTX 4090 (24 GB): device lost",
                    "Update its driver. To try it again: llm localrun engine use auto",
                )
            ],
        ),
        (
            SNAPSHOT,
            BuildReport((LOST,), LOST, "", (), reasons={LOST.path: f"{NAMED}, and x"}),
            [
                (
                    "llama-server b11549, NVIDIA RTX 4090 (24 GB): device lost",
                    "Update its driver. To try it again: llm localrun engine use"
                    " /usr/bin/llama-server",
                )
            ],
        ),
        (
            Snapshot(),
            BuildReport((), None, "", ()),
            [("not installed: only GGUF files need it", "")],
        ),
        (
            Snapshot(files=SNAPSHOT.files[:2]),
            BuildReport((), None, "", ()),
            [("not installed: 2 files cannot run", "llm install 'llm-localrun[gguf]'")],
        ),
    ],
)
def test_engine(snapshot: Snapshot, report: BuildReport, expected: list[tuple[str, str]]) -> None:
    assert texts_of(engine_findings(snapshot, report, [])) == expected


def gpu(vendor: Vendor, title: str = "", **known: Any) -> Gpu:
    return Gpu(vendor, title or f"an {vendor.value} GPU", **known)


RTX = gpu(Vendor.NVIDIA, "NVIDIA RTX 4090", driver="580.95", capability=8.9)
UNREAD = gpu(Vendor.NVIDIA, obstacle="Install NVIDIA's driver")
RADEON = gpu(Vendor.AMD, has_vulkan=True)
UHD = gpu(Vendor.INTEL, "an integrated Intel GPU", is_integrated=True, has_vulkan=True)
ON_RADEON = NATIVE.model_copy(
    update={"devices": (Device(name="Vulkan0", title="AMD Radeon RX 7600 (RADV)", memory=1),)}
)
USES = "Install a build that uses it: llm localrun engine install"


@pytest.mark.parametrize(
    ("gpus", "builds", "expected"),
    [
        ([], [WHEEL], []),
        ([RTX], [WHEEL], [("NVIDIA RTX 4090 is not used", f"{USES} cuda")]),
        ([RTX], [], [("NVIDIA RTX 4090 is not used", f"{USES} cuda")]),
        ([RTX], [OLD], [("NVIDIA RTX 4090 is not used", f"{USES} cuda")]),
        ([RTX], [NATIVE, WHEEL], []),
        # The choice is the user's.
        ([RTX], [WHEEL, NATIVE], []),
        (
            [UNREAD],
            [WHEEL],
            [
                (
                    "an NVIDIA GPU is not used",
                    "Install NVIDIA's driver. Then: llm localrun engine install",
                )
            ],
        ),
        ([RTX, RADEON], [ON_RADEON], [("NVIDIA RTX 4090 is not used", f"{USES} cuda")]),
        (
            [UNREAD, RADEON],
            [ON_RADEON],
            [
                (
                    "an NVIDIA GPU is not used",
                    "Install NVIDIA's driver. Then: llm localrun engine install",
                )
            ],
        ),
        ([RADEON], [ON_RADEON], []),
        ([RADEON], [WHEEL], [("an AMD GPU is not used", f"{USES} vulkan")]),
        # It may be slower than the CPU, so that is not wrong.
        (
            [UHD],
            [WHEEL],
            [("an integrated Intel GPU is not used: llm localrun engine install vulkan", "")],
        ),
        ([UHD, RTX], [NATIVE], []),
    ],
)
def test_hardware(gpus: list[Gpu], builds: list[Build], expected: list[tuple[str, str]]) -> None:
    chosen = next((build for build in builds if not build.problem), None)
    report = BuildReport(tuple(builds), chosen, "", ())
    machine = Hardware("linux", "x64", tuple(gpus))
    found = list(hardware_findings(report, machine))
    assert texts_of(found) == expected
    for finding in found:
        titles = [each["title"] for each in finding.facts["gpus"]]
        assert titles == [each.title for each in gpus]
    musl = Hardware("linux", "x64", tuple(gpus), problem="the builds need glibc")
    assert list(hardware_findings(report, musl)) == []


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (
            WHEEL,
            [
                (
                    "AVX-512 is not used; for faster prompts: llm localrun engine install cpu",
                    "",
                )
            ],
        ),
        (NATIVE.model_copy(update={"devices": ()}), []),
        (None, []),
    ],
)
def test_instructions(chosen: Build | None, expected: list[tuple[str, str]]) -> None:
    report = BuildReport((chosen,) if chosen else (), chosen, "", ())
    machine = Hardware("linux", "x64", has_avx512=True)
    assert texts_of(hardware_findings(report, machine)) == expected


def test_hardware_in_the_report(user_path: Path, invoke: Invoke, monkeypatch: Any) -> None:
    monkeypatch.setattr(
        "llm_localrun.engine.hardware.detect", lambda: Hardware("linux", "x64", (UNREAD,))
    )
    done = invoke("localrun", "doctor", env={"COLUMNS": "80"})
    advice = "Install NVIDIA's driver. Then: llm localrun engine install"
    assert f"! an NVIDIA GPU is not used\n    {advice}\n" in done.stdout
    findings = json.loads(invoke("localrun", "doctor", "--json").stdout)["findings"]
    (finding,) = [each for each in findings if "gpus" in each]
    assert finding["suggested"] == "cpu"
    assert finding["gpus"] == [
        {"title": "an NVIDIA GPU", "driver": "", "obstacle": "Install NVIDIA's driver"}
    ]


NO_RPC = "The RPC servers in config.json need a llama-server that was built with GGML_RPC"
SET = "Set llama_server in config.json to its path, or remove rpc"


@pytest.mark.parametrize(
    ("report", "servers", "expected"),
    [
        (BuildReport((NATIVE,), NATIVE, "", ()), [], []),
        (
            BuildReport((NATIVE,), NATIVE, "", ()),
            [
                RpcReport("127.0.0.1:1", ServerStatus.ANSWERS, "5.0.0"),
                RpcReport("192.168.1.6:1", ServerStatus.TIMEOUT),
            ],
            [
                ("RPC server 127.0.0.1:1: answers (protocol 5.0.0)", ""),
                (
                    "RPC server 192.168.1.6:1: cannot be reached, on another machine",
                    "Check its address, and whether its machine is on, or remove it from rpc in"
                    " config.json",
                ),
            ],
        ),
        (
            BuildReport((WHEEL,), None, NO_RPC, (), SET),
            [RpcReport("127.0.0.1:1", ServerStatus.ANSWERS, "5.0.0")],
            [(NO_RPC, SET), ("RPC server 127.0.0.1:1: answers (protocol 5.0.0)", "")],
        ),
        (
            BuildReport((OLD,), None, "/bin/llama-server cannot be used: It lacks --fit", (), "x"),
            [RpcReport("127.0.0.1:1", ServerStatus.ANSWERS, "5.0.0")],
            [("RPC server 127.0.0.1:1: answers (protocol 5.0.0)", "")],
        ),
    ],
    ids=["none", "two", "no build", "broken build"],
)
def test_rpc_servers(
    report: BuildReport, servers: list[RpcReport], expected: list[tuple[str, str]]
) -> None:
    assert texts_of(rpc_findings(report, servers, [])) == expected


@pytest.mark.parametrize(
    ("memory", "text", "is_enough"),
    [
        (10**12, "1000 GB in total", True),
        (None, "size unknown", True),
        (
            40 * 10**9,
            "40 GB in total, too little for local/gguf/Llama-3.3-70B-Instruct-Q4_K_M,"
            " local/gguf/Kimi-K2-Instruct-0905-UD-IQ1_S",
            False,
        ),
        (
            MEMORY // 6,
            "4.0 GB in total, too little for local/ollama/qwen3:8b, local/ollama/gemma3:27b,"
            " local/ollama/deepseek-r1:14b, 18 more",
            False,
        ),
    ],
)
def test_memory(memory: int | None, text: str, is_enough: bool) -> None:
    finding = memory_finding(SNAPSHOT, memory)
    assert (finding.text, not finding.advice) == (text, is_enough)
    assert is_enough or re.search("`llm [^`]+`$", finding.advice)


def test_memory_of_damaged_models() -> None:
    """A file with a hole of 100 GB is none that a smaller quantization would help."""
    model = local_model(
        id="local/gguf/x", name="x", path="/x.gguf", size=10**11, problem="it is padded"
    )
    file = ScannedFile(path="/x.gguf", size=10**11, modified=0.0, model=model)
    assert memory_finding(Snapshot(files=(file,)), 10**10).text == "10 GB in total"


def test_policy(user_path: Path) -> None:
    config = Config(allow=("local/llamaswap/frontier", "local/ollama/gone:cloud"))
    assert texts_of(policy_findings(SNAPSHOT, config))[1:] == [
        ("allowed to run outside this machine: local/llamaswap/frontier", ""),
        ("refused, because they may run outside this machine: local/ollama/gpt-oss:120b-cloud", ""),
    ]


@pytest.mark.parametrize(
    ("model", "build", "allow", "answers", "expected"),
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
def test_can_run(
    model: Any, build: str, allow: tuple[str, ...], answers: bool, expected: bool
) -> None:
    snapshot = server(ServerStatus.ANSWERS if answers else ServerStatus.OFFLINE, models=ON_OLLAMA)
    assert can_run(model, snapshot, Config(allow=allow), build) is expected


# The command


@pytest.fixture
def generous_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the servers of these tests may be slow."""
    monkeypatch.setattr(discover, "QUICK_S", 10.0)


@pytest.mark.usefixtures("generous_deadline")
def test_everything_in_order(user_path: Path, starter_model: Path, invoke: Invoke) -> None:
    put_starter(user_path, starter_model)
    with StandIn(vllm()) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
        done = invoke("localrun", "doctor")
        asked = len(server.requests)
        assert f"  vLLM 0.33.0 at {server.url} (box): answers, 2 models\n" in done.stdout
        # It asks the server again, however recent the cache is.
        output = json.loads(invoke("localrun", "doctor", "--json").stdout)
        assert len(server.requests) > asked
    assert (done.exit_code, done.stderr) == (0, "")
    assert "\n!" not in f"\n{done.stdout}"
    assert "  3 of 3 models can run\n" in done.stdout
    assert output["can_run"] is True
    assert {finding["section"] for finding in output["findings"]} >= {
        *("servers", "engine", "memory", "cache", "policy", "models")
    }
    assert all(finding["well"] for finding in output["findings"])


@pytest.mark.usefixtures("generous_deadline")
def test_stopped_server(user_path: Path, invoke: Invoke) -> None:
    with StandIn(vllm()) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
        assert invoke("localrun", "doctor").exit_code == 0
    done = invoke("localrun", "doctor")
    assert (done.exit_code, done.stderr) == (1, "No model can run.\n")
    assert (
        f"! vLLM at {server.url} (box): offline, 2 models known\n"
        "    Start it with `vllm serve MODEL`\n"
    ) in done.stdout
    assert (
        "! none of the models can run\n    Get a small one: llm localrun pull starter"
        in done.stdout
    )


@pytest.mark.usefixtures("generous_deadline")
def test_rpc_servers_without_a_build_for_them(
    user_path: Path, starter_model: Path, invoke: Invoke
) -> None:
    put_starter(user_path, starter_model)
    with RpcServer() as server:
        configure(user_path, **CONFIG, llama_server="", rpc=[server.address, "127.0.0.1:1"])
        done = invoke("localrun", "doctor")
        output = json.loads(invoke("localrun", "doctor", "--json").stdout)
    assert (done.exit_code, done.stderr) == (1, "No model can run.\n")
    assert f"! {NO_RPC}, and llama_server rules it out there\n    {SET}\n" in done.stdout
    assert f"  RPC server {server.address}: answers (protocol 5.0.0)\n" in done.stdout
    assert "! RPC server 127.0.0.1:1: does not accept connections\n" in done.stdout
    assert done.stdout.endswith(
        "! none of the models can run\n"
        "    Follow the advice on the RPC servers, or remove rpc from config.json\n"
    )
    assert [finding["rpc"] for finding in output["findings"] if "rpc" in finding] == [
        {"address": server.address, "status": "answers", "version": "5.0.0"},
        {"address": "127.0.0.1:1", "status": "offline", "version": ""},
    ]


def test_no_models_and_no_servers(run_llm: Llm) -> None:
    done = run_llm("localrun", "doctor")
    assert (done.returncode, done.stderr) == (1, "No model can run.\n")
    assert "! no model was found\n    Get a small one: llm localrun pull starter" in done.stdout


def test_invalid_configuration(user_path: Path, invoke: Invoke) -> None:
    path = user_path / "localrun" / "config.json"
    path.write_text('{"threads": 0}')
    done = invoke("localrun", "doctor")
    assert done.exit_code == 1
    assert f"! the configuration is not valid\n    {path} is not valid: threads: " in done.stdout
    assert json.loads(invoke("localrun", "doctor", "--json").stdout)["can_run"] is False
    assert path.read_text() == '{"threads": 0}'


def test_cache_that_cannot_be_written(user_path: Path, invoke: Invoke) -> None:
    (user_path / "localrun" / "catalogue.json").mkdir()
    done = invoke("localrun", "doctor")
    assert (
        "catalogue.json cannot be written, so every command searches for models again\n"
        in done.stdout
    )
    catalogue._memory.clear()


def test_long_findings_are_wrapped_on_a_terminal(invoke: Invoke) -> None:
    done = invoke("localrun", "doctor", env={"COLUMNS": "60"})
    lines = done.stdout.splitlines()
    wrapped = [line for line in lines if "/" not in line]
    assert max(map(len, wrapped)) <= 60
    at = next(n for n, line in enumerate(lines) if line.startswith("  not found: "))
    assert lines[at + 1].startswith("  ")
