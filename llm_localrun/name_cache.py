"""The names under which llm registers our models, kept in `localrun/names.json`.

Most `llm` commands read this file and nothing else of ours. It is therefore read without pydantic,
and this module imports only what starts fast. `names.aliases` makes the names, `registration`
registers them.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Collection, Iterable
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from llm_localrun.system.atomic import read_own, write_atomically
from llm_localrun.system.logins import hide_passwords, split_login
from llm_localrun.system.paths import home

if TYPE_CHECKING:
    from llm_localrun.models import LocalModel, Purpose


class CachePolicy(Enum):
    """When to look for models again."""

    CACHED = auto()
    """Never: use the last result, whatever its age."""
    IF_EMPTY = auto()
    """If there is no result yet. The command can do without servers that are slow."""
    IF_STALE = auto()
    """If the last result is older than `FRESH_S`, or if the settings have changed since. The
    command can do without servers that are slow."""
    IF_NEEDED = auto()
    """As `IF_STALE`, or if a server has not had its time to answer: the command runs the best model
    that there is."""
    RETRY = auto()
    """If this process has not looked patiently yet: something expected is missing."""
    FRESH = auto()
    """Always: the command shows what is there."""
    REFRESH = auto()
    """Always. Servers that were silent get their full time again, and a server's own tools say
    where its models run."""


GENERAL_ALIASES = {"chat": "local", "embedding": "local-embed"}
"""By the purposes for which llm has commands: the alias that every such model can claim. It means
the best one."""
FRESH_S = 60.0
"""The age up to which `CachePolicy.IF_STALE` uses a result."""
_VERSION = 4
_ABSENT = "absent"


class CachedName(NamedTuple):
    """A model as llm's registry needs it: enough for a command that does not run it."""

    id: str
    """For example `local/ollama/qwen3:8b`."""
    purpose: str
    """As `LocalModel.purpose`."""
    aliases: list[str]
    """The aliases that no better candidate has: `["local-qwen3-8b", "local-qwen3"]`."""
    capabilities: list[str] | None
    """As `LocalModel.capabilities`."""

    def can(self, capability: str, *, if_unknown: bool) -> bool:
        """As `LocalModel.can`."""
        return if_unknown if self.capabilities is None else capability in self.capabilities


class NameCache(NamedTuple):
    """The content of `names.json`."""

    taken_at: float
    """When the models were found, in seconds since the epoch."""
    stamp: str
    """The settings at that time: see `settings_stamp`."""
    is_partial: bool
    """As `Snapshot.is_partial`."""
    is_complete: bool
    """As `Snapshot.is_complete`."""
    names: list[CachedName]

    def is_usable(self, policy: CachePolicy) -> bool:
        """Whether `policy` allows these names to be used without looking for models again."""
        if policy is CachePolicy.CACHED:
            return True
        if not (self.taken_at > 0 and is_current(self.stamp)):
            return False
        if policy is CachePolicy.IF_EMPTY:
            return True
        if self.is_partial or not self.names or not is_fresh(self.taken_at):
            return False
        return self.is_complete or policy is CachePolicy.IF_STALE


Registration: TypeAlias = "tuple[CachedName | LocalModel, list[str]]"
"""A model to register with llm, and its aliases."""


class NameRequest(NamedTuple):
    """The names that a command needs registered."""

    purpose: "Purpose"
    name: str | None
    """The name of ours that the command uses; None if it uses none, or does not say."""
    taken: Collection[str]
    """Names that other plugins and the user's aliases have: we do not register them."""
    policy: CachePolicy

    def select(self, names: Iterable[CachedName]) -> list[Registration]:
        """The models for this purpose, without the names that are taken.

        The requested name becomes an alias of the model whose name it is but for its case.
        """
        found: list[Registration] = [
            (cached, [alias for alias in cached.aliases if alias not in self.taken])
            for cached in names
            if cached.purpose == self.purpose and cached.id not in self.taken
        ]
        if self.name is not None and not self.is_answered_by(found):
            alike = (aliases for m, aliases in found if spelling_of(self.name, (m.id, *aliases)))
            next(alike, []).append(self.name)
        return found

    def is_answered_by(self, found: Iterable[Registration]) -> bool:
        """Whether the requested name, if there is one, is among those of `found`."""
        return self.name is None or any(
            self.name == model.id or self.name in aliases for model, aliases in found
        )

    def target_of_alias(self, found: Iterable[Registration]) -> str | None:
        """The id of the model that the requested alias means; None for other names."""
        ids = (model.id for model, aliases in found if self.name in aliases)
        return None if self.name is None or is_path(self.name) else next(ids, None)


def is_path(name: str) -> bool:
    """Whether `name` denotes a file: `./x`, `~/x`, `/x`, or anything that ends in .gguf."""
    lowered = name.lower()
    if lowered.startswith("local/"):
        return False
    return (
        lowered.endswith(".gguf")
        or name.startswith(("./", "../", "~", ".\\", "..\\"))
        or Path(name).is_absolute()
    )


def spelling_of(name: str, known: Iterable[str]) -> str | None:
    """The one of the `known` names that is `name`, or else the first that differs only in case."""
    alike = [each for each in known if each.lower() == name.lower()]
    return name if name in alike else next(iter(alike), None)


def is_ours(name: str) -> bool:
    """Whether only this plugin can have a model called `name`: it has our prefix or is a path."""
    lowered = name.lower()
    return lowered == "local" or lowered.startswith(("local-", "local/")) or is_path(name)


def means_the_best(name: str) -> bool:
    """Whether `name` is a general alias."""
    return name.lower() in GENERAL_ALIASES.values()


def age_of(taken_at: float) -> float:
    """Seconds since `taken_at`; infinite for a time in the future, after a clock was set back."""
    age = time.time() - taken_at
    return age if age >= 0 else float("inf")


def is_fresh(taken_at: float) -> bool:
    """Whether a result of `taken_at` is at most `FRESH_S` old."""
    return age_of(taken_at) < FRESH_S


def settings_stamp(variables: Iterable[str]) -> str:
    """A text that changes when config.json or one of the environment `variables` does.

    It contains the names of the variables, so that `is_current` needs nothing else:
    "1763900000000000000 312\\nOLLAMA_HOST='127.0.0.1:11434'\\nHF_HOME=''". Passwords in
    addresses are left out.
    """
    try:
        stat = (home() / "config.json").stat()
        config = f"{stat.st_mtime_ns} {stat.st_size}"
    except OSError:
        config = _ABSENT
    values = {name: _without_logins(os.environ.get(name, "")) for name in variables}
    # repr() keeps a value on one line.
    return "\n".join([config, *(f"{name}={value!r}" for name, value in values.items())])


def _without_logins(value: str) -> str:
    """The value of a variable, which may be several addresses with commas between."""
    addresses = re.split(r",(?=\s*\w+://)", value)
    return hide_passwords(",".join(split_login(address)[0] for address in addresses))


def is_current(stamp: str) -> bool:
    """Whether the settings are still those for which `settings_stamp` returned `stamp`."""
    _, *assignments = stamp.split("\n")
    return stamp == settings_stamp(each.partition("=")[0] for each in assignments)


def read_names(path: Path | None = None) -> NameCache | None:
    """The names on disk; None if there are none that this version can read.

    `path` is that of the file, for a caller that does without llm's own `user_dir`.
    """
    try:
        text = read_own(path or _path())
        version, taken_at, stamp, is_partial, is_complete, rows = json.loads(text)
        if version != _VERSION:
            return None
        names = [_cached_name(*row) for row in rows]
        return NameCache(float(taken_at), str(stamp), bool(is_partial), bool(is_complete), names)
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def write_names(cache: NameCache) -> None:
    """Replaces the names on disk. If that fails, the next command makes the names again."""
    with contextlib.suppress(OSError):
        write_atomically(_path(), json.dumps([_VERSION, *cache]).encode())
    with contextlib.suppress(OSError):
        # The name that an earlier version gave this file.
        (home() / "registry.json").unlink(missing_ok=True)


def delete_names() -> None:
    """Makes the next command make the names again, because the models have changed."""
    with contextlib.suppress(OSError):
        _path().unlink(missing_ok=True)


def _path() -> Path:
    return home() / "names.json"


def _cached_name(model_id: Any, purpose: Any, aliases: Any, capabilities: Any) -> CachedName:
    """A row of the file. Raises TypeError if it has other types than a `CachedName`."""
    texts = [model_id, purpose, *aliases, *(capabilities or ())]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError
    return CachedName(model_id, purpose, list(aliases), capabilities and list(capabilities))
