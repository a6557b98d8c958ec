"""The options of a prompt, `-o NAME VALUE`, and their validation.

Which server supports which option, and under what name, is in the modules of `servers`.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

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


def _trimmed(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


_SWITCH = {
    **dict.fromkeys(("true", "yes", "1"), "on"),
    **dict.fromkeys(("false", "no", "0"), "off"),
}


def _think(value: object) -> object:
    """The level of thinking that `value` means: true is on, false is off."""
    if not isinstance(value, (str, int)):
        return value
    level = str(value).strip().lower()
    return _SWITCH.get(level, level)


Texts = Annotated[list[str], BeforeValidator(_strings)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(_json)]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
Think = Literal["off", "on", "low", "medium", "high", "max"]


def _option(
    what: str, default: str, *, one_of: Sequence[str] = (), or_else: str = "", **limits: Any
) -> Any:
    """A field that is unset by default. `limits` are arguments of pydantic's `Field`.

    `default` says what then holds. The parts of the description stand in the same order in each,
    because the table of the options is made from them.
    """
    choices = ", ".join([*one_of, *([f"or {or_else}"] if or_else else [])])
    parts = [what, *([f"One of: {choices}"] if choices else []), f"Default: {default}"]
    return Field(default=None, description=". ".join(parts), **limits)


_MODELS = "the model's"
_NONE = "none"
_TOOL_CHOICES = ("auto", "none", "required")
_DRAFTS = ("none", "auto", "ngram")


class Options(llm.Options):
    """Options for sampling and for running; None: the model and its server decide."""

    model_config = ConfigDict(allow_inf_nan=False)

    temperature: float | None = _option(
        "Randomness of sampling; 0 always takes the most likely token", _MODELS, ge=0
    )
    top_p: float | None = _option(
        "Sample from the most likely tokens whose probabilities add up to this", _MODELS, gt=0, le=1
    )
    top_k: int | None = _option(
        "Sample from this many of the most likely tokens; 0: all", _MODELS, ge=0
    )
    min_p: float | None = _option(
        "Drop tokens less likely than this share of the most likely one", _MODELS, ge=0, le=1
    )
    typical_p: float | None = _option(
        "Locally typical sampling; 1 turns it off", _MODELS, gt=0, le=1
    )
    repeat_penalty: float | None = _option(
        "Penalty on tokens that occurred recently; 1 turns it off", _MODELS, gt=0
    )
    presence_penalty: float | None = _option(
        "Penalty on tokens that occurred at all", _MODELS, ge=-2, le=2
    )
    frequency_penalty: float | None = _option(
        "Penalty on tokens for each time that they have occurred", _MODELS, ge=-2, le=2
    )
    seed: int | None = _option("Seed of the sampler, for repeatable answers", "a random one")
    max_tokens: int | None = _option(
        "Stop after this many generated tokens", "the server's limit, or the context", ge=1
    )
    stop: Texts | None = _option("Stop before this text (a list of texts in Python)", _MODELS)
    logit_bias: Annotated[dict[str, float], BeforeValidator(_json)] | None = _option(
        'Favor tokens by their ids, from -100 to 100: {"15043": -100}', _NONE
    )
    json_object: bool | None = _option(
        "Make the answer a JSON object; ask for one in the prompt too", "false"
    )
    tool_choice: Annotated[str, BeforeValidator(_trimmed), Field(min_length=1)] | None = _option(
        "Whether to call a tool, and which",
        "auto",
        one_of=_TOOL_CHOICES,
        or_else="the name of a tool",
    )
    tool_repair: bool | None = _option(
        "Whether to ask once more if the answer is a tool call that is not valid, or another call"
        " instead of an answer",
        "true",
    )
    think: Annotated[Think, BeforeValidator(_think)] | None = _option(
        "Whether and how much to think before the answer", _MODELS, one_of=get_args(Think)
    )
    context_size: Annotated[int, Field(ge=16)] | Literal["max"] | None = _option(
        "Tokens of context for the prompt and the answer together",
        "what the prompt needs",
        one_of=["max"],
        or_else="a number",
    )
    quantization: Annotated[str, BeforeValidator(_upper)] | None = _option(
        "Run this variant of the model: Q4_K_M, Q8_0, 4BIT", "the one that the name means"
    )
    keep_alive: Duration | None = _option(
        "How long the model stays loaded after use: seconds, 10m, 0, or -1 forever",
        "the server's; 5m for GGUF files",
    )
    gpu_layers: int | None = _option("Layers to put on the GPU; 0: none", "as many as fit", ge=0)
    threads: int | None = _option("Number of CPU threads", "llama.cpp chooses", ge=1, le=512)
    kv_cache_type: Annotated[CacheType, BeforeValidator(_lower)] | None = _option(
        "Data type of the KV cache; q8_0 halves its memory", "f16", one_of=get_args(CacheType)
    )
    overcommit: bool | None = _option(
        "Load the model even if it needs more memory than is free", "false"
    )
    flash_attention: bool | None = _option(
        "Attention that needs less memory for long contexts", "llama.cpp chooses"
    )
    draft_model: str | None = _option(
        "What drafts tokens: auto drafts from the conversation where that pays, ngram drafts more",
        "none",
        one_of=_DRAFTS,
        or_else="a GGUF file of a small model",
    )
    lora: str | None = _option("GGUF file of a LoRA adapter to apply", _NONE)
    chat_template: str | None = _option(
        "Chat template to use: a Jinja file, or a name of llama.cpp's", _MODELS
    )
    grammar: str | None = _option("Grammar of the answer in llama.cpp's GBNF", _NONE)
    timeout: float | None = _option(
        "Seconds to wait for the next data from the server", "600", gt=0
    )
    extra_body: JsonObject | None = _option(
        "JSON object that is merged into the body of the request",
        _NONE,
        validation_alias=AliasChoices("extra_body", "extra"),
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_both_names(cls, values: Any) -> Any:
        if isinstance(values, dict) and {"extra", "extra_body"} <= values.keys():
            raise ValueError("extra is the old name of extra_body; give only one of them")
        return values


def choices_of(option: str) -> list[str]:
    """The words that an option takes, if there are some; else []."""
    schema = Options.model_json_schema()["properties"].get(option, {})
    choices = list({"tool_choice": _TOOL_CHOICES, "draft_model": _DRAFTS}.get(option, ()))
    for each in schema.get("anyOf", ()):
        choices += each.get("enum", ())
        choices += [each["const"]] if "const" in each else []
        choices += ["true", "false"] if each.get("type") == "boolean" else []
    return choices
