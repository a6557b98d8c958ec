"""`-o think` to what a model can do: pure."""

from collections.abc import Sequence

# From least to most; `on` is what a model does when it is not told how much.
LEVELS = ("off", "low", "on", "medium", "high", "max")


def clamp(level: str, allowed: Sequence[str] | None) -> str | None:
    """The level nearest to `level` that is `allowed`; None if the model cannot think at all.

    A model that cannot be kept from thinking is asked to think little; None as `allowed` means
    that nobody knows, and lets everything through.
    """
    if allowed is None or level in allowed:
        return level
    thinking = [known for known in allowed if known != "off" and known in LEVELS]
    if not thinking:
        return None
    return min(thinking, key=lambda known: abs(LEVELS.index(known) - LEVELS.index(level)))
