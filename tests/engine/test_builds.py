"""Which build of llama.cpp is chosen, and llama-server as the chosen one."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from llm_localrun.cli.doctor_findings import ask_unused, rpc_findings
from llm_localrun.engine import builds
from llm_localrun.engine.builds import BuildReport
from llm_localrun.engine.state import EngineState, list_running
from llm_localrun.engine.stop import stop_all
from llm_localrun.errors import EngineFailed
from tests.conftest import CONFIG, configure
from tests.fakes.rpc_server import HELLO, RpcServer, greeting
from tests.support.drive import ask, failure
from tests.support.engines import (
    converse,
    executable,
    hosts,
    in_file,
    kill,
    number_value,
    patched,
    stand_in,
    wait_until,
    with_gpu,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake llama-server is a script")

_HELP = Path(__file__).parents[1] / "transcripts" / "llama-server-b10434" / "help.txt"


def arguments_in(file: Path) -> set[str]:
    """The arguments that a real llama-server lists, without those that are gone or are going."""
    paragraphs = re.split(r"\n(?=-)", file.read_text())
    kept = [text for text in paragraphs if not re.search(r"DEPRECATED|has been removed", text)]
    return {name for text in kept for name in re.findall(r"(?<!\S)--[\w-]+", text.split("\n")[0])}


def with_rpc(path: Path) -> Path:
    return stand_in(path, "os.environ['STAND_IN_RPC'] = '1'")


def too_old(path: Path) -> Path:
    return executable(path, "print('--model --slot-save-path')")


def without_library(path: Path) -> Path:
    library = "libgomp.so.1: cannot open shared object file: No such file or directory"
    message = f"{path}: error while loading shared libraries: {library}"
    return executable(path, f"raise SystemExit({message!r})")


@pytest.fixture
def folder(user_path: Path) -> Path:
    folder = user_path / "localrun" / "engine"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("on_path", "own", "kind"),
    [
        (None, None, "xllamacpp"),
        (stand_in, None, "xllamacpp"),
        (with_gpu, None, "llama-server"),
        (with_gpu, "", "xllamacpp"),
        (too_old, None, "xllamacpp"),
        (stand_in, "llama-server", "llama-server"),
        (None, "{own}", "llama-server"),
    ],
    ids=[
        "xllamacpp alone",
        "both without a GPU",
        "llama-server has a GPU",
        "llama-server ruled out",
        "llama-server too old",
        "the user's own, by name",
        "the user's own, by path",
    ],
)
def test_which_is_chosen(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    on_path: Any,
    own: str | None,
    kind: str,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    if on_path:
        on_path(tmp_path / "bin" / "llama-server")
    if own:
        own = own.format(own=stand_in(tmp_path / "own" / "my-server"))
    assert builds.choose(folder, own, "").kind == kind


@pytest.mark.parametrize(
    ("own", "rpc", "reason"),
    [
        ("/no/llama-server", "", "cannot be used: there is no such program"),
        (too_old, "", "cannot be used: it is too old: it lacks --kv-unified and 4 more"),
        (without_library, "", "libgomp.so.1 is missing. Install it"),
        (
            stand_in,
            "box:50052",
            "need a llama-server that was built with GGML_RPC, and {path} was not."
            " Set llama_server in config.json to its path, or remove rpc.",
        ),
        (
            None,
            "box:50052",
            "need a llama-server that was built with GGML_RPC, and there is none on PATH."
            " Set llama_server in config.json to its path, or remove rpc.",
        ),
        (
            "",
            "box:50052",
            "need a llama-server that was built with GGML_RPC, and llama_server rules it out there."
            " Set llama_server in config.json to its path, or remove rpc.",
        ),
        (
            "/no/llama-server",
            "box:50052",
            "/no/llama-server cannot be used: there is no such program."
            " Correct llama_server in config.json, or remove it.",
        ),
        (
            too_old,
            "box:50052",
            "{path} cannot be used: it is too old: it lacks --kv-unified and 4 more."
            " Correct llama_server in config.json, or remove it.",
        ),
    ],
)
def test_no_usable_build(folder: Path, tmp_path: Path, own: Any, rpc: str, reason: str) -> None:
    path = str(own(tmp_path / "llama-server")) if callable(own) else own
    with pytest.raises(EngineFailed) as caught:
        builds.choose(folder, path, rpc)
    assert reason.replace("{path}", str(path)) in str(caught.value)


@pytest.mark.parametrize(
    ("on_path", "is_used", "told"),
    [
        (with_rpc, True, ""),
        (stand_in, False, "need a llama-server that was built with GGML_RPC, and {path} was not"),
        (
            too_old,
            False,
            "{path} cannot be used: it is too old: it lacks --kv-unified and 4 more."
            " Install a newer llama.cpp, or remove rpc from config.json.",
        ),
    ],
)
def test_llama_server_on_path_for_rpc_servers(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    on_path: Callable[[Path], Path],
    is_used: bool,
    told: str,
) -> None:
    """Whatever xllamacpp is like: it cannot use them."""
    program = on_path(tmp_path / "bin" / "llama-server")
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    report = builds.report(folder, None, "box:50052")
    assert (report.chosen is not None and report.chosen.path == str(program)) is is_used
    assert told.replace("{path}", str(program)) in f"{report.problem}. {report.remedy}."


def test_probed_once(folder: Path, tmp_path: Path) -> None:
    program = stand_in(
        tmp_path / "llama-server", f"open({str(tmp_path / 'asked')!r}, 'a').write('x')"
    )
    for times in (3, 3):
        builds.choose(folder, str(program), "")
        assert (tmp_path / "asked").stat().st_size == times
    os.utime(program, (0, 0))
    builds.choose(folder, str(program), "")
    assert (tmp_path / "asked").stat().st_size == 6


def test_report(folder: Path, tmp_path: Path) -> None:
    report = builds.report(folder, str(with_gpu(tmp_path / "llama-server")))
    assert report.chosen == report.builds[0]
    assert (report.problem, report.logs) == ("", ())
    assert [build.kind for build in report.builds] == ["llama-server", "xllamacpp"]
    assert report.builds[0].title == "llama-server 0.6.0-dev (build 11434, commit abcdef0)"
    (device,) = report.builds[0].devices
    assert device.model_dump() == {
        "name": "CUDA0",
        "title": "NVIDIA RTX A2000",
        "memory": 12032 * 2**20,
        "shares_ram": False,
    }
    bad = builds.report(folder, "/no/llama-server")
    assert bad.chosen is None
    assert "there is no such program" in bad.problem


@pytest.fixture
def llama_server(user_path: Path, tmp_path: Path) -> Iterator[str]:
    """The real program if it is installed, otherwise a fake; config.json names it."""
    program = shutil.which("llama-server") or str(stand_in(tmp_path / "llama-server"))
    configure(user_path, **CONFIG, llama_server=program)
    yield program
    stop_all(user_path / "localrun" / "engine")
    wait_until(lambda: servers_of(hosts(user_path)) == [])


def servers_of(pids: list[int]) -> list[psutil.Process]:
    return [child for pid in pids for child in psutil.Process(pid).children()]


def has_ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def up(user: Path) -> EngineState:
    (engine,) = list_running(user / "localrun" / "engine")
    return engine


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kv_cache_type": "q8_0", "flash_attention": True},
        {"draft_model": "{file}", "gpu_layers": 0},
        {"draft_model": "ngram", "context_size": 512},
        {"draft_model": "auto"},
        {"threads": 1, "flash_attention": False},
    ],
    ids=str,
)
def test_settings_reach_llama_server(
    user_path: Path, starter_model: Path, llama_server: str, options: dict[str, Any]
) -> None:
    if "draft_model" in options:
        options = {**options, "draft_model": options["draft_model"].format(file=starter_model)}
    outcome = ask(in_file(starter_model), "Hi", max_tokens=4, temperature=0, **options)
    assert outcome.output == 4
    engine = up(user_path)
    assert engine.build.startswith("llama-server ")
    assert options.items() <= asdict(engine.spec.settings).items()
    server = psutil.Process(engine.server_pid)
    assert server.ppid() == engine.pid
    assert engine.key not in " ".join(server.cmdline())
    names = {argument for argument in server.cmdline() if argument.startswith("--")}
    assert names <= arguments_in(_HELP)


def test_llama_server_restores_a_conversation(
    user_path: Path, starter_model: Path, llama_server: str
) -> None:
    def between() -> None:
        stop_all(user_path / "localrun" / "engine")

    tokens, reused, _ = converse(starter_model, between, {})
    assert reused >= tokens


@pytest.mark.parametrize("killed", ["host", "server"])
def test_llama_server_and_its_host_end_together(
    user_path: Path, starter_model: Path, llama_server: str, killed: str
) -> None:
    ask(in_file(starter_model), "Hi", max_tokens=1)
    engine = up(user_path)
    kill(engine.pid if killed == "host" else engine.server_pid)
    wait_until(lambda: has_ended(engine.pid) and has_ended(engine.server_pid))
    assert ask(in_file(starter_model), "Hi", max_tokens=1).output == 1


def test_llama_server_that_cannot_run_a_file(
    user_path: Path, starter_model: Path, tmp_path: Path, llama_server: str
) -> None:
    file = patched(starter_model, tmp_path / "hostile.gguf", "llama.block_count", number_value(0))
    message = failure(lambda: ask(in_file(file), "Hi", max_tokens=1))
    assert message.startswith(f"llama.cpp cannot load {file}: GGML_ASSERT(hparams.n_layer_all")
    assert hosts(user_path) == []
    log = builds.failed_log(user_path / "localrun" / "engine")
    assert "GGML_ASSERT" in log.read_text()


@pytest.fixture
def set_rpc(user_path: Path, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Puts RPC servers and a llama-server that can use them into config.json."""
    program = str(with_rpc(tmp_path / "llama-server"))

    def set_servers(*addresses: str) -> None:
        configure(user_path, **CONFIG, llama_server=program, rpc=list(addresses))

    yield set_servers
    stop_all(user_path / "localrun" / "engine")
    wait_until(lambda: servers_of(hosts(user_path)) == [])


def test_rpc_servers_serve_one_engine_after_the_other(
    user_path: Path, starter_model: Path, tmp_path: Path, set_rpc: Callable[..., None]
) -> None:
    other = tmp_path / "other.gguf"
    shutil.copyfile(starter_model, other)
    with RpcServer() as server:
        set_rpc(server.address)
        for file in (starter_model, other):
            assert ask(in_file(file), "Hi", max_tokens=1).output == 1
            engine = up(user_path)
            assert (engine.spec.path, engine.spec.settings.rpc) == (str(file), server.address)
            # An RPC server that serves our engine is not asked: it would not answer.
            (report,) = ask_unused([server.address], [engine])
            (finding,) = rpc_findings(BuildReport((), None, "", ()), [report], [engine])
            text = f"RPC server {server.address}: serves {engine.spec.name}"
            assert (finding.text, finding.advice) == (text, "")
        # It was greeted before each start, and by each engine.
        assert server.received == [HELLO] * 4
    # An engine that is up goes on.
    assert ask(in_file(other), "Hi", max_tokens=1).output == 1


@pytest.mark.parametrize(
    ("server", "told"),
    [
        (
            None,
            "The RPC server 127.0.0.1:1 does not accept connections. Start it with"
            " `ggml-rpc-server --host 127.0.0.1 --port 1`, or remove it from rpc in config.json.",
        ),
        (
            RpcServer(greeting(b"\4\0\0")),
            "llama-server cannot use the RPC server {address}, whose protocol has the version"
            " 4.0.0. Run both from the same release of llama.cpp, or remove it from rpc in"
            " config.json.",
        ),
    ],
    ids=["off", "another version"],
)
def test_no_prompt_runs_without_an_rpc_server(
    user_path: Path,
    starter_model: Path,
    set_rpc: Callable[..., None],
    server: RpcServer | None,
    told: str,
) -> None:
    with RpcServer() as good, server or RpcServer() as bad:
        address = bad.address if server else "127.0.0.1:1"
        set_rpc(good.address, address)
        message = failure(lambda: ask(in_file(starter_model), "Hi", max_tokens=1))
    assert message == told.replace("{address}", address)
    assert hosts(user_path) == []
