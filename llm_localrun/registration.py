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
    GENERAL_ALIASES,
    CachedName,
    CachePolicy,
    NameCache,
    is_ours,
    is_path,
    read_names,
    spelling_of,
    write_names,
)
from llm_localrun.system.paths import home

if TYPE_CHECKING:
    from llm_localrun.catalogue import IsEnough
    from llm_localrun.errors import UnknownModel
    from llm_localrun.models import Endpoint, LocalModel, Purpose, Snapshot

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
        """The models for this purpose, without the names that are taken.

        The requested name becomes an alias of the model whose name it is but for its case.
        """
        found: list[Registration] = [
            (cached, [alias for alias in cached.aliases if alias not in self.taken])
            for cached in names
            if cached.purpose == self.purpose and cached.id not in self.taken
        ]
        if self.name is not None and not self.is_answered_by(found):
            alike = (aliases for m, aliases in found if spelling_of(self.name, (m.id, *aliases)))
            next(alike, []).append(self.name)
        return found

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
    target = name and aliases.get(name, name)
    request = NameRequest(
        purpose,
        target if target is not None and is_ours(target) and target not in taken else None,
        taken,
        _policy(parameters, target, is_running),
    )
    cache = read_names()
    if cache is not None and cache.is_usable(request.policy):
        found = request.select(cache.names)
        if request.is_answered_by(found) and not (is_running and _target_is_off(request, found)):
            return found
    return _look_again(request, command, is_running)


def _policy(parameters: Mapping[str, Any], target: str | None, is_running: bool) -> CachePolicy:
    """Servers are asked if the command uses or lists our models, or if it may do so.

    `target` is the name that the command uses, after the user's aliases. An id and a path mean one
    model, so a command that runs it asks for nothing else. The general alias means the best of all.
    """
    if is_running and parameters.get("queries"):
        return CachePolicy.IF_STALE
    if target is None:
        return CachePolicy.IF_EMPTY if is_running else CachePolicy.IF_STALE
    if not is_ours(target):
        return CachePolicy.CACHED
    if is_path(target) or target.startswith("local/"):
        return CachePolicy.IF_EMPTY
    means_the_best = is_running and target in GENERAL_ALIASES.values()
    return CachePolicy.IF_NEEDED if means_the_best else CachePolicy.IF_STALE


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

    reads_logs = bool(command and command.parent and command.parent.info_name == "logs")
    try:
        found = _discover(request, may_retry=not reads_logs)
        noted: set[str] = set()
        while is_running and (endpoint := _target_is_off(request, found)):
            if endpoint.url in noted:
                # No other model has this name.
                break
            noted.add(endpoint.url)
            _note_offline(endpoint)
            found = _discover(request, may_retry=False)
    except LocalRunError:
        if request.name is not None and not reads_logs:
            raise
        return []
    if request.name is not None and is_running and not request.is_answered_by(found):
        raise _unknown(request.name, request.purpose)
    return found


def _discover(request: NameRequest, *, may_retry: bool) -> list[Registration]:
    """Looks for models as the policy says, and for one that is not known until it is found.

    Raises a `LocalRunError`.
    """
    from llm_localrun.catalogue import get_catalogue

    def is_answered(snapshot: "Snapshot") -> bool:
        return request.is_answered_by(_select(request, snapshot))

    is_sought = request.name is not None and not is_path(request.name)
    if is_sought and may_retry and not is_answered(get_catalogue(CachePolicy.CACHED)):
        # The best model is only known when every server has answered.
        any_is_enough = request.name not in GENERAL_ALIASES.values()
        return _register(request, CachePolicy.RETRY, is_answered if any_is_enough else None)
    found = _register(request, request.policy, None)
    if is_sought and may_retry and not request.is_answered_by(found):
        return _register(request, CachePolicy.RETRY, None)
    return found


def _register(
    request: NameRequest, policy: CachePolicy, is_enough: "IsEnough | None"
) -> list[Registration]:
    """Looks for models and writes `names.json`. Raises a `LocalRunError`."""
    from llm_localrun.catalogue import get_catalogue
    from llm_localrun.config import read_config
    from llm_localrun.names.aliases import make_names
    from llm_localrun.resolve import candidates, order_of

    snapshot = get_catalogue(policy, is_enough)
    order = order_of(read_config(), snapshot)
    names = make_names(snapshot.models, order)
    write_names(NameCache(snapshot.taken_at, snapshot.stamp, snapshot.is_complete, names))
    found = request.select(names)
    if request.name is None or not is_path(request.name):
        return found
    at_path = candidates(request.name, snapshot.models, order)[0]
    if at_path.purpose != request.purpose:
        return found
    aliases = next((aliases for model, aliases in found if model.id == at_path.id), [])
    others = [each for each in found if each[0].id != at_path.id]
    return [*others, (at_path, [*aliases, request.name])]


def _select(request: NameRequest, snapshot: "Snapshot") -> list[Registration]:
    from llm_localrun.config import read_config
    from llm_localrun.names.aliases import make_names
    from llm_localrun.resolve import order_of

    return request.select(make_names(snapshot.models, order_of(read_config(), snapshot)))


def _target_is_off(request: NameRequest, found: Iterable[Registration]) -> "Endpoint | None":
    """The server of the model that the requested alias means, if nothing listens there."""
    from llm_localrun.resolve import endpoint_if_off

    if request.name is None or request.name.startswith("local/"):
        return None
    ids = (model.id for model, aliases in found if request.name in aliases)
    model_id = next(ids, None)
    return endpoint_if_off(model_id) if model_id is not None else None


def _note_offline(endpoint: "Endpoint") -> None:
    from llm_localrun.catalogue import note_offline

    note_offline(endpoint)


def _unknown(name: str, purpose: "Purpose") -> "UnknownModel":
    from llm_localrun.catalogue import get_catalogue
    from llm_localrun.resolve import unknown_model

    return unknown_model(name, get_catalogue(CachePolicy.CACHED), purpose)
