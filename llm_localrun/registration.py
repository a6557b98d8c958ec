"""Registers the catalogue's models with llm, at no cost to commands that want another model.

llm builds its registry anew up to three times a command, for whatever model; so what is being
asked for is read from the running click command, and only then is anything looked for.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click
import llm

from llm_localrun.catalogue import LocalModel, Purpose, Snapshot
from llm_localrun.config import Config, home, read_config
from llm_localrun.discovery import Refresh, catalogue
from llm_localrun.errors import LocalRunError
from llm_localrun.models import AsyncLocalChat, LocalChat, LocalEmbedding
from llm_localrun.naming import name_models
from llm_localrun.resolve import candidates, is_ours, is_path, order_of, unknown_model

_RUNNING: dict[Purpose, tuple[str, ...]] = {
    "chat": ("prompt", "chat"),
    "embedding": ("embed", "embed-multi", "similar"),
}


def register_models(register: Callable[..., None], others: Sequence[Any]) -> None:
    """The hook. Raises only if the command is about to run a model of ours that it cannot run."""
    for offer in _offers("chat", {name for other in others for name in _names(other)}):
        register(LocalChat(offer.model), AsyncLocalChat(offer.model), aliases=offer.aliases)


def register_embedding_models(register: Callable[..., None]) -> None:
    """The hook for embedding models, with the same promise."""
    for offer in _offers("embedding", set()):
        register(LocalEmbedding(offer.model), aliases=offer.aliases)


@dataclass(frozen=True, slots=True)
class _Offer:
    model: LocalModel
    aliases: list[str]

    @property
    def names(self) -> list[str]:
        return [*self.aliases, self.model.id]


def _offers(purpose: Purpose, taken: set[str]) -> list[_Offer]:
    """Every model for `purpose` with its aliases; `taken` are names of other plugins' models."""
    command = click.get_current_context(silent=True)
    is_running = command is not None and command.info_name in _RUNNING[purpose]
    name = _name_asked_for(command, is_running)
    aliases = _user_aliases()
    taken = taken | aliases.keys()
    wanted = name if name is not None and is_ours(name) and name not in taken else None
    meant = None if name is None else aliases.get(name, name)
    try:
        offers = _find(purpose, _refresh(command, meant, is_running), wanted, taken)
    except LocalRunError:
        if wanted is not None and not _reads_logs(command):
            raise
        return []
    if wanted is not None and is_running and not _offered(wanted, offers):
        raise unknown_model(wanted, [name for offer in offers for name in offer.names])
    return offers


def _find(purpose: Purpose, refresh: Refresh, wanted: str | None, taken: set[str]) -> list[_Offer]:
    """The offers; looks again for a `wanted` one that is not among them."""
    config = read_config()
    offers = _make_offers(purpose, catalogue(refresh), config, wanted, taken)
    if wanted is not None and not _offered(wanted, offers):
        return _make_offers(purpose, catalogue("if missing"), config, wanted, taken)
    return offers


def _offered(name: str, offers: list[_Offer]) -> bool:
    return any(name in offer.names for offer in offers)


def _make_offers(
    purpose: Purpose, snapshot: Snapshot, config: Config, wanted: str | None, taken: set[str]
) -> list[_Offer]:
    models = [model for model in snapshot.models if model.purpose == purpose]
    order = order_of(config)
    aliases: dict[str, list[str]] = {model.id: [] for model in models}
    for alias, claimants in name_models(models, order, purpose).items():
        if alias not in taken:
            aliases[claimants[0].id].append(alias)
    if wanted is not None and is_path(wanted):
        at_path = candidates(wanted, models, order)[0]
        models += [at_path] if at_path not in models and at_path.purpose == purpose else []
        aliases.setdefault(at_path.id, []).append(wanted)
    return [_Offer(model, aliases[model.id]) for model in models if model.id not in taken]


def _refresh(command: click.Context | None, name: str | None, is_running: bool) -> Refresh:
    """Servers are asked if a model of ours is meant, or listed, or if nobody can tell.

    `name` is the model's own where the user has given it another.
    """
    if command is not None and is_running and command.params.get("queries"):
        return "if stale"
    if name is not None and not is_ours(name):
        return "never"
    return "if absent" if name is None and is_running else "if stale"


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


def _names(other: Any) -> list[str]:
    return [other.model.model_id, *other.aliases]


def _user_aliases() -> dict[str, str]:
    """The names that the user has given out with `llm aliases set`, which go before ours."""
    try:
        aliases = json.loads((home().parent / "aliases.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return aliases if isinstance(aliases, dict) else {}
