"""Chooses from the recommended models those that fit a machine, for a use.

Whether a model fits is decided in `memory.fit`, how fast it will be in `speed`. Pure but for the
speed, which may be measured.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from llm_localrun.engine_defaults import CONTEXT_SIZE
from llm_localrun.memory.fit import default_setting, is_enough
from llm_localrun.memory.footprint import Setting, context_bytes
from llm_localrun.memory.geometry import geometry_of
from llm_localrun.recommended.models import RecommendedModel, Use
from llm_localrun.recommended.speed import TokenCost, expected_speed

SpeedOf: TypeAlias = Callable[[TokenCost], float | None]
"""How many tokens a second a model generates that costs so much."""
MAX_ROWS = 5
ASSUMED_MEMORY = 8 * 10**9
"""RAM of a machine that does not say how much it has."""
_CONTEXTS = (CONTEXT_SIZE, CONTEXT_SIZE // 2)
"""Tokens. The smaller context counts only where no model fits with the larger one."""
_READING_SPEED = 6.0
"""Tokens a second: about as fast as people read."""
_SLOW = _READING_SPEED / 2
"""Slower models come last."""
_MAX_SYSTEM_BYTES = 3 * 2**30
"""What a desktop and a browser take, where that is more than a quarter of the RAM."""
_SHORT_CONVERSATION_TOKENS = 1024
_MIX = (Use.CODE, Use.VISION, Use.SMALL, Use.EMBED, Use.THINKING, Use.TOOLS)
"""What a mix has besides models for chat, until it is long enough."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A model, and how it runs on a machine.

    `memory` is the bytes that it takes with a context of `context_size` tokens;
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

    def reaches(self, speed: float) -> bool:
        """Whether it generates so many tokens a second, as far as that is known."""
        return self.tokens_per_second is None or self.tokens_per_second >= speed


def usable_memory(ram: int) -> int:
    """The bytes that a model may take on an idle machine with `ram` bytes.

    The system and other programs need a quarter, which is also what engines leave (`engine_memory`
    in config.json), and on a small machine more: 3 GiB, up to two fifths.
    """
    return ram - max(ram // 4, min(ram * 2 // 5, _MAX_SYSTEM_BYTES))


def recommend(
    models: Iterable[RecommendedModel],
    use: Use | None,
    memory: int | None,
    gpu_memory: int = 0,
    speed_of: SpeedOf = expected_speed,
) -> list[Recommendation]:
    """At most `MAX_ROWS` of `models`, the best first, for a machine with `memory` bytes of RAM.

    Without a `use` they are a mix. `models` are in their order, the best first. `gpu_memory` is
    the bytes of GPUs besides RAM that are free. None for `memory` counts as `ASSUMED_MEMORY`.
    """
    available = usable_memory(ASSUMED_MEMORY if memory is None else memory) + gpu_memory
    choice = _Choice([*models], available, speed_of)
    return (choice.mix() if use is None else choice.ranked(use))[:MAX_ROWS]


@dataclass(frozen=True, slots=True)
class _Choice:
    """What there is to choose from, and how many bytes a model may take."""

    models: Sequence[RecommendedModel]
    available: int
    speed_of: SpeedOf

    def mix(self) -> list[Recommendation]:
        """The best model for chat, the best of half its size that is as fast as people read, and
        the best for each use that these are not for."""
        chat = self.ranked(Use.CHAT)
        mix = chat[:1]
        lighter = (
            each
            for each in chat[1:]
            if 2 * each.model.size <= mix[0].model.size and each.reaches(_READING_SPEED)
        )
        mix += islice(lighter, 1)
        for use in _MIX:
            if not any(use in each.model.uses for each in mix):
                mix += self.ranked(use)[:1]
        return mix

    def ranked(self, use: Use) -> list[Recommendation]:
        """The models for `use` that fit, the best first, slow ones last.

        Where none for chat fits, the small ones are for it: they chat, if not well.
        """
        wanted = [model for model in self.models if use in model.uses]
        for context_size in _CONTEXTS:
            fitted = (self._fitted(model, context_size) for model in wanted)
            if found := [each for each in fitted if each]:
                return sorted(found, key=lambda each: not each.reaches(_SLOW))
        return self.ranked(Use.SMALL) if use is Use.CHAT else []

    def _fitted(self, model: RecommendedModel, context_size: int) -> Recommendation | None:
        """How a model runs with this context; None if it does not fit."""
        size = min(context_size, model.context_max or context_size)
        setting = default_setting(size, model.purpose)
        footprint = model.footprint
        if not is_enough(self.available, footprint, setting):
            return None
        speed = None if model.purpose == "embedding" else self.speed_of(cost_of(model))
        return Recommendation(model, size, footprint.need(setting).total, speed)


def cost_of(model: RecommendedModel) -> TokenCost:
    """What generating a token takes in a short conversation."""
    geometry = geometry_of(model.header)
    setting = Setting(_SHORT_CONVERSATION_TOKENS)
    return TokenCost(
        model.active_bytes,
        context_bytes(geometry, setting) if geometry else 0,
        model.quantization,
        model.header.of_architecture("block_count") or 0,
        model.header.of_architecture("embedding_length") or 0,
    )
