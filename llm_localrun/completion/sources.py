"""What words can become, read from small files: names.json, config.json and others of ours.

A file that is missing or damaged holds nothing. This module imports only what starts fast: pydantic
does not, so what it reads is checked here.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from llm_localrun.name_cache import CachedName, read_names
from llm_localrun.system.atomic import read_own, read_regular
from llm_localrun.system.logins import hide_passwords
from llm_localrun.system.text import cut, printable

_HELP_WIDTH = 60
_BYTES = 2**20
"""Larger state files than this are not read for completion."""


class Candidate(NamedTuple):
    """What a word can become, and what a shell shows beside it."""

    value: str
    help: str = ""


Source: TypeAlias = Callable[[Path], Iterator[Candidate]]
"""Candidates from llm's user directory."""


def matching(found: Iterator[Candidate], typed: str) -> list[Candidate]:
    """The candidates that begin as `typed`, whatever the case, each once.

    Those with characters that cannot be printed are left out: a terminal would obey them.
    """
    begin = typed.lower()
    kept = {
        each.value: Candidate(each.value, cut(printable(each.help), _HELP_WIDTH))
        for each in found
        if each.value.lower().startswith(begin) and printable(each.value) == each.value
    }
    return list(kept.values())


def is_pending(user: Path) -> bool:
    """Whether models are known whose names are still to be made from the catalogue."""
    folder = user / "localrun"
    # Path.exists raises where this returns False: in a folder that is not readable.
    names, catalogue = (os.path.exists(folder / name) for name in ("names.json", "catalogue.json"))  # noqa: PTH110
    return catalogue and not names


def chat_names(user: Path) -> Iterator[Candidate]:
    yield from _models(user, {"chat"})
    yield from _user_aliases(user)


def embedding_names(user: Path) -> Iterator[Candidate]:
    yield from _models(user, {"embedding"})
    yield from _user_aliases(user)


def all_names(user: Path) -> Iterator[Candidate]:
    yield from _models(user, None)


def names_and_aliases(user: Path) -> Iterator[Candidate]:
    yield from _models(user, None)
    yield from _user_aliases(user)


def pulled(user: Path) -> Iterator[Candidate]:
    """Models that were pulled, by their names and by what was pulled."""
    refs = dict(_pulls(user))
    for each in _cached(user):
        if ref := refs.get(each.id.split("/", 2)[-1]):
            yield from _names_of(each, ref)
    yield from (Candidate(ref, "pulled") for ref in refs.values())


def loaded(user: Path) -> Iterator[Candidate]:
    """The models of the engines that run, or that ended without removing their files."""
    for path in _listed(user / "localrun" / "engine", "*-*.json"):
        spec = _object(_json(path)).get("spec")
        if isinstance(name := _object(spec).get("name"), str):
            yield Candidate(name, "in the engine's memory")


def allowed(user: Path) -> Iterator[Candidate]:
    ids = _object(_json(user / "localrun" / "config.json")).get("allow")
    yield from (Candidate(each, "allowed") for each in _texts(ids))


def endpoints(user: Path) -> Iterator[Candidate]:
    entries = _object(_json(user / "localrun" / "config.json")).get("endpoints")
    for entry in entries if isinstance(entries, list) else ():
        name, url = _object(entry).get("name"), _object(entry).get("url")
        if isinstance(name, str):
            yield Candidate(name, hide_passwords(str(url)))


def installed_builds(user: Path) -> Iterator[Candidate]:
    for path in _listed(user / "localrun" / "engines", "*/installed.json"):
        yield Candidate(path.parent.name, "installed")


def builds(user: Path) -> Iterator[Candidate]:
    yield from installed_builds(user)
    yield Candidate("xllamacpp", "the Python package")


def usable_builds(user: Path) -> Iterator[Candidate]:
    yield from builds(user)
    yield Candidate("auto", "the fastest one")


def remembered_paths(user: Path) -> Iterator[Candidate]:
    yield from map(Candidate, _texts(_json(user / "localrun" / "known-files.json")))


def recommended(_user: Path) -> Iterator[Candidate]:
    yield Candidate("starter", "a small model to begin with")
    path = Path(__file__).parents[1] / "recommended" / "models.json"
    entries = json.loads(path.read_bytes())
    yield from (Candidate(entry["name"], entry["good_at"]) for entry in entries)


def quantizations(_user: Path) -> Iterator[Candidate]:
    from llm_localrun.names.quantizations import QUALITY

    yield from map(Candidate, reversed(QUALITY))


def quantize_types(_user: Path) -> Iterator[Candidate]:
    """The types that `quantize` makes, from fine to coarse."""
    from llm_localrun.quantize.recipes import MIXES

    yield from map(Candidate, MIXES)


def commands(_user: Path) -> Iterator[Candidate]:
    from llm_localrun.cli import summaries

    yield from (Candidate(name, summary) for name, summary in summaries())


def _cached(user: Path) -> list[CachedName]:
    cache = read_names(user / "localrun" / "names.json")
    return cache.names if cache else []


def _models(user: Path, purposes: set[str] | None) -> Iterator[Candidate]:
    for each in _cached(user):
        if purposes is None or each.purpose in purposes:
            yield from _names_of(each, f"{each.purpose} model")


def _names_of(model: CachedName, what: str) -> Iterator[Candidate]:
    # The shortest alias, which people type, stands last.
    yield from (Candidate(alias, model.id) for alias in reversed(model.aliases))
    yield Candidate(model.id, what)


def _user_aliases(user: Path) -> Iterator[Candidate]:
    """The aliases set with `llm aliases set`."""
    aliases = _object(_json(user / "aliases.json", is_ours=False))
    yield from (Candidate(name, f"alias of {target}") for name, target in aliases.items())


def _pulls(user: Path) -> Iterator[tuple[str, str]]:
    """The file of each pull, without its suffix, and what was pulled, unless that may hold a key.

    A pull without files is that of a server, which has the REF only.
    """
    records = _object(_json(user / "localrun" / "models" / "pulled.json")).get("pulled")
    for record in map(_object, records if isinstance(records, list) else ()):
        ref, files = record.get("ref"), record.get("files")
        first = _object(files[0]) if isinstance(files, list) and files else {}
        if isinstance(ref, str) and hide_passwords(ref) == ref:
            yield Path(str(first.get("path", ref))).stem, ref


def _json(path: Path, *, is_ours: bool = True) -> Any:
    """The JSON value in a file; None if there is none."""
    try:
        if path.stat().st_size > _BYTES:
            return None
        return json.loads(read_own(path) if is_ours else read_regular(path))
    except (OSError, ValueError, RecursionError):
        return None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _listed(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern)) if os.access(folder, os.R_OK) else []
    except OSError:
        return []
