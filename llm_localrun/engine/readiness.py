"""Whether the engine can run a model's file, as far as that is known without loading it.

Which build runs it is decided in `builds`, whether it fits in `memory.fit`.
"""

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llm_localrun.config import read_config
from llm_localrun.engine import builds
from llm_localrun.engine.build_probe import Build
from llm_localrun.engine.memory_check import memory_for_a_new_model
from llm_localrun.errors import EngineFailed
from llm_localrun.files.failed_loads import FailedLoads
from llm_localrun.memory.fit import fit_of_model
from llm_localrun.models import LocalModel
from llm_localrun.recommended.advice import RECOMMEND, smaller
from llm_localrun.system.paths import engine_folder
from llm_localrun.system.program import quoted

_IN_EVERY_BUILD = ("gpt2", "qwen2moe", "gemma3n")
"""Architectures of all builds since 2025. A file with their names has those of all it knows."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a model cannot run, as a sentence, and what to do about it."""

    problem: str
    remedy: str


def find_obstacle(model: LocalModel, others: Iterable[LocalModel]) -> Obstacle | None:
    """Why the engine cannot run the file of `model` on this machine; None if nothing says so.

    A model that a server runs needs no engine. `others` may be run instead.
    """
    if model.served is not None or model.on_disk is None:
        return None
    if reason := FailedLoads().problem_of(model.on_disk):
        delete = quoted("llm", "localrun", "rm", model.id)
        return Obstacle(f"Its file cannot be loaded: {reason}", f"To delete it: `{delete}`")
    config = read_config()
    try:
        rpc = ",".join(config.rpc)
        build = builds.choose(engine_folder(), config.llama_server, rpc, model.on_disk.path)
    except EngineFailed as error:
        return Obstacle(error.problem, error.remedy)
    if model.architecture and _knows(build, model.architecture) is False:
        return Obstacle(
            f"{build.title} does not know the architecture {model.architecture}",
            "Install a newer llama.cpp: `llm localrun engine install --tag latest`",
        )
    memory = None if rpc else memory_for_a_new_model()
    if memory is None or fit_of_model(model, memory).fits:
        return None
    return Obstacle(
        f"It does not fit into the {memory / 1e9:.1f} GB that a model may take on this machine",
        smaller(model, others, memory) or f"See which models fit: `{RECOMMEND}`",
    )


def _knows(build: Build, architecture: str) -> bool | None:
    """Whether a build knows an architecture; None if its files do not show that."""
    for file in _libraries(build):
        try:
            with (
                file.open("rb") as opened,
                mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
            ):
                # C ends each name with a zero. One may be the end of another: bert, modern-bert.
                has = [content.find(f"{name}\0".encode()) >= 0 for name in _IN_EVERY_BUILD]
                if all(has):
                    return content.find(f"{architecture}\0".encode()) >= 0
        except (OSError, ValueError):
            continue
    return None


def _libraries(build: Build) -> Iterator[Path]:
    """The files that may hold llama.cpp's list of architectures."""
    path = Path(build.path)
    folder, patterns = path.resolve().parent, ["libllama.*", "llama.dll", path.name]
    if build.kind == "xllamacpp":
        folder, patterns = path / "xllamacpp", ["*.so", "*.pyd"]
    for pattern in patterns:
        yield from sorted(folder.glob(pattern))
