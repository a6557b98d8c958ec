"""A model that is both served and on the disk: one entry, and who is asked to run it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_localrun import catalogue, resolve
from llm_localrun.catalogue import get_catalogue, write_snapshot
from llm_localrun.errors import UnknownModel
from llm_localrun.models import (
    Endpoint,
    EndpointReport,
    LocalModel,
    RunsOn,
    ServerStatus,
    Snapshot,
    merged,
)
from llm_localrun.name_cache import CachePolicy
from llm_localrun.system.paths import home, settings_stamp
from tests.conftest import CONFIG, Llm, configure, put_starter
from tests.fakes.broken import Off, Silent
from tests.fakes.http_server import StandIn, json_reply
from tests.support.models import changed, local_model

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


def test_served_model_and_its_file_are_one_entry() -> None:
    (model,) = merged([SERVED], [FILE])
    assert (model.id, model.file_id) == (SERVED.id, FILE.id)
    assert (model.endpoint, model.path) == (SERVED.endpoint, FILE.path)
    assert (model.manifest, model.store) == (FILE.manifest, "ollama")
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
def test_what_is_not_the_same_stays_apart(served: dict[str, Any], file: dict[str, Any]) -> None:
    models = [changed(SERVED, **served), changed(FILE, **file)]
    assert merged(models[:1], models[1:]) == tuple(models)


def test_size_that_two_files_have_tells_nothing() -> None:
    size, name = "lmstudio:5000000000:Q4_K_M", "hf:qwen/qwen3-8b-gguf:Q4_K_M"
    files = [
        FILE.model_copy(update={"id": f"local/gguf/{n}", "fingerprints": (size, name)})
        for n in "ab"
    ]
    by_size = SERVED.model_copy(update={"fingerprints": (size,)})
    assert [model.file_id for model in merged([by_size], files)] == ["", "", ""]
    by_name = SERVED.model_copy(update={"fingerprints": (size, name)})
    assert [model.file_id for model in merged([by_name], files)] == ["local/gguf/a", ""]


def test_file_that_two_servers_serve_is_listed_with_both() -> None:
    other = SERVED.model_copy(update={"id": "local/llamacpp/qwen3"})
    models = merged([SERVED, other], [FILE])
    assert [(model.id, model.path) for model in models] == [
        (SERVED.id, FILE.path),
        (other.id, FILE.path),
    ]


def known(url: str, status: ServerStatus = ServerStatus.ANSWERS, **facts: Any) -> LocalModel:
    """The model of a server at `url`, in a snapshot that is fresh."""
    endpoint = Endpoint(name="box", kind="ollama", url=url)
    model = changed(SERVED, endpoint=endpoint, id="local/box/qwen3:8b", **facts)
    report = EndpointReport(endpoint=endpoint, status=status, asked_at=time.time(), models=(model,))
    snapshot = Snapshot(taken_at=time.time(), stamp=settings_stamp(), endpoints=(report,))
    write_snapshot(home(), snapshot)
    catalogue._memory.clear()
    return model


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn(lambda _: [json_reply({})]) as server:
        yield server


def test_server_that_is_there_is_preferred(
    server: StandIn, capfd: pytest.CaptureFixture[str]
) -> None:
    run = resolve.to_run(known(server.url, path="/m.gguf"), {})
    assert (run.endpoint is not None, run.path) == (True, None)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("status", [ServerStatus.ANSWERS, ServerStatus.OFFLINE])
def test_file_stands_in_for_a_server_that_is_off(
    status: ServerStatus, capfd: pytest.CaptureFixture[str]
) -> None:
    model = known(url := Off().url, status, path="/m.gguf")
    for _ in range(2):
        run = resolve.to_run(model, {})
        assert (run.id, run.endpoint, run.path) == (model.id, None, "/m.gguf")
    said = f"Ollama does not answer at {url}: running /m.gguf directly.\n"
    assert capfd.readouterr().err == said


def test_file_stands_in_for_a_server_that_hung(capfd: pytest.CaptureFixture[str]) -> None:
    with Silent() as silent:
        run = resolve.to_run(known(silent.url, ServerStatus.TIMEOUT, path="/m.gguf"), {})
        assert silent.connections() == 0
    assert (run.endpoint, run.path) == (None, "/m.gguf")
    assert "directly" in capfd.readouterr().err


def test_server_without_a_file_is_asked_in_any_case() -> None:
    run = resolve.to_run(known(Off().url, ServerStatus.OFFLINE), {})
    assert (run.endpoint is not None, run.path) == (True, None)


def test_id_is_looked_up_and_looked_for_again(server: StandIn) -> None:
    model = known(server.url)
    assert resolve.by_id(model.id) == model
    with pytest.raises(UnknownModel, match="No local model"):
        resolve.by_id("local/box/gone")


def test_prompt_runs_the_file_while_its_server_is_off(
    starter_model: Path, user_path: Path, run_llm: Llm
) -> None:
    """The real command, the real engine; the server was there once and is not any more."""
    path = put_starter(user_path, starter_model)
    with StandIn(llama_server(path)) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
        (found,) = get_catalogue(CachePolicy.REFRESH).models
    assert (found.id, found.file_id) == ("local/box/smol", "local/gguf/SmolLM2-135M-Instruct.Q4_1")
    for name in ("local", "local/gguf/SmolLM2-135M-Instruct.Q4_1", "local/box/smol"):
        done = run_llm("-m", name, "Hi", "-o", "max_tokens", "4", "-o", "temperature", "0")
        assert (done.returncode, done.stderr) == (
            0,
            f"llama-server does not answer at {server.url}: running {path} directly.\n",
        )
        assert done.stdout.strip()


def llama_server(path: Path) -> Any:
    """What llama-server says that has this file (tools/server/README.md)."""
    replies = {
        "/v1/models": {"data": [{"id": "smol", "owned_by": "llamacpp", "meta": {"n_ctx": 8192}}]},
        "/props": {"default_generation_settings": {"n_ctx": 8192}, "model_path": str(path)},
    }
    return lambda request: [json_reply(replies.get(request.path, {}))]
