"""The GPUs of this machine, and which build of llama.cpp would use them.

Reads what the system says without a build of llama.cpp: what a build finds itself is left to
`builds`, whether it runs here to `acceptance`, what a package is called to `libraries`.

Sources:
- Drivers: CUDA's release notes, table of minor version compatibility: CUDA 12 needs 525.60.13
  (Windows: 528.33), CUDA 13 needs 580. Builds with CUDA 13 have no code for GPUs before Turing
  (compute capability 7.5), those with CUDA 12 none before Maxwell (5.0): llama.cpp's
  ggml-cuda/CMakeLists.txt. For arm64 there is only a build with CUDA 13 (b11211).
- PCI: /sys/bus/pci/devices/*/{vendor,class}. Class 0x03 is a display controller, 0x12 a processor
  without one, such as AMD's MI300. Virtual GPUs and those of servers' consoles (QXL, virtio,
  ASPEED, Matrox) have other vendors.
- NVIDIA's driver: /proc/driver/nvidia/version, and gpus/*/information ("Model:"). nvidia-smi may be
  missing, hang in the kernel, or say for example "Driver/library version mismatch" until a restart.
- Vulkan: drivers are JSON files in vulkan/icd.d, in the folders of LoaderDriverInterface.md
  (Vulkan-Loader 1.4). Mesa's packages hold the drivers for all GPUs, so a driver counts only for a
  GPU of its vendor; lavapipe computes with the CPU and counts for none.
- Windows: the class of display adapters in the registry. The last five digits of DriverVersion are
  NVIDIA's own version.
- A container sees the PCI devices and /proc/driver/nvidia of its host, and can use only what is in
  its /dev.
"""

import contextlib
import importlib
import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from llm_localrun.engine import programs
from llm_localrun.engine.installed import Backend
from llm_localrun.engine.libraries import Family, family_of, vulkan_command


class Vendor(Enum):
    """Who made a GPU."""

    NVIDIA = "NVIDIA"
    AMD = "AMD"
    INTEL = "Intel"
    APPLE = "Apple"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as the system describes it."""

    vendor: Vendor
    title: str
    """Such as "NVIDIA RTX 4090"; "an NVIDIA GPU" if its name cannot be read."""
    driver: str = ""
    """The version of its driver; "" if that cannot be read."""
    capability: float | None = None
    """Of CUDA: 8.9; None if it cannot be read."""
    is_integrated: bool = False
    """Whether it is the part of a processor from Intel: it may be slower than the rest of that."""
    has_vulkan: bool = False
    """Whether a Vulkan loader and a driver for this GPU are installed."""
    obstacle: str = ""
    """What has to be done before any program can use it: a sentence without a full stop."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What decides which build fits this machine."""

    system: str
    """linux, macos or windows; another name for a system without builds."""
    processor: str
    """x64 or arm64; another name for a processor without builds."""
    gpus: tuple[Gpu, ...] = ()
    has_rocm: bool = False
    """Whether /dev/kfd and a ROCm runtime are there."""
    has_avx512: bool = False
    family: Family = Family.OTHER
    """Which packages its distribution has."""
    problem: str = ""
    """Why no build runs on this machine; "" if some may."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The backend that fits a machine best."""

    backend: Backend
    reason: str
    """Such as "NVIDIA RTX 4090 with driver 580.95"."""
    missing: str = ""
    """What has to be done before a better backend can run: a sentence without a full stop; "" if
    nothing is."""
    gpu: Gpu | None = None
    """The GPU that this is about, even if something is missing; None if there is none."""
    lacking: Gpu | None = None
    """The GPU that something is missing for."""


_SYSTEMS = {"Linux": "linux", "Darwin": "macos", "Windows": "windows"}
_PROCESSORS = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
_VENDORS = {"0x10de": Vendor.NVIDIA, "0x1002": Vendor.AMD, "0x8086": Vendor.INTEL}
_DISPLAY, _ACCELERATOR = "0x03", "0x12"
_INTEGRATED = "0000:00:02.0"
"""The address of the GPU inside Intel's processors."""
_SMI_GRACE_S = 10.0
_SMI_MAX_CPU_S = 20.0
"""It takes 0.03 to 5 s, and longer with many GPUs whose driver has to wake up."""
_VERSION = re.compile(r"\d{3,4}(?:\.\d+)+")
_LISTED = re.compile(
    r"(?P<name>\S.*?), (?P<driver>\d{3,4}(?:\.\d+)+)(?:, (?P<capability>[\d.]+|\[?N/A\]?))?"
)
"""A line of nvidia-smi."""
_DRIVERS = {Vendor.NVIDIA: "nvidia", Vendor.AMD: "amd", Vendor.INTEL: "intel"}
"""In the names of Vulkan's drivers: libGLX_nvidia, amdvlk64, libvulkan_intel."""
_LOADERS = {"x64": "lib64/ld-linux-x86-64.so.2", "arm64": "lib/ld-linux-aarch64.so.1"}
"""Where builds for glibc look for its loader."""
_LIBRARY_FOLDERS = ("usr/lib64", "usr/lib", "lib64", "lib", "usr/local/lib", "opt/rocm/lib")
_CONTAINERS = (".dockerenv", "run/.containerenv", "run/systemd/container")
_ADAPTERS = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"
_INSTALL_DRIVER = "Install NVIDIA's driver"
_JOIN_GROUP = "Join the group of {}: usermod -aG render $USER. Then log in again"


def detect(root: Path = Path("/")) -> Hardware:
    """What the system says of this machine. `root` is where its files begin.

    Takes milliseconds, and with an NVIDIA GPU as long as nvidia-smi.
    """
    system = _SYSTEMS.get(platform.system(), platform.system())
    processor = _PROCESSORS.get(platform.machine().lower(), platform.machine())
    if system == "macos" and "ARM64" in platform.version():
        # Python may be one for x64, which macOS translates.
        processor = "arm64"
    hardware = Hardware(system, processor)
    if system not in _SYSTEMS.values() or processor not in _PROCESSORS.values():
        return replace(hardware, problem=f"there is no build for {system} on {processor}")
    if system == "linux":
        return _on_linux(hardware, root)
    if system == "windows":
        return replace(hardware, gpus=tuple(_windows_gpus()))
    gpu = Gpu(Vendor.APPLE, "an Apple GPU")
    return replace(hardware, gpus=(gpu,) if processor == "arm64" else ())


def suggest(hardware: Hardware) -> Suggestion:
    """The backend for a machine: that of the first GPU that can be used, NVIDIA's before others."""
    gpus = sorted(hardware.gpus, key=lambda gpu: [*Vendor].index(gpu.vendor))
    missing, unused, lacking = "", None, None
    for gpu in gpus:
        backend, obstacle = _backend_for(gpu, hardware)
        lacking = lacking or (gpu if obstacle else None)
        missing, unused = missing or obstacle, unused or gpu
        if backend is not None:
            named = f"{gpu.title} with driver {gpu.driver}" if gpu.driver else gpu.title
            return Suggestion(backend, named, missing, gpu, lacking)
    reason = f"{unused.title} cannot be used yet" if unused else "no GPU was found"
    return Suggestion(Backend.CPU, reason, missing, unused, lacking)


def newest_cuda(hardware: Hardware) -> int:
    """The newest CUDA, 12 or 13, whose builds run on the NVIDIA GPUs here; 0 if none does."""
    gpus = [gpu for gpu in hardware.gpus if gpu.vendor is Vendor.NVIDIA]
    if not gpus or any(gpu.obstacle or not gpu.driver for gpu in gpus):
        return 0
    driver = min(_numbers(gpu.driver) for gpu in gpus)
    capabilities = [gpu.capability for gpu in gpus if gpu.capability is not None]
    if min(capabilities, default=5.0) < 5 or driver < _numbers(_oldest_driver(hardware)):
        return 0
    # A GPU of unknown capability may be an old one.
    is_new = len(capabilities) == len(gpus) and min(capabilities) >= 7.5
    return 13 if hardware.processor != "x64" or (is_new and driver >= (580,)) else 12


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _backend_for(gpu: Gpu, hardware: Hardware) -> tuple[Backend | None, str]:
    """The backend for a GPU, None if there is none yet, and what is missing for the best one."""
    best, missing = _own_backend(gpu, hardware)
    has_build = hardware.system != "windows" or hardware.processor == "x64"
    if best is None and gpu.has_vulkan and has_build:
        return Backend.VULKAN, missing
    return best, missing or ("" if best else _vulkan_remedy(gpu, hardware))


def _own_backend(gpu: Gpu, hardware: Hardware) -> tuple[Backend | None, str]:
    """Metal, CUDA or ROCm for a GPU, or else what is missing for it."""
    if gpu.vendor is Vendor.APPLE:
        return Backend.METAL, ""
    if gpu.obstacle:
        return None, gpu.obstacle
    if gpu.vendor is Vendor.NVIDIA:
        if newest_cuda(hardware):
            return Backend.CUDA, ""
        is_too_old = gpu.capability is not None and gpu.capability < 5
        update = f"Update NVIDIA's driver from {gpu.driver} to {_oldest_driver(hardware)} or later"
        return None, "" if is_too_old else update
    has_rocm = gpu.vendor is Vendor.AMD and hardware.has_rocm and hardware.processor == "x64"
    return (Backend.ROCM if has_rocm else None), ""


def _oldest_driver(hardware: Hardware) -> str:
    """The oldest driver of NVIDIA that a build runs with."""
    if hardware.processor != "x64":
        return "580"
    return "528.33" if hardware.system == "windows" else "525.60"


def _vulkan_remedy(gpu: Gpu, hardware: Hardware) -> str:
    if hardware.system == "windows":
        return f"Install the driver of {gpu.vendor.value} for it"
    if gpu.vendor is Vendor.NVIDIA:
        return "Install Vulkan's loader, and NVIDIA's driver for it"
    mesa = "radeon" if gpu.vendor is Vendor.AMD else gpu.vendor.value.lower()
    command = vulkan_command(mesa, hardware.family)
    return f"Install Vulkan: {command}" if command else "Install Vulkan's loader and Mesa's drivers"


# Linux


def _on_linux(hardware: Hardware, root: Path) -> Hardware:
    addresses = dict(_pci_gpus(root))
    gpus = [*_nvidia_gpus(root, Vendor.NVIDIA in addresses)]
    for vendor, address in addresses.items():
        if vendor is not Vendor.NVIDIA:
            is_integrated = vendor is Vendor.INTEL and address == _INTEGRATED
            title = f"an {'integrated ' * is_integrated}{vendor.value} GPU"
            obstacle = _render_obstacle(root)
            gpus.append(Gpu(vendor, title, is_integrated=is_integrated, obstacle=obstacle))
    drivers = _vulkan_drivers(root) if gpus and _has_library(root, "libvulkan.so.1") else ""
    has_rocm = (root / "dev/kfd").exists() and all(
        _has_library(root, name) for name in ("libamdhip64.so", "librocblas.so")
    )
    problem = ""
    if not (root / _LOADERS[hardware.processor]).exists():
        problem = "the builds need glibc, which this system does not have"
    return replace(
        hardware,
        gpus=tuple(replace(gpu, has_vulkan=_has_vulkan(gpu, drivers, root)) for gpu in gpus),
        has_rocm=has_rocm,
        has_avx512=" avx512f" in _read(root / "proc/cpuinfo"),
        family=family_of(root),
        problem=problem,
    )


def _has_vulkan(gpu: Gpu, drivers: str, root: Path) -> bool:
    """Whether one of Vulkan's `drivers` can use a GPU."""
    if gpu.obstacle == _INSTALL_DRIVER:
        # Mesa's driver needs the kernel's own one, and does not work beside NVIDIA's.
        return "nouveau" in drivers and not _render_obstacle(root)
    return not gpu.obstacle and _DRIVERS[gpu.vendor] in drivers


def _pci_gpus(root: Path) -> Iterator[tuple[Vendor, str]]:
    """The GPUs on PCI buses: vendor and address. Those on a board come after integrated ones."""
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        vendor = _VENDORS.get(_read(device / "vendor").strip())
        kind = _read(device / "class")[: len(_DISPLAY)]
        if vendor and (kind == _DISPLAY or (kind == _ACCELERATOR and vendor is Vendor.AMD)):
            yield vendor, device.name


def _nvidia_gpus(root: Path, is_on_pci: bool) -> list[Gpu]:
    proc = root / "proc/driver/nvidia"
    signs = ("proc/driver/nvidia/version", "dev/dxg", "dev/nvidiactl", "dev/nvhost-gpu")
    if not is_on_pci and not any((root / sign).exists() for sign in signs):
        return []
    if _is_in_container(root) and not any((root / "dev").glob("nvidia*")):
        passed = "It is not passed into this container: docker run --gpus all"
        is_there = is_on_pci or any((proc / "gpus").glob("*"))
        return [Gpu(Vendor.NVIDIA, "an NVIDIA GPU", obstacle=passed)] if is_there else []
    gpus, complaint = _ask_nvidia_smi(root / "usr/lib/wsl/lib/nvidia-smi")
    if gpus:
        return gpus
    version = _VERSION.search(_read(proc / "version"))
    texts = [_read(file) for file in proc.glob("gpus/*/information")]
    named = re.findall(r"^Model:\s+(.*\S)", "\n".join(texts), re.MULTILINE)
    titles = [title for title in named if title != "Unknown"]
    driver = version[0] if version else ""
    obstacle = "" if driver else _INSTALL_DRIVER
    if complaint:
        advice = "Restart this machine" if "version mismatch" in complaint else "Check its driver"
        obstacle = f"{advice}: nvidia-smi {complaint}"
    if not (is_on_pci or texts or (complaint and "No devices" not in complaint)):
        return []
    titles = titles or ["an NVIDIA GPU"]
    return [Gpu(Vendor.NVIDIA, title, driver, obstacle=obstacle) for title in titles]


def _ask_nvidia_smi(other: Path | None = None) -> tuple[list[Gpu], str]:
    """The GPUs that nvidia-smi lists, or else what it does instead, as a clause about it.

    Both are empty if it is missing.

    `other` is where it may be besides the folders of PATH.
    """
    program = shutil.which("nvidia-smi") or (str(other) if other and other.exists() else "")
    complaint = ""
    # Drivers before 470 do not know the last field.
    for fields in ("name,driver_version,compute_cap", "name,driver_version") if program else ():
        command = (program, f"--query-gpu={fields}", "--format=csv,noheader")
        try:
            done = programs.run(*command, grace=_SMI_GRACE_S, max_cpu=_SMI_MAX_CPU_S)
        except OSError as error:
            return [], f"cannot be started ({error.strerror})"
        if done.stalled:
            return [], done.stalled
        printed = done.output.splitlines()
        lines = ["".join(filter(str.isprintable, line)).strip() for line in printed]
        if gpus := [_listed(found) for found in map(_LISTED.fullmatch, lines) if found]:
            return gpus, ""
        said = next(filter(None, lines), "")[:120]
        complaint = f'says "{said}"' if said else f"says nothing, with status {done.status}"
        if "not a valid field" not in complaint:
            break
    return [], complaint


def _listed(found: "re.Match[str]") -> Gpu:
    capability = None
    with contextlib.suppress(TypeError, ValueError):
        capability = float(found["capability"])
    return Gpu(Vendor.NVIDIA, found["name"], found["driver"], capability)


def _render_obstacle(root: Path) -> str:
    """Why programs cannot use AMD's and Intel's GPUs; "" if they can."""
    nodes = [*(root / "dev/dri").glob("renderD*")]
    if not nodes and _is_in_container(root):
        return "It is not passed into this container: docker run --device /dev/dri"
    if not nodes:
        return "Install its driver for the kernel: /dev/dri has no renderD128"
    if not any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
        return _JOIN_GROUP.format(nodes[0])
    return ""


def _is_in_container(root: Path) -> bool:
    return any((root / name).exists() for name in _CONTAINERS)


def _has_library(root: Path, name: str) -> bool:
    """Whether the loader of 64-bit programs finds a library, of any version.

    It is not loaded, because that would run its code.
    """
    with contextlib.suppress(OSError):
        cache = (root / "etc/ld.so.cache").read_bytes()
        listed = re.findall(rb"(/[^\0]*/" + re.escape(name.encode()) + rb"[^\0/]*)\0", cache)
        if any(map(_is_64_bit, (root / os.fsdecode(path).lstrip("/") for path in listed))):
            return True
    own = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    folders = [root / folder.lstrip("/") for folder in (*_LIBRARY_FOLDERS, *own)]
    folders += [*root.glob("lib/*-linux-gnu"), *root.glob("usr/lib/*-linux-gnu")]
    return any(_is_64_bit(file) for folder in folders for file in folder.glob(f"{name}*"))


def _is_64_bit(library: Path) -> bool:
    try:
        with library.open("rb") as file:
            return file.read(5) == b"\x7fELF\x02"
    except OSError:
        return False


def _vulkan_drivers(root: Path) -> str:
    """The libraries of Vulkan's drivers, without lavapipe and drivers of 32-bit programs."""
    get = os.environ.get
    if chosen := get("VK_DRIVER_FILES") or get("VK_ICD_FILENAMES"):
        files = [root / path.lstrip("/") for path in chosen.split(":")]
    else:
        data = f"{get('XDG_DATA_DIRS') or '/usr/local/share:/usr/share'}:/etc:/usr/local/etc"
        data += f":{get('XDG_DATA_HOME') or Path.home() / '.local/share'}"
        folders = [root / path.lstrip("/") for path in data.split(":") if path]
        files = [file for each in folders for file in each.glob("vulkan/icd.d/*.json")]
    files = [file for file in files if not re.search(r"i[3-6]86", file.name)]
    found = re.findall(r'"library_path"\s*:\s*"([^"]+)"', "\n".join(map(_read, files)))
    return " ".join(Path(path).name.lower().replace("radeon", "amd") for path in found)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


# Windows


def _windows_gpus() -> Iterator[Gpu]:
    by_registry = [*_adapters()]
    asked: list[Gpu] = []
    if any(gpu.vendor is Vendor.NVIDIA for gpu in by_registry):
        asked, _ = _ask_nvidia_smi()
        has_vulkan = any(g.has_vulkan for g in by_registry if g.vendor is Vendor.NVIDIA)
        yield from (replace(gpu, has_vulkan=has_vulkan) for gpu in asked)
    yield from (gpu for gpu in by_registry if not asked or gpu.vendor is not Vendor.NVIDIA)


def _adapters() -> Iterator[Gpu]:
    """The display adapters in the registry of Windows."""
    registry: Any = importlib.import_module("winreg")
    with contextlib.suppress(OSError):
        adapters = registry.OpenKey(registry.HKEY_LOCAL_MACHINE, _ADAPTERS)
        for at in range(registry.QueryInfoKey(adapters)[0]):
            with contextlib.suppress(OSError):
                adapter = registry.OpenKey(adapters, registry.EnumKey(adapters, at))
                yield from _adapter(registry, adapter)


def _adapter(registry: Any, adapter: Any) -> Iterator[Gpu]:
    def value(name: str) -> str:
        with contextlib.suppress(OSError):
            return str(registry.QueryValueEx(adapter, name)[0])
        return ""

    device = re.search(r"ven_([0-9a-f]{4})", value("MatchingDeviceId").lower())
    vendor = _VENDORS.get(f"0x{device[1]}") if device else None
    if vendor is None:
        return
    driver = ""
    digits = re.sub(r"\D", "", value("DriverVersion"))[-5:]
    if vendor is Vendor.NVIDIA and len(digits) == 5:
        driver = f"{digits[:3]}.{digits[3:]}"
    yield Gpu(
        vendor,
        value("DriverDesc") or f"an {vendor.value} GPU",
        driver,
        has_vulkan=bool(value("VulkanDriverName")),
    )
