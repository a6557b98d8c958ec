"""Which GPUs a machine has, and which build of llama.cpp fits it."""

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_localrun.engine import hardware
from llm_localrun.engine.hardware import Gpu, Hardware, Vendor, detect, newest_cuda, suggest
from llm_localrun.engine.installed import Backend
from tests.support.engines import executable

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the trees are those of Linux")

Tree = dict[str, str]

ELF = "\x7fELF\x02"
DEBIAN = {
    "etc/os-release": 'PRETTY_NAME="Ubuntu 26.04"\nID=ubuntu\nID_LIKE=debian\n',
    "lib64/ld-linux-x86-64.so.2": ELF,
}
LOADER = {"usr/lib/x86_64-linux-gnu/libvulkan.so.1": ELF}
CONTAINER = {".dockerenv": ""}


def pci(vendor: str, kind: str = "0x030000", at: str = "0000:01:00.0") -> Tree:
    """A device on a PCI bus."""
    folder = f"sys/bus/pci/devices/{at}"
    return {f"{folder}/vendor": f"{vendor}\n", f"{folder}/class": f"{kind}\n"}


def icd(*libraries: str) -> Tree:
    """Vulkan's drivers, as Mesa 22.3 and NVIDIA's driver install them."""
    return {
        f"usr/share/vulkan/icd.d/{name}.x86_64.json": f'{{"ICD": {{"library_path": "{name}"}}}}'
        for name in libraries
    }


NVIDIA = pci("0x10de")
AMD = pci("0x1002") | {"dev/dri/renderD128": ""}
INTEL = pci("0x8086", at="0000:00:02.0") | {"dev/dri/renderD128": ""}
MESA = icd("libvulkan_intel.so", "libvulkan_radeon.so", "libvulkan_lvp.so", "libvulkan_nouveau.so")
PROC = {
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64"
    "  580.95.05  Release Build  (dvs-builder@U22)\nGCC version:  gcc version 13.3.0\n",
    "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA GeForce RTX 4090\n"
    "IRQ:   \t\t 158\nGPU UUID: \t GPU-0\n",
}
ROCM = {
    "dev/kfd": "",
    "opt/rocm/lib/libamdhip64.so.7": ELF,
    "opt/rocm/lib/librocblas.so.5": ELF,
}
SMI = "NVIDIA GeForce RTX 4090, 580.95.05, 8.9"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Hardware]:
    """A machine with these files, on which nvidia-smi prints a text, or is missing."""
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES", "XDG_DATA_DIRS", "LD_LIBRARY_PATH"):
        monkeypatch.delenv(name, raising=False)

    def build(*trees: Tree, smi: str | None = None, status: int = 0) -> Hardware:
        for path, text in [each for tree in trees for each in tree.items()]:
            file = tmp_path / "root" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        if smi is not None:
            executable(
                tmp_path / "bin" / "nvidia-smi", f"print({smi!r}); raise SystemExit({status})"
            )
        return detect(tmp_path / "root")

    return build


FAILED = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 570.86"
NO_TALK = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that"
    " the latest NVIDIA driver is installed and running."
)
PASS = "It is not passed into this container: docker run"


@pytest.mark.parametrize(
    ("trees", "smi", "backend", "reason", "missing"),
    [
        ([], None, Backend.CPU, "no GPU was found", ""),
        ([NVIDIA], SMI, Backend.CUDA, "NVIDIA GeForce RTX 4090 with driver 580.95.05", ""),
        (
            [NVIDIA],
            f"{SMI}\n{SMI}",
            Backend.CUDA,
            "NVIDIA GeForce RTX 4090 with driver 580.95.05",
            "",
        ),
        ([NVIDIA, PROC], None, Backend.CUDA, "NVIDIA GeForce RTX 4090 with driver 580.95.05", ""),
        (
            [NVIDIA],
            None,
            Backend.CPU,
            "an NVIDIA GPU cannot be used yet",
            "Install NVIDIA's driver",
        ),
        (
            [NVIDIA, PROC],
            FAILED,
            Backend.CPU,
            "NVIDIA GeForce RTX 4090 cannot be used yet",
            "Restart this machine: nvidia-smi says"
            ' "Failed to initialize NVML: Driver/library version mismatch"',
        ),
        (
            [NVIDIA],
            NO_TALK,
            Backend.CPU,
            "an NVIDIA GPU cannot be used yet",
            f'Check its driver: nvidia-smi says "{NO_TALK[:120]}"',
        ),
        (
            [NVIDIA],
            "\n",
            Backend.CPU,
            "an NVIDIA GPU cannot be used yet",
            "Check its driver: nvidia-smi says nothing, with status 0",
        ),
        (
            [NVIDIA],
            "Tesla K80, 470.256.02, 3.7",
            Backend.CPU,
            "Tesla K80 cannot be used yet",
            "Install Vulkan's loader, and NVIDIA's driver for it",
        ),
        (
            [NVIDIA, LOADER, icd("libGLX_nvidia.so.0")],
            "Quadro P1000, 470.256.02, 6.1",
            Backend.VULKAN,
            "Quadro P1000 with driver 470.256.02",
            "Update NVIDIA's driver from 470.256.02 to 525.60 or later",
        ),
        (
            [NVIDIA, LOADER, MESA],
            None,
            Backend.CPU,
            "an NVIDIA GPU cannot be used yet",
            "Install NVI",
        ),
        (
            [NVIDIA, LOADER, MESA, {"dev/dri/renderD128": ""}],
            None,
            Backend.VULKAN,
            "an NVIDIA GPU",
            "Install NVIDIA's driver",
        ),
        ([NVIDIA, PROC, CONTAINER], None, Backend.CPU, "an NVIDIA GPU", f"{PASS} --gpus all"),
        ([PROC, CONTAINER, {"dev/nvidiactl": ""}], None, Backend.CUDA, "NVIDIA GeForce RTX", ""),
        (
            [{"dev/dxg": ""}],
            "RTX 3060, 560.94, 8.6",
            Backend.CUDA,
            "RTX 3060 with driver 560.94",
            "",
        ),
        ([{"dev/dxg": ""}], None, Backend.CPU, "no GPU was found", ""),
        ([{"dev/nvidiactl": ""}], "No devices were found", Backend.CPU, "no GPU was found", ""),
        ([AMD, LOADER, MESA], None, Backend.VULKAN, "an AMD GPU", ""),
        ([AMD, ROCM], None, Backend.ROCM, "an AMD GPU", ""),
        (
            [pci("0x1002", "0x120000"), {"dev/dri/renderD128": ""}, ROCM],
            None,
            Backend.ROCM,
            "an",
            "",
        ),
        (
            [AMD, LOADER, icd("libvulkan_lvp.so")],
            None,
            Backend.CPU,
            "an AMD GPU cannot be used yet",
            "Install Vulkan: apt install libvulkan1 mesa-vulkan-drivers",
        ),
        ([AMD, MESA], None, Backend.CPU, "an AMD GPU cannot be used yet", "Install Vulkan: apt"),
        (
            [AMD, MESA, {"usr/lib/libvulkan.so.1": "\x7fELF\x01"}],
            None,
            Backend.CPU,
            "an AMD GPU cannot be used yet",
            "Install Vulkan: apt",
        ),
        (
            [pci("0x1002"), CONTAINER, LOADER, MESA],
            None,
            Backend.CPU,
            "an AMD GPU",
            f"{PASS} --device /dev/dri",
        ),
        ([INTEL, LOADER, MESA], None, Backend.VULKAN, "an integrated Intel GPU", ""),
        (
            [INTEL, pci("0x8086", at="0000:03:00.0"), LOADER, MESA],
            None,
            Backend.VULKAN,
            "an Intel GPU",
            "",
        ),
        ([NVIDIA, INTEL, LOADER, MESA], SMI, Backend.CUDA, "NVIDIA GeForce RTX 4090", ""),
        ([LOADER, icd("libvulkan_lvp.so")], None, Backend.CPU, "no GPU was found", ""),
        *(
            ([pci(vendor), LOADER, MESA], None, Backend.CPU, "no GPU was found", "")
            for vendor in ("0x1a03", "0x1b36", "0x1af4", "0x1414", "0x102b", "0x15ad", "")
        ),
        ([pci("0x10de", "0x020000")], None, Backend.CPU, "no GPU was found", ""),
    ],
)
def test_backend_of_a_machine(
    machine: Callable[..., Hardware],
    trees: list[Tree],
    smi: str | None,
    backend: Backend,
    reason: str,
    missing: str,
) -> None:
    found = suggest(machine(DEBIAN, *trees, smi=smi))
    assert found.backend is backend
    assert found.reason.startswith(reason)
    assert found.missing.startswith(missing) if missing else not found.missing


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ("ID=fedora", "dnf install vulkan-loader mesa-vulkan-drivers"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"', "dnf install vulkan-loader mesa"),
        ("ID=manjaro\nID_LIKE=arch", "pacman -S vulkan-icd-loader vulkan-radeon"),
        (
            'ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"',
            "zypper install libvulkan1 libvulkan_radeon",
        ),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'", "apt install libvulkan1 mesa-vulkan-drivers"),
    ],
)
def test_packages_of_a_distribution(
    machine: Callable[..., Hardware], release: str, command: str
) -> None:
    found = suggest(machine(DEBIAN, {"etc/os-release": release}, AMD))
    assert found.missing.startswith(f"Install Vulkan: {command}")


def test_unknown_distribution(machine: Callable[..., Hardware]) -> None:
    found = suggest(machine(DEBIAN, {"etc/os-release": "ID=gentoo"}, AMD))
    assert found.missing == "Install Vulkan's loader and Mesa's drivers"


def test_gpu_that_this_user_may_not_use(
    machine: Callable[..., Hardware], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = suggest(machine(DEBIAN, AMD, LOADER, MESA))
    assert (found.backend, found.missing.split(":")[1]) == (
        Backend.CPU,
        " usermod -aG render $USER. Then log in again",
    )


def test_nvidia_smi_that_does_not_know_a_field(
    machine: Callable[..., Hardware], tmp_path: Path
) -> None:
    executable(
        tmp_path / "bin" / "nvidia-smi",
        "import sys\nif 'compute_cap' in sys.argv[1]:\n"
        "    raise SystemExit(print('Field \"compute_cap\" is not a valid field to query.') or 2)\n"
        "print('Tesla P4, 450.80.02')",
    )
    (gpu,) = machine(NVIDIA).gpus
    assert (gpu.title, gpu.driver, gpu.capability) == ("Tesla P4", "450.80.02", None)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import time; time.sleep(60)", "made no progress for 0.5 s"),
        ("while True: pass", "made no progress for 0.5 s"),
        ("import os; os.write(1, bytes(range(200)))", 'says "'),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            "says nothing, with status -11",
        ),
    ],
    ids=["hangs", "spins", "odd bytes", "crashes"],
)
def test_nvidia_smi_that_fails(
    machine: Callable[..., Hardware],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    said: str,
) -> None:
    """The driver's version comes from /proc then, and the command goes on."""
    monkeypatch.setattr(hardware, "_SMI_GRACE_S", 0.5)
    monkeypatch.setattr(hardware, "_SMI_MAX_CPU_S", 0.5)
    executable(tmp_path / "bin" / "nvidia-smi", code)
    (gpu,) = machine(DEBIAN, NVIDIA, PROC).gpus
    assert (gpu.title, gpu.driver) == ("NVIDIA GeForce RTX 4090", "580.95.05")
    assert gpu.obstacle.startswith(f"Check its driver: nvidia-smi {said}")
    assert gpu.obstacle.isprintable()


def test_nvidia_smi_that_does_not_know_the_capability(machine: Callable[..., Hardware]) -> None:
    (gpu,) = machine(DEBIAN, NVIDIA, smi="NVIDIA RTX 4090, 580.95.05, [N/A]").gpus
    assert (gpu.title, gpu.driver, gpu.obstacle) == ("NVIDIA RTX 4090", "580.95.05", "")
    assert gpu.capability is None


def test_nothing_is_run_without_a_gpu(machine: Callable[..., Hardware], tmp_path: Path) -> None:
    program = executable(tmp_path / "bin" / "nvidia-smi", f"open({str(tmp_path / 'run')!r}, 'w')")
    assert machine(DEBIAN, LOADER).gpus == ()
    assert program.exists()
    assert not (tmp_path / "run").exists()


def test_drivers_named_by_a_variable(
    machine: Callable[..., Hardware], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VK_DRIVER_FILES", "/own/driver.json")
    own = {"own/driver.json": '{"ICD": {"library_path": "/own/libvulkan_intel.so"}}'}
    assert suggest(machine(DEBIAN, AMD, LOADER, MESA, own)).backend is Backend.CPU
    assert suggest(machine(INTEL | {"x": ""})).backend is Backend.VULKAN


def test_loader_in_the_cache(machine: Callable[..., Hardware]) -> None:
    cache = {"etc/ld.so.cache": "glibc-ld.so.cache1.1\0/opt/v/libvulkan.so.1\0libvulkan.so.1\0"}
    assert suggest(machine(DEBIAN, AMD, MESA, cache)).backend is Backend.CPU
    assert suggest(machine({"opt/v/libvulkan.so.1": ELF})).backend is Backend.VULKAN


@pytest.mark.parametrize(
    ("system", "processor", "version", "problem", "backend"),
    [
        ("Linux", "riscv64", "", "there is no build for linux on riscv64", Backend.CPU),
        ("FreeBSD", "amd64", "", "there is no build for FreeBSD on x64", Backend.CPU),
        ("Linux", "x86_64", "", "the builds need glibc, which this system does", Backend.CPU),
        ("Darwin", "arm64", "Darwin/RELEASE_ARM64_T6000", "", Backend.METAL),
        ("Darwin", "x86_64", "Darwin/RELEASE_ARM64_T6000", "", Backend.METAL),
        ("Darwin", "x86_64", "Darwin/RELEASE_X86_64", "", Backend.CPU),
    ],
)
def test_systems(
    machine: Callable[..., Hardware],
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    processor: str,
    version: str,
    problem: str,
    backend: Backend,
) -> None:
    """The tree has musl's loader only."""
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: processor)
    monkeypatch.setattr(platform, "version", lambda: version)
    found = machine({"lib/ld-musl-x86_64.so.1": ELF, "etc/os-release": "ID=alpine"})
    assert found.problem.startswith(problem) if problem else not found.problem
    assert suggest(found).backend is backend


@pytest.mark.pure
@pytest.mark.parametrize(
    ("system", "processor", "driver", "capability", "newest"),
    [
        ("linux", "x64", "580.95.05", 8.9, 13),
        ("linux", "x64", "1000.1", 12.0, 13),
        ("linux", "x64", "580.65", 7.0, 12),
        ("linux", "x64", "580.65", None, 12),
        ("linux", "x64", "535.183.01", 9.0, 12),
        ("linux", "x64", "525.60.13", 6.1, 12),
        ("linux", "x64", "525.53", 6.1, 0),
        ("linux", "x64", "550.1", 3.7, 0),
        ("linux", "x64", "", None, 0),
        ("linux", "arm64", "580.95", 9.0, 13),
        ("linux", "arm64", "540.3.0", 8.7, 0),
        ("windows", "x64", "528.02", 8.6, 0),
        ("windows", "x64", "528.33", 8.6, 12),
    ],
)
def test_newest_cuda(
    system: str, processor: str, driver: str, capability: float | None, newest: int
) -> None:
    gpu = Gpu(Vendor.NVIDIA, "RTX", driver, capability)
    assert newest_cuda(Hardware(system, processor, (gpu,))) == newest
    # The oldest of several decides.
    old = Gpu(Vendor.NVIDIA, "GTX", driver, 6.1)
    both = newest_cuda(Hardware(system, "x64", (gpu, old)))
    assert both == min(newest, 12) or processor == "arm64"


class Registry:
    """The part of Windows's registry that has the display adapters."""

    HKEY_LOCAL_MACHINE = 0

    def __init__(self, *adapters: dict[str, str]) -> None:
        self._adapters = {f"{at:04}": each for at, each in enumerate(adapters)}

    def OpenKey(self, key: Any, name: str) -> Any:  # noqa: N802
        if key == self.HKEY_LOCAL_MACHINE:
            assert name.endswith("{4d36e968-e325-11ce-bfc1-08002be10318}")
            return self
        return self._adapters[name]

    def QueryInfoKey(self, key: Any) -> tuple[int, int, int]:  # noqa: N802
        return len(self._adapters), 0, 0

    def EnumKey(self, key: Any, at: int) -> str:  # noqa: N802
        return [*self._adapters][at]

    def QueryValueEx(self, key: dict[str, str], name: str) -> tuple[str, int]:  # noqa: N802
        if name not in key:
            raise FileNotFoundError(name)
        return key[name], 1


def adapter(vendor: str, title: str, version: str = "1.2.3.4", **more: str) -> dict[str, str]:
    device = rf"PCI\VEN_{vendor}&DEV_2684"
    return {"MatchingDeviceId": device, "DriverDesc": title, "DriverVersion": version, **more}


RTX = adapter("10DE", "NVIDIA GeForce RTX 4090", "32.0.15.6094", VulkanDriverName="nv-vk64.json")
BASIC = {"DriverDesc": "Microsoft Basic Display Adapter", "MatchingDeviceId": r"ROOT\BasicDisplay"}
VULKAN = {"VulkanDriverName": "driver.json"}


@pytest.mark.parametrize(
    ("adapters", "smi", "processor", "backend", "reason"),
    [
        ([BASIC, {}], None, "AMD64", Backend.CPU, "no GPU was found"),
        ([RTX, BASIC], None, "AMD64", Backend.CUDA, "NVIDIA GeForce RTX 4090 with driver 560.94"),
        ([RTX], "RTX 4090, 560.94, 8.9", "AMD64", Backend.CUDA, "RTX 4090 with driver 560.94"),
        (
            [{**RTX, "DriverVersion": "30.0.14.7111"}],
            None,
            "AMD64",
            Backend.VULKAN,
            "NVIDIA GeForce RTX 4090 with driver 471.11",
        ),
        ([adapter("1002", "AMD Radeon", **VULKAN)], None, "AMD64", Backend.VULKAN, "AMD Radeon"),
        ([adapter("1002", "AMD Radeon")], None, "AMD64", Backend.CPU, "AMD Radeon cannot be used"),
        ([adapter("8086", "Intel Arc", **VULKAN)], None, "AMD64", Backend.VULKAN, "Intel Arc"),
        ([adapter("8086", "Intel Arc", **VULKAN)], None, "ARM64", Backend.CPU, "Intel Arc cannot"),
    ],
)
def test_windows(
    machine: Callable[..., Hardware],
    monkeypatch: pytest.MonkeyPatch,
    adapters: list[dict[str, str]],
    smi: str | None,
    processor: str,
    backend: Backend,
    reason: str,
) -> None:
    monkeypatch.setitem(sys.modules, "winreg", Registry(*adapters))
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.setattr(platform, "machine", lambda: processor)
    found = suggest(machine(smi=smi))
    assert found.backend is backend
    assert found.reason.startswith(reason)


def test_windows_without_a_readable_registry(
    machine: Callable[..., Hardware], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError

    broken = SimpleNamespace(OpenKey=refuse, HKEY_LOCAL_MACHINE=0)
    monkeypatch.setitem(sys.modules, "winreg", broken)
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    assert machine().gpus == ()


def test_this_machine() -> None:
    """The real one, whatever it has."""
    found = detect()
    assert found.system in ("linux", "macos")
    assert suggest(found).reason
