"""Makes the offers that `registry` keeps ready: every model that was found, with its names."""

from llm_localrun.catalogue import Purpose, Snapshot
from llm_localrun.config import read_config
from llm_localrun.discovery import catalogue
from llm_localrun.errors import UnknownModel
from llm_localrun.naming import Order, name_models
from llm_localrun.registry import (
    Offer,
    Offered,
    Wish,
    is_met,
    is_path,
    offered_by,
    write_registry,
)
from llm_localrun.resolve import candidates, order_of, unknown_model

_PURPOSES: tuple[Purpose, ...] = ("chat", "embedding")


def look_for(wish: Wish) -> list[Offered]:
    """Everything that meets the wish; looks again for a name that is not among it.

    Raises a `LocalRunError`.
    """
    offered = _look(wish)
    return offered if is_met(wish, offered) else _look(wish._replace(refresh="if missing"))


def not_offered(name: str, offered: list[Offered]) -> UnknownModel:
    """What to say of a name that nothing in `offered` has."""
    return unknown_model(name, [n for known, aliases in offered for n in (*aliases, known.id)])


def make_offers(snapshot: Snapshot, order: Order) -> list[Offer]:
    """Every model in `snapshot` with the names that it is the first to claim."""
    models = snapshot.models
    aliases: dict[str, list[str]] = {model.id: [] for model in models}
    for purpose in _PURPOSES:
        for alias, claimants in name_models(models, order, purpose).items():
            aliases[claimants[0].id].append(alias)
    return [
        Offer(
            id=model.id,
            purpose=model.purpose,
            aliases=[*aliases[model.id], *filter(None, [model.file_id])],
            capabilities=None if model.capabilities is None else [*model.capabilities],
        )
        for model in models
    ]


def _look(wish: Wish) -> list[Offered]:
    snapshot = catalogue(wish.refresh)
    order = order_of(read_config())
    offers = make_offers(snapshot, order)
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
