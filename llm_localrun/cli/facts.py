"""Facts about models that several commands show, and the model that a name means."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from llm_localrun.catalogue import get_catalogue
from llm_localrun.config import read_config
from llm_localrun.models import LocalModel, Purpose
from llm_localrun.name_cache import CachePolicy
from llm_localrun.names.aliases import Order, name_models, parameters_of, short_name
from llm_localrun.resolve import candidates, order_of

_PURPOSES: tuple[Purpose, ...] = ("chat", "embedding")
_ABILITIES = {"tools": "tools", "vision": "vision", "audio": "audio", "thinking": "think"}
"""Capabilities, and how tables call them."""

Names: TypeAlias = Mapping[Purpose, Mapping[str, list[LocalModel]]]
"""By purpose, each alias and the models that it can mean, the best first."""


def find_model(name: str, policy: CachePolicy = CachePolicy.IF_STALE) -> LocalModel:
    """The model that `name` means. Raises `UnknownModel` or `BadModelFile`."""
    return candidates(name, get_catalogue(policy).models, order_of(read_config()))[0]


def names_of(models: Sequence[LocalModel], order: Order) -> Names:
    """Every alias of `models`."""
    return {purpose: name_models(models, order, purpose) for purpose in _PURPOSES}


def facts(model: LocalModel, names: Names, order: Order) -> dict[str, Any]:
    """Everything that is known about a model, for `--json`."""
    named = names[model.purpose]
    return {
        **model.model_dump(exclude={"routes"}),
        **_route_facts(model),
        "parameters": parameters_of(model),
        "fits": order.fits(model),
        "short_name": short_name(model, named),
        "aliases": [alias for alias, claimants in named.items() if claimants[0].id == model.id],
    }


def _route_facts(model: LocalModel) -> dict[str, Any]:
    """The routes of a model as flat facts."""
    served, on_disk = model.served, model.on_disk
    return {
        "endpoint": served and served.endpoint.model_dump(),
        "runs_on": model.runs_on,
        "remote_host": model.remote_host,
        "loaded": model.loaded,
        "context_loaded": model.context_loaded,
        "digest": served.digest if served else "",
        "path": on_disk and on_disk.path,
        "store": on_disk.store if on_disk else "",
        "projector": on_disk.projector if on_disk else "",
        "manifest": on_disk.manifest if on_disk else "",
        "file_id": on_disk.id if on_disk and served else "",
    }


def abilities(model: LocalModel) -> list[str]:
    """What the model can do besides answering, in short words: tools, think."""
    if model.purpose == "embedding":
        return ["embed"]
    return [word for ability, word in _ABILITIES.items() if model.can(ability, if_unknown=False)]
