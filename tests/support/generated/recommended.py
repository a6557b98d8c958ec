"""The table of recommended models in README.md: the first ones for each size of RAM."""

from llm_localrun.recommended.bandwidth import Rates
from llm_localrun.recommended.choose import Recommendation, recommend
from llm_localrun.recommended.models import Use, listed_models
from llm_localrun.recommended.speed import TokenCost, speed_by
from tests.support.generated.markdown import table

RECOMMENDED_RAM_GB = (8, 16, 32, 64)
RECOMMENDED_USES = {"chat": Use.CHAT, "code": Use.CODE}
"""The heads of the columns of recommended models, and what each column is for."""
_DESKTOP = Rates(reads={"Q4_K": 40e9}, step=2e-6)
"""The speed of a desktop computer without a GPU: 40 GB of weights a second."""


def recommended_table() -> str:
    """Markdown: for each size of RAM, the first recommended model of each use."""
    rows = [
        (f"{ram} GB", *(_first_for(use, ram) for use in RECOMMENDED_USES.values()))
        for ram in RECOMMENDED_RAM_GB
    ]
    return table(("RAM", *RECOMMENDED_USES), rows)


def _first_for(use: Use, ram_gb: int) -> str:
    first = recommended_for(use, ram_gb)[0].model
    return f"`{first.name}` ({first.size / 1e9:.{0 if first.size >= 9.95e9 else 1}f} GB)"


def recommended_for(use: Use, ram_gb: int) -> list[Recommendation]:
    """What `llm localrun recommend --for USE --memory` says on such a desktop, without a log."""
    return recommend(listed_models(), use, ram_gb * 2**30, speed_of=_desktop_speed)


def _desktop_speed(cost: TokenCost) -> float | None:
    return speed_by(_DESKTOP, cost, ())
