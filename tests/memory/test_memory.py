"""What models need of memory, by the formulas and by what llama.cpp allocates; what there is."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import pytest

from llm_localrun.engine import builds
from llm_localrun.engine.admission import free_memory
from llm_localrun.engine.builds import Build, Device, Report
from llm_localrun.engine.evict import setting_of
from llm_localrun.engine.state import EngineSettings, EngineSpec, Order, running
from llm_localrun.gguf.header import Header, Tensor
from llm_localrun.memory import footprint, machine
from llm_localrun.memory.footprint import Footprint, Need, Setting, bound_of, footprint_of
from llm_localrun.memory.geometry import Geometry, geometry_of
from llm_localrun.models import LocalModel
from tests.support import tiny_models
from tests.support.drive import ask, failure
from tests.support.models import local_model
from tests.support.tiny_models import Tiny

MIB = 2**20

# The engine's own parameters, but with llama.cpp telling what it does.
LOAD = """
import sys
from llm_localrun.engine import inside
from tests.support.models import local_model
from llm_localrun.engine.state import Paths, read_order
from xllamacpp import xllamacpp
parameters = inside._parameters(xllamacpp, read_order(sys.argv[1]), Paths(None, ""))
parameters.verbosity = 4
server = xllamacpp.Server(parameters)
sys.stdin.read()
"""
BUFFER = re.compile(r"(model|KV|RS|compute|output) buffer size = +([\d.]+) MiB")


def allocated(path: Path, settings: EngineSettings) -> Need:
    """What the engine allocates for a model, by its own account."""
    spec = EngineSpec(str(path), "model", 0, 0.0, replace(settings, threads=1))
    order = Order("", spec, "key", "", "", "", False, 0.0, 0.0, 0)
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
    footprint = footprint_of(str(path))
    assert footprint is not None
    need, real = footprint.need(setting_of(settings)), allocated(path, settings)
    assert need.weights == pytest.approx(real.weights, rel=0.01)
    assert need.context == pytest.approx(real.context, rel=0.01, abs=MIB / 50)
    assert need.compute == pytest.approx(real.compute, rel=0.1, abs=MIB * 3)
    assert need.total == pytest.approx(real.total, rel=0.02)


def test_need_of_a_real_model(starter_model: Path) -> None:
    footprint = footprint_of(str(starter_model))
    assert footprint is not None
    settings = with_context(8192)
    need, real = footprint.need(setting_of(settings)), allocated(starter_model, settings)
    assert need.total == pytest.approx(real.total, rel=0.02)
    assert need.weights < starter_model.stat().st_size


# What published models keep of a token, in bytes with 16-bit numbers.

LLAMA_3_1_8B: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 32,
    "llama.embedding_length": 4096,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8,
}
QWEN3_30B_A3B: dict[str, Any] = {
    "general.architecture": "qwen3moe",
    "qwen3moe.block_count": 48,
    "qwen3moe.embedding_length": 2048,
    "qwen3moe.attention.head_count": 32,
    "qwen3moe.attention.head_count_kv": 4,
    "qwen3moe.attention.key_length": 128,
    "qwen3moe.attention.value_length": 128,
    "qwen3moe.expert_used_count": 8,
    "qwen3moe.expert_feed_forward_length": 768,
}
DEEPSEEK_V3: dict[str, Any] = {
    "general.architecture": "deepseek2",
    "deepseek2.block_count": 61,
    "deepseek2.embedding_length": 7168,
    "deepseek2.attention.head_count": 128,
    "deepseek2.attention.head_count_kv": 1,
    "deepseek2.attention.key_length": 576,
    "deepseek2.attention.value_length": 512,
    "deepseek2.attention.key_length_mla": 192,
    "deepseek2.attention.value_length_mla": 128,
}
GPT_OSS_20B: dict[str, Any] = {
    "general.architecture": "gpt-oss",
    "gpt-oss.block_count": 24,
    "gpt-oss.embedding_length": 2880,
    "gpt-oss.attention.head_count": 64,
    "gpt-oss.attention.head_count_kv": 8,
    "gpt-oss.attention.key_length": 64,
    "gpt-oss.attention.value_length": 64,
    "gpt-oss.attention.sliding_window": 128,
}
GEMMA_3_27B: dict[str, Any] = {
    "general.architecture": "gemma3",
    "gemma3.block_count": 62,
    "gemma3.embedding_length": 5376,
    "gemma3.attention.head_count": 32,
    "gemma3.attention.head_count_kv": 16,
    "gemma3.attention.key_length": 128,
    "gemma3.attention.value_length": 128,
    "gemma3.attention.sliding_window": 1024,
}
QWEN3_NEXT_80B: dict[str, Any] = {
    "general.architecture": "qwen3next",
    "qwen3next.block_count": 48,
    "qwen3next.embedding_length": 2048,
    "qwen3next.attention.head_count": 16,
    "qwen3next.attention.head_count_kv": 2,
    "qwen3next.attention.key_length": 256,
    "qwen3next.attention.value_length": 256,
    "qwen3next.ssm.conv_kernel": 4,
    "qwen3next.ssm.inner_size": 4096,
    "qwen3next.ssm.state_size": 128,
    "qwen3next.ssm.group_count": 16,
    "qwen3next.ssm.time_step_rank": 32,
}
JAMBA: dict[str, Any] = {
    "general.architecture": "jamba",
    "jamba.block_count": 4,
    "jamba.embedding_length": 1024,
    "jamba.attention.head_count": 16,
    "jamba.attention.head_count_kv": (0, 0, 4, 0),
    "jamba.ssm.conv_kernel": 4,
    "jamba.ssm.inner_size": 2048,
    "jamba.ssm.state_size": 16,
}
GEMMA_4_SHARING: dict[str, Any] = {
    "general.architecture": "gemma4",
    "gemma4.block_count": 6,
    "gemma4.embedding_length": 1536,
    "gemma4.attention.head_count": 8,
    "gemma4.attention.head_count_kv": 1,
    "gemma4.attention.key_length": 512,
    "gemma4.attention.value_length": 512,
    "gemma4.attention.key_length_swa": 256,
    "gemma4.attention.value_length_swa": 256,
    "gemma4.attention.sliding_window": 512,
    "gemma4.attention.sliding_window_pattern": (True, True, False, True, True, False),
    "gemma4.attention.shared_kv_layers": 3,
}


def geometry(keys: dict[str, Any], **more: Any) -> Geometry:
    known = geometry_of(Header({**keys, **more}))
    assert known is not None
    return known


@pytest.mark.parametrize(
    ("keys", "per_token", "in_window", "window"),
    [
        pytest.param(LLAMA_3_1_8B, 131_072, 0, 0, id="Llama 3.1 8B"),
        pytest.param(QWEN3_30B_A3B, 98_304, 0, 0, id="Qwen3 30B A3B"),
        pytest.param(DEEPSEEK_V3, 70_272, 0, 0, id="DeepSeek V3"),
        pytest.param(GPT_OSS_20B, 24_576, 24_576, 128, id="gpt-oss 20B"),
        pytest.param(GEMMA_3_27B, 81_920, 425_984, 1024, id="Gemma 3 27B"),
        pytest.param(QWEN3_NEXT_80B, 24_576, 0, 0, id="Qwen3 Next 80B"),
        pytest.param(JAMBA, 1024, 0, 0, id="Jamba"),
        pytest.param(GEMMA_4_SHARING, 2048, 2048, 512, id="Gemma 4, layers that share"),
    ],
)
def test_what_is_kept_of_a_token(
    keys: dict[str, Any], per_token: int, in_window: int, window: int
) -> None:
    known = geometry(keys)
    assert footprint.bytes_per_token(known) == per_token
    assert (2 * known.kept_in_window, known.window) == (in_window, window)


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        # A layer that guesses ahead is not attended to.
        ({"llama.block_count": 33, "llama.nextn_predict_layers": 1}, 65_536),
        # Without the number of key heads there are as many as heads.
        ({"llama.attention.head_count_kv": None}, 262_144),
        # A window that its architecture does not look through.
        ({"llama.attention.sliding_window": 4096}, 65_536),
    ],
)
def test_keys_that_change_what_is_kept(more: dict[str, Any], kept: int) -> None:
    known = geometry(LLAMA_3_1_8B, **more)
    assert (known.kept, known.kept_in_window) == (kept, 0)


def test_states_do_not_grow_with_the_context() -> None:
    known = geometry(QWEN3_NEXT_80B)
    # 36 of 48 layers: 3 steps of the convolution over 8,192 numbers, and 128 for each of 4,096.
    assert known.state == 36 * (3 * 8192 + 128 * 4096)
    sizes = [footprint.context_bytes(known, Setting(size)) for size in (4096, 8192, 12288)]
    assert sizes[1] - sizes[0] == sizes[2] - sizes[1] == 4096 * 24_576


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"general.architecture": "llama"},
        {"general.architecture": "llama", "llama.block_count": 32},
        {"general.architecture": "llama", "llama.embedding_length": 64, "llama.block_count": 0},
    ],
)
def test_header_that_does_not_tell(keys: dict[str, Any]) -> None:
    assert geometry_of(Header(keys)) is None


def test_weights_of_a_type_that_nobody_knows() -> None:
    known, unknown = Tensor("a", (64,), 8, 0), Tensor("b", (64,), 99, 0)
    assert footprint.weight_bytes(Header({}, (known, known))) == 136
    assert footprint.weight_bytes(Header({}, (known, unknown))) is None


def test_largest_context() -> None:
    footprint = Footprint(geometry(LLAMA_3_1_8B), weights=5 * 10**9)
    whole = footprint.need(Setting(131_072)).total
    assert footprint.largest_context(whole, Setting(131_072)) == 131_072
    assert footprint.largest_context(whole, Setting(1000)) == 1000
    for memory_there in (whole - 1, 10**10, 6 * 10**9):
        size = footprint.largest_context(memory_there, Setting(131_072))
        assert size % 256 == 0
        assert footprint.need(Setting(size)).total <= memory_there
        assert footprint.need(Setting(size + 256)).total > memory_there
    assert footprint.largest_context(5 * 10**9, Setting(131_072)) == 0


def test_q8_0_halves_the_context() -> None:
    known = geometry(LLAMA_3_1_8B)
    whole, half = (footprint.context_bytes(known, Setting(8192, kind)) for kind in ("f16", "q8_0"))
    assert half / whole == pytest.approx(34 / 64)


# Files.


def test_split_file_is_summed(tmp_path: Path) -> None:
    whole = tiny_models.llama(layers=2)
    path = whole.build(tmp_path / "m-00001-of-00002.gguf")
    tiny_models.llama(layers=2).build(tmp_path / "m-00002-of-00002.gguf")
    (single, both) = (footprint_of(str(path.with_name(name))) for name in ("x", path.name))
    one = footprint_of(str(whole.build(tmp_path / "one.gguf")))
    assert single is None
    assert one is not None
    assert both == replace(one, weights=2 * one.weights)


def test_files_beside_a_model_count(tmp_path: Path) -> None:
    model = str(tiny_models.llama(layers=2).build(tmp_path / "model.gguf"))
    beside = str(tiny_models.llama(layers=1).build(tmp_path / "beside.gguf"))
    alone, both = footprint_of(model), footprint_of(model, [beside])
    assert alone is not None
    assert both is not None
    assert both.weights > alone.weights
    bound = bound_of(model, [beside])
    assert bound is not None
    assert both.weights < bound.weights < both.weights + 50_000


@pytest.mark.parametrize("content", [b"", b"GGUF\x03\0\0\0", None])
def test_file_that_does_not_tell(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.gguf"
    if content is not None:
        path.write_bytes(content)
    assert footprint_of(str(path)) is None
    assert bound_of(str(path)) is None


# The machine.


def system(root: Path, available: str, groups: dict[str, dict[str, str]], own: str = "/") -> Path:
    """A root with as much of /proc and /sys as tells of memory."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text(f"MemTotal: 999 kB\n{available}")
    (root / "proc" / "self" / "cgroup").write_text(f"0::{own}\n")
    for group, files in groups.items():
        folder = root / "sys" / "fs" / "cgroup" / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / f"memory.{name}").write_text(text)
    return root


def group(limit: str, current: int, cached: int) -> dict[str, str]:
    stat = f"anon 1\ninactive_file {cached}\nactive_file 0\nfile_mapped 7\n"
    return {"max": f"{limit}\n", "current": f"{current}\n", "stat": stat}


AVAILABLE = "MemAvailable:    4000 kB\n"


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
@pytest.mark.parametrize(
    ("available", "groups", "own", "free"),
    [
        pytest.param(AVAILABLE, {}, "/", 4_096_000, id="no groups"),
        pytest.param("", {}, "/", None, id="nobody tells"),
        pytest.param(AVAILABLE, {"": group("max", 1, 0)}, "/", 4_096_000, id="no limit"),
        pytest.param(AVAILABLE, {"": group("2000000", 700_000, 0)}, "/", 1_300_000, id="container"),
        pytest.param(
            AVAILABLE, {"": group("2000000", 1_900_000, 900_000)}, "/", 1_000_000, id="cached files"
        ),
        pytest.param(
            AVAILABLE,
            {"a/b": group("max", 5, 0), "a": group("1000000", 400_000, 0)},
            "/a/b",
            600_000,
            id="the group around it",
        ),
        pytest.param(AVAILABLE, {"": group("1000", 5000, 0)}, "/", 0, id="over its limit"),
    ],
)
def test_free_ram(
    tmp_path: Path, available: str, groups: dict[str, dict[str, str]], own: str, free: int | None
) -> None:
    assert machine.free_ram(system(tmp_path, available, groups, own)) == free


def test_free_memory_of_this_machine() -> None:
    free, physical = machine.free_ram(), machine.physical_memory()
    assert free is not None
    assert physical is not None
    assert 0 < free < physical


@pytest.mark.skipif(sys.platform == "darwin", reason="there a GPU shares the RAM")
def test_memory_of_gpus_counts(user_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, 1)
    assert free_memory("") == 10**6
    gpu = Device(name="CUDA0", title="A GPU", memory=8 * 10**6)
    build = Build(kind="xllamacpp", path="", devices=(gpu, gpu))
    monkeypatch.setattr(builds, "report", lambda *_: Report((build,), build, "", ()))
    assert free_memory("") == 17 * 10**6


# Engines that there is no memory for.


@pytest.fixture
def starter(user_path: Path, starter_model: Path) -> LocalModel:
    name = starter_model.stem
    return local_model(
        id=f"local/gguf/{name}", name=name, path=str(starter_model), context_max=8192
    )


def leave(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    """Lets so much memory be free, in megabytes."""
    monkeypatch.setattr(machine, "free_ram", lambda: int(free * 1e6))


def need_of(model: LocalModel, context_size: int, **more: Any) -> float:
    """Megabytes, with what is left free beside."""
    found = footprint_of(str(model.path))
    assert found is not None
    return (found.need(Setting(context_size, **more)).total + footprint.MARGIN) / 1e6


def test_load_that_cannot_fit_is_refused(
    user_path: Path, starter: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(monkeypatch, need_of(starter, 2048))
    said = failure(lambda: ask(starter, "Hi", context_size=8192))
    assert said == (
        "SmolLM2-135M-Instruct.Q4_1 needs 0.4 GB of memory with a context of 8,192 tokens (0.1 GB"
        " for its weights, 0.2 GB for the context) and 0.5 GB are free."
        " Use -o context_size 2048, or load it all the same with -o overcommit true."
    )
    assert running(user_path / "localrun" / "engine") == []


def test_smaller_cache_is_named_where_it_helps(
    starter: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(monkeypatch, need_of(starter, 8192, cache_type="q8_0"))
    said = failure(lambda: ask(starter, "Hi", context_size=8192))
    assert "Use -o context_size 4352 or -o kv_cache_type q8_0, or load it" in said


def test_weights_that_do_not_fit(starter: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, 50)
    said = failure(lambda: ask(starter, "Hi"))
    assert "and 0.1 GB are free. Choose a smaller model, or load it all the same with" in said


def test_overcommit_loads_it_all_the_same(
    starter: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(monkeypatch, 50)
    assert ask(starter, "Hi", max_tokens=1, overcommit=True).output == 1
    # Its memory is its own now.
    assert ask(starter, "Hi", max_tokens=1).output == 1


def test_context_that_nobody_asked_for_is_as_large_as_memory_allows(
    starter: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(monkeypatch, need_of(starter, 1024))
    assert (ask(starter, "Hi", max_tokens=1).json or {})["context_size"] == 1024
    footprint = footprint_of(str(starter.path))
    assert footprint is not None
    taken = footprint.need(Setting(1024))
    leave(monkeypatch, need_of(starter, 1024) - (taken.context + taken.compute) / 1e6)
    said = failure(lambda: ask(starter, "hello " * 1500))
    assert said == (
        "The prompt takes 1,531 tokens and the engine holds 1,024. Shorten it, or take less memory"
        " for each token with -o kv_cache_type q8_0: there is enough for a context of 1,024."
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
    up = {engine.spec.name for engine in running(user_path / "localrun" / "engine")}
    assert up == ({starter.name, "tiny"} if stays else {"tiny"})
