"""Whether the engine can run a file, before it is loaded: the build, its architectures, memory."""

from pathlib import Path

import pytest

from llm_localrun.engine import builds
from llm_localrun.engine.build_probe import Build
from llm_localrun.engine.readiness import find_obstacle
from llm_localrun.files.failed_loads import FailedLoads
from llm_localrun.models import Endpoint, LocalModel
from llm_localrun.system.paths import engine_folder
from tests.support.engines import stand_in
from tests.support.memory import leave_for_a_model
from tests.support.models import changed, local_model

NOT_INSTALLED = "GGUF files need the engine, which is not installed"


@pytest.fixture
def starter(user_path: Path, starter_model: Path) -> LocalModel:
    size = starter_model.stat().st_size
    facts = {"path": str(starter_model), "load_size": size, "size": size}
    return local_model(id="local/gguf/s", name="SmolLM2-135M", architecture="llama", **facts)


def test_nothing_is_in_the_way(starter: LocalModel) -> None:
    assert find_obstacle(starter, []) is None


def test_no_engine(starter: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_localrun.engine.build_probe._xllamacpp", lambda: None)
    monkeypatch.setenv("PATH", "")
    found = find_obstacle(starter, [])
    assert found is not None
    assert (found.problem, found.remedy) == (
        NOT_INSTALLED,
        "Install it with `llm install 'llm-localrun[gguf]'`",
    )
    endpoint = Endpoint(name="box", kind="ollama", url="http://127.0.0.1:9")
    assert find_obstacle(changed(starter, endpoint=endpoint), []) is None


@pytest.mark.parametrize(
    ("architecture", "is_known"),
    [
        *((name, True) for name in ("llama", "bert", "t5", "qwen35moe", "gpt-oss", "rwkv7", "")),
        *((name, False) for name in ("nosuch", "llama9", "qwen77")),
    ],
)
def test_architectures_of_a_real_build(
    architecture: str, is_known: bool, starter: LocalModel
) -> None:
    found = find_obstacle(changed(starter, architecture=architecture), [])
    assert (found is None) is is_known
    if found is not None:
        title = builds.choose(engine_folder(), None, "").title
        assert found.problem == f"{title} does not know the architecture {architecture}"
        assert found.remedy.endswith("`llm localrun engine install --tag latest`")


@pytest.mark.parametrize(
    ("names", "is_known"),
    [
        (b"", True),
        (b"gpt2\0qwen2moe\0", True),
        (b"gpt2\0qwen2moe\0gemma3n\0", False),
        (b"gpt2\0qwen2moe\0gemma3n\0new\0", True),
    ],
)
def test_architectures_of_a_build_with_a_library(
    names: bytes,
    is_known: bool,
    starter: LocalModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that does not show its list is believed to know all."""
    program = stand_in(tmp_path / "bin" / "llama-server")
    build = Build(kind="llama-server", path=str(program))
    monkeypatch.setattr(builds, "choose", lambda *_: build)
    (tmp_path / "bin" / "libllama.so.0").write_bytes(b"\x7fELF" + names)
    found = find_obstacle(changed(starter, architecture="new"), [])
    assert (found is None) is is_known


def test_too_little_memory(starter: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_for_a_model(monkeypatch, 3 * 10**8)
    found = find_obstacle(starter, [])
    assert found is not None
    assert found.problem == "It does not fit into the 0.3 GB that a model may take on this machine"
    assert found.remedy == "See which models fit: `llm localrun recommend`"
    leave_for_a_model(monkeypatch, 2 * 10**9)
    large = changed(starter, name="SmolLM2-9B", load_size=9 * 10**9, size=9 * 10**9)
    found = find_obstacle(large, [starter])
    assert found is not None
    assert found.remedy == "Run a smaller one: `llm -m local/gguf/s prompt`"


def test_file_that_has_failed(starter: LocalModel) -> None:
    FailedLoads().add(starter.routes[0].path, "it is cut off")  # type: ignore[union-attr]
    found = find_obstacle(starter, [])
    assert found is not None
    assert found.problem == "Its file cannot be loaded: it is cut off"
    assert found.remedy == "To delete it: `llm localrun rm local/gguf/s`"
