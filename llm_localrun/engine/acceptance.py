"""Whether a build of llama.cpp runs on this machine: its version, its devices, one measured answer.

Where the build comes from is left to `install`.
"""

from dataclasses import dataclass
from pathlib import Path

from llm_localrun.engine.installed import Backend


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a build that runs here has shown."""

    version: str
    devices: tuple[str, ...]
    """Titles of GPUs."""
    tokens_per_second: float | None
    """Of an answer; None if there is no model to measure it with."""


def accept(program: Path, backend: Backend, model: Path | None) -> Accepted:
    """Tries the llama-server `program`. `model` is a GGUF file to answer with.

    Raises `InstallFailed` with what is missing, and the package to install.
    """
    raise NotImplementedError
