"""A model that a server offers and that is on the disk: one model, and how its route is chosen."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_localrun import catalogue, resolve
from llm_localrun.catalogue import get_catalogue, read_snapshot, write_snapshot
from llm_localrun.config import Config
from llm_localrun.errors import UnknownModel
from llm_localrun.files.failed_loads import FailedLoads
from llm_localrun.models import (
    Endpoint,
    EndpointReport,
    LocalModel,
    RunsOn,
    ScannedFile,
    ServerStatus,
    Snapshot,
    merge_routes,
)
from llm_localrun.name_cache import CachePolicy, settings_stamp
from llm_localrun.names.aliases import ordered, reason_before
from llm_localrun.system.paths import home
from tests.conftest import CONFIG, Llm, configure, put_starter
from tests.fakes.broken import Off, Silent
from tests.fakes.http_server import StandIn, json_reply
from tests.fakes.vllm import vllm_of
from tests.support.models import changed, local_model
from tests.support.trees import gguf

pytestmark = pytest.mark.usefixtures("user_path")

SERVED = local_model(
    id="local/ollama/qwen3:8b",
    name="qwen3:8b",
    endpoint=Endpoint(name="ollama", kind="ollama", url="http://127.0.0.1:11434"),
    quantization="Q4_K_M",
    context_loaded=4096,
    fingerprints=("ollama:0a",),
)
FILE = local_model(
    id="local/gguf/qwen3:8b",
    name="qwen3:8b",
    path="/store/blobs/sha256-0a",
    store="ollama",
    manifest="/store/manifests/registry.ollama.ai/library/qwen3/8b",
    architecture="qwen3",
    size=5_000_000_000,
    capabilities=("tools",),
    fingerprints=("path:/store/blobs/sha256-0a", "ollama:0a"),
)


def test_served_model_and_its_file_are_one_model() -> None:
    assert FILE.on_disk is not None
    (model,) = merge_routes([SERVED], [FILE])
    assert model.id == SERVED.id
    assert model.on_disk == FILE.on_disk.model_copy(update={"id": FILE.id})
    assert model.served == SERVED.served
    assert (model.quantization, model.context_loaded) == ("Q4_K_M", 4096)
    assert (model.architecture, model.size, model.capabilities) == ("qwen3", FILE.size, ("tools",))


@pytest.mark.parametrize(
    ("served", "file"),
    [
        ({"fingerprints": ()}, {}),
        ({"fingerprints": ("ollama:0b",)}, {}),
        ({}, {"fingerprints": ("path:/store/blobs/sha256-0a",)}),
        ({"runs_on": RunsOn.CLOUD}, {}),
        ({"runs_on": RunsOn.ANOTHER_MACHINE}, {}),
    ],
)
def test_models_without_a_common_fingerprint_stay_separate(
    served: dict[str, Any], file: dict[str, Any]
) -> None:
    models = [changed(SERVED, **served), changed(FILE, **file)]
    assert merge_routes(models[:1], models[1:]) == tuple(models)


def file_id(model: LocalModel) -> str:
    """The id that the file of `model` has by itself; "" if it has only one route."""
    return model.on_disk.id if model.on_disk else ""


def test_size_that_two_files_share_matches_neither() -> None:
    size, name = "size:5000000000:Q4_K_M", "hf:qwen/qwen3-8b-gguf:Q4_K_M"
    files = [
        FILE.model_copy(update={"id": f"local/gguf/{n}", "fingerprints": (size, name)})
        for n in "ab"
    ]
    by_size = SERVED.model_copy(update={"fingerprints": (size,)})
    assert [file_id(model) for model in merge_routes([by_size], files)] == ["", "", ""]
    by_name = SERVED.model_copy(update={"fingerprints": (size, name)})
    assert [file_id(model) for model in merge_routes([by_name], files)] == ["local/gguf/a", ""]


def test_file_that_two_servers_serve_is_listed_with_both() -> None:
    other = SERVED.model_copy(update={"id": "local/llamacpp/qwen3"})
    models = merge_routes([SERVED, other], [FILE])
    assert [(model.id, file_id(model)) for model in models] == [
        (SERVED.id, FILE.id),
        (other.id, FILE.id),
    ]


def test_file_that_cannot_be_loaded_is_not_joined_with_what_a_server_serves() -> None:
    models = merge_routes([SERVED], [changed(FILE, problem="it is cut off")])
    assert [(model.id, model.problem) for model in models] == [
        (SERVED.id, ""),
        (FILE.id, "it is cut off"),
    ]


def known(url: str, status: ServerStatus = ServerStatus.ANSWERS, **facts: Any) -> LocalModel:
    """A model of a server at `url`, in a fresh snapshot on disk."""
    endpoint = Endpoint(name="box", kind="ollama", url=url)
    model = changed(SERVED, endpoint=endpoint, id="local/box/qwen3:8b", **facts)
    report = EndpointReport(endpoint=endpoint, status=status, asked_at=time.time(), models=(model,))
    snapshot = Snapshot(taken_at=time.time(), stamp=settings_stamp([]), endpoints=(report,))
    write_snapshot(home(), snapshot)
    catalogue._memory.clear()
    return model


@pytest.mark.parametrize(
    ("status", "obstacle"),
    [
        (ServerStatus.ANSWERS, ""),
        (ServerStatus.LOADING, ""),
        (ServerStatus.NEEDS_KEY, "its server needs a key"),
        (ServerStatus.OFFLINE, "its server is off"),
        (ServerStatus.UNRECOGNIZED, "something else answers at its server's address"),
    ],
)
def test_model_whose_server_is_off_comes_after_one_that_can_run(
    status: ServerStatus, obstacle: str
) -> None:
    """Even if it was loaded when the server last answered."""
    served = known(Off().url, status, loaded=True, fingerprints=())
    file = ScannedFile(path="/m", size=1, modified=1.0, model=FILE)
    snapshot = read_snapshot(home()).model_copy(update={"files": (file,)})
    order = resolve.order_of(Config(), snapshot)
    (first, second) = ordered(snapshot.models, order)
    assert (first.id, second.id) == ((FILE.id, served.id) if obstacle else (served.id, FILE.id))
    assert [order.obstacle(model) for model in snapshot.models] == [obstacle, ""]
    assert [model.loaded for model in snapshot.models] == [None if obstacle else True, None]
    reason = f"can run now (the next: {obstacle})" if obstacle else "loaded now"
    assert reason_before(first, second, order) == reason


@pytest.mark.parametrize(
    ("status", "problem", "obstacle"),
    [
        (ServerStatus.OFFLINE, "", ""),
        (ServerStatus.ANSWERS, "it is cut off: 1 bytes of at least 2", ""),
        (ServerStatus.OFFLINE, "it is cut off: 1 bytes of at least 2", "its server is off"),
    ],
)
def test_either_route_is_enough(status: ServerStatus, problem: str, obstacle: str) -> None:
    model = known(Off().url, status, path="/m.gguf", problem=problem)
    order = resolve.order_of(Config(), read_snapshot(home()))
    assert order.obstacle(model) == obstacle


def test_file_that_cannot_be_loaded_comes_last(tmp_path: Path) -> None:
    """Why is said without the details."""
    cut = changed(FILE, id="local/gguf/cut", problem="it is cut off: 1 bytes of at least 2")
    failed = changed(FILE, id="local/gguf/failed", path=str(gguf(tmp_path / "m.gguf")))
    order = resolve.order_of(Config(), Snapshot())
    assert order.obstacle(failed) == ""
    FailedLoads().add(str(tmp_path / "m.gguf"), "llama.cpp cannot load it: missing tensor")
    order = resolve.order_of(Config(), Snapshot())
    assert ordered([cut, failed, FILE], order)[0] == FILE
    obstacles = [order.obstacle(model) for model in (cut, failed, FILE)]
    assert obstacles == ["it is cut off", "llama.cpp cannot load it", ""]


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn(lambda _: [json_reply({})]) as server:
        yield server


def test_server_that_accepts_connections_is_preferred(
    server: StandIn, capfd: pytest.CaptureFixture[str]
) -> None:
    model = known(server.url, path="/m.gguf")
    assert resolve.choose_route(model, {}) == (model, model.served)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("status", [ServerStatus.ANSWERS, ServerStatus.OFFLINE])
def test_file_is_run_if_the_server_is_off(
    status: ServerStatus, capfd: pytest.CaptureFixture[str]
) -> None:
    model = known(url := Off().url, status, path="/m.gguf")
    for _ in range(2):
        assert resolve.choose_route(model, {}) == (model, model.on_disk)
    warning = f"Ollama does not answer at {url}: running /m.gguf directly.\n"
    assert capfd.readouterr().err == warning


@pytest.mark.parametrize("status", [ServerStatus.BUSY, ServerStatus.OFFLINE, ServerStatus.TIMEOUT])
def test_server_that_is_slow_is_not_passed_by(
    status: ServerStatus, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever it did when it was last asked: it is asked once more."""
    with Silent() as silent:
        model = known(silent.url, status, path="/m.gguf")
        assert resolve.choose_route(model, {}) == (model, model.served)
        assert silent.connections() == 1
    assert capfd.readouterr().err == ""


def test_model_without_a_file_is_left_to_its_server() -> None:
    model = known(Off().url, ServerStatus.OFFLINE)
    assert resolve.choose_route(model, {}) == (model, model.served)


def test_model_without_a_server_is_run_from_its_file() -> None:
    assert resolve.choose_route(FILE, {}) == (FILE, FILE.on_disk)


def test_unknown_id_is_looked_for_again(server: StandIn) -> None:
    model = known(server.url)
    assert resolve.model_with_id(model.id) == model
    with pytest.raises(UnknownModel, match="No local model"):
        resolve.model_with_id("local/box/gone")


def test_prompt_runs_the_file_if_its_server_is_off(
    starter_model: Path, user_path: Path, run_llm: Llm
) -> None:
    """With the real command and engine, after the server has answered once."""
    path = put_starter(user_path, starter_model)
    with StandIn(llama_server(path)) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
        (found,) = get_catalogue(CachePolicy.REFRESH).models
    assert found.id == "local/box/smol"
    assert file_id(found) == "local/gguf/SmolLM2-135M-Instruct.Q4_1"
    for name in ("local", "local/gguf/SmolLM2-135M-Instruct.Q4_1", "local/box/smol"):
        done = run_llm("-m", name, "Hi", "-o", "max_tokens", "4", "-o", "temperature", "0")
        assert (done.returncode, done.stderr) == (
            0,
            f"llama-server does not answer at {server.url}: running {path} directly.\n",
        )
        assert done.stdout.strip()


def llama_server(path: Path) -> Any:
    """The answers of a llama-server that runs this file (tools/server/README.md)."""
    replies = {
        "/v1/models": {"data": [{"id": "smol", "owned_by": "llamacpp", "meta": {"n_ctx": 8192}}]},
        "/props": {"default_generation_settings": {"n_ctx": 8192}, "model_path": str(path)},
    }
    return lambda request: [json_reply(replies.get(request.path, {}))]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/far/Qwen3-8B", ["local/box/Qwen3-8B", "local/box//far/Qwen3-8B", "/far/Qwen3-8B"]),
        ("/far/x.gguf", ["local/box/x.gguf", "local/box//far/x.gguf", "/far/x.gguf"]),
        ("D:\\m\\x", ["local/box/x", "local/box/D:\\m\\x", "D:\\m\\x"]),
    ],
)
def test_model_named_by_its_path_is_found_by_all_its_names(path: str, names: list[str]) -> None:
    endpoint = Endpoint(name="box", kind="vllm", url="http://127.0.0.1:9")
    model = local_model(id=names[0], name=path, endpoint=endpoint)
    order = resolve.order_of(Config(), Snapshot())
    for name in names:
        assert resolve.candidates(name, [model], order) == [model]


def test_path_of_a_file_here_means_the_file(tmp_path: Path) -> None:
    path = gguf(tmp_path / "x.gguf")
    endpoint = Endpoint(name="box", kind="llamacpp", url="http://127.0.0.1:9")
    model = local_model(id="local/box/x.gguf", name=str(path), endpoint=endpoint)
    (found,) = resolve.candidates(str(path), [model], resolve.order_of(Config(), Snapshot()))
    assert found.on_disk is not None
    assert found.served is None


def test_exact_name_is_what_the_server_is_sent(user_path: Path, run_llm: Llm) -> None:
    name = "/far/Qwen3-8B"
    server = vllm_of(name)
    with StandIn(server) as box:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": box.url}])
        for each in ("local/box/Qwen3-8B", f"local/box/{name}", name):
            assert run_llm("-m", each, "Hi").stdout == "Hello.\n"
    assert [request.body["model"] for request in server.asked] == [name] * 3
