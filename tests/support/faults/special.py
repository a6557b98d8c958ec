"""Special files as a model, in a scanned folder, as files of ours and as settings of others.

A trial is clean if each command ends by itself, without a traceback: it does its work, or says one
error in one sentence.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.support.faults.command import Home, Ran
from tests.support.faults.engine import problem_of
from tests.support.faults.trial import GB, Result, Trial
from tests.support.hostile_files import Content, source
from tests.support.special_files import SPECIAL

GROUP = "special files"
_MAX_SECONDS = 90.0

MODEL, SCANNED, PROJECTOR, ATTACHED = "files/x.gguf", "folder/x.gguf", "mmproj-x.gguf", "image.png"
_OURS = (
    *("config.json", "names.json", "catalogue.json", "known-files.json", "failed-loads.json"),
    *(
        "builds.json",
        "failed-builds.json",
        "tokens.json",
        "models/pulled.json",
        "engine",
        "prompts",
        "models",
    ),
    "engine/1-00000000.json",
)
_OTHERS = (
    *(".lmstudio-home-pointer", ".lmstudio/settings.json", ".docker/models/models.json"),
    *("gguf/models.json", ".config/nomic.ai/GPT4All.ini", ".local/share/Jan/settings.json"),
    ".ollama/models/manifests/registry.ollama.ai/library/x/latest",
    ".lmstudio/.internal/http-server-config.json",
    ".omlx/settings.json",
)
PLACES = (
    *(MODEL, SCANNED, f"files/{PROJECTOR}", "files/lora.gguf", "files/draft.gguf"),
    *(f"localrun/{name}" for name in _OURS),
    *_OTHERS,
)
"""Where a special file lies in the home."""
_LIST = ("localrun", "models", "--json")
_DOCTOR = ("localrun", "doctor", "--json")
_PROMPT = ("-m", "local", "hi", "-o", "max_tokens", "2", "-o", "timeout", "10")


def trials(starter: Path, guard_bytes: int) -> Iterator[Trial]:
    base = source(starter)
    for place in PLACES:
        for what in SPECIAL:
            yield Trial(GROUP, f"{what} as {place}", partial(_try, base, place, what, guard_bytes))


def commands(place: str, home: Path) -> list[tuple[str, ...]]:
    """The commands that have to do with a place."""
    model = str(home / "localrun" / "models" / "healthy.gguf")
    short = ("-o", "max_tokens", "2", "-o", "timeout", "10")
    if place == MODEL:
        return [("-m", str(home / place), "hi", *short)]
    if place.startswith("files/mmproj"):
        return [("-m", str(home / "files" / "healthy.gguf"), "hi", *short)]
    if place.startswith("files/"):
        option = "lora" if "lora" in place else "draft_model"
        return [("-m", model, "hi", *short, "-o", option, str(home / place))]
    if place.startswith("localrun/"):
        return [_LIST, _PROMPT]
    return [_LIST if place.startswith("folder/") else _DOCTOR]


def _try(base: Content, place: str, what: str, guard_bytes: int) -> Result:
    with Home(guard_bytes) as home:
        home.configure(folders=[str(home.path / "folder")])
        for folder in ("files", "localrun/models", "folder"):
            base.write(home.path / folder / "healthy.gguf")
        path = home.path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            path.rename(path.with_name("before"))
        path.unlink(missing_ok=True)
        SPECIAL[what](path)
        result = Result(1)
        for arguments in commands(place, home.path):
            ran = home.llm(*arguments)
            found = _problem_of(ran)
            name = f"{what} as {place}: llm {' '.join(arguments)[-60:]}"
            bad = (f"{name}: {found}",) if found else ()
            result += Result(0, bad, max(ran.own_peak, ran.engine_peak), ran.seconds)
        # One trial, whichever of its commands fail.
        return Result(1, result.bad[:1], result.peak, result.seconds)


def _problem_of(ran: Ran) -> str:
    if problem := problem_of(ran):
        return problem
    if ran.own_peak > GB:
        return f"the command took {ran.own_peak / 1e6:,.0f} MB"
    return f"{ran.own_seconds:.0f} s" if ran.own_seconds > _MAX_SECONDS else ""
