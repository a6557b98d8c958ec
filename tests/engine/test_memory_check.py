"""The memory check before an engine starts: what is refused, shrunk and evicted."""

import sys
from pathlib import Path
from typing import Any

import pytest

from llm_localrun import catalogue
from llm_localrun.engine import memory_check
from llm_localrun.engine.memory_check import free_memory
from llm_localrun.engine.state import list_running
from llm_localrun.memory import machine
from llm_localrun.memory.fit import MARGIN_BYTES
from llm_localrun.memory.footprint import Footprint, Setting, footprint_of_files
from llm_localrun.models import LocalModel, ScannedFile, Snapshot
from llm_localrun.name_cache import settings_stamp
from llm_localrun.system.paths import home
from tests.support import tiny_models
from tests.support.drive import ask, failure
from tests.support.engines import stand_in, xllamacpp_with_gpu
from tests.support.models import changed, file_route, local_model
from tests.support.one_recommended import recommend_one


@pytest.mark.skipif(sys.platform == "darwin", reason="there a GPU shares the RAM")
def test_free_memory_of_gpus_counts(
    user_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes from one command to the next, and llama.cpp leaves a gigabyte of each free."""
    leave(monkeypatch, 1)
    assert free_memory("") == 10**6
    free, program = tmp_path / "free", tmp_path / "llama-server"
    gpus = "".join(f"  CUDA{n}: A GPU (9000 MiB, {{0}} MiB free)\n" for n in (0, 1))
    stand_in(
        program, f"os.environ['STAND_IN_DEVICES'] = {gpus!r}.format(open({str(free)!r}).read())"
    )
    for mib in (4, 5):
        free.write_text(str(1024 + mib))
        assert free_memory(str(program)) == 10**6 + 2 * mib * 2**20


@pytest.mark.skipif(sys.platform == "darwin", reason="there a GPU shares the RAM")
@pytest.mark.parametrize(
    ("title", "layers", "mib"),
    [("A GPU", None, 4), ("A GPU", 9, 4), ("A GPU", 0, 0), ("llvmpipe (LLVM 15)", None, 0)],
)
def test_which_memory_of_gpus_counts(
    title: str,
    layers: int | None,
    mib: int,
    user_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leave(monkeypatch, 1)
    listed = f"  Vulkan0: {title} (9000 MiB, {1024 + 4} MiB free)"
    program = stand_in(tmp_path / "llama-server", f"os.environ['STAND_IN_DEVICES'] = {listed!r}")
    assert free_memory(str(program), "/m", layers) == 10**6 + mib * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="the real module is found by its suffix")
def test_memory_of_the_gpu_of_xllamacpp_counts(
    user_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(monkeypatch, 1)
    xllamacpp_with_gpu(tmp_path / "site-packages", "offloads", monkeypatch)
    assert free_memory(None) == 10**6 + 6 * 2**30


# Engines that there is no memory for.


@pytest.fixture
def starter(starter_model: Path) -> LocalModel:
    name = starter_model.stem
    return local_model(
        id=f"local/gguf/{name}", name=name, path=str(starter_model), context_max=8192
    )


def leave(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    """Lets so much memory be free, in megabytes."""
    monkeypatch.setattr(machine, "free_ram", lambda: int(free * 1e6))


def need_of(model: LocalModel, context_size: int, **more: Any) -> float:
    """Megabytes, including what has to stay free."""
    found = footprint_of_files(str(file_route(model).path))
    assert found is not None
    return (found.need(Setting(context_size, **more)).total + MARGIN_BYTES) / 1e6


def test_load_that_cannot_fit_is_refused(
    user_path: Path, starter: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(monkeypatch, need_of(starter, 2048))
    said = failure(lambda: ask(starter, "Hi", context_size=8192))
    assert said == (
        "SmolLM2-135M-Instruct.Q4_1 does not fit into the free memory: with a context of 8,192"
        " tokens it needs 0.4 GB (0.1 GB for its weights, 0.2 GB for the context), and 0.2 GB are"
        " available. Use -o context_size 2048, or load it anyway with -o overcommit true."
    )
    assert list_running(user_path / "localrun" / "engine") == []


def test_smaller_cache_is_named_where_it_helps(
    starter: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(monkeypatch, need_of(starter, 8192, cache_type="q8_0"))
    said = failure(lambda: ask(starter, "Hi", context_size=8192))
    assert "Use -o context_size 4352 or -o kv_cache_type q8_0, or load it" in said


def test_weights_that_do_not_fit(starter: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, 50)
    said = failure(lambda: ask(starter, "Hi"))
    assert "and 0.0 GB are available. Choose a smaller model, or load it anyway with" in said


def test_smaller_model_is_named(starter: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the same family that is here, else one to get."""
    recommend_one(monkeypatch)
    tiny = local_model(
        id="local/gguf/SmolLM2-30M", name="SmolLM2-30M", path="/t", load_size=10**6, size=10**6
    )
    model = changed(starter, name="SmolLM2-1.7B", size=2 * 10**9)
    footprint = Footprint(None, 2 * 10**9)
    monkeypatch.setattr(memory_check, "footprint_of_files", lambda *_: footprint)
    anyway = "Load it anyway with -o overcommit true"
    for here, advice in (
        ([tiny], "Run a smaller one: `llm -m local/gguf/SmolLM2-30M prompt`"),
        ([], "Get a smaller one: `llm localrun pull qwen3-0.6b`"),
    ):
        files = (ScannedFile(path="/t", size=1, modified=0, model=each) for each in here)
        catalogue._memory[home()] = Snapshot(
            taken_at=1, stamp=settings_stamp([]), files=tuple(files)
        )
        leave(monkeypatch, 2500)
        assert f"{anyway}. {advice}" in failure(lambda: ask(model, "Hi"))


def test_overcommit_loads_it_all_the_same(
    starter: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(monkeypatch, 50)
    assert ask(starter, "Hi", max_tokens=1, overcommit=True).output == 1
    # Its memory is its own now.
    assert ask(starter, "Hi", max_tokens=1).output == 1


def test_default_context_is_as_large_as_memory_allows(
    starter: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(monkeypatch, need_of(starter, 1024))
    assert (ask(starter, "Hi", max_tokens=1).json or {})["context_size"] == 1024
    footprint = footprint_of_files(str(file_route(starter).path))
    assert footprint is not None
    taken = footprint.need(Setting(1024))
    leave(monkeypatch, need_of(starter, 1024) - (taken.context + taken.compute) / 1e6)
    said = failure(lambda: ask(starter, "hello " * 1500))
    assert said == (
        "The prompt takes 1,531 tokens and llama.cpp holds 1,024. Shorten it, or use less memory"
        " per token with -o kv_cache_type q8_0: the memory is enough for a context of 1,024."
    )


@pytest.mark.parametrize(("spare", "stays"), [(1, True), (-1, False)])
def test_idle_engines_make_way_if_need_be(
    spare: int,
    stays: bool,
    user_path: Path,
    tmp_path: Path,
    starter: LocalModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask(starter, "Hi", max_tokens=1)
    path = tiny_models.llama(layers=1).build(tmp_path / "tiny.gguf")
    other = local_model(id="local/gguf/tiny", name="tiny", path=str(path), context_max=8192)
    leave(monkeypatch, need_of(other, 8192) + spare)
    ask(other, "Hi", max_tokens=1)
    up = {engine.spec.name for engine in list_running(user_path / "localrun" / "engine")}
    assert up == ({starter.name, "tiny"} if stays else {"tiny"})
