"""`-o think`: what a model can do of what was asked, and what each backend is sent for it."""

from collections.abc import Sequence

import pytest

from llm_localrun.chat.options import Options
from llm_localrun.wire.request import THINK_LEVELS, nearest_think_level
from llm_localrun.wire.sse import Payload
from tests.support.servers import server

ALL = tuple(THINK_LEVELS)
SWITCH = ("off", "on")
EFFORTS = ("low", "medium", "high")


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        # What comes of off, low, on, medium, high, max.
        pytest.param(None, ALL, id="unknown"),
        pytest.param(ALL, ALL, id="everything"),
        pytest.param(SWITCH, ("off", "on", "on", "on", "on", "on"), id="a switch"),
        pytest.param(("on",), ("on",) * 6, id="always"),
        pytest.param(("off",), ("off", None, None, None, None, None), id="never"),
        pytest.param((), (None,) * 6, id="nothing at all"),
        pytest.param(("low",), ("low",) * 6, id="one level"),
        pytest.param(EFFORTS, ("low", "low", "low", "medium", "high", "high"), id="efforts"),
        pytest.param(("off", *EFFORTS), ("off", "low", "low", "medium", "high", "high"), id="both"),
        pytest.param(("low", "high"), ("low", "low", "low", "high", "high", "high"), id="extremes"),
        pytest.param(("off", "max"), ("off", "max", "max", "max", "max", "max"), id="all or none"),
        pytest.param(
            ("off", "minimal", "high"),
            ("off", "high", "high", "high", "high", "high"),
            id="unknown",
        ),
        pytest.param(("minimal",), (None,) * 6, id="unknown alone"),
    ],
)
def test_nearest_level(allowed: Sequence[str] | None, expected: Sequence[str | None]) -> None:
    assert tuple(nearest_think_level(level, allowed) for level in THINK_LEVELS) == tuple(expected)


def template(effort: str | None) -> Payload:
    """The variables that templates read, each family its own."""
    thinks = {"enable_thinking": True, "thinking": True}
    return {"chat_template_kwargs": {**thinks, "reasoning_effort": effort} if effort else thinks}


def with_effort(body: Payload) -> Payload:
    """The effort outside too, for gpt-oss; never `none`, which vLLM refuses for it."""
    effort = body["chat_template_kwargs"].get("reasoning_effort")
    return {**body, "reasoning_effort": effort} if effort else body


OLLAMA: list[Payload] = [
    {"think": False},
    {"think": "low"},
    {"think": True},
    {"think": "medium"},
    {"think": "high"},
    {"think": "max"},
]
TEMPLATE: list[Payload] = [
    {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
    template("low"),
    template(None),
    template("medium"),
    template("high"),
    template("high"),
]
OPENAI: list[Payload] = [
    {"reasoning_effort": effort} for effort in ("none", "low", "medium", "medium", "high", "high")
]

# In the order of THINK_LEVELS.
BODIES = {
    "ollama": OLLAMA,
    "llamacpp": TEMPLATE,
    "engine": TEMPLATE,
    "vllm": [*map(with_effort, TEMPLATE)],
    "lmstudio": OPENAI,
    "sglang": [*map(with_effort, TEMPLATE)],
    "openai": OPENAI,
    "unheard-of": OPENAI,
}


@pytest.mark.parametrize(
    ("kind", "level", "body"),
    [
        (kind, level, body)
        for kind, bodies in BODIES.items()
        for level, body in zip(THINK_LEVELS, bodies, strict=True)
    ],
)
def test_what_a_backend_is_sent(kind: str, level: str, body: Payload) -> None:
    assert server(kind).encode_options({"think": level}) == body


def test_options_take_every_level() -> None:
    assert [Options.model_validate({"think": level}).think for level in THINK_LEVELS] == list(
        THINK_LEVELS
    )
