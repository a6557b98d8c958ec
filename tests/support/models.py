"""Models for tests, from flat facts."""

from typing import Any

from llm_localrun.models import LocalModel, OnDisk, Route, Served

_SERVED = (
    "endpoint",
    "runs_on",
    "remote_host",
    "loaded",
    "context_loaded",
    "context_default",
    "digest",
    "also_named",
)
_ON_DISK = ("path", "store", "projector", "manifest", "file_id", "load_size", "geometry", "problem")


def local_model(**facts: Any) -> LocalModel:
    """A model with a route for its `endpoint` and one for its `path`, as far as they are given."""
    served = {name: facts.pop(name) for name in _SERVED if name in facts}
    on_disk = {name: facts.pop(name) for name in _ON_DISK if name in facts}
    routes: list[Route] = []
    if served.get("endpoint") is not None:
        routes.append(Served(**served))
    if on_disk.get("path") is not None:
        on_disk["id"] = on_disk.pop("file_id", "")
        routes.append(OnDisk(**on_disk))
    return LocalModel(**facts, routes=tuple(routes))


def changed(model: LocalModel, **facts: Any) -> LocalModel:
    """`model` with other facts; None takes a route away."""
    known = {
        **{name: getattr(model, name) for name in type(model).model_fields if name != "routes"},
        **({name: getattr(model.served, name) for name in _SERVED} if model.served else {}),
        **(model.on_disk.model_dump() if model.on_disk else {}),
    }
    if model.on_disk:
        known["file_id"], known["id"] = model.on_disk.id, model.id
    return local_model(**{**known, **facts})


def file_route(model: LocalModel) -> OnDisk:
    """The route through a file, which `model` must have."""
    assert model.on_disk is not None
    return model.on_disk


def served_route(model: LocalModel) -> Served:
    """The route through a server, which `model` must have."""
    assert model.served is not None
    return model.served
