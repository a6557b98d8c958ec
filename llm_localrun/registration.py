"""Registers our models with llm, at no cost to commands that want another model.

llm builds its registry anew up to three times a command, for whatever model; so what is being
asked for is read from the running click command, and only then is anything looked for. As long as
nothing has to be, the registry on disk is all that is read.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

import click
import llm

from llm_localrun.chat.models import AsyncLocalChat, LocalChat, LocalEmbedding
from llm_localrun.name_cache import (
    CachePolicy,
    Offered,
    Wish,
    is_met,
    is_ours,
    is_path,
    offered_by,
    read_registry,
    write_registry,
)
from llm_localrun.system.paths import home, settings_stamp

_Purpose = Literal["chat", "embedding"]

_RUNNING: dict[_Purpose, tuple[str, ...]] = {
    "chat": ("prompt", "chat"),
    "embedding": ("embed", "embed-multi", "similar"),
}


def register_models(register: Callable[..., None], others: Sequence[Any]) -> None:
    """The hook. Raises only if the command is about to run a model of ours that it cannot run."""
    taken = {name for other in others for name in (other.model.model_id, *other.aliases)}
    for known, aliases in _offered("chat", taken):
        register(LocalChat(known), AsyncLocalChat(known), aliases=aliases)


def register_embedding_models(register: Callable[..., None]) -> None:
    """The hook for embedding models, with the same promise."""
    for known, aliases in _offered("embedding", set()):
        register(LocalEmbedding(known), aliases=aliases)


def _offered(purpose: _Purpose, taken: set[str]) -> list[Offered]:
    """Every model for `purpose` with its aliases; `taken` are names of other plugins' models."""
    command = click.get_current_context(silent=True)
    is_running = command is not None and command.info_name in _RUNNING[purpose]
    wish = _wish(command, purpose, taken, is_running)
    registry = read_registry()
    if registry is not None and registry.is_good_enough(wish.refresh, settings_stamp()):
        offered = offered_by(registry.offers, wish)
        if is_met(wish, offered):
            return offered
    return _looked_for(wish, command, is_running)


def _wish(
    command: click.Context | None, purpose: _Purpose, taken: set[str], is_running: bool
) -> Wish:
    name = _name_asked_for(command, is_running)
    aliases = user_aliases()
    taken = taken | aliases.keys()
    wanted = name if name is not None and is_ours(name) and name not in taken else None
    meant = None if name is None else aliases.get(name, name)
    return Wish(purpose, wanted, taken, _refresh(command, meant, is_running))


def _looked_for(wish: Wish, command: click.Context | None, is_running: bool) -> list[Offered]:
    """What is found; nothing, rather than an error, if the command can do without."""
    from llm_localrun.errors import LocalRunError

    try:
        offered = look_for(wish)
    except LocalRunError:
        if wish.name is not None and not _reads_logs(command):
            raise
        return []
    if wish.name is not None and is_running and not is_met(wish, offered):
        raise not_offered(wish.name, offered)
    return offered


def _refresh(command: click.Context | None, name: str | None, is_running: bool) -> CachePolicy:
    """Servers are asked if a model of ours is meant, or listed, or if nobody can tell.

    `name` is the model's own where the user has given it another.
    """
    if command is not None and is_running and command.params.get("queries"):
        return CachePolicy.IF_STALE
    if name is not None and not is_ours(name):
        return CachePolicy.CACHED
    return CachePolicy.IF_EMPTY if name is None and is_running else CachePolicy.IF_STALE


def _reads_logs(command: click.Context | None) -> bool:
    """Old turns can be read, whatever is broken."""
    return command is not None and command.parent is not None and command.parent.info_name == "logs"


def _name_asked_for(command: click.Context | None, is_running: bool) -> str | None:
    """The model that the running command was told to use; None if that cannot be told."""
    if command is None:
        return None
    for parameter in ("model_id", "model"):
        if isinstance(name := command.params.get(parameter), str):
            return name
    elsewhere = ("_continue", "conversation_id", "template")
    takes_default = is_running and command.info_name in _RUNNING["chat"]
    if takes_default and not any(command.params.get(place) for place in elsewhere):
        default: str = llm.get_default_model()  # type: ignore[no-untyped-call]
        return default
    return None


def user_aliases() -> dict[str, str]:
    """The names that the user has given out with `llm aliases set`, which go before ours."""
    try:
        aliases = json.loads((home().parent / "aliases.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return aliases if isinstance(aliases, dict) else {}


def look_for(wish: Wish) -> list[Offered]:
    """Everything that meets the wish; looks again for a name that is not among it.

    Raises a `LocalRunError`.
    """
    offered = _look(wish)
    return offered if is_met(wish, offered) else _look(wish._replace(refresh=CachePolicy.RETRY))


def not_offered(name: str, offered: list[Offered]) -> Exception:
    """What to say of a name that nothing in `offered` has."""
    from llm_localrun.resolve import unknown_model

    return unknown_model(name, [n for known, aliases in offered for n in (*aliases, known.id)])


def _look(wish: Wish) -> list[Offered]:
    from llm_localrun.catalogue import get_catalogue
    from llm_localrun.config import read_config
    from llm_localrun.names.aliases import make_offers
    from llm_localrun.resolve import candidates, order_of

    snapshot = get_catalogue(wish.refresh)
    order = order_of(read_config())
    offers = make_offers(snapshot.models, order)
    write_registry(snapshot.taken_at, snapshot.stamp, offers)
    offered = offered_by(offers, wish)
    if wish.name is None or not is_path(wish.name):
        return offered
    at_path = candidates(wish.name, snapshot.models, order)[0]
    if at_path.purpose != wish.purpose:
        return offered
    aliases = next((names for known, names in offered if known.id == at_path.id), [])
    others = [each for each in offered if each[0].id != at_path.id]
    return [*others, (at_path, [*aliases, wish.name])]
