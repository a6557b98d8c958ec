"""How fast the models generated that the engine ran here, by llm's log.

The log may be large, old, or damaged: only its newest rows are read, and a row that is odd counts
for nothing. What the figures mean for another model is left to `speed`.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError

from llm_localrun.errors import BadModelFile
from llm_localrun.recommended.speed import Run, cost_of_file
from llm_localrun.stats.log import CONVERSATIONS, newest_rows
from llm_localrun.system.json_files import parse_json

_COLUMNS = (
    "model, response_json, instr(coalesce(options_json, ''), 'draft_model') > 0,"
    " input_tokens, output_tokens"
)
_MAX_SPEEDS = 5
"""Of each model: the newest, because machines and engines change."""
_LEAST_SPEEDS = 3
"""Of each model. A machine that is busy for a moment slows an answer down, and none speeds up."""
_MIN_TOKENS = 16
"""The time of a shorter answer says little."""
_MAX_PROMPT_TOKENS = 4096
"""A long conversation slows a model down."""


class _Answer(BaseModel):
    """An answer that says how fast its model is: the engine gave it, and guessed no tokens."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    model: str
    endpoint: Literal["gguf"]
    generation_tokens_per_second: PositiveFloat
    guesses: Literal[0]
    read: int = Field(le=_MAX_PROMPT_TOKENS)
    generated: int = Field(ge=_MIN_TOKENS)


def logged_runs(path_of: Callable[[str], str | None]) -> list[Run]:
    """The models that ran here often enough, as fast as the machine allowed it.

    `path_of` returns the file of a model's id, None if it is gone.
    """
    runs = []
    for model, speeds in logged_speeds().items():
        path = path_of(model) if len(speeds) >= _LEAST_SPEEDS else None
        try:
            runs += [Run(cost_of_file(path), max(speeds))] if path else []
        except BadModelFile:
            continue
    return runs


def logged_speeds() -> Mapping[str, Sequence[float]]:
    """Tokens a second of the newest answers by the id of a model, the newest first."""
    speeds: defaultdict[str, list[float]] = defaultdict(list)
    for answer in _answers():
        if len(speeds[answer.model]) < _MAX_SPEEDS:
            speeds[answer.model].append(answer.generation_tokens_per_second)
    return speeds


def _answers() -> Iterator[_Answer]:
    """The newest answers, newest first."""
    rows = chain.from_iterable(newest_rows(table, _COLUMNS) for table in CONVERSATIONS)
    for model, logged, guesses, read, generated in rows:
        value = parse_json(logged) if isinstance(logged, str) else None
        own = {"model": model, "guesses": guesses, "read": read, "generated": generated}
        with contextlib.suppress(ValidationError):
            yield _Answer.model_validate({**(value if isinstance(value, dict) else {}), **own})
