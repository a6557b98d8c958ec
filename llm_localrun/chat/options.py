"""What `-o` accepts, checked by pydantic before anything else happens.

Which backend honours which option, and under what name, is `wire_options`'s business.
"""

import json
import re
from typing import Annotated, Any, Literal

import llm
from pydantic import BeforeValidator, ConfigDict, Field

_DURATION = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(value: object) -> object:
    """`10m`, `1h30m`, `45s`, `90` or `-1` (for ever) to seconds; other types as they are."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    parts = list(_DURATION.finditer(text))
    if parts and "".join(part.group() for part in parts) == text:
        return sum(float(part["number"]) * _SECONDS[part["unit"]] for part in parts)
    try:
        return float(text)
    except ValueError:
        raise ValueError("give seconds, or a duration such as 45s, 10m or 1h30m") from None


def _strings(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _json(value: object) -> object:
    """JSON text, as it comes from the command line, to what it says."""
    if not isinstance(value, str):
        return value
    try:
        given = json.loads(value)
        # Python reads numbers that JSON does not have.
        json.dumps(given, allow_nan=False)
        return given
    except (ValueError, RecursionError):
        raise ValueError("give a JSON object, in quotes") from None


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


Duration = Annotated[float, BeforeValidator(seconds)]
Texts = Annotated[list[str], BeforeValidator(_strings)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(_json)]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
Think = Literal["off", "on", "low", "medium", "high", "max"]


class Options(llm.Options):
    """Sampling and running options; None leaves a thing to the model and its server."""

    model_config = ConfigDict(allow_inf_nan=False)

    temperature: float | None = Field(
        default=None,
        ge=0,
        description="Randomness of sampling; 0 always takes the likeliest token",
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Sample among the likeliest tokens that sum up to this",
    )
    top_k: int | None = Field(
        default=None, ge=0, description="Sample among this many of the likeliest tokens; 0: all"
    )
    min_p: float | None = Field(
        default=None, ge=0, le=1, description="Drop tokens less likely than this share of the best"
    )
    typical_p: float | None = Field(
        default=None, gt=0, le=1, description="Locally typical sampling; 1 turns it off"
    )
    repeat_penalty: float | None = Field(
        default=None,
        gt=0,
        description="Penalty on tokens that occurred lately; 1 turns it off",
    )
    presence_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="Penalty on tokens that have occurred at all"
    )
    frequency_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="Penalty on tokens by how often they have occurred"
    )
    seed: int | None = Field(
        default=None, description="Seed of the sampler, for repeatable answers"
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="Stop after this many generated tokens"
    )
    stop: Texts | None = Field(
        default=None, description="Stop before this text (a list of texts in Python)"
    )
    logit_bias: Annotated[dict[str, float], BeforeValidator(_json)] | None = Field(
        default=None, description='Favour tokens by their ids, from -100 to 100: {"15043": -100}'
    )
    json_object: bool | None = Field(
        default=None, description="Make the answer a JSON object; say so in the prompt too"
    )
    think: Annotated[Think, BeforeValidator(_lower)] | None = Field(
        default=None, description="Whether and how much to think before the answer"
    )
    context_size: Annotated[int, Field(ge=16)] | Literal["max"] | None = Field(
        default=None, description="Tokens that the prompt and the answer may fill together, or max"
    )
    quantization: Annotated[str, BeforeValidator(_upper)] | None = Field(
        default=None, description="Run this variant of the model: Q4_K_M, Q8_0, 4BIT"
    )
    keep_alive: Duration | None = Field(
        default=None,
        description="Keep the model loaded so long after its use: seconds, 10m, 0, or -1 for ever",
    )
    gpu_layers: int | None = Field(
        default=None, ge=0, description="Layers to put on the GPU; 0: none"
    )
    threads: int | None = Field(
        default=None, ge=1, le=512, description="CPU threads to compute with"
    )
    kv_cache_type: Annotated[CacheType, BeforeValidator(_lower)] | None = Field(
        default=None, description="How the engine stores the context; q8_0 halves its memory"
    )
    overcommit: bool | None = Field(
        default=None, description="Load a model even if it needs more memory than is free"
    )
    flash_attention: bool | None = Field(
        default=None, description="Attention that needs less memory for long contexts"
    )
    draft_model: str | None = Field(
        default=None,
        description="GGUF file of a model that guesses ahead, or ngram: from what was said",
    )
    lora: str | None = Field(default=None, description="GGUF file of a LoRA adapter to apply")
    grammar: str | None = Field(
        default=None, description="Grammar in llama.cpp's GBNF that the answer has to follow"
    )
    timeout: float | None = Field(
        default=None,
        gt=0,
        description="Seconds of silence after which a server counts as hung",
    )
    extra: JsonObject | None = Field(
        default=None, description="JSON object that is merged into the request as it is"
    )
