"""What models need of memory, by the formulas and by what llama.cpp allocates."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import pytest

from llm_localrun.engine.evict import setting_of
from llm_localrun.engine.state import EngineSettings, EngineSpec, HostInstructions
from llm_localrun.gguf.header import Header
from llm_localrun.memory.footprint import (
    PROCESS_BYTES,
    Footprint,
    Need,
    Setting,
    checkpoint_count,
    context_bytes,
    footprint_of_files,
    limit_bytes,
)
from llm_localrun.memory.geometry import Geometry, geometry_of
from tests.support import tiny_models
from tests.support.published_models import GEMMA_3_27B, GPT_OSS_20B, LLAMA_3_1_8B, QWEN3_NEXT_80B
from tests.support.tiny_models import Tiny

MIB = 2**20

# The engine's own parameters, but with llama.cpp telling what it does.
LOAD = """
import sys
from llm_localrun.engine.xllamacpp import _parameters
from tests.support.models import local_model
from llm_localrun.engine.state import EnginePaths, parse_instructions
from xllamacpp import xllamacpp
parameters = _parameters(xllamacpp, parse_instructions(sys.argv[1]), EnginePaths(None, ""))
parameters.verbosity = 4
server = xllamacpp.Server(parameters)
sys.stdin.read()
"""
BUFFER = re.compile(r"(model|KV|RS|compute|output) buffer size = +([\d.]+) MiB")


def allocated(path: Path, settings: EngineSettings) -> Need:
    """What the engine allocates for a model, by its own account."""
    spec = EngineSpec(str(path), "model", 0, 0.0, replace(settings, threads=1))
    order = HostInstructions("", spec, "key", "", "", "", False, 0.0, 0.0, 0)
    command = [sys.executable, "-c", LOAD, json.dumps(asdict(order))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stderr=pipe, text=True) as engine:
        assert engine.stderr is not None
        log = _until_loaded(engine.stderr)
        engine.kill()
    sizes = {"model": 0.0, "KV": 0.0, "RS": 0.0, "compute": 0.0, "output": 0.0}
    for kind, size in BUFFER.findall(log):
        sizes[kind] += float(size) * MIB
    context, compute = sizes["KV"] + sizes["RS"], sizes["compute"] + sizes["output"]
    return Need(round(sizes["model"]), round(context), round(compute))


def _until_loaded(log: IO[str]) -> str:
    """What is logged up to the end of loading; llama.cpp does that in a thread of its own."""
    lines = []
    for line in log:
        lines.append(line)
        if "listening on" in line:
            break
    return "".join(lines)


def with_context(context_size: int, **more: Any) -> EngineSettings:
    return EngineSettings(context_size=context_size, **more)


@pytest.mark.parametrize(
    ("tiny", "settings"),
    [
        pytest.param(tiny_models.llama, with_context(8192), id="grouped queries"),
        pytest.param(tiny_models.llama, with_context(1000), id="a context of no round number"),
        pytest.param(tiny_models.llama, with_context(32768, kv_cache_type="q8_0"), id="q8_0"),
        pytest.param(tiny_models.llama, with_context(4096, flash_attention=False), id="scores"),
        pytest.param(tiny_models.llama, with_context(2048, embedding=True), id="one batch"),
        pytest.param(tiny_models.gemma3, with_context(32768), id="windows"),
        pytest.param(tiny_models.gemma3, with_context(2048), id="windows wider than the context"),
        pytest.param(tiny_models.qwen3moe, with_context(8192), id="experts"),
        pytest.param(tiny_models.deepseek2, with_context(16384), id="latent attention"),
        pytest.param(tiny_models.lfm2, with_context(8192), id="convolutions"),
        pytest.param(tiny_models.mamba2, with_context(8192), id="states"),
    ],
)
def test_need_is_what_the_engine_allocates(
    tmp_path: Path, tiny: Callable[[], Tiny], settings: EngineSettings
) -> None:
    path = tiny().build(tmp_path / "model.gguf")
    footprint = footprint_of_files(str(path))
    assert footprint is not None
    need, real = footprint.need(setting_of(settings)), allocated(path, settings)
    assert need.weights == pytest.approx(real.weights, rel=0.01)
    assert need.context == pytest.approx(real.context, rel=0.01, abs=MIB / 50)
    assert need.compute == pytest.approx(real.compute, rel=0.1, abs=MIB * 3)
    assert need.total == pytest.approx(real.total, rel=0.02)


def test_need_of_a_real_model(starter_model: Path) -> None:
    footprint = footprint_of_files(str(starter_model))
    assert footprint is not None
    settings = with_context(8192)
    need, real = footprint.need(setting_of(settings)), allocated(starter_model, settings)
    assert need.total == pytest.approx(real.total, rel=0.02)


def geometry(keys: dict[str, Any]) -> Geometry:
    known = geometry_of(Header(keys))
    assert known is not None
    return known


def test_states_do_not_grow_with_the_context() -> None:
    known = geometry(QWEN3_NEXT_80B)
    sizes = [context_bytes(known, Setting(size)) for size in (4096, 8192, 12288)]
    assert sizes[1] - sizes[0] == sizes[2] - sizes[1] == 4096 * 24_576


def test_q8_0_halves_the_context() -> None:
    known = geometry(LLAMA_3_1_8B)
    whole, half = (context_bytes(known, Setting(8192, kind)) for kind in ("f16", "q8_0"))
    assert half / whole == pytest.approx(34 / 64)


def test_need_without_a_geometry_is_a_bound() -> None:
    """A tenth of the weights and 0.75 GiB."""
    size = 5 * 10**9
    known, unknown = Footprint(geometry(LLAMA_3_1_8B), size), Footprint(None, size)
    assert unknown.need(Setting(512)).total == 5_500_000_000 + 3 * 2**28
    assert known.need(Setting(4096)).total < unknown.need(Setting(4096)).total


# What an engine may take.

GB = 10**9


@pytest.mark.parametrize(
    ("keys", "weights", "context_size", "more", "least", "most"),
    [
        # The usual: what is needed, the cache of prefixes, and a quarter of a gigabyte.
        (LLAMA_3_1_8B, 16 * GB, 8192, {}, 0.7, 1.5),
        (LLAMA_3_1_8B, 16 * GB, 131072, {}, 4.0, 6.5),
        (LLAMA_3_1_8B, 5 * GB, 8192, {"copied": 5 * GB}, 5.7, 6.5),
        (LLAMA_3_1_8B, 16 * GB, 8192, {"sees": True}, 2.8, 3.7),
        (QWEN3_NEXT_80B, 48 * GB, 8192, {}, 1.2, 2.0),
    ],
)
def test_limit_above_the_need(
    keys: dict[str, Any],
    weights: int,
    context_size: int,
    more: dict[str, Any],
    least: float,
    most: float,
) -> None:
    footprint, setting = Footprint(geometry(keys), weights), Setting(context_size)
    limit = limit_bytes(footprint, setting, **{"copied": 0, "sees": False, **more})
    assert least < (limit - footprint.need(setting).total) / GB < most


def test_limit_without_a_geometry_is_wide() -> None:
    """Twice the weights and 4 GiB."""
    limit = limit_bytes(Footprint(None, GB), Setting(8192), 0, sees=False)
    assert limit == 2 * GB + 4 * 2**30 + PROCESS_BYTES


@pytest.mark.parametrize(
    ("keys", "count"),
    [(LLAMA_3_1_8B, 32), (QWEN3_NEXT_80B, 2), (GPT_OSS_20B, 32), (GEMMA_3_27B, 2)],
    ids=["no states", "large states", "small windows", "large windows"],
)
def test_states_that_are_kept(keys: dict[str, Any], count: int) -> None:
    assert checkpoint_count(Footprint(geometry(keys), GB), Setting(8192)) == count


# Files.


def test_split_file_is_summed(tmp_path: Path) -> None:
    whole = tiny_models.llama(layers=2)
    path = whole.build(tmp_path / "m-00001-of-00002.gguf")
    tiny_models.llama(layers=2).build(tmp_path / "m-00002-of-00002.gguf")
    (single, both) = (footprint_of_files(str(path.with_name(name))) for name in ("x", path.name))
    one = footprint_of_files(str(whole.build(tmp_path / "one.gguf")))
    assert single is None
    assert one is not None
    assert both == replace(one, weights=2 * one.weights)


def test_files_loaded_with_a_model_count(tmp_path: Path) -> None:
    model = str(tiny_models.llama(layers=2).build(tmp_path / "model.gguf"))
    adapter = str(tiny_models.llama(layers=1).build(tmp_path / "adapter.gguf"))
    both = footprint_of_files(model, [adapter])
    assert both is not None
    assert both.weights == sum(Path(file).stat().st_size for file in (model, adapter))


@pytest.mark.parametrize("content", [b"", b"GGUF\x03\0\0\0", None])
def test_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.gguf"
    if content is not None:
        path.write_bytes(content)
    assert footprint_of_files(str(path)) is None
