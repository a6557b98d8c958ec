"""The names under which llm knows our models, ready made on disk.

Every `llm` command that builds llm's registry reads this file and nothing else of ours, so it is
read without pydantic, and this module imports nothing that takes time. Making the names is
`offers`'s business.
"""

import contextlib
import json
import time
from collections.abc import Collection, Iterable
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, Union

from llm_localrun.system.atomic import write_atomically
from llm_localrun.system.paths import home

if TYPE_CHECKING:
    from llm_localrun.models import LocalModel


class CachePolicy(Enum):
    """When to look for models again."""

    CACHED = auto()
    """Never: what was found last is good enough."""
    IF_EMPTY = auto()
    """If nothing was ever looked for."""
    IF_STALE = auto()
    """If the last look is older than `FRESH_SECONDS`, or the settings have changed since."""
    RETRY = auto()
    """If this process has not looked yet: something expected is missing."""
    REFRESH = auto()
    """Always, servers that timed out a short while ago included."""


FRESH_SECONDS = 60.0
"""For so long what was found is believed without another look."""
_VERSION = 1


class Offer(NamedTuple):
    """A model as llm's registry has it: as much as a command needs that does not run it."""

    id: str
    purpose: str
    aliases: list[str]
    capabilities: list[str] | None

    def can(self, what: str, *, if_unknown: bool) -> bool:
        """As `LocalModel.can`."""
        return if_unknown if self.capabilities is None else what in self.capabilities


class Registry(NamedTuple):
    """All offers, when what they stand for was found, and under which settings."""

    taken_at: float
    stamp: str
    offers: list[Offer]

    def is_good_enough(self, refresh: CachePolicy, stamp: str) -> bool:
        """Whether nothing needs to be looked for, under the settings that `stamp` stands for."""
        if refresh == CachePolicy.CACHED:
            return True
        if refresh == CachePolicy.IF_STALE and age_of(self.taken_at) >= FRESH_SECONDS:
            return False
        return self.taken_at > 0 and self.stamp == stamp


class Wish(NamedTuple):
    """What a command wants of llm's registry.

    `name` is the one of ours that it asks for, if it does; `taken` are names that others have given
    out; `refresh` says how old what is known may be.
    """

    purpose: Literal["chat", "embedding"]
    name: str | None
    taken: Collection[str]
    refresh: CachePolicy


Offered: TypeAlias = tuple[Union[Offer, "LocalModel"], list[str]]
"""What llm's registry is to have, and the aliases under which."""


def offered_by(offers: Iterable[Offer], wish: Wish) -> list[Offered]:
    """The offers for the wish's purpose, less the names that are taken."""
    return [
        (offer, [alias for alias in offer.aliases if alias not in wish.taken])
        for offer in offers
        if offer.purpose == wish.purpose and offer.id not in wish.taken
    ]


def is_met(wish: Wish, offered: Iterable[Offered]) -> bool:
    """Whether the name that is asked for, if any, is among those offered."""
    return wish.name is None or any(
        wish.name == known.id or wish.name in aliases for known, aliases in offered
    )


def is_path(name: str) -> bool:
    """Whether `name` is meant as a file: `./x`, `~/x`, `/x`, or anything that ends in .gguf."""
    if name.startswith("local/"):
        return False
    return (
        name.lower().endswith(".gguf")
        or name.startswith(("./", "../", "~", ".\\", "..\\"))
        or Path(name).is_absolute()
    )


def is_ours(name: str) -> bool:
    """Whether `name` can only mean a model of ours: our prefix, or a file."""
    return name == "local" or name.startswith(("local-", "local/")) or is_path(name)


def age_of(taken_at: float) -> float:
    """Seconds since then; a clock that was set back makes everything old."""
    age = time.time() - taken_at
    return age if age >= 0 else float("inf")


def read_registry() -> Registry | None:
    """The registry on disk; None if there is none that this version can use."""
    try:
        version, taken_at, stamp, rows = json.loads(_path().read_bytes())
        if version != _VERSION:
            return None
        return Registry(float(taken_at), str(stamp), [_offer(*row) for row in rows])
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def write_registry(taken_at: float, stamp: str, offers: Iterable[Offer]) -> None:
    """Puts the registry in place of the last one; where that cannot be, names are made anew."""
    try:
        write_atomically(_path(), json.dumps([_VERSION, taken_at, stamp, [*offers]]).encode())
    except OSError:
        return


def drop_registry() -> None:
    """Names are made anew by the next command: what they stand for has changed."""
    with contextlib.suppress(OSError):
        _path().unlink(missing_ok=True)


def _path() -> Path:
    return home() / "registry.json"


def _offer(model_id: Any, purpose: Any, aliases: Any, capabilities: Any) -> Offer:
    """A row of the file as an offer. Raises TypeError if it is none."""
    texts = [model_id, purpose, *aliases, *(capabilities or ())]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError
    return Offer(model_id, purpose, list(aliases), capabilities and list(capabilities))
