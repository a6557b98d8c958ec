"""Facts about models that several commands show, and the model that a name means.

Printing them is left to `table`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.table import pick
from llm_localrun.config import read_config
from llm_localrun.models import PURPOSES, Endpoint, LocalModel, OnDisk, Purpose
from llm_localrun.name_cache import CachePolicy
from llm_localrun.names.aliases import Order, name_models, parameters_of, short_name
from llm_localrun.resolve import candidates, order_of

_MODEL_FIELDS = (
    "id name variant_of purpose architecture quantization size context_max context_loaded"
    " capabilities think_levels modified runs_on remote_host loaded"
)
_OTHER_USES = {"embedding": "embed", "rerank": "rerank", "decision": "decide", "other": "other"}
_ABILITIES = {"tools": "tools", "vision": "vision", "audio": "audio", "thinking": "think"}
"""Capabilities, and how tables call them."""

Names: TypeAlias = Mapping[Purpose, Mapping[str, list[LocalModel]]]
"""By purpose, each alias and the models that it can mean, the best first."""


def find_model(name: str, policy: CachePolicy = CachePolicy.FRESH) -> LocalModel:
    """The model that `name` means. Raises `UnknownModel` or `BadModelFile`."""
    snapshot = get_catalogue(policy)
    return candidates(name, snapshot.models, order_of(read_config(), snapshot))[0]


def names_of(models: Sequence[LocalModel], order: Order) -> Names:
    """Every alias of `models`."""
    return {purpose: name_models(models, order, purpose) for purpose in PURPOSES}


def model_facts(model: LocalModel, names: Names, order: Order) -> dict[str, Any]:
    """What `--json` shows of a model. `docs/json.md` describes each field."""
    named = names[model.purpose]
    file = model.on_disk or OnDisk(path="")
    return {
        **pick(model, _MODEL_FIELDS),
        "short_name": short_name(model, named),
        "aliases": [alias for alias, claimants in named.items() if claimants[0].id == model.id],
        "parameters": parameters_of(model),
        "fits": order.fits(model),
        "endpoint": model.served and endpoint_facts(model.served.endpoint),
        "digest": model.served.digest if model.served else "",
        "path": file.path or None,
        "store": file.store,
        "projector": file.projector,
        "file_id": file.id,
        "obstacle": order.obstacle(model),
        "problem": file.problem,
    }


def endpoint_facts(endpoint: Endpoint) -> dict[str, Any]:
    """What `--json` shows of a server's address."""
    return {**pick(endpoint, "name kind"), "url": endpoint.address}


def abilities(model: LocalModel) -> list[str]:
    """What the model can do besides answering, or instead, in short words: tools, think."""
    if model.purpose in _OTHER_USES:
        return [_OTHER_USES[model.purpose]]
    return [word for ability, word in _ABILITIES.items() if model.can(ability, if_unknown=False)]
