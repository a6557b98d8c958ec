"""Chooses from the recommended models those that fit this machine, for a use."""

from collections.abc import Iterable
from dataclasses import dataclass

from llm_localrun.recommended.models import RecommendedModel, Use

MAX_ROWS = 5


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A model, and how it runs on a machine.

    `context_size` is the tokens of context that fit, `memory` the bytes that it takes with them;
    `tokens_per_second` is None if it is not known.
    """

    model: RecommendedModel
    context_size: int
    memory: int
    tokens_per_second: float | None

    @property
    def command(self) -> str:
        """The line that gets it."""
        return f"llm localrun pull {self.model.name}"


def recommend(
    models: Iterable[RecommendedModel], use: Use | None, memory: int | None
) -> list[Recommendation]:
    """At most `MAX_ROWS` models for `use`, the best first, that run with `memory` bytes."""
    raise NotImplementedError
