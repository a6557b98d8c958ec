"""The releases of llama.cpp: the archives that a machine needs, and the SHA-256 they must have.

One release is pinned: the hashes of most of its archives are here, and those need no request.
Others come from the list of a release's files. Names of archives have versions that change
(cuda-12.8, rocm-10.0), so they are matched. Downloading is left to `install`. Sources: the releases
of ggml-org/llama.cpp at b11211 and b11391, GitHub's REST API (2022-11-28).
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import ValidationError

from llm_localrun.engine.hardware import Hardware, newest_cuda, suggest
from llm_localrun.engine.installed import Backend, HashOrigin
from llm_localrun.errors import ConfigError, InstallFailed, PullFailed
from llm_localrun.pull.archive import MAX_BYTES
from llm_localrun.pull.http_files import (
    DownloadInterrupted,
    FileSource,
    is_safe_url,
    request_file,
)
from llm_localrun.system.json_files import parse_json
from llm_localrun.system.logins import shown_address
from llm_localrun.wire.shapes import Count, Entries, Maybe, Text, WireModel

PINNED_TAG = "b11391"
LATEST = "latest"
MIRROR_VARIABLE = "LLM_LOCALRUN_ENGINE_URL"
"""The base of a mirror: see docs/design/installing.md."""
_API, _DOWNLOADS = "https://api.github.com", "https://github.com"
_RELEASES = "ggml-org/llama.cpp/releases"
_MAX_LIST_BYTES = 2**24
_RECENT = 20
"""Releases to look at if the newest has no archive for a machine: it may still be uploading."""
_TAG = re.compile(r"b[1-9][0-9]{0,8}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_SYSTEMS = {"linux": "ubuntu", "macos": "macos", "windows": "win"}
_BACKENDS = {
    Backend.VULKAN: "vulkan-",
    Backend.CUDA: r"cuda-(?P<version>[\d.]+)-",
    Backend.ROCM: r"(?:rocm-(?P<version>[\d.]+)|hip-radeon)-",
}
_TITLES = {
    Backend.CPU: "the CPU",
    Backend.VULKAN: "Vulkan",
    Backend.CUDA: "CUDA",
    Backend.ROCM: "ROCm",
    Backend.METAL: "Metal",
}
_PINNED = {
    f"{name}.tar.gz": (sha256, size)
    for name, sha256, size in (
        (
            "llama-b11391-bin-ubuntu-x64",
            "b620b4143ab92b050e435209d612415c0d3b19d71e6afd60fa6b96458fae891b",
            17_637_234,
        ),
        (
            "llama-b11391-bin-ubuntu-arm64",
            "76f0ede98765d74e6d2e02ce8f0f22f4cbed5c4411ebca8594d13c076d0bc7fb",
            13_667_865,
        ),
        (
            "llama-b11391-bin-ubuntu-cuda-12.8-x64",
            "3a76d8d1b0f3d558d0de2d060283f2da0afac79a9f68dd1486b987b9fedc5bc5",
            171_499_631,
        ),
        (
            "cudart-llama-b11391-bin-ubuntu-cuda-12.8-x64",
            "8cd7789d811ed44d8b5ccc53feb7c1e2a0e3ab92e8e3fc450f43282fb2c81a87",
            594_377_794,
        ),
        (
            "llama-b11391-bin-ubuntu-cuda-13.4-x64",
            "e414fc5c77adbbb0547e76a5bb38672e611de61c74dec3de409e7de443fa3b0d",
            152_344_197,
        ),
        (
            "cudart-llama-b11391-bin-ubuntu-cuda-13.4-x64",
            "d3b2ffdde468f7247a352385c9c92871844e545ad47069bcb8d2adc153c5b10c",
            440_236_642,
        ),
        (
            "llama-b11391-bin-ubuntu-cuda-13.4-arm64",
            "5bca8f1039fef06b8972adc06369044de6e04b155e62d6f91a161623d1a279e1",
            147_596_012,
        ),
        (
            "cudart-llama-b11391-bin-ubuntu-cuda-13.4-arm64",
            "3643a1ff6a6dde792b9bf6cf4dcf731b53503355f443f5d0d9ab4f3f4bcd92ab",
            552_521_398,
        ),
        (
            "llama-b11391-bin-macos-arm64",
            "25d2bb54a394de7c75d11d4b4a678f600704349c5e5a5366443f746d862df27a",
            11_915_952,
        ),
        (
            "llama-b11391-bin-macos-x64",
            "6c6b671a6e54fc50b84ea361e9b2861dd98a542784cca4152ad0c6549931917b",
            11_466_225,
        ),
    )
}
"""The archives of the pinned release, as a public project pins them."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A file of a release. `sha256` is "" if it is not known."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Release:
    """The archives of a release that make a build for one machine."""

    tag: str
    backend: Backend
    archives: tuple[Archive, ...]
    hash_origin: HashOrigin

    @property
    def title(self) -> str:
        return f"llama.cpp {self.tag} for {_TITLES[self.backend]}"

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(archive.size for archive in self.archives)

    @property
    def has_cuda_runtime(self) -> bool:
        return any(archive.name.startswith("cudart") for archive in self.archives)

    @property
    def folder_url(self) -> str:
        """The address of the folder of its archives."""
        return f"{_base(_DOWNLOADS)}/{_RELEASES}/download/{self.tag}"

    def source(self, archive: Archive) -> FileSource:
        advice = f"Check {MIRROR_VARIABLE}" if os.environ.get(MIRROR_VARIABLE) else "Try again"
        return FileSource(f"{self.folder_url}/{archive.name}", token_advice=advice)


class _Asset(WireModel):
    """A file in the list of a release."""

    name: Text
    size: Count
    digest: Maybe[Text] = None
    state: Maybe[Text] = None
    """`uploaded` when it is complete."""


class _Listed(WireModel):
    """A release in GitHub's API."""

    tag_name: Text
    assets: Entries[_Asset] = ()


def is_tag(text: str) -> bool:
    """Whether `text` is the tag of a build: b11391."""
    return _TAG.fullmatch(text) is not None


def find_release(hardware: Hardware, backend: Backend, tag: str) -> Release:
    """The release `tag` with a build for `backend`; the newest that has one for "latest".

    Asks for the list of its files only if not all hashes are pinned. Raises a `LocalRunError`.
    """
    if hardware.problem:
        raise InstallFailed(
            f"No build of llama.cpp can be installed: {hardware.problem}",
            "Models run on xllamacpp: `llm install 'llm-localrun[gguf]'`",
        )
    if (backend is Backend.METAL) != (hardware.system == "macos" and backend is not Backend.CPU):
        raise _no_build("llama.cpp has", hardware, backend)
    if tag == PINNED_TAG:
        pinned = _Listed(tag_name=tag, assets=tuple(_pinned_assets()))
        if release := _choose(hardware, backend, pinned):
            return release
    listed = _newest() if tag == LATEST else [_list_release(tag)]
    found = (_choose(hardware, backend, release) for release in listed)
    if release := next(filter(None, found), None):
        return release
    which = "The newest releases have" if tag == LATEST else f"The release {tag} has"
    raise _no_build(which, hardware, backend)


def _no_build(which: str, hardware: Hardware, backend: Backend) -> InstallFailed:
    return InstallFailed(
        f"{which} no build for {_TITLES[backend]} on {hardware.system} {hardware.processor}",
        "Choose another backend: `llm localrun engine install --help`",
    )


def _pinned_assets() -> Iterator[_Asset]:
    for name, (sha256, size) in _PINNED.items():
        yield _Asset(name=name, size=size, digest=f"sha256:{sha256}")


# The archives for a machine


def _choose(hardware: Hardware, backend: Backend, listed: _Listed) -> Release | None:
    """The archives of `listed` for a machine; None if there are none. Raises `InstallFailed`."""
    if not is_tag(listed.tag_name):
        return None
    pattern = _pattern(hardware, backend, listed.tag_name)
    fits = _cuda_version(hardware) if backend is Backend.CUDA else None
    by_version: dict[tuple[int, ...], dict[bool, _Asset]] = {}
    for asset in listed.assets:
        match = pattern.fullmatch(asset.name)
        if match is None or asset.state not in (None, "uploaded") or asset.size > MAX_BYTES:
            continue
        version = _numbers(match.groupdict().get("version") or "")
        if fits is None or (version and version[0] == fits):
            by_version.setdefault(version, {})[bool(match["runtime"])] = asset
    # One without the other is of no use: the rest of a release may still be uploading.
    parts = {False} if fits is None else {False, True}
    usable = [version for version, found in by_version.items() if found.keys() >= parts]
    if not usable:
        return None
    chosen = [asset for _, asset in sorted(by_version[max(usable)].items())]
    archives = tuple(_archive(asset, listed.tag_name) for asset in chosen)
    is_pinned = all(archive.name in _PINNED for archive in archives)
    origin = HashOrigin.PINNED if is_pinned else HashOrigin.LISTING
    return Release(listed.tag_name, backend, archives, origin)


def _pattern(hardware: Hardware, backend: Backend, tag: str) -> "re.Pattern[str]":
    """Matches the names of the archives for a machine."""
    system = _SYSTEMS.get(hardware.system, "")
    middle = _BACKENDS.get(backend, "cpu-" if hardware.system == "windows" else "")
    runtime = "(?P<runtime>cudart-)?"
    end = rf"{middle}{re.escape(hardware.processor)}\.(?:tar\.gz|zip)"
    return re.compile(rf"{runtime}llama-(?:{tag}-)?bin-{system}-{end}")


def _cuda_version(hardware: Hardware) -> int:
    """The version of CUDA for the GPUs and the driver here. Raises `InstallFailed`."""
    if version := newest_cuda(hardware):
        return version
    raise InstallFailed(
        "No NVIDIA GPU here has a driver that builds for CUDA can use",
        suggest(hardware).missing or "Install another build, such as `llm localrun engine install`",
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,9}", version))


def _archive(asset: _Asset, tag: str) -> Archive:
    """Raises `InstallFailed` if its SHA-256 is not known."""
    if asset.name in _PINNED:
        sha256, size = _PINNED[asset.name]
        return Archive(asset.name, size, sha256)
    match = _DIGEST.fullmatch((asset.digest or "").lower())
    if match is None:
        raise InstallFailed(
            f"The list of the release {tag} has no SHA-256 for {asset.name}",
            "Nothing is installed unchecked. Choose another release with --tag",
        )
    return Archive(asset.name, asset.size, match[1])


# The lists


def _base(default: str) -> str:
    """The address that releases come from: `default`, or the mirror's. Raises `ConfigError`."""
    mirror = (os.environ.get(MIRROR_VARIABLE) or "").strip().rstrip("/")
    if mirror and not is_safe_url(mirror):
        raise ConfigError(
            f"{MIRROR_VARIABLE} is {shown_address(mirror)}, which is not safe to install from",
            "Give an address with https://, or one of this machine, without a user and password",
        )
    return mirror or default


def _list_release(tag: str) -> _Listed:
    listed = _read(_Listed, _fetch(f"tags/{tag}", f"The release {tag} does not exist"))
    if listed.tag_name != tag:
        raise InstallFailed(
            f"{_host()} answered with the release {listed.tag_name[:20]!r} in place of {tag}",
            f"Check {_variables()}",
        )
    return listed


def _newest() -> Iterator[_Listed]:
    """The newest release, and then those before it: some have no archives."""
    missing = "There is no release"
    newest = _read(_Listed, _fetch("latest", missing))
    yield newest
    for entry in _fetch(f"?per_page={_RECENT}", missing) or []:
        try:
            listed = _Listed.model_validate(entry)
        except ValidationError:
            continue
        if listed.tag_name != newest.tag_name:
            yield listed


def _read(shape: type[_Listed], value: object) -> _Listed:
    try:
        return shape.model_validate(value)
    except ValidationError:
        raise _not_a_list() from None


def _not_a_list() -> InstallFailed:
    return InstallFailed(
        f"{_host()} did not answer with a list of releases", f"Check the network and {_variables()}"
    )


def _fetch(what: str, missing: str) -> list[object] | dict[str, object]:
    """A JSON value of GitHub's API for releases. `missing` is what HTTP 404 means."""
    path = _RELEASES + (what if what.startswith("?") else f"/{what}")
    address, advice = f"{_base(_API)}/repos/{path}", f"Check {_variables()}"
    source = FileSource(address, token_advice=advice, what="the list of releases")
    try:
        with request_file(source) as (_, chunks):
            value = parse_json(_limited(chunks))
    except DownloadInterrupted as error:
        raise PullFailed(
            f"The list of llama.cpp's releases cannot be fetched from {source.server}: {error}",
            f"Check the network, or set {MIRROR_VARIABLE} to a mirror",
        ) from None
    except PullFailed as error:
        if error.status != 404:
            raise
        raise InstallFailed(
            f"{missing} at {_host()}", "See https://github.com/ggml-org/llama.cpp/releases"
        ) from None
    if not isinstance(value, list | dict):
        raise _not_a_list()
    return value


def _limited(chunks: Iterable[bytes]) -> bytes:
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > _MAX_LIST_BYTES:
            raise _not_a_list()
    return bytes(data)


def _host() -> str:
    return urlsplit(_base(_API)).netloc


def _variables() -> str:
    return MIRROR_VARIABLE if os.environ.get(MIRROR_VARIABLE) else "the proxy's settings"
