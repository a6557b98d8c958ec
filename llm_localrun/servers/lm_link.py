"""Where LM Studio runs its models: with LM Link it lists those of other devices as its own.

Its API does not tell. Its command `lms` does, but takes a second or two; and a model that takes as
much room as a file in LM Studio's folder is taken to be that file.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping

from pydantic import RootModel, ValidationError

from llm_localrun.gguf.files import is_projector_name, shard_of
from llm_localrun.models import EndpointReport, LocalModel, RunsOn, ServerStatus
from llm_localrun.privacy import is_loopback
from llm_localrun.servers.lmstudio_home import bundled_models, lmstudio_home, models_folder
from llm_localrun.system.paths import user_home
from llm_localrun.wire.shapes import Text, WireModel

_PATIENCE = 15.0
"""Seconds that `lms` may take: it starts Node, and LM Studio may be busy."""
_TOLERANCE = 0.01
"""Of a size: nobody says which of the small files beside a model LM Studio counts."""


def placed(report: EndpointReport) -> EndpointReport:
    """A report on an LM Studio with where each of its models runs, as far as that is known."""
    if not _may_be_linked(report):
        return report
    here = set[str]()
    if any(model.runs_on == RunsOn.UNKNOWN for model in report.models):
        sizes = [*_sizes_on_disk()]
        here = {m.name for m in report.models if m.size and _is_among(m.size, sizes)}
    models = (_placed(model, report.devices or {}, here) for model in report.models)
    return report.model_copy(update={"models": tuple(models)})


def with_devices(reports: Iterable[EndpointReport]) -> tuple[EndpointReport, ...]:
    """`reports` with what `lms` says of the models of LM Studio, if it answers."""
    reports = tuple(reports)
    if not any(_may_be_linked(report) for report in reports):
        return reports
    devices = _ask_lms()
    if devices is None:
        return reports
    return tuple(
        placed(report.model_copy(update={"devices": devices})) if _may_be_linked(report) else report
        for report in reports
    )


def _may_be_linked(report: EndpointReport) -> bool:
    is_lmstudio = report.endpoint.kind == "lmstudio" and report.status == ServerStatus.ANSWERS
    return is_lmstudio and is_loopback(report.endpoint.url)


def _placed(model: LocalModel, devices: Mapping[str, str], here: set[str]) -> LocalModel:
    """What `lms` has said goes before what lies here: a preferred device wins over a local copy."""
    key = model.name.rpartition("@")[0] if model.size is None else model.name
    device = devices.get(model.name, devices.get(key))
    if device:
        return model.with_served(runs_on=RunsOn.ANOTHER_MACHINE, remote_host=device)
    if device is None and key not in here:
        return model
    return model.with_served(runs_on=RunsOn.THIS_MACHINE, remote_host="")


def _is_among(size: int, sizes: Iterable[tuple[int, int]]) -> bool:
    return any(least * (1 - _TOLERANCE) <= size <= most * (1 + _TOLERANCE) for least, most in sizes)


def _sizes_on_disk() -> Iterator[tuple[int, int]]:
    """The bytes of each model in LM Studio's folders: by itself, and with what may be counted."""
    user = user_home()
    for root in (models_folder(user), bundled_models(user)):
        for publisher in filter(os.DirEntry.is_dir, _listing(root)):
            for repository in filter(os.DirEntry.is_dir, _listing(publisher)):
                files = filter(os.DirEntry.is_file, _listing(repository))
                yield from _sizes({file.name: _size_of(file) for file in files})


def _listing(folder: "os.PathLike[str]") -> list["os.DirEntry[str]"]:
    """What is in a folder, as far as it can be read; a link is what it points to."""
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


class _Peer(WireModel):
    deviceIdentifier: Text  # noqa: N815  # as `lms` prints it
    deviceName: Text  # noqa: N815  # as `lms` prints it


class _Status(WireModel):
    """`lms link status --json`."""

    status: Text
    peers: tuple[_Peer, ...] = ()


class _Downloaded(WireModel):
    modelKey: Text  # noqa: N815  # as `lms` prints it
    deviceIdentifier: Text | None = None  # noqa: N815  # as `lms` prints it


class _Models(RootModel[tuple[_Downloaded, ...]]):
    """`lms ls --json`."""


def _ask_lms() -> dict[str, str] | None:
    """The device that each model is on, by its key, "" for this one; None if nobody says."""
    try:
        link = _Status.model_validate_json(_lms("link", "status", "--json"))
        models = _Models.model_validate_json(_lms("ls", "--json")).root
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
    """What `lms` prints; nothing if it is not there, fails, or takes too long."""
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
            timeout=_PATIENCE,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return b""
    return done.stdout
