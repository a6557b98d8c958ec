"""What was learned of each model at a server, kept in `localrun/tokens.json`.

The file holds numbers, times and model ids, no text. Two commands that write it at the same time
may lose what one of them learned. `estimate.py` has the arithmetic.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_localrun.system.atomic import read_own, write_atomically
from llm_localrun.system.paths import home
from llm_localrun.tokens.estimate import Parts, learn, least_plausible

_MAX_MODELS = 200


class ModelFacts(BaseModel):
    """What was learned of one model.

    `script_factors` correct the estimate of its tokens: `{"CJK": 0.52}`. Contexts are tokens:
    `context_size` is the one it was last loaded for, 0 if that is its server's default;
    `usual_context` is the one that its server gives to a request that asks for none, 0 if unknown.
    `asked_at` is when its server last said where it runs, in seconds since the epoch.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    script_factors: dict[str, Annotated[float, Field(gt=0, le=40)]] = Field(default_factory=dict)
    context_size: int = Field(default=0, ge=0)
    usual_context: int = Field(default=0, ge=0)
    asked_at: float = Field(default=0.0, ge=0)


class _TokensFile(BaseModel):
    models: dict[str, ModelFacts] = Field(default_factory=dict)


def read_facts(model_id: str) -> ModelFacts:
    """What was learned of a model; nothing if the file cannot be read."""
    return _read().models.get(model_id, ModelFacts())


def write_facts(model_id: str, facts: ModelFacts) -> None:
    """Writes what was learned of a model, unless the file cannot be written.

    Keeps the 200 models that were written last.
    """
    _write({model_id: facts})


def reloaded_models(prefix: str) -> dict[str, int]:
    """The contexts of the models that were loaded for one, of those whose ids have `prefix`."""
    models = _read().models.items()
    return {
        key: facts.context_size
        for key, facts in models
        if facts.context_size and key.startswith(prefix)
    }


def set_reloaded_models(before: Mapping[str, int], sizes: Mapping[str, int]) -> None:
    """Makes `sizes` of what `reloaded_models` has returned as `before`."""
    if changed := sorted({key for key, _ in before.items() ^ sizes.items()}):
        models = _read().models
        changes = {}
        for key in changed:
            facts = models.get(key, ModelFacts())
            changes[key] = facts.model_copy(update={"context_size": sizes.get(key, 0)})
        _write(changes)


def learn_from_reply(model_id: str, parts: Parts, counted: int) -> None:
    """Corrects the estimate for a model after its server counted the tokens of a prompt.

    Ignores a count that is too low to be that of the whole prompt.
    """
    if counted < least_plausible(parts):
        return
    facts = read_facts(model_id)
    factors = learn(facts.script_factors, parts, counted)
    if factors != facts.script_factors:
        write_facts(model_id, facts.model_copy(update={"script_factors": factors}))


def learn_context(model_id: str, usual_context: int) -> None:
    """Remembers the context that a request to a model gets if it asks for none."""
    facts = read_facts(model_id).model_copy(update={"usual_context": usual_context})
    write_facts(model_id, facts)


def record_asked(model_id: str, asked_at: float) -> None:
    """Remembers when the server of a model said where it runs."""
    write_facts(model_id, read_facts(model_id).model_copy(update={"asked_at": asked_at}))


def _write(changes: Mapping[str, ModelFacts]) -> None:
    others = {key: value for key, value in _read().models.items() if key not in changes}
    latest = dict([*others.items(), *changes.items()][-_MAX_MODELS:])
    with contextlib.suppress(OSError):
        write_atomically(_path(), _TokensFile(models=latest).model_dump_json().encode())


def _read() -> _TokensFile:
    try:
        return _TokensFile.model_validate_json(read_own(_path()))
    except (OSError, ValidationError):
        return _TokensFile()


def _path() -> Path:
    return home() / "tokens.json"
