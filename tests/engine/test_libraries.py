"""What a build lacks, from what the system says, and what to install."""

import os
import signal
from pathlib import Path

import pytest

from llm_localrun.engine.libraries import lack_in

_IN_CPU = "it uses instructions that this CPU lacks"
_OPEN = "cannot open shared object file: No such file or directory"
_LOADING = "/x/llama-server: error while loading shared libraries:"


@pytest.mark.parametrize(
    ("output", "status", "problem", "remedy"),
    [
        (
            f"{_LOADING} libgomp.so.1: {_OPEN}",
            127,
            "libgomp.so.1 is missing",
            "apt install libgomp1",
        ),
        (f"{_LOADING} libssl.so.3: {_OPEN}", 127, "libssl.so.3 is missing", "apt install libssl3"),
        (f"ImportError: libstdc++.so.6: {_OPEN}", 1, "libstdc++.so.6 is", "apt install libstdc++6"),
        (
            f"OSError: libvulkan.so.1: {_OPEN}",
            1,
            "libvulkan.so.1 is missing",
            "apt install libvulk",
        ),
        (
            f"OSError: libcuda.so.1: {_OPEN}",
            1,
            "libcuda.so.1 is missing",
            "Install NVIDIA's driver",
        ),
        (f"OSError: libcudart.so.13: {_OPEN}", 1, "libcudart.so.13 is", "Install the build again"),
        (
            f"OSError: libggml-base.so.0: {_OPEN}",
            1,
            "libggml-base.so.0 is",
            "Install the build again",
        ),
        (f"OSError: librocblas.so.5: {_OPEN}", 1, "librocblas.so.5 is missing", "Install ROCm, or"),
        (f"OSError: libodd-1.so.5: {_OPEN}", 1, "libodd-1.so.5 is missing", "Install the package"),
        (
            "dyld[1]: Library not loaded: @rpath/libomp.dylib\n  Referenced from: <1> /x/server",
            -6,
            "libomp.dylib is missing",
            "Install the package that has it",
        ),
        (
            "/x/llama-server: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found"
            " (required by /x/libggml-base.so)",
            1,
            "it needs glibc 2.38, and this system has 2.35",
            "Update the system to a release with it, or use the engine without a GPU: llm install",
        ),
        (
            "/lib/libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by /x/llama-server)",
            1,
            "it needs a newer libstdc++ (GLIBCXX_3.4.32)",
            "Use the engine without a GPU",
        ),
        (
            "ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient for"
            " CUDA runtime version",
            0,
            "NVIDIA's driver is too old for it",
            "Update NVIDIA's driver, or use Vulkan: llm localrun engine install vulkan",
        ),
        (
            "CUDA error: the provided PTX was compiled with an unsupported toolchain.",
            -6,
            "NVIDIA's driver is too old for it",
            "Update NVIDIA's driver",
        ),
        (
            "CUDA error: no kernel image is available for execution on the device",
            -6,
            "it has no code for this NVIDIA GPU",
            "Use Vulkan",
        ),
        ("", -signal.SIGILL, _IN_CPU, "Install another build"),
        ("", 132, _IN_CPU, "Install another build"),
        ("", 0xC000001D, _IN_CPU, "Install another build"),
        ("", 0xC0000135, "a DLL is missing", "Install Microsoft's C++ runtime: winget install"),
        ("", 0xC000007B, "it is for another kind of processor", "Install another build"),
        # A library that is missing is the cause of a crash.
        (
            f"{_LOADING} libgomp.so.1: {_OPEN}",
            132,
            "libgomp.so.1 is missing",
            "apt install libgomp1",
        ),
    ],
)
def test_what_is_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    output: str,
    status: int,
    problem: str,
    remedy: str,
) -> None:
    monkeypatch.setattr(os, "confstr", lambda _: "glibc 2.35", raising=False)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "os-release").write_text("ID=debian")
    found = lack_in(output, status, tmp_path)
    assert found is not None
    assert found.problem.startswith(problem)
    assert found.remedy.removeprefix("Install it: ").startswith(remedy)


@pytest.mark.parametrize(
    ("output", "status"), [("", 0), ("", 1), ("", -11), ("error: invalid argument: --fit", 1)]
)
def test_nothing_is_missing(output: str, status: int) -> None:
    assert lack_in(output, status) is None


@pytest.mark.parametrize(
    ("release", "remedy"),
    [
        ("ID=fedora", "Install it: dnf install libgomp"),
        ("ID=arch", "Install it: pacman -S gcc-libs"),
        ("ID=opensuse-leap", "Install it: zypper install libgomp1"),
        ("ID=gentoo", "Install its package (Debian, Ubuntu: libgomp1; Fedora: libgomp)"),
        (None, "Install its package (Debian, Ubuntu: libgomp1; Fedora: libgomp)"),
    ],
)
def test_by_distribution(tmp_path: Path, release: str | None, remedy: str) -> None:
    if release:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc" / "os-release").write_text(release)
    found = lack_in(f"{_LOADING} libgomp.so.1: {_OPEN}", 127, tmp_path)
    assert found is not None
    assert found.remedy == remedy
