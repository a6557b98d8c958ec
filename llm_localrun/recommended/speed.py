"""How many tokens a second a model will generate on this machine.

A model reads all its active weights, and the cache of the conversation, for each token.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenCost:
    """What generating one token takes.

    `active_bytes` is the bytes of weights that are read, `cache_bytes` those of the conversation's
    cache. `quantization` is the type of most weights, `layers` how many there are.
    """

    active_bytes: int
    cache_bytes: int = 0
    quantization: str = ""
    layers: int = 0


def expected_speed(cost: TokenCost) -> float | None:
    """Tokens a second; None if it cannot be told. Measures memory once if it has to (0.5 s)."""
    return None
