"""Registers our models with llm, at little cost to commands that use other models.

llm builds its registry up to three times in one command, whatever model the command uses. So the
hook reads the running click command to see which model it uses, and looks for models only if that
may be one of ours. Otherwise it reads `names.json` and nothing else. Looking for models is left to
`search`, making their aliases to `names.aliases`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import llm

from llm_localrun.chat.models import AsyncLocalChat, LocalChat, LocalEmbedding
from llm_localrun.name_cache import (
    CachePolicy,
    NameRequest,
    Registration,
    is_ours,
    is_path,
    means_the_best,
    read_names,
)
from llm_localrun.system.atomic import read_regular
from llm_localrun.system.paths import home

if TYPE_CHECKING:
    from llm_localrun.models import Purpose

_RUNNING: "dict[Purpose, tuple[str, ...]]" = {
    "chat": ("prompt", "chat"),
    "embedding": ("embed", "embed-multi", "similar"),
}
"""The commands of llm that run a model, by its purpose."""


def register_models(register: Callable[..., None], others: Sequence[Any]) -> None:
    """The hook for chat models. `others` are the models that other plugins have registered.

    Raises a `LocalRunError` only if the command runs a model of ours and that is impossible.
    """
    taken = {name for other in others for name in (other.model.model_id, *other.aliases)}
    for model, aliases in _registrations("chat", taken):
        register(LocalChat(model), AsyncLocalChat(model), aliases=aliases)


def register_embedding_models(register: Callable[..., None]) -> None:
    """The hook for embedding models. Raises what `register_models` raises."""
    for model, aliases in _registrations("embedding", set()):
        register(LocalEmbedding(model), aliases=aliases)


def user_aliases() -> dict[str, str]:
    """The aliases set with `llm aliases set`: `{"mine": "local/ollama/qwen3:8b"}`."""
    try:
        aliases = json.loads(read_regular(home().parent / "aliases.json"))
    except (OSError, ValueError, RecursionError):
        return {}
    return aliases if isinstance(aliases, dict) else {}


def _registrations(purpose: "Purpose", taken: set[str]) -> list[Registration]:
    """The models for `purpose`, from `names.json` if it is good enough for the command."""
    command = click.get_current_context(silent=True)
    parameters = command.params if command else {}
    is_running = command is not None and command.info_name in _RUNNING[purpose]
    name = _name_in(parameters, takes_default=is_running and purpose == "chat")
    aliases = user_aliases()
    taken = taken | aliases.keys()
    target = name and aliases.get(name, name)
    request = NameRequest(
        purpose,
        target if target is not None and is_ours(target) and target not in taken else None,
        taken,
        _policy(parameters, target, is_running) if command else CachePolicy.IF_NEEDED,
    )
    cache = read_names()
    if cache is not None and cache.is_usable(request.policy):
        found = request.select(cache.names)
        if request.is_answered_by(found) and not (is_running and _server_is_off(request, found)):
            return found
    from llm_localrun.search import look_for

    # `llm logs` can do without: it works even if our configuration is broken.
    parent = command.parent if command else None
    is_optional = request.name is None or (parent is not None and parent.info_name == "logs")
    return look_for(request, is_running=is_running, is_optional=is_optional)


def _server_is_off(request: NameRequest, found: Sequence[Registration]) -> bool:
    """Whether nothing listens where the model that an alias means runs."""
    model_id = request.target_of_alias(found)
    if model_id is None:
        return False
    from llm_localrun.search import server_if_off

    return server_if_off(model_id) is not None


def _policy(parameters: Mapping[str, Any], target: str | None, is_running: bool) -> CachePolicy:
    """Servers are asked if the command uses or lists our models, or if it may do so.

    `target` is the name that the command uses, after the user's aliases. What is known of it is
    enough to run it, except for the general alias, which means the best model of all.
    """
    if is_running and parameters.get("queries"):
        return CachePolicy.IF_STALE
    if target is None:
        return CachePolicy.IF_EMPTY if is_running else CachePolicy.IF_STALE
    if not is_ours(target):
        return CachePolicy.CACHED
    if not is_running and not is_path(target):
        return CachePolicy.IF_STALE
    return CachePolicy.IF_NEEDED if means_the_best(target) else CachePolicy.IF_EMPTY


def _name_in(parameters: Mapping[str, Any], *, takes_default: bool) -> str | None:
    """The model name among a command's parameters; None if it is not known.

    If there is none, it is llm's default model for a command that `takes_default`.
    """
    for parameter in ("model_id", "model"):
        if isinstance(name := parameters.get(parameter), str):
            return name
    other_sources = ("_continue", "conversation_id", "template")
    if takes_default and not any(parameters.get(source) for source in other_sources):
        default: str = llm.get_default_model()  # type: ignore[no-untyped-call]
        return default
    return None
