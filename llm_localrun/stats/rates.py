"""How fast a model read prompts at an endpoint so far, by llm's log.

Only the newest rows are read, and a row that is odd counts for nothing. Figures for people are left
to `figures`.
"""

import contextlib
from collections.abc import Iterator
from statistics import median

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError

from llm_localrun.stats.log import CONVERSATIONS, newest_rows
from llm_localrun.system.json_files import parse_json

_MAX_RATES = 9
"""The newest, because machines and servers change."""
_MIN_TOKENS = 64
"""The time of a shorter prompt says little."""
_MIN_TIMED_TOKENS = 256
"""The same where the time includes all that happens before the first token."""


class _Answer(BaseModel):
    """What is logged of an answer. `cached_tokens` is None if the server did not say."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    endpoint: str
    read: int = Field(ge=_MIN_TOKENS, lt=2**31)
    cached_tokens: int | None = Field(default=None, ge=0)
    prompt_tokens_per_second: PositiveFloat | None = None
    time_to_first_token: PositiveFloat | None = None
    load_seconds: float = Field(default=0.0, ge=0)

    def rate(self, *, is_first: bool) -> float | None:
        """Tokens a second; None if it is not clear how many were computed and in which time.

        Without a count of cached tokens, only the answer that `is_first` in its conversation was
        computed as a whole. Ollama before 0.33.3 counts the cached tokens of others in its rate.
        """
        if self.cached_tokens is None and not is_first:
            return None
        computed = self.read - (self.cached_tokens or 0)
        if self.prompt_tokens_per_second is not None:
            return self.prompt_tokens_per_second if computed >= _MIN_TOKENS else None
        seconds = (self.time_to_first_token or 0.0) - self.load_seconds
        return computed / seconds if computed >= _MIN_TIMED_TOKENS and seconds > 0 else None


def prompt_rate(model_id: str, endpoint: str) -> float | None:
    """Tokens of a prompt that the model reads in a second at the endpoint; None if unknown."""
    for table in CONVERSATIONS:
        rates = list(_rates(table, model_id, endpoint))
        if rates:
            return median(rates[-_MAX_RATES:])
    return None


def _rates(table: str, model_id: str, endpoint: str) -> Iterator[float]:
    """The rates of the newest answers, oldest first."""
    begun: set[object] = set()
    columns = f"model, {CONVERSATIONS[table]}, response_json, input_tokens"
    for model, conversation, logged, read in reversed([*newest_rows(table, columns)]):
        is_first = conversation is None or conversation not in begun
        begun.add(conversation)
        value = parse_json(logged) if model == model_id and isinstance(logged, str) else None
        with contextlib.suppress(ValidationError):
            known = value if isinstance(value, dict) else {}
            answer = _Answer.model_validate({**known, "read": read})
            rate = answer.rate(is_first=is_first) if answer.endpoint == endpoint else None
            yield from [] if rate is None else [rate]
