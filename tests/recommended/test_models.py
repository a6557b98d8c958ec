"""The list of recommended models: each entry is whole, plausible, and names what it gets."""

import re
from datetime import date

import pytest

from llm_localrun.chat.options import Options
from llm_localrun.memory.fit import default_setting, fit_of
from llm_localrun.memory.geometry import geometry_of
from llm_localrun.names.parse import parse_name
from llm_localrun.recommended.choose import usable_memory
from llm_localrun.recommended.models import (
    ListedFile,
    RecommendedModel,
    Use,
    read_recommended,
    recommended_named,
)

MODELS = read_recommended()
NAMES = [model.name for model in MODELS]
GIB = 2**30
# Bits of a weight in most tensors; embeddings and outputs have more, which counts in small models.
BITS = {"Q4_0": 4.5, "Q4_K_M": 4.5, "Q4_K_XL": 4.5, "MXFP4": 4.25, "Q8_0": 8.5}
# What the cache of one token takes in the layers that see the whole context, as F16, by public
# files that do not come from this code.
CACHE_BYTES = {
    "qwen3.5-122b-a10b": 24_576,
    "gpt-oss-120b": 36_864,
    "qwen3-coder-next": 24_576,
    "qwen3.6-35b-a3b": 20_480,
    "qwen3.8-27b": 65_536,
    "gemma-4-31b": 81_920,
    "qwen3-coder-30b-a3b": 98_304,
    "glm-4.7-flash": 54_144,
    "nemotron-3.5-lightning": 6144,
    "gemma-4-26b-a4b": 20_480,
    "gpt-oss-20b": 24_576,
    "devstral-small-2-24b": 163_840,
    "ministral-3-14b-reasoning": 163_840,
    "gemma-4-12b": 16_384,
    "qwen3.5-9b": 32_768,
    "granite-4.2-8b": 163_840,
    "lfm2.5-8b-a1b": 12_288,
    "gemma-4-e4b": 16_384,
    "qwen3.5-4b": 32_768,
    "qwen3-vl-4b": 147_456,
    "gemma-4-e2b": 6144,
    "granite-4.2-3b": 81_920,
    "ministral-3-3b": 106_496,
    "qwen3.5-2b": 12_288,
    "qwen3.5-0.8b": 12_288,
    "qwen3-0.6b": 114_688,
    "gemma-3-270m": 3072,
}

# Words that these architectures know. Layers of others are not of this simple form.
VOCABULARIES = {
    "granite": 100_352,
    "mistral3": 131_072,
    "qwen2": 151_936,
    "qwen3": 151_936,
    "qwen3vl": 151_936,
}

each_model = pytest.mark.parametrize("model", MODELS, ids=NAMES)


def all_files(model: RecommendedModel) -> list[ListedFile]:
    return [*model.files, *([model.projector] if model.projector else [])]


def test_each_name_is_there_once_and_finds_its_model() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 25
    assert all(recommended_named(model.name.upper()) is model for model in MODELS)


@each_model
def test_the_name_is_that_of_the_file(model: RecommendedModel) -> None:
    assert re.fullmatch(r"[a-z0-9]+(?:[.-][a-z0-9]+)+", model.name)
    name, file = parse_name(model.name), parse_name(model.files[0].path.rpartition("/")[2])
    assert (name.family, name.made_for, name.thinks) == (file.family, file.made_for, file.thinks)
    assert name.words <= file.words


@each_model
def test_files_are_pinned(model: RecommendedModel) -> None:
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.repository)
    assert re.fullmatch(r"[0-9a-f]{40}", model.revision)
    for file in all_files(model):
        assert file.path.endswith(".gguf") and file.size > 0
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)


@each_model
def test_all_parts_are_listed_in_their_order(model: RecommendedModel) -> None:
    paths = [file.path for file in model.files]
    total = len(paths)
    stems = {re.sub(r"-\d{5}-of-\d{5}(?=\.gguf$)", "", path) for path in paths}
    assert len(stems) == 1
    if total > 1:
        ends = [f"-{at:05}-of-{total:05}.gguf" for at in range(1, total + 1)]
        assert all(map(str.endswith, paths, ends))


@each_model
def test_the_size_is_that_of_the_weights(model: RecommendedModel) -> None:
    bits = sum(file.size for file in model.files) * 8 / model.parameters
    least = BITS[model.quantization.removeprefix("UD-")]
    assert 0.98 * least < bits < (1.35 if model.parameters > 10**9 else 1.65) * least
    assert model.active_parameters <= model.parameters
    assert model.quantization.lower() in model.files[0].path.lower()


@pytest.mark.parametrize(
    "model",
    [model for model in MODELS if model.header.architecture in VOCABULARIES],
    ids=lambda model: str(model.name),
)
def test_a_table_of_embeddings_is_unread_if_there_is_a_second_one(model: RecommendedModel) -> None:
    """What the layers leave of all weights is one table, or two: then the output matrix is one."""
    keys = "block_count embedding_length feed_forward_length attention.head_count"
    layers, width, middle, heads = (model.header.of_architecture(k) or 0 for k in keys.split())
    cached = model.header.of_architecture("attention.head_count_kv") or 0
    size = model.header.of_architecture("attention.key_length") or width // heads
    layer = width * (2 * heads * size + 2 * cached * size + 3 * middle)
    table = VOCABULARIES[model.header.architecture] * width
    tables = (model.parameters - layers * layer) / table
    assert tables == pytest.approx(2 if model.unread_parameters else 1, abs=0.1)
    assert model.unread_parameters in (0, pytest.approx(table, rel=0.001))


@each_model
def test_unread_weights_are_whole_rows(model: RecommendedModel) -> None:
    assert model.unread_parameters % (model.header.of_architecture("embedding_length") or 0) == 0
    assert model.unread_parameters < model.active_parameters / 3


@each_model
def test_what_a_table_shows(model: RecommendedModel) -> None:
    assert 0 < len(model.good_at) <= 32 and model.good_at.isascii()
    assert model.license and len(model.license) <= 20
    assert model.source == f"https://huggingface.co/{model.repository}"
    assert date.fromisoformat(model.date) <= date(2100, 1, 1)


@each_model
def test_uses(model: RecommendedModel) -> None:
    assert model.uses and len(set(model.uses)) == len(model.uses)
    # Whoever gets a model for pictures gets what it sees with.
    assert (model.projector is not None) == (Use.VISION in model.uses)
    assert (model.purpose == "embedding") == (model.uses == (Use.EMBED,))
    assert bool(model.sampling) == (model.purpose == "chat")


@each_model
def test_the_geometry_is_known(model: RecommendedModel) -> None:
    geometry = geometry_of(model.header)
    assert geometry is not None and geometry.hidden_width and geometry.heads
    assert model.context_max is not None and 2048 <= model.context_max <= 2**20
    prefix = f"{model.header.architecture}."
    keys = model.header.metadata.keys() - {"general.architecture"}
    assert all(key.startswith(prefix) for key in keys)


@pytest.mark.parametrize(("name", "size"), CACHE_BYTES.items(), ids=CACHE_BYTES)
def test_the_cache_of_a_token(name: str, size: int) -> None:
    model = recommended_named(name)
    assert model is not None
    geometry = geometry_of(model.header)
    assert geometry is not None and 2 * geometry.kv_width == size


def test_the_state_of_a_conversation() -> None:
    # llama.cpp reports 149.6 MiB for it.
    model = recommended_named("qwen3.8-27b")
    assert model is not None
    geometry = geometry_of(model.header)
    assert geometry is not None and 4 * geometry.state_width == 156_893_184


@each_model
def test_sampling_is_that_of_options(model: RecommendedModel) -> None:
    known = {"temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty"}
    assert model.sampling.keys() <= known
    options = Options.model_validate(model.sampling)
    assert options.model_dump(exclude_unset=True) == model.sampling


@pytest.mark.parametrize("gib", [4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192])
@pytest.mark.parametrize("use", Use)
def test_every_use_has_a_model_that_fits(use: Use, gib: int) -> None:
    # Enough for a question and its answer.
    assert best_for(use, gib, 2048)


@pytest.mark.parametrize(
    ("use", "gib", "best"),
    [
        (Use.CHAT, 192, "qwen3.8-flash-next"),
        (Use.CODE, 96, "qwen3-coder-next"),
        (Use.TOOLS, 96, "gpt-oss-120b"),
        (Use.CHAT, 48, "qwen3.6-35b-a3b"),
        (Use.THINKING, 16, "gpt-oss-20b"),
        (Use.CHAT, 12, "gemma-4-12b"),
        (Use.VISION, 8, "qwen3.5-4b"),
        (Use.SMALL, 4, "qwen3.5-2b"),
        (Use.EMBED, 4, "qwen3-embedding-0.6b"),
    ],
)
def test_the_best_comes_first(use: Use, gib: int, best: str) -> None:
    assert best_for(use, gib, 4096) == best


def best_for(use: Use, gib: int, enough: int) -> str | None:
    """The first model that fits what a machine leaves for it, with a context of `enough` tokens."""
    for model in MODELS:
        setting = default_setting(model.context_max, model.purpose)
        fit = fit_of(model.footprint, setting, usable_memory(gib * GIB))
        if use in model.uses and fit.fits_with(enough):
            return model.name
    return None
