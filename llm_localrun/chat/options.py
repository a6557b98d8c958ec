"""The options of a prompt, `-o NAME VALUE`, and their validation.

Which server supports which option, and under what name, is in `servers.options`.
"""

import json
from typing import Annotated, Any, Literal

import llm
from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field, model_validator

from llm_localrun.config import Duration


def _strings(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _json(value: object) -> object:
    """Parses JSON text from the command line, and returns other types unchanged."""
    if not isinstance(value, str):
        return value
    try:
        given = json.loads(value)
        # Python also parses NaN and Infinity, which are not JSON.
        json.dumps(given, allow_nan=False)
        return given
    except (ValueError, RecursionError):
        raise ValueError("give a JSON object, in quotes") from None


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


Texts = Annotated[list[str], BeforeValidator(_strings)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(_json)]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
Think = Literal["off", "on", "low", "medium", "high", "max"]


class Options(llm.Options):
    """Options for sampling and for running; None: the model and its server decide."""

    model_config = ConfigDict(allow_inf_nan=False)

    temperature: float | None = Field(
        default=None,
        ge=0,
        description="Randomness of sampling; 0 always takes the most likely token",
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Sample from the most likely tokens whose probabilities add up to this",
    )
    top_k: int | None = Field(
        default=None, ge=0, description="Sample from this many of the most likely tokens; 0: all"
    )
    min_p: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Drop tokens less likely than this share of the most likely one",
    )
    typical_p: float | None = Field(
        default=None, gt=0, le=1, description="Locally typical sampling; 1 turns it off"
    )
    repeat_penalty: float | None = Field(
        default=None,
        gt=0,
        description="Penalty on tokens that occurred recently; 1 turns it off",
    )
    presence_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="Penalty on tokens that occurred at all"
    )
    frequency_penalty: float | None = Field(
        default=None,
        ge=-2,
        le=2,
        description="Penalty on tokens for each time that they have occurred",
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
        default=None, description='Favor tokens by their ids, from -100 to 100: {"15043": -100}'
    )
    json_object: bool | None = Field(
        default=None, description="Make the answer a JSON object; ask for one in the prompt too"
    )
    think: Annotated[Think, BeforeValidator(_lower)] | None = Field(
        default=None, description="Whether and how much to think before the answer"
    )
    context_size: Annotated[int, Field(ge=16)] | Literal["max"] | None = Field(
        default=None,
        description="Tokens of context for the prompt and the answer together, or max",
    )
    quantization: Annotated[str, BeforeValidator(_upper)] | None = Field(
        default=None, description="Run this variant of the model: Q4_K_M, Q8_0, 4BIT"
    )
    keep_alive: Duration | None = Field(
        default=None,
        description="How long the model stays loaded after use: seconds, 10m, 0, or -1 for ever",
    )
    gpu_layers: int | None = Field(
        default=None, ge=0, description="Layers to put on the GPU; 0: none"
    )
    threads: int | None = Field(default=None, ge=1, le=512, description="Number of CPU threads")
    kv_cache_type: Annotated[CacheType, BeforeValidator(_lower)] | None = Field(
        default=None, description="Data type of the KV cache; q8_0 halves its memory"
    )
    overcommit: bool | None = Field(
        default=None, description="Load the model even if it needs more memory than is free"
    )
    flash_attention: bool | None = Field(
        default=None, description="Attention that needs less memory for long contexts"
    )
    draft_model: str | None = Field(
        default=None,
        description="GGUF file of a draft model, or ngram to draft from the conversation",
    )
    lora: str | None = Field(default=None, description="GGUF file of a LoRA adapter to apply")
    grammar: str | None = Field(
        default=None, description="Grammar of the answer in llama.cpp's GBNF"
    )
    timeout: float | None = Field(
        default=None,
        gt=0,
        description="Seconds to wait for the next data from the server",
    )
    extra_body: JsonObject | None = Field(
        default=None,
        validation_alias=AliasChoices("extra_body", "extra"),
        description="JSON object that is merged into the body of the request",
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_both_names(cls, values: Any) -> Any:
        if isinstance(values, dict) and {"extra", "extra_body"} <= values.keys():
            raise ValueError("extra is the old name of extra_body; give only one of them")
        return values
