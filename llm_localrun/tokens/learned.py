"""What has been learned of each model at a server: how many tokens its texts take, and the context
to which it was last made to grow. Kept in `localrun/tokens.json`.

The arithmetic is that of `tokens`. Two commands that learn at once may lose what one of them has.
"""

import contextlib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_localrun.system.atomic import write_atomically
from llm_localrun.system.paths import home

_MOST = 200
"""Models; those that were used longest ago are forgotten."""


class Known(BaseModel):
    """Of one model. `context_size` is 0 if it has not been made to grow, or has been unloaded."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    factors: dict[str, Annotated[float, Field(gt=0, le=10)]] = Field(default_factory=dict)
    context_size: int = Field(default=0, ge=0)


class _File(BaseModel):
    models: dict[str, Known] = Field(default_factory=dict)


def known_of(model_id: str) -> Known:
    """What is known of the model; nothing if that cannot be read."""
    return _read().models.get(model_id, Known())


def keep(model_id: str, known: Known) -> None:
    """Keeps what is known of the model; on a full disk, nothing is learned."""
    others = {key: value for key, value in _read().models.items() if key != model_id}
    latest = dict([*others.items(), (model_id, known)][-_MOST:])
    with contextlib.suppress(OSError):
        write_atomically(_path(), _File(models=latest).model_dump_json().encode())


def _read() -> _File:
    try:
        return _File.model_validate_json(_path().read_bytes())
    except (OSError, ValidationError):
        return _File()


def _path() -> Path:
    return home() / "tokens.json"
