"""Registers our models with llm, at little cost to commands that use other models.

llm builds its registry up to three times in one command, whatever model the command uses. So the
hook reads the running click command to see which model it uses, and looks for models only if that
may be one of ours. Otherwise it reads `names.json` and nothing else. The models come from
`catalogue`, their aliases from `names.aliases`.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import click
import llm

from llm_localrun.chat.models import AsyncLocalChat, LocalChat, LocalEmbedding
from llm_localrun.name_cache import (
    CachedName,
    CachePolicy,
    is_ours,
    is_path,
    read_names,
    write_names,
)
from llm_localrun.system.paths import home

if TYPE_CHECKING:
    from llm_localrun.models import LocalModel, Purpose

_RUNNING: "dict[Purpose, tuple[str, ...]]" = {
    "chat": ("prompt", "chat"),
    "embedding": ("embed", "embed-multi", "similar"),
}
"""The commands of llm that run a model, by its purpose."""

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
        """The models for this purpose, without the names that are taken."""
        return [
            (cached, [alias for alias in cached.aliases if alias not in self.taken])
            for cached in names
            if cached.purpose == self.purpose and cached.id not in self.taken
        ]

    def is_answered_by(self, registrations: Iterable[Registration]) -> bool:
        """Whether the requested name, if there is one, is among `registrations`."""
        return self.name is None or any(
            self.name == model.id or self.name in aliases for model, aliases in registrations
        )


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
        aliases = json.loads((home().parent / "aliases.json").read_bytes())
    except (OSError, ValueError):
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
    request = NameRequest(
        purpose,
        name if name is not None and is_ours(name) and name not in taken else None,
        taken,
        _policy(parameters, name and aliases.get(name, name), is_running),
    )
    cache = read_names()
    if cache is not None and cache.is_usable(request.policy):
        registrations = request.select(cache.names)
        if request.is_answered_by(registrations):
            return registrations
    return _look_again(request, command, is_running)


def _policy(parameters: Mapping[str, Any], target: str | None, is_running: bool) -> CachePolicy:
    """Servers are asked if the command uses or lists our models, or if it may do so.

    `target` is the name that the command uses, after the user's aliases.
    """
    if is_running and parameters.get("queries"):
        return CachePolicy.IF_STALE
    if target is not None and not is_ours(target):
        return CachePolicy.CACHED
    return CachePolicy.IF_EMPTY if target is None and is_running else CachePolicy.IF_STALE


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


def _look_again(
    request: NameRequest, command: click.Context | None, is_running: bool
) -> list[Registration]:
    """The models that discovery finds; [] instead of an error if the command can do without.

    `llm logs` can: it works even if our configuration is broken.
    """
    from llm_localrun.errors import LocalRunError
    from llm_localrun.resolve import unknown_model

    try:
        found = _discover(request)
        if not request.is_answered_by(found):
            found = _discover(request._replace(policy=CachePolicy.RETRY))
    except LocalRunError:
        reads_logs = command and command.parent and command.parent.info_name == "logs"
        if request.name is not None and not reads_logs:
            raise
        return []
    if request.name is not None and is_running and not request.is_answered_by(found):
        names = [name for model, aliases in found for name in (*aliases, model.id)]
        raise unknown_model(request.name, names)
    return found


def _discover(request: NameRequest) -> list[Registration]:
    """Looks for models as the policy says and writes `names.json`. Raises a `LocalRunError`."""
    from llm_localrun.catalogue import get_catalogue
    from llm_localrun.config import read_config
    from llm_localrun.names.aliases import make_names
    from llm_localrun.resolve import candidates, order_of

    snapshot = get_catalogue(request.policy)
    order = order_of(read_config(), snapshot)
    names = make_names(snapshot.models, order)
    write_names(snapshot.taken_at, snapshot.stamp, names)
    found = request.select(names)
    if request.name is None or not is_path(request.name):
        return found
    at_path = candidates(request.name, snapshot.models, order)[0]
    if at_path.purpose != request.purpose:
        return found
    aliases = next((aliases for model, aliases in found if model.id == at_path.id), [])
    others = [each for each in found if each[0].id != at_path.id]
    return [*others, (at_path, [*aliases, request.name])]
