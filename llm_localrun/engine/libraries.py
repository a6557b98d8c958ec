"""What a build of llama.cpp lacks on this machine, and what to install.

Reads what the system's loader, a driver or a crashed program says (`lack_in`). Running a build is
left to `acceptance` and `build_probe`, choosing one to `hardware`.

Sources: messages of glibc's ld.so (2.36, tried), of macOS's dyld and of CUDA's runtime; status
codes of Windows (ntstatus.h); names of packages from the distributions' indexes of November 2026.
The official builds need glibc 2.38 by one report, libgomp and OpenSSL 3 (llama.cpp b11037).
"""

import os
import re
import signal
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from llm_localrun.engine.windows_job import STATUS_ILLEGAL_INSTRUCTION


class Family(Enum):
    """Distributions that name their packages alike; the value is how a package is installed."""

    DEBIAN = "apt install"
    FEDORA = "dnf install"
    ARCH = "pacman -S"
    SUSE = "zypper install"
    OTHER = ""


_IDS = {
    **dict.fromkeys(("debian", "ubuntu"), Family.DEBIAN),
    **dict.fromkeys(("fedora", "rhel", "centos"), Family.FEDORA),
    "arch": Family.ARCH,
    **dict.fromkeys(("suse", "opensuse"), Family.SUSE),
}
"""By ID and ID_LIKE of /etc/os-release. Ubuntu's and Mint's ID_LIKE is debian."""
_NAMED = (Family.DEBIAN, Family.FEDORA, Family.ARCH, Family.SUSE)
_PACKAGES = {
    "libgomp": ("libgomp1", "libgomp", "gcc-libs", "libgomp1"),
    "libstdc++": ("libstdc++6", "libstdc++", "gcc-libs", "libstdc++6"),
    "libatomic": ("libatomic1", "libatomic", "gcc-libs", "libatomic1"),
    "libssl": ("libssl3", "openssl-libs", "openssl", "libopenssl3"),
    "libcrypto": ("libssl3", "openssl-libs", "openssl", "libopenssl3"),
    "libcurl": ("libcurl4", "libcurl", "curl", "libcurl4"),
    "libvulkan": ("libvulkan1", "vulkan-loader", "vulkan-icd-loader", "libvulkan1"),
}
"""The package of a library, in the order of `_NAMED`."""
_MESA = {
    Family.DEBIAN: "mesa-vulkan-drivers",
    Family.FEDORA: "mesa-vulkan-drivers",
    Family.ARCH: "vulkan-{}",
    Family.SUSE: "libvulkan_{}",
}
"""The Vulkan driver for a GPU whose driver Mesa calls {}."""
OTHER_BUILD = "Install another build, such as: llm localrun engine install cpu"
_NEWER_DRIVER = "Update NVIDIA's driver, or use Vulkan: llm localrun engine install vulkan"

_LIBRARY = re.compile(
    r"(?P<name>lib[\w+.-]+\.so[\w.]*): cannot open shared object file"
    r"|Library not loaded: (?:\S*/)?(?P<mac>[^\s/]+)"
)
_VERSION = re.compile(r"version `(?P<symbols>GLIBC|GLIBCXX|CXXABI)_(?P<version>[\d.]+)' not found")
_PHRASES = (
    (
        "CUDA driver version is insufficient|unsupported toolchain|cudaErrorUnsupportedPtxVersion",
        "NVIDIA's driver is too old for it",
        _NEWER_DRIVER,
    ),
    (
        "no kernel image is available",
        "it has no code for this NVIDIA GPU",
        "Use Vulkan: llm localrun engine install vulkan",
    ),
    (
        "no CUDA-capable device|forward compatibility was attempted|CUDA unknown error",
        "NVIDIA's driver offers it no GPU",
        "Restart this machine, or update NVIDIA's driver",
    ),
    (
        "built for newer macOS|dyld.*: Symbol not found",
        "it needs a newer macOS",
        "Update macOS",
    ),
)
"""What the output has, what that means, and what to do."""
NO_INSTRUCTION = "it uses instructions that this CPU lacks"
_NO_DLL = "a DLL is missing"
_STATUSES = {
    -getattr(signal, "SIGILL", 4): (NO_INSTRUCTION, OTHER_BUILD),
    128 + getattr(signal, "SIGILL", 4): (NO_INSTRUCTION, OTHER_BUILD),
    STATUS_ILLEGAL_INSTRUCTION: (NO_INSTRUCTION, OTHER_BUILD),
    0xC0000135: (
        _NO_DLL,
        "Install Microsoft's C++ runtime: winget install Microsoft.VCRedist.2015+.x64",
    ),
    0xC000007B: ("it is for another kind of processor", OTHER_BUILD),
}
"""Exit statuses of a program that could not begin, or met an unknown instruction: as Python says,
as a shell says, and as Windows says."""


@dataclass(frozen=True, slots=True)
class Lack:
    """Why a build does not run on this machine."""

    problem: str
    """A clause without a full stop: "libgomp.so.1 is missing"."""
    remedy: str
    """A sentence without a full stop: "Install it: apt install libgomp1"."""


def family_of(root: Path = Path("/")) -> Family:
    """The family of the distribution whose files begin at `root`."""
    try:
        text = (root / "etc" / "os-release").read_text(errors="replace")
    except OSError:
        return Family.OTHER
    found = re.findall(r"^ID(?:_LIKE)?=[\"']?([^\"'\n]*)", text, re.MULTILINE)
    names = re.split(r"[\s-]", " ".join(sorted(found, key=len)).lower())
    return next((_IDS[name] for name in names if name in _IDS), Family.OTHER)


def lack_in(output: str, status: int = 0, root: Path = Path("/")) -> Lack | None:
    """What a program lacked that printed `output` and ended with `status`; None if that is not
    known."""
    if found := _LIBRARY.search(output):
        name = found["name"] or found["mac"]
        return Lack(f"{name} is missing", _remedy_for(name, family_of(root)))
    if found := _VERSION.search(output):
        return _too_old(found["symbols"], found["version"])
    for phrase, problem, remedy in _PHRASES:
        if re.search(phrase, output):
            return Lack(problem, remedy)
    return Lack(*_STATUSES[status]) if status in _STATUSES else None


def vulkan_command(mesa: str, family: Family) -> str:
    """The command that installs Vulkan for the GPU whose driver Mesa calls `mesa`; "" if that is
    not known."""
    if family is Family.OTHER:
        return ""
    loader = _PACKAGES["libvulkan"][_NAMED.index(family)]
    return f"{family.value} {loader} {_MESA[family].format(mesa)}"


def _remedy_for(library: str, family: Family) -> str:
    if library.startswith("libcuda.so"):
        return "Install NVIDIA's driver"
    if re.match(r"libcu(?:dart|blas)|libggml|libllama|libmtmd", library):
        return "Install the build again: llm localrun engine install"
    if re.match(r"lib(?:amdhip|hip|roc|hsa)", library):
        return "Install ROCm, or use Vulkan: llm localrun engine install vulkan"
    packages = _PACKAGES.get(re.split(r"[-.]", library)[0])
    if packages and family is not Family.OTHER:
        return f"Install it: {family.value} {packages[_NAMED.index(family)]}"
    if packages:
        return f"Install its package (Debian, Ubuntu: {packages[0]}; Fedora: {packages[1]})"
    return "Install the package that has it"


def _too_old(symbols: str, version: str) -> Lack:
    engine = "the engine without a GPU: llm install 'llm-localrun[gguf]'"
    if symbols != "GLIBC":
        return Lack(f"it needs a newer libstdc++ ({symbols}_{version})", f"Use {engine}")
    return Lack(
        f"it needs glibc {version}, and this system has {_glibc()}",
        f"Update the system to a release with it, or use {engine}",
    )


def _glibc() -> str:
    """The version of glibc here."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc ") or "none"
    except (AttributeError, ValueError, OSError):
        return "none"
