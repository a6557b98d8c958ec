"""Which archives of which release a machine gets, and who says what their SHA-256 is."""

from collections.abc import Iterator
from typing import Any

import pytest

from llm_localrun.engine.hardware import Gpu, Hardware, Vendor
from llm_localrun.engine.installed import Backend, HashOrigin
from llm_localrun.errors import ConfigError, InstallFailed, LocalRunError, PullFailed
from llm_localrun.pull.releases import (
    LATEST,
    MIRROR_VARIABLE,
    PINNED_TAG,
    Release,
    find_release,
    is_tag,
)
from tests.fakes.http_server import StandIn, text, whole
from tests.fakes.hub import sha256
from tests.fakes.releases import Releases, limited

NAMES = {
    # The files of b11211, and what else a release may have.
    *("ubuntu-x64.tar.gz", "ubuntu-arm64.tar.gz", "ubuntu-vulkan-x64.tar.gz"),
    *("ubuntu-vulkan-arm64.tar.gz", "ubuntu-cuda-12.8-x64.tar.gz", "ubuntu-cuda-13.4-x64.tar.gz"),
    *("ubuntu-cuda-13.4-arm64.tar.gz", "ubuntu-rocm-10.0-x64.tar.gz", "macos-arm64.tar.gz"),
    *("ubuntu-sycl-fp16-x64.tar.gz", "ubuntu-openvino-2026.4-x64.tar.gz", "macos-x64.tar.gz"),
    *("win-cpu-x64.zip", "win-cpu-arm64.zip", "win-vulkan-x64.zip", "win-cuda-12.4-x64.zip"),
    *("win-cuda-13.4-x64.zip", "win-rocm-10.0-x64.zip", "win-sycl-x64.zip"),
    *("win-opencl-adreno-arm64.zip", "ubuntu-cuda-13.10-x64.tar.gz"),
}
RUNTIMES = {
    *("cudart-llama-b7-bin-ubuntu-cuda-12.8-x64.tar.gz", "cudart-llama-bin-win-cuda-12.4-x64.zip"),
    *("cudart-llama-b7-bin-ubuntu-cuda-13.4-x64.tar.gz", "cudart-llama-bin-win-cuda-13.4-x64.zip"),
    "cudart-llama-b7-bin-ubuntu-cuda-13.4-arm64.tar.gz",
    "cudart-llama-b7-bin-ubuntu-cuda-13.10-x64.tar.gz",
    "cudart-llama-b7-bin-ubuntu-cuda-14.0-x64.tar.gz",
}
B7 = {name: name.encode() for name in (*(f"llama-b7-bin-{name}" for name in NAMES), *RUNTIMES)}


def machine(system: str, processor: str, driver: str = "", capability: float = 8.9) -> Hardware:
    gpu = Gpu(Vendor.NVIDIA, "NVIDIA RTX 4090", driver, capability)
    return Hardware(system, processor, (gpu,) if driver else ())


LINUX = machine("linux", "x64", "580.95.05")
ARM = machine("linux", "arm64", "580.1")
WINDOWS = machine("windows", "x64", "551.61")


@pytest.fixture
def releases() -> Releases:
    return Releases({"b7": dict(B7)})


@pytest.fixture
def mirror(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with StandIn(releases) as server:
        monkeypatch.setenv(MIRROR_VARIABLE, f"{server.url}/")
        yield server


def short(release: Release) -> list[str]:
    return [archive.name.replace("llama-b7-bin-", "") for archive in release.archives]


CUDA, VULKAN, CPU = Backend.CUDA, Backend.VULKAN, Backend.CPU
FITTING = [
    (LINUX, CPU, ["ubuntu-x64.tar.gz"]),
    (ARM, CPU, ["ubuntu-arm64.tar.gz"]),
    (LINUX, VULKAN, ["ubuntu-vulkan-x64.tar.gz"]),
    (LINUX, Backend.ROCM, ["ubuntu-rocm-10.0-x64.tar.gz"]),
    (LINUX, CUDA, ["ubuntu-cuda-13.10-x64.tar.gz", "cudart-ubuntu-cuda-13.10-x64.tar.gz"]),
    (ARM, CUDA, ["ubuntu-cuda-13.4-arm64.tar.gz", "cudart-ubuntu-cuda-13.4-arm64.tar.gz"]),
    (WINDOWS, CPU, ["win-cpu-x64.zip"]),
    (WINDOWS, VULKAN, ["win-vulkan-x64.zip"]),
    (WINDOWS, Backend.ROCM, ["win-rocm-10.0-x64.zip"]),
    (WINDOWS, CUDA, ["win-cuda-12.4-x64.zip", "cudart-llama-bin-win-cuda-12.4-x64.zip"]),
    (machine("macos", "arm64"), Backend.METAL, ["macos-arm64.tar.gz"]),
    (machine("macos", "x64"), CPU, ["macos-x64.tar.gz"]),
]


@pytest.mark.parametrize(("hardware", "backend", "names"), FITTING)
def test_archives_of_a_machine(
    mirror: StandIn, hardware: Hardware, backend: Backend, names: list[str]
) -> None:
    release = find_release(hardware, backend, "b7")
    assert short(release) == names
    assert release.hash_origin is HashOrigin.LISTING
    assert [archive.sha256 for archive in release.archives] == [
        sha256(B7[archive.name]) for archive in release.archives
    ]
    assert release.size == sum(len(B7[archive.name]) for archive in release.archives)
    folder = f"{mirror.url}/ggml-org/llama.cpp/releases/download/b7"
    assert {release.source(each).url for each in release.archives} == {
        f"{folder}/{archive.name}" for archive in release.archives
    }
    assert [request.path for request in mirror.requests] == [
        "/repos/ggml-org/llama.cpp/releases/tags/b7"
    ]


DRIVERS = [("580.95", 8.9, "13.10"), ("579.99", 8.9, "12.8"), ("580.95", 6.1, "12.8")]


@pytest.mark.parametrize(("driver", "capability", "version"), DRIVERS)
def test_the_version_of_cuda(mirror: StandIn, driver: str, capability: float, version: str) -> None:
    release = find_release(machine("linux", "x64", driver, capability), CUDA, "b7")
    assert short(release) == [f"{kind}ubuntu-cuda-{version}-x64.tar.gz" for kind in ("", "cudart-")]
    assert release.has_cuda_runtime


@pytest.mark.parametrize("driver", ["470.82", ""])
def test_a_driver_without_cuda(mirror: StandIn, driver: str) -> None:
    with pytest.raises(
        InstallFailed, match="No NVIDIA GPU here has a driver that builds"
    ) as failure:
        find_release(machine("linux", "x64", driver), CUDA, "b7")
    assert ("Update NVIDIA's driver from 470.82" in failure.value.remedy) == bool(driver)


def test_a_machine_without_builds() -> None:
    hardware = Hardware("linux", "x64", problem="the builds need glibc")
    with pytest.raises(InstallFailed, match="can be installed: the builds need glibc"):
        find_release(hardware, CPU, PINNED_TAG)


def test_a_release_without_a_build(mirror: StandIn) -> None:
    with pytest.raises(InstallFailed, match="The release b7 has no build for ROCm on linux arm64"):
        find_release(ARM, Backend.ROCM, "b7")


@pytest.mark.parametrize("hardware", [LINUX, WINDOWS])
def test_metal_is_for_macos(mirror: StandIn, hardware: Hardware) -> None:
    """The names of builds for Metal have no word for it, like those for the CPU."""
    with pytest.raises(
        InstallFailed, match=r"llama\.cpp has no build for Metal on (linux|windows)"
    ):
        find_release(hardware, Backend.METAL, "b7")
    assert mirror.requests == []


def test_a_file_of_an_impossible_size(mirror: StandIn, releases: Releases) -> None:
    del releases.content["b7"]["llama-b7-bin-ubuntu-x64.tar.gz"]
    releases.odd_entries = ODD[-1:]
    with pytest.raises(InstallFailed, match="The release b7 has no build for the CPU"):
        find_release(LINUX, CPU, "b7")


def test_a_build_for_cuda_whose_libraries_are_missing(mirror: StandIn, releases: Releases) -> None:
    """They may still be uploading."""
    del releases.content["b7"]["cudart-llama-b7-bin-ubuntu-cuda-13.10-x64.tar.gz"]
    release = find_release(LINUX, CUDA, "b7")
    assert short(release) == [f"{kind}ubuntu-cuda-13.4-x64.tar.gz" for kind in ("", "cudart-")]


# Pinned hashes

PINNED = [
    (LINUX, CPU, 17_637_234),
    (ARM, CPU, 13_667_865),
    (LINUX, CUDA, 152_344_197 + 440_236_642),
    (ARM, CUDA, 147_596_012 + 552_521_398),
    (machine("linux", "x64", "535.183"), CUDA, 171_499_631 + 594_377_794),
    (machine("macos", "arm64"), Backend.METAL, 11_915_952),
]


@pytest.mark.parametrize(("hardware", "backend", "size"), PINNED)
def test_the_pinned_release_needs_no_list(
    mirror: StandIn, hardware: Hardware, backend: Backend, size: int
) -> None:
    release = find_release(hardware, backend, PINNED_TAG)
    assert (release.size, release.hash_origin) == (size, HashOrigin.PINNED)
    assert all(len(archive.sha256) == 64 for archive in release.archives)
    assert mirror.requests == []


def test_files_of_the_pinned_release_without_a_pinned_hash(
    mirror: StandIn, releases: Releases
) -> None:
    name = f"llama-{PINNED_TAG}-bin-ubuntu-vulkan-x64.tar.gz"
    releases.content[PINNED_TAG] = {name: b"vulkan"}
    release = find_release(LINUX, VULKAN, PINNED_TAG)
    assert release.hash_origin is HashOrigin.LISTING
    assert [archive.sha256 for archive in release.archives] == [sha256(b"vulkan")]


def test_a_list_does_not_override_a_pinned_hash(mirror: StandIn, releases: Releases) -> None:
    name = f"llama-{PINNED_TAG}-bin-ubuntu-x64.tar.gz"
    releases.content = {PINNED_TAG: {name: b"another"}}
    release = find_release(LINUX, CPU, LATEST)
    assert release.hash_origin is HashOrigin.PINNED
    assert release.archives[0].sha256.startswith("b620b4143ab9")


# Lists


@pytest.mark.parametrize("older", ["b6", "v0.5.0"])
def test_the_newest_release_with_a_build(mirror: StandIn, releases: Releases, older: str) -> None:
    """The newest may still be uploading, and releases with a version have no builds."""
    releases.content = {older: {"llama-b6-bin-ubuntu-arm64.tar.gz": b""}, **releases.content}
    assert find_release(LINUX, CPU, LATEST).tag == "b7"
    releases.content = {"b8": {"llama-b8-bin-ubuntu-x64.tar.gz": b"8"}, **releases.content}
    assert find_release(LINUX, CPU, LATEST).tag == "b8"


ODD: list[Any] = [
    *(None, 1, "text", [], {}, {"name": 1}, {"name": "x", "size": "large"}),
    {"name": "llama-b7-bin-ubuntu-x64.tar.gz", "size": -1, "digest": None},
    {
        "name": "llama-b7-bin-ubuntu-x64.tar.gz/../../evil",
        "size": 1,
        "digest": "sha256:" + "0" * 64,
    },
    {"name": "x-llama-b7-bin-ubuntu-x64.tar.gz", "size": 1, "digest": "sha256:" + "0" * 64},
    {
        "name": "llama-b7-bin-ubuntu-x64.tar.gz",
        "size": 1,
        "digest": "sha256:" + "0" * 64,
        "state": "starter",
    },
    {"name": "llama-b7-bin-ubuntu-x64.tar.gz", "size": 2**60, "digest": "sha256:" + "0" * 64},
]


def test_bad_entries_cost_themselves(mirror: StandIn, releases: Releases) -> None:
    releases.odd_entries = ODD
    release = find_release(LINUX, CPU, "b7")
    assert release.archives[0].sha256 == sha256(B7["llama-b7-bin-ubuntu-x64.tar.gz"])


@pytest.mark.parametrize("digest", [None, "", "md5:00", "sha256:zz", "sha256:" + "0" * 63])
def test_a_file_without_a_hash(mirror: StandIn, releases: Releases, digest: str | None) -> None:
    releases.digests = {"llama-b7-bin-ubuntu-x64.tar.gz": digest}
    with pytest.raises(InstallFailed, match="has no SHA-256 for llama-b7-bin-ubuntu-x64"):
        find_release(LINUX, CPU, "b7")


NOW = 1_800_000_000
"""Seconds of the epoch."""
REFUSALS: list[tuple[bytes, type[LocalRunError], str]] = [
    (limited(NOW + 1790), PullFailed, r"too many requests from you \(HTTP 403\)\. Try again in 30"),
    (limited(NOW + 20, 429), PullFailed, r"\(HTTP 429\)\. Try again in 1 minute\.$"),
    (limited(NOW - 20), PullFailed, r"Try again in 1 minute\."),
    (text("no", 403), PullFailed, r"did not send the list of releases: .*\(HTTP 403\)\. Check LLM"),
    (text("no", 404), InstallFailed, "The release b7 does not exist at 127.0.0.1"),
    (text("no", 502), PullFailed, "cannot be fetched from 127.0.0.1.*it answered with HTTP 502"),
    (b"", PullFailed, "cannot be fetched"),
    (text("<html>", 200), InstallFailed, "did not answer with a list of releases"),
    (whole(b"null"), InstallFailed, "did not answer with a list"),
    (whole(b"[]"), InstallFailed, "did not answer with a list"),
    (whole(b'{"assets": []}'), InstallFailed, "did not answer with a list"),
    (whole(b'{"tag_name": "../../x", "assets": []}'), InstallFailed, "the release '../../x' in"),
    (whole(b'{"tag_name": "b5"}'), InstallFailed, "answered with the release 'b5' in place of b7"),
    (whole(b"[" * 100_000), InstallFailed, "did not answer with a list"),
    (whole(b" " * (2**24 + 1)), InstallFailed, "did not answer with a list"),
]


@pytest.mark.parametrize(("refusal", "error", "why"), REFUSALS)
def test_what_the_list_may_be(
    mirror: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    releases: Releases,
    refusal: bytes,
    error: type[LocalRunError],
    why: str,
) -> None:
    monkeypatch.setattr("llm_localrun.pull.http_files.time.time", lambda: float(NOW))
    releases.refusal = refusal
    with pytest.raises(error, match=why) as failure:
        find_release(LINUX, CPU, "b7")
    assert "\n" not in str(failure.value)


def test_no_network(mirror: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MIRROR_VARIABLE, "http://127.0.0.1:9")
    with pytest.raises(PullFailed, match=r"cannot be fetched from 127\.0\.0\.1:9: .*refused"):
        find_release(LINUX, CPU, LATEST)


@pytest.mark.parametrize(
    "address",
    [
        "http://mirror.example",
        "ftp://mirror.example",
        "mirror.example",
        "https://me:pw@mirror.example",
    ],
)
def test_unsafe_mirrors(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv(MIRROR_VARIABLE, address)
    with pytest.raises(ConfigError, match="which is not safe to install from") as failure:
        find_release(LINUX, CPU, LATEST)
    assert "pw" not in str(failure.value)


def test_without_a_mirror() -> None:
    release = find_release(LINUX, CPU, PINNED_TAG)
    assert release.folder_url == ("https://github.com/ggml-org/llama.cpp/releases/download/b11391")


@pytest.mark.parametrize(
    "tag", ["", "b", "b01", "b\u0661", "11391", "v0.5", "b1/../..", "b1\n", "latest"]
)
def test_what_is_no_tag(tag: str) -> None:
    assert not is_tag(tag)
    assert is_tag("b11391")
