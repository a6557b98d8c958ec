"""A hub with ten repositories, and a recommended model in one of them."""

from llm_localrun.gguf.header import Header
from llm_localrun.recommended.models import ListedFile, RecommendedModel, Use, write_refreshed
from tests.fakes.hub import HubRepository, model, sha256
from tests.support.pulling import World

_DOWNLOADS = {
    "unsloth/Qwen3-4B-GGUF": 120_345,
    "bartowski/Qwen2.5-Coder-14B-Instruct-GGUF": 900_000,
    "unsloth/Qwen3-Coder-30B-A3B-Instruct-GGUF": 45_000,
    "bartowski/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-GGUF": 800,
    "Qwen/Qwen3-14B-GGUF": 500_000,
    "google/gemma-4-12B-it-qat-q4_0-gguf": 1_234_567,
    "ggml-org/gpt-oss-20b-GGUF": 2_000_000,
    "a-lab/Odd-License-2B-GGUF": 7,
    "a-lab/Little-Helper-1B-GGUF": 70,
}
HELPER = "a-lab/Little-Helper-1B-GGUF"
HELPER_NAME = "little-helper"


def offer_ten(world: World) -> None:
    """Adds nine repositories to the one of the hub, each with two variants."""
    for name, downloads in _DOWNLOADS.items():
        stem = name.partition("/")[2].removesuffix("-GGUF").removesuffix("-gguf")
        files = {f"{stem}-Q4_K_M.gguf": model(name), f"{stem}-Q8_0.gguf": model(f"{name} Q8_0")}
        tags = ("gguf",) if "Odd" in name else ("gguf", "license:apache-2.0", "conversational")
        world.hub.others.append(HubRepository(name, files, "ab" * 20, downloads, tags))
        world.files.content |= {sha256(data): data for data in files.values()}


def helper_file(world: World) -> tuple[str, bytes]:
    """The path and content of the file that is recommended."""
    path = "Little-Helper-1B-Q4_K_M.gguf"
    return path, world.hub.repositories[HELPER].files[path]


def recommend_helper(world: World, **changes: object) -> RecommendedModel:
    """Puts a model of the hub on the user's list of recommended models.

    `changes` are to what the list says of its file.
    """
    path, data = helper_file(world)
    file = {"path": path, "size": len(data), "sha256": sha256(data), **changes}
    header: dict[str, int | str] = {
        "general.architecture": "llama",
        "llama.context_length": 32_768,
        "llama.block_count": 2,
        "llama.embedding_length": 64,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
    }
    helper = RecommendedModel(
        name=HELPER_NAME,
        good_at="helping",
        uses=(Use.CHAT,),
        repository=HELPER,
        revision="ab" * 20,
        files=(ListedFile.model_validate(file),),
        projector=None,
        parameters=1_000_000,
        active_parameters=1_000_000,
        quantization="Q4_K_M",
        license="Apache-2.0",
        header=Header({**header}),
        source=f"https://huggingface.co/{HELPER}",
        date="2026-11-29",
    )
    write_refreshed([helper])
    return helper
