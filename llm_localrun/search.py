"""Looks for the models that an `llm` command may run, and writes their names to `names.json`.

Used when the names on disk are not good enough for the command. Discovering models is left to
`catalogue`, the order of those with one name to `names.aliases`.
"""

import contextlib

from llm_localrun.catalogue import IsEnough, get_catalogue, note_offline
from llm_localrun.config import read_config
from llm_localrun.errors import LocalRunError
from llm_localrun.models import Endpoint, Snapshot
from llm_localrun.name_cache import (
    CachedName,
    CachePolicy,
    NameCache,
    NameRequest,
    Registration,
    is_path,
    means_the_best,
    write_names,
)
from llm_localrun.names.aliases import make_names
from llm_localrun.privacy import is_loopback
from llm_localrun.resolve import candidates, order_of, unknown_model


def look_for(request: NameRequest, *, is_running: bool, is_optional: bool) -> list[Registration]:
    """The models to register. `is_running`: the command runs the model that it names.

    Raises a `LocalRunError`, unless the models are optional for the command.
    """
    try:
        found = _find(request, may_retry=not is_optional, is_running=is_running)
        if is_running:
            found = _without_servers_that_are_off(request, found)
    except LocalRunError:
        if is_optional:
            return []
        raise
    if is_running and request.name is not None and not request.is_answered_by(found):
        snapshot = get_catalogue(CachePolicy.CACHED)
        raise unknown_model(request.name, snapshot, request.purpose)
    return found


def make_names_of_catalogue() -> None:
    """Writes the names of the last snapshot, so that completion has them. Looks for no models."""
    with contextlib.suppress(LocalRunError):
        _write(get_catalogue(CachePolicy.CACHED))


def server_if_off(model_id: str) -> Endpoint | None:
    """The server of a model, if it is on this machine, nothing listens there and no file is here.

    `model_id` is one of the last snapshot.
    """
    from llm_localrun.wire.http import is_listening

    model = next((m for m in get_catalogue(CachePolicy.CACHED).models if m.id == model_id), None)
    if model is None or model.served is None or model.on_disk is not None:
        return None
    endpoint = model.served.endpoint
    is_off = is_loopback(endpoint.url) and not is_listening(endpoint.url)
    return endpoint if is_off else None


def _without_servers_that_are_off(
    request: NameRequest, found: list[Registration]
) -> list[Registration]:
    """`found`, in which the requested alias means a model that can run, if there is one."""
    noted: set[str] = set()
    while (model_id := request.target_of_alias(found)) is not None:
        endpoint = server_if_off(model_id)
        if endpoint is None or endpoint.url in noted:
            break
        noted.add(endpoint.url)
        note_offline(endpoint)
        found = _find(request, may_retry=False, is_running=True)
    return found


def _find(request: NameRequest, *, may_retry: bool, is_running: bool) -> list[Registration]:
    """The models that discovery finds, as the policy says.

    A name that is not known is looked for until it is found, if that `may_retry`.
    """

    def has_name(snapshot: Snapshot) -> bool:
        return request.is_answered_by(request.select(_names_in(snapshot)))

    is_sought = may_retry and request.name is not None and not is_path(request.name)
    if is_sought and not has_name(get_catalogue(CachePolicy.CACHED)):
        # The best model of all is only known when every server has answered.
        runs_the_best = is_running and request.name and means_the_best(request.name)
        return _look(request, CachePolicy.RETRY, None if runs_the_best else has_name)
    found = _look(request, request.policy, None)
    if is_sought and not request.is_answered_by(found):
        return _look(request, CachePolicy.RETRY, None)
    return found


def _look(
    request: NameRequest, policy: CachePolicy, is_enough: IsEnough | None
) -> list[Registration]:
    """Looks for models, and writes their names."""
    snapshot = get_catalogue(policy, is_enough)
    names = _write(snapshot)
    found = request.select(names)
    if request.name is None or not is_path(request.name):
        return found
    (at_path,) = candidates(request.name, snapshot.models, order_of(read_config(), snapshot))
    if at_path.purpose != request.purpose:
        return found
    aliases = next((aliases for model, aliases in found if model.id == at_path.id), [])
    others = [each for each in found if each[0].id != at_path.id]
    return [*others, (at_path, [*aliases, request.name])]


def _write(snapshot: Snapshot) -> list[CachedName]:
    """The names of the models, which it writes to `names.json`."""
    names = _names_in(snapshot)
    write_names(
        NameCache(
            snapshot.taken_at, snapshot.stamp, snapshot.is_partial, snapshot.is_complete, names
        )
    )
    return names


def _names_in(snapshot: Snapshot) -> list[CachedName]:
    return make_names(snapshot.models, order_of(read_config(), snapshot))
