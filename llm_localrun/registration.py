"""Registers the catalogue's models with llm, at no cost to commands that want another model.

llm builds its registry anew up to three times a command, for whatever model; so what is being
asked for is read from the running click command, and only then is anything looked for.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import llm

from llm_localrun.catalogue import LocalModel, Snapshot
from llm_localrun.config import Config, home, read_config
from llm_localrun.discovery import Refresh, catalogue
from llm_localrun.errors import LocalRunError
from llm_localrun.models import AsyncLocalChat, LocalChat
from llm_localrun.naming import name_models
from llm_localrun.resolve import candidates, is_ours, is_path, order_of, unknown_model


def register_models(register: Callable[..., None], others: Sequence[Any]) -> None:
    """The hook. Raises only if the command is about to run a model of ours that it cannot run."""
    command = click.get_current_context(silent=True)
    name = _name_asked_for(command)
    taken = _names_of(others) | _user_aliases().keys()
    wanted = name if name is not None and is_ours(name) and name not in taken else None
    try:
        offers = _offers(_refresh(command, name), wanted, taken)
    except LocalRunError:
        if wanted is not None and _may_fail(command):
            raise
        return
    if wanted is not None and _is_running(command) and not _offered(wanted, offers):
        raise unknown_model(wanted, [name for offer in offers for name in offer.names])
    for offer in offers:
        register(LocalChat(offer.model), AsyncLocalChat(offer.model), aliases=offer.aliases)


@dataclass(frozen=True, slots=True)
class _Offer:
    model: LocalModel
    aliases: list[str]

    @property
    def names(self) -> list[str]:
        return [*self.aliases, self.model.id]


def _offers(refresh: Refresh, wanted: str | None, taken: set[str]) -> list[_Offer]:
    """Every chat model with its aliases; looks again for a `wanted` one that is not among them."""
    config = read_config()
    offers = _make_offers(catalogue(refresh), config, wanted, taken)
    if wanted is not None and not _offered(wanted, offers):
        return _make_offers(catalogue("if missing"), config, wanted, taken)
    return offers


def _offered(name: str, offers: list[_Offer]) -> bool:
    return any(name in offer.names for offer in offers)


def _make_offers(
    snapshot: Snapshot, config: Config, wanted: str | None, taken: set[str]
) -> list[_Offer]:
    models = [model for model in snapshot.models if model.purpose == "chat"]
    order = order_of(config)
    aliases: dict[str, list[str]] = {model.id: [] for model in models}
    for alias, claimants in name_models(models, order, "chat").items():
        if alias not in taken:
            aliases[claimants[0].id].append(alias)
    if wanted is not None and is_path(wanted):
        at_path = candidates(wanted, models, order)[0]
        models += [] if at_path in models else [at_path]
        aliases.setdefault(at_path.id, []).append(wanted)
    return [_Offer(model, aliases[model.id]) for model in models if model.id not in taken]


def _refresh(command: click.Context | None, name: str | None) -> Refresh:
    """Servers are asked if a model of ours is meant, or listed, or if nobody can tell."""
    if command is not None and _is_running(command) and command.params.get("queries"):
        return "if stale"
    if name is not None and not is_ours(_user_aliases().get(name, name)):
        return "never"
    return "if absent" if name is None and _is_running(command) else "if stale"


def _is_running(command: click.Context | None) -> bool:
    return command is not None and command.info_name in ("prompt", "chat")


def _may_fail(command: click.Context | None) -> bool:
    """Old turns can be read, whatever is broken."""
    return command is None or command.parent is None or command.parent.info_name != "logs"


def _name_asked_for(command: click.Context | None) -> str | None:
    """The model that the running command was told to use; None if that cannot be told."""
    if command is None:
        return None
    for parameter in ("model_id", "model"):
        if isinstance(name := command.params.get(parameter), str):
            return name
    elsewhere = ("_continue", "conversation_id", "template")
    if _is_running(command) and not any(command.params.get(place) for place in elsewhere):
        default: str = llm.get_default_model()  # type: ignore[no-untyped-call]
        return default
    return None


def _names_of(others: Sequence[Any]) -> set[str]:
    return {name for other in others for name in (other.model.model_id, *other.aliases)}


def _user_aliases() -> dict[str, str]:
    """The names that the user has given out with `llm aliases set`, which go before ours."""
    try:
        aliases = json.loads((Path(home()).parent / "aliases.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return aliases if isinstance(aliases, dict) else {}
