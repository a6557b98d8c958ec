"""What to do if no model here will do: the command that runs another one, or gets one.

Each function returns a sentence without a full stop that ends with a command in backticks. Which
models are here, and which of them a name denotes, is left to `resolve`.
"""

import re
import shlex
from collections.abc import Iterable

from llm_localrun.engine_defaults import CONTEXT_SIZE
from llm_localrun.memory.fit import fit_of_model
from llm_localrun.models import LocalModel, Purpose
from llm_localrun.names.aliases import Order, ordered
from llm_localrun.names.parse import parse_name
from llm_localrun.names.quantizations import quantization_in, without_quantization
from llm_localrun.privacy import requires_consent
from llm_localrun.recommended.models import RecommendedModel, read_recommended, recommended_named
from llm_localrun.system.program import quoted

PULL_STARTER = "llm localrun pull starter"
RECOMMEND = "llm localrun recommend"

_ABILITIES = {
    "vision": ("can see", f"{RECOMMEND} --for vision"),
    "audio": ("can hear", "llm localrun search voxtral"),
    "tools": ("calls tools", f"{RECOMMEND} --for tools"),
    "thinking": ("thinks", f"{RECOMMEND} --for thinking"),
}
"""What models with a capability do, and the command that lists some. Voxtral hears in llama.cpp
(b11549, docs/multimodal.md)."""

_OF_ALIAS = re.compile(
    r"(?<=[-:.])(?:i?q\d-(?:[01]|k(?:-[xsml]{1,3})?|[xsmln]{1,3})|tq\d-0)(?![\w.])", re.IGNORECASE
)
"""A quantization as aliases spell it: q4-k-m."""
_SHORT = re.compile(r"(?<=[-:.])q\d(?![\w-])", re.IGNORECASE)
_OF_GGUF = re.compile(r"(?:UD-)?(?:I?Q\d|TQ|MXFP4|BF16|F16|F32)")


def how_to_get(purpose: Purpose | None) -> str:
    """How to get the first model."""
    if purpose == "embedding":
        return f"Get a small one: `{PULL_STARTER} --embed`"
    return f"Start LM Studio or Ollama, or get a small model: `{PULL_STARTER}`"


def how_to_find(name: str) -> str:
    """How to get the model that people call `name`: "qwen3-14b", "qwen3-14b-q8-0"."""
    spelled = _OF_ALIAS.sub(lambda match: match[0].replace("-", "_"), name)
    words = re.findall(r"[\w.]+", _SHORT.sub("", without_quantization(spelled)))
    if not words:
        return _see_some()
    quantization = quantization_in(spelled)
    # Repositories that are searched have GGUF files.
    chosen = ["-q", quantization] if _OF_GGUF.match(quantization) else []
    if known := recommended_named("-".join(words)):
        return f"To get it: `{quoted('llm', 'localrun', 'pull', known.name, *chosen)}`"
    return f"`{quoted('llm', 'localrun', 'pull', *words, *chosen)}` searches for one"


def _see_some() -> str:
    return f"For a model that fits this machine: `{RECOMMEND}`"


def with_ability(
    ability: str, models: Iterable[LocalModel], order: Order, arguments: tuple[str, ...] = ()
) -> str:
    """How to get an answer that needs an `ability`, such as "vision", with these `arguments`."""
    does, search = _ABILITIES[ability]
    able = (model for model in models if model.can(ability, if_unknown=False))
    for model in ordered(able, order):
        can_run = order.fits(model) and not (order.obstacle(model) or model.problem)
        if model.purpose == "chat" and can_run and not requires_consent(model):
            return f"Choose a model that {does}: `{_run(model, arguments)}`"
    return f"Choose a model that {does}: `{search}`"


def _run(model: LocalModel, arguments: tuple[str, ...] = ()) -> str:
    if model.purpose == "embedding":
        return quoted("llm", "embed", "-m", model.id, "-c", "text")
    return quoted("llm", "-m", model.id, *arguments, "prompt")


def smaller(model: LocalModel, models: Iterable[LocalModel], memory: float) -> str:
    """How to run a smaller model than `model`, which needs more than `memory` bytes.

    Names one of its family in `models`, else a recommended one; "" if none is known to fit.
    """
    base, size = parse_name(model.name).base, model.size
    related = [
        other
        for other in models
        if other.purpose == model.purpose
        and other.size
        and parse_name(other.name).base == base
        and (size is None or other.size < size)
        and not (other.problem or requires_consent(other))
        and fit_of_model(other, int(memory)).fits
    ]
    if related:
        best = max(related, key=lambda other: (other.size or 0, other.id))
        return f"Run a smaller one: `{_run(best)}`"
    return smaller_to_get(model.name, model.purpose, size, memory)


def smaller_to_get(name: str, purpose: Purpose, size: int | None, memory: float) -> str:
    """How to get the largest recommended model that has less than `size` bytes and fits `memory`
    bytes, of the family of `name` if there is one; "" if there is none."""
    base = parse_name(name).base
    found = [
        each
        for each in read_recommended()
        if each.purpose == purpose and (size is None or each.size < size) and _fits(each, memory)
    ]
    if not found:
        return ""
    best = max(found, key=lambda each: (parse_name(each.name).base == base, each.size))
    return f"Get a smaller one: `llm localrun pull {shlex.quote(best.name)}`"


def _fits(model: RecommendedModel, memory: float) -> bool:
    enough = min(CONTEXT_SIZE, model.context_max or CONTEXT_SIZE)
    return model.fit_in(memory).fits_with(enough)
