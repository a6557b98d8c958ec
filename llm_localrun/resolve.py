"""A name to a `LocalModel`: ids, aliases and paths, or the nearest names if there is none."""

import os
from collections.abc import Sequence
from pathlib import Path

from llm_localrun.catalogue import LocalModel
from llm_localrun.config import Config
from llm_localrun.discovery import model_at
from llm_localrun.errors import UnknownModel
from llm_localrun.memory import physical_memory
from llm_localrun.naming import Order, name_models, nearest

_NONE_AT_ALL = UnknownModel(
    "No local model was found on this machine",
    "Get a small one with `llm localrun pull starter`, or start LM Studio or Ollama",
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


def order_of(config: Config) -> Order:
    """The order of candidates on this machine, to the user's taste."""
    return Order(physical_memory(), config.quantization)


def candidates(name: str, models: Sequence[LocalModel], order: Order) -> list[LocalModel]:
    """The models that `name` may mean, the one that it does mean first.

    A path is remembered. Raises `UnknownModel` and `BadModelFile`.
    """
    if is_path(name):
        return [model_at(Path(os.path.expanduser(name)))]  # noqa: PTH111  # the other raises
    named = {
        **name_models(models, order, "embedding"),
        **name_models(models, order, "chat"),
        **{model.id: [model] for model in models},
    }
    if name in named:
        return named[name]
    raise unknown_model(name, list(named))


def unknown_model(name: str, known: Sequence[str]) -> UnknownModel:
    """What to say when nothing is called `name` but these names are `known`."""
    if not known:
        return _NONE_AT_ALL
    close = nearest(name, known) or sorted(known, key=len)[:3]
    return UnknownModel(
        f"No local model is called '{name}'",
        f"Nearest: {', '.join(close)}. `llm localrun models` lists all",
    )
