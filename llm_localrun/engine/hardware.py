"""The GPUs of this machine, and which build of llama.cpp would use them.

Reads what the system says without a build of llama.cpp: what a build finds itself is left to
`builds`, whether it runs here to `acceptance`.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from llm_localrun.engine.installed import Backend


class Vendor(Enum):
    """Who made a GPU."""

    NVIDIA = "NVIDIA"
    AMD = "AMD"
    INTEL = "Intel"
    APPLE = "Apple"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as the system describes it."""

    vendor: Vendor
    title: str
    """Such as "NVIDIA RTX 4090"; "an NVIDIA GPU" if its name cannot be read."""
    driver: str = ""
    """The version of its driver; "" if that cannot be read."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What decides which build fits this machine."""

    system: str
    """linux, macos or windows."""
    processor: str
    """x64 or arm64."""
    gpus: tuple[Gpu, ...] = ()
    has_vulkan: bool = False
    """Whether a Vulkan loader and a driver for it are installed."""
    has_rocm: bool = False
    """Whether /dev/kfd and a ROCm runtime are there."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The backend that fits a machine best."""

    backend: Backend
    reason: str
    """Such as "an NVIDIA RTX 4090 with driver 580.95"."""
    missing: str = ""
    """What has to be installed before a better backend can run; "" if nothing is."""


def detect(root: Path = Path("/")) -> Hardware:
    """What the system says of this machine. `root` is where its files begin."""
    raise NotImplementedError


def suggest(hardware: Hardware) -> Suggestion:
    """The backend for a machine."""
    raise NotImplementedError
