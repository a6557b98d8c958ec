"""Which models are recommended: they fit by the loader's own check, and the best come first."""

import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.config import read_config
from llm_localrun.engine import builds
from llm_localrun.engine.evict import need_of
from llm_localrun.engine.memory_check import ensure_fits
from llm_localrun.engine.settings import engine_request
from llm_localrun.engine.state import EngineSpec
from llm_localrun.gguf.header import Value
from llm_localrun.memory import machine
from llm_localrun.recommended.choose import Recommendation, SpeedOf, recommend, usable_memory
from llm_localrun.recommended.models import (
    ListedFile,
    RecommendedModel,
    Use,
    read_recommended,
)
from llm_localrun.recommended.speed import TokenCost
from tests.support.models import file_route, local_model
from tests.support.recommended import listed
from tests.support.trees import field, header, string, write

GB, GIB = 10**9, 2**30
MACHINES = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)


def reads(gigabytes: float | None) -> SpeedOf:
    """The speed on a machine that reads so many GB a second."""
    return lambda cost: gigabytes and gigabytes * GB / (cost.active_bytes + cost.cache_bytes)


def by_fit(
    models: Iterable[RecommendedModel], use: Use | None, memory: int | None, gpu_memory: int = 0
) -> list[Recommendation]:
    """What is recommended where no speed is known."""
    return recommend(models, use, memory, gpu_memory, reads(None))


def names(found: Sequence[Recommendation]) -> list[str]:
    return [each.model.name for each in found]


# The loader


def item(key: str, value: Value) -> bytes:
    """A key of a header with its value, which may be an array of numbers."""
    if isinstance(value, tuple):
        kind, form = (7, "?") if isinstance(value[0], bool) else (5, "i")
        head = struct.pack("<IIQ", 9, kind, len(value))
        return string(key) + head + struct.pack(f"<{len(value)}{form}", *value)
    if isinstance(value, bool | float):
        kind, form = (7, "?") if isinstance(value, bool) else (6, "f")
        return string(key) + struct.pack(f"<I{form}", kind, value)
    assert value is not None
    return field(key, value)


def sparse_files(model: RecommendedModel, folder: Path) -> list[Path]:
    """Its files, of their real sizes, with its header. They take no disk space."""
    metadata = header(*(item(*each) for each in model.header.metadata.items()))
    listed_files = [*model.files, *filter(None, [model.projector])]
    return [write(folder / Path(file.path).name, metadata, file.size) for file in listed_files]


def assert_loads(found: Recommendation, folder: Path) -> None:
    """The engine loads the model with the context that was promised, on this machine."""
    model = found.model
    path, *others = sparse_files(model, folder)
    file = local_model(
        id=f"local/gguf/{model.name}",
        name=model.name,
        purpose=model.purpose,
        path=str(path),
        projector=str(others[-1]) if model.projector else "",
        context_max=model.context_max,
    )
    plain = engine_request(file, file_route(file), {}, read_config())
    wanted = plain.with_context(found.context_size)
    # Idle engines need not end for it, so its limits do not change.
    assert ensure_fits(file, wanted, may_shrink=False) == wanted
    spec = EngineSpec(str(path), model.name, path.stat().st_size, 0, wanted.settings)
    need = need_of(spec).total
    assert wanted.limits.memory is not None
    assert need == found.memory <= wanted.limits.memory
    assert found.context_size >= min(4096, model.context_max or 4096)


@pytest.fixture
def machine_with(user_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Gives this machine so many bytes of RAM, of which other programs leave some, and no GPU."""
    monkeypatch.setattr(builds, "free_memory_of_gpus", lambda *_: 0)

    def pin(memory: int) -> None:
        monkeypatch.setattr(machine, "physical_memory", lambda: memory)
        monkeypatch.setattr(machine, "free_ram", lambda: usable_memory(memory))

    return pin


@pytest.mark.parametrize("use", [None, *Use])
@pytest.mark.parametrize("gib", MACHINES)
def test_loader_agrees_to_what_is_recommended(
    gib: int, use: Use | None, machine_with: Callable[[int], None], tmp_path: Path
) -> None:
    machine_with(gib * GIB)
    found = by_fit(read_recommended(), use, gib * GIB)
    assert found or use
    for each in found:
        assert_loads(each, tmp_path / "models")


@pytest.mark.parametrize("gib", MACHINES)
def test_largest_model_that_fits_is_loaded(
    gib: int, machine_with: Callable[[int], None], tmp_path: Path
) -> None:
    """Of models 100 MB apart, the first that fits leaves little memory."""
    machine_with(gib * GIB)
    models = [listed(f"m{size}", size / 10) for size in range(1600, 1, -1)]
    best, *_ = by_fit(models, Use.CHAT, gib * GIB)
    assert_loads(best, tmp_path)
    assert best.memory + 500 * 10**6 > usable_memory(gib * GIB)


def test_memory_that_the_system_needs() -> None:
    left = {gib: round((gib * GIB - usable_memory(gib * GIB)) / GIB, 1) for gib in MACHINES}
    assert left == {
        **{4: 1.6, 6: 2.4, 8: 3, 12: 3, 16: 4, 24: 6, 32: 8},
        **{48: 12, 64: 16, 96: 24, 128: 32, 192: 48},
    }


def test_smaller_context_only_where_nothing_fits_with_the_larger_one() -> None:
    wide = {"llama.attention.head_count_kv": 32}
    small = listed("small", 1.0, **wide)
    large = listed("large", 2.0, **wide)
    # Of 8,192 tokens the cache takes 4.3 GB, of 4,096 tokens half of that.
    found = by_fit([large, small], Use.CHAT, 9 * GIB)
    assert [(each.model.name, each.context_size) for each in found] == [("small", 8192)]
    found = by_fit([large, small], Use.CHAT, 8 * GIB)
    assert [(each.model.name, each.context_size) for each in found] == [
        ("large", 4096),
        ("small", 4096),
    ]
    assert by_fit([large, small], Use.CHAT, 4 * GIB) == []


def test_short_trained_context() -> None:
    short = listed("short", 1, **{"llama.context_length": 2048})
    assert by_fit([short], Use.CHAT, 8 * GIB)[0].context_size == 2048


def test_memory_of_gpus_counts_and_an_unknown_one_is_little() -> None:
    models = [listed("large", 20), listed("small", 2)]
    assert names(by_fit(models, Use.CHAT, 16 * GIB)) == ["small"]
    assert names(by_fit(models, Use.CHAT, 16 * GIB, 12 * GIB)) == ["large", "small"]
    assert names(by_fit(models, Use.CHAT, None)) == ["small"]


@pytest.mark.parametrize("memory", [3.85 * GIB, 3.7 * GIB, 3 * GB, 2 * GB])
def test_small_machines_get_a_model_that_chats_first(memory: float) -> None:
    """The package's list has none for chat that fits them."""
    for use in (None, Use.CHAT):
        first, *_ = by_fit(read_recommended(), use, int(memory))
        assert {Use.CHAT, Use.SMALL} & {*first.model.uses}


def test_small_models_chat_only_where_no_better_one_fits() -> None:
    models = [listed("chats", 4), listed("small", 1, Use.SMALL), listed("codes", 1, Use.CODE)]
    found = {gib: by_fit(models, Use.CHAT, gib * GIB) for gib in (16, 4)}
    assert {gib: names(each) for gib, each in found.items()} == {16: ["chats"], 4: ["small"]}
    assert names(by_fit(models, None, 4 * GIB)) == ["small", "codes"]
    assert names(by_fit(models, Use.VISION, 4 * GIB)) == []


# The order


MIXED = (
    listed("moe", 20, active=2),
    listed("dense", 16, Use.CHAT, Use.CODE),
    listed("medium", 8),
    listed("light", 4),
    listed("tiny", 1, Use.CHAT, Use.SMALL),
)


@pytest.mark.parametrize(
    ("gigabytes", "order"),
    [
        # Of the dense one 16 GB are read for a token: at 20 GB/s that is 1.2 tokens a second.
        (20, ["moe", "light", "tiny", "dense", "medium"]),
        (30, ["moe", "medium", "light", "tiny", "dense"]),
        (100, ["moe", "dense", "medium", "light", "tiny"]),
        (None, ["moe", "dense", "medium", "light", "tiny"]),
    ],
)
def test_slow_models_come_last(gigabytes: float | None, order: list[str]) -> None:
    found = recommend(MIXED, Use.CHAT, 64 * GIB, speed_of=reads(gigabytes))
    assert names(found) == order


SEES = listed("sees", 3, Use.VISION)
EMBEDS = listed("embeds", 0.5, Use.EMBED)
CODES = listed("codes", 5, Use.CODE)
THINKS = listed("thinks", 6, Use.THINKING)
TOOLS = listed("tools", 7, Use.TOOLS)
TINY = listed("tiny", 1, Use.SMALL)


@pytest.mark.parametrize(
    ("models", "gigabytes", "mix"),
    [
        pytest.param(
            (*MIXED, SEES, EMBEDS, CODES),
            40,
            ["moe", "light", "codes", "sees", "tiny"],
            id="half the size and as fast as people read",
        ),
        pytest.param(
            (*MIXED, SEES, EMBEDS, CODES),
            None,
            ["moe", "medium", "dense", "sees", "tiny"],
            id="speed unknown",
        ),
        pytest.param(
            (listed("all", 20, *(use for use in Use if use is not Use.EMBED)), EMBEDS, CODES),
            None,
            ["all", "embeds"],
            id="one for nearly all uses",
        ),
        pytest.param((EMBEDS, THINKS), None, ["embeds", "thinks"], id="nothing for chat"),
        pytest.param(
            (TOOLS, THINKS, EMBEDS, TINY, SEES, CODES),
            None,
            ["tiny", "codes", "sees", "embeds", "thinks"],
            id="the order of uses, not of the list",
        ),
        pytest.param((TOOLS, THINKS, EMBEDS), None, ["embeds", "thinks", "tools"], id="tools last"),
        pytest.param((), None, [], id="nothing"),
    ],
)
def test_mix(
    models: tuple[RecommendedModel, ...],
    gigabytes: float | None,
    mix: list[str],
) -> None:
    assert names(recommend(models, None, 64 * GIB, speed_of=reads(gigabytes))) == mix


def test_at_most_five() -> None:
    models = [listed(f"m{size}", size) for size in range(1, 20)]
    assert len(by_fit(models, Use.CHAT, 64 * GIB)) == 5


def test_speed_is_that_of_the_active_weights() -> None:
    asked: list[TokenCost] = []
    moe = listed("moe", 20, active=2)
    recommend([moe, EMBEDS], Use.CHAT, 64 * GIB, speed_of=asked.append)
    recommend([EMBEDS], Use.EMBED, 64 * GIB, speed_of=asked.append)
    (cost,) = asked
    # 1,024 tokens of 2 x 8 heads x 128 numbers in 32 layers.
    assert cost == TokenCost(2 * GB, 1024 * 2 * 8 * 128 * 32 * 2, "Q4_K_M", 32, 4096)


def test_projector_is_loaded_but_not_read_for_a_token() -> None:
    sees: dict[str, Any] = {"path": "mmproj.gguf", "size": GB}
    plain = listed("m", 2)
    values = {name: getattr(plain, name) for name in plain.__dataclass_fields__}
    model = RecommendedModel(**{**values, "projector": ListedFile(**sees)})
    assert (model.size, model.footprint.weights, model.active_bytes) == (3 * GB, 3 * GB, 2 * GB)
