"""Where LM Studio runs its models: with LM Link it lists those of other devices as its own.

Its API does not say. Its command `lms` does, but takes a second or two; and a model that has the
size of a file in LM Studio's folder is taken to be that file. Listing the models is left to
`lmstudio`.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping

from pydantic import RootModel, ValidationError

from llm_localrun.gguf.files import shard_of
from llm_localrun.models import EndpointReport, LocalModel, RunsOn, ServerStatus
from llm_localrun.names.roles import is_projector_name
from llm_localrun.privacy import is_loopback
from llm_localrun.servers.lmstudio_home import bundled_models, lmstudio_home, models_folder
from llm_localrun.system.paths import user_home
from llm_localrun.wire.shapes import Entries, Text, WireModel

_LMS_TIMEOUT_S = 15.0
"""`lms` starts Node, and LM Studio may be busy."""
_SIZE_TOLERANCE = 0.01
"""Share of a size: which of the small files next to a model LM Studio counts is not documented."""


def locate(report: EndpointReport, *, thorough: bool) -> EndpointReport:
    """A report on an LM Studio with where each of its models runs, as far as that is known.

    `thorough` asks `lms`, which takes seconds.
    """
    if report.status is not ServerStatus.ANSWERS or not is_loopback(report.endpoint.url):
        return report
    if thorough and (devices := _ask_lms()) is not None:
        report = report.model_copy(update={"devices": devices})
    here = set[str]()
    if any(model.runs_on is RunsOn.UNKNOWN for model in report.models):
        sizes = [*_sizes_on_disk()]
        here = {m.name for m in report.models if m.size and _is_among(m.size, sizes)}
    models = (_located(model, report.devices or {}, here) for model in report.models)
    return report.model_copy(update={"models": tuple(models)})


def _located(model: LocalModel, devices: Mapping[str, str], here: set[str]) -> LocalModel:
    """What `lms` says comes before the files here: a preferred device wins over a local copy."""
    key = model.name.rpartition("@")[0] if model.size is None else model.name
    device = devices.get(model.name, devices.get(key))
    if device:
        return model.with_served(runs_on=RunsOn.ANOTHER_MACHINE, remote_host=device)
    if device is None and key not in here:
        return model
    return model.with_served(runs_on=RunsOn.THIS_MACHINE, remote_host="")


def _is_among(size: int, sizes: Iterable[tuple[int, int]]) -> bool:
    return any(
        least * (1 - _SIZE_TOLERANCE) <= size <= most * (1 + _SIZE_TOLERANCE)
        for least, most in sizes
    )


def _sizes_on_disk() -> Iterator[tuple[int, int]]:
    """The bytes of each model in LM Studio's folders: by itself, and with what may be counted."""
    user = user_home()
    for root in (models_folder(user), bundled_models(user)):
        for publisher in filter(os.DirEntry.is_dir, _listing(root)):
            for repository in filter(os.DirEntry.is_dir, _listing(publisher)):
                files = filter(os.DirEntry.is_file, _listing(repository))
                yield from _sizes({file.name: _size_of(file) for file in files})


def _listing(folder: "os.PathLike[str]") -> list["os.DirEntry[str]"]:
    """The entries of a folder; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [*entries]
    except (OSError, ValueError):
        return []


def _size_of(file: "os.DirEntry[str]") -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _sizes(files: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """The models in one folder: each GGUF file, all its parts together, and MLX weights."""
    ggufs: dict[str, int] = {}
    projectors = 0
    for name, size in files.items():
        stem, _, suffix = name.rpartition(".")
        if suffix.lower() != "gguf":
            continue
        if is_projector_name(stem):
            projectors += size
        else:
            whole = (shard_of(stem) or [stem])[0]
            ggufs[whole] = ggufs.get(whole, 0) + size
    yield from ((size, size + projectors) for size in ggufs.values())
    if weights := sum(size for name, size in files.items() if name.endswith(".safetensors")):
        yield weights, sum(files.values())


class _LinkedDevice(WireModel):
    deviceIdentifier: Text  # noqa: N815  # as `lms` prints it
    deviceName: Text  # noqa: N815  # as `lms` prints it


class _LinkStatus(WireModel):
    """`lms link status --json`."""

    status: Text
    peers: Entries[_LinkedDevice] = ()


class _DownloadedModel(WireModel):
    modelKey: Text  # noqa: N815  # as `lms` prints it
    deviceIdentifier: Text | None = None  # noqa: N815  # as `lms` prints it


class _DownloadedModels(RootModel[Entries[_DownloadedModel]]):
    """`lms ls --json`."""


def _ask_lms() -> dict[str, str] | None:
    """The device that has each model, by its key, "" for this one; None if `lms` does not say."""
    try:
        link = _LinkStatus.model_validate_json(_lms("link", "status", "--json"))
        models = _DownloadedModels.model_validate_json(_lms("ls", "--json")).root
    except ValidationError:
        return None
    names = {peer.deviceIdentifier: peer.deviceName for peer in link.peers}
    if link.status != "online" or not names:
        return {model.modelKey: "" for model in models}
    return {
        model.modelKey: names.get(model.deviceIdentifier, "another device")
        if model.deviceIdentifier
        else ""
        for model in models
    }


def _lms(*arguments: str) -> bytes:
    """What `lms` prints; nothing if it is not installed, fails, or takes too long."""
    import subprocess

    own = str(lmstudio_home(user_home()) / "bin")
    command = shutil.which("lms", path=own) or shutil.which("lms")
    if command is None:
        return b""
    try:
        done = subprocess.run(
            [command, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LMS_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return b""
    return done.stdout
