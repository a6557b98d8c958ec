"""Which backend honours which option, and what it calls it: one table.

A backend is an endpoint's `kind`; kinds without a column of their own are taken to understand the
options that OpenAI's API has, and no more. Sources: Ollama's `api/types.go` (0.32), LM Studio's
"OpenAI compatibility" page, llama.cpp's `tools/server/README.md` (b11549), vLLM's "Extra
parameters" (0.33), SGLang's and Lemonade's "OpenAI" pages, mlx_lm's `SERVER.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_localrun.errors import UnsupportedOption
from llm_localrun.servers.kinds import kind_of
from llm_localrun.wire.sse import Payload
from llm_localrun.wire.thinking import LEVELS


@dataclass(frozen=True, slots=True)
class Wire:
    """Where an option's value goes in the JSON body: keys joined by dots."""

    path: str
    values: Mapping[Any, Any] | None = None
    """What to send for each of the option's values; None sends them as they are."""
    least: float | None = None
    """The smallest value that is taken."""


LAUNCH = Wire("")
"""Not sent: settled when the engine's process is started, or before anything is sent."""

OPENAI = "openai"

_JSON = Wire("response_format.type", {True: "json_object"})

_EFFORT = {"off": "none", "on": "medium", "max": "high"}
_EFFORTS = {level: _EFFORT.get(level, level) for level in LEVELS}
_OLLAMA_THINK = {"off": False, "on": True}
_TEMPLATE_THINK = {
    level: {
        "enable_thinking": level != "off",
        **({"reasoning_effort": _EFFORTS[level]} if level not in ("off", "on") else {}),
    }
    for level in LEVELS
}

TABLE: dict[str, dict[str, Wire]] = {
    "temperature": {"ollama": Wire("options.temperature"), OPENAI: Wire("temperature")},
    "top_p": {"ollama": Wire("options.top_p"), OPENAI: Wire("top_p")},
    "top_k": {
        "ollama": Wire("options.top_k"),
        "lmstudio": Wire("top_k"),
        "llamacpp": Wire("top_k"),
        "vllm": Wire("top_k"),
        "lemonade": Wire("top_k"),
        "mlx": Wire("top_k"),
    },
    "min_p": {
        "ollama": Wire("options.min_p"),
        "llamacpp": Wire("min_p"),
        "vllm": Wire("min_p"),
        "mlx": Wire("min_p"),
    },
    "typical_p": {"ollama": Wire("options.typical_p"), "llamacpp": Wire("typical_p")},
    "repeat_penalty": {
        "ollama": Wire("options.repeat_penalty"),
        "lmstudio": Wire("repeat_penalty"),
        "llamacpp": Wire("repeat_penalty"),
        "vllm": Wire("repetition_penalty"),
        "lemonade": Wire("repeat_penalty"),
        "mlx": Wire("repetition_penalty"),
    },
    "presence_penalty": {
        "ollama": Wire("options.presence_penalty"),
        OPENAI: Wire("presence_penalty"),
    },
    "frequency_penalty": {
        "ollama": Wire("options.frequency_penalty"),
        OPENAI: Wire("frequency_penalty"),
    },
    "seed": {"ollama": Wire("options.seed"), OPENAI: Wire("seed")},
    "max_tokens": {"ollama": Wire("options.num_predict"), OPENAI: Wire("max_tokens")},
    "stop": {"ollama": Wire("options.stop"), OPENAI: Wire("stop")},
    "json_object": {"ollama": Wire("format", {True: "json"}), "llamacpp": _JSON, "vllm": _JSON},
    "logit_bias": {OPENAI: Wire("logit_bias")},
    "think": {
        "ollama": Wire("think", {level: _OLLAMA_THINK.get(level, level) for level in LEVELS}),
        "llamacpp": Wire("chat_template_kwargs", _TEMPLATE_THINK),
        "vllm": Wire("chat_template_kwargs", _TEMPLATE_THINK),
        OPENAI: Wire("reasoning_effort", _EFFORTS),
    },
    "quantization": {"ollama": LAUNCH, OPENAI: LAUNCH},
    "context_size": {"ollama": Wire("options.num_ctx"), OPENAI: LAUNCH},
    "keep_alive": {
        "ollama": Wire("keep_alive"),
        "lmstudio": Wire("ttl", least=1),
        "engine": LAUNCH,
    },
    "gpu_layers": {"ollama": Wire("options.num_gpu"), "engine": LAUNCH},
    "threads": {"ollama": Wire("options.num_thread"), "engine": LAUNCH},
    "kv_cache_type": {"engine": LAUNCH},
    "overcommit": {"engine": LAUNCH},
    "flash_attention": {"engine": LAUNCH},
    "draft_model": {"engine": LAUNCH},
    "lora": {"engine": LAUNCH},
    "grammar": {"llamacpp": Wire("grammar")},
    "timeout": {"ollama": LAUNCH, OPENAI: LAUNCH},
    "extra_body": {"ollama": LAUNCH, OPENAI: LAUNCH},
}

_LIKE = {"engine": "llamacpp", "llamafile": "llamacpp", "sglang": "vllm"}
"""Kinds that take what another takes, where they have no entry of their own."""

_ALWAYS: dict[str, Payload] = {
    # Otherwise its answers end after 512 tokens. This is as good as no limit.
    "mlx": {"max_tokens": 2**17},
}


def wire_for(option: str, kind: str) -> Wire | None:
    """How a backend of `kind` takes `option`; None if it does not."""
    row = TABLE[option]
    if kind in row:
        return row[kind]
    if kind in _LIKE:
        return wire_for(option, _LIKE[kind])
    return None if kind == "ollama" else row.get(OPENAI)


def body_for(options: Mapping[str, Any], kind: str, backend: str) -> Payload:
    """The part of a request's body that carries `options`.

    `backend` is how messages name the server. Raises `UnsupportedOption`.
    """
    body: Payload = dict(_ALWAYS.get(kind, {}))
    for option, value in options.items():
        wire = wire_for(option, kind)
        if wire is None:
            raise UnsupportedOption(
                f"{backend} cannot honour -o {option}",
                f"Leave it out, or use {_others(option)}",
            )
        if wire.least is not None and value < wire.least:
            raise UnsupportedOption(
                f"{backend} cannot honour -o {option} {value:g}",
                f"Leave it out, or give {wire.least:g} or more",
            )
        is_switched_off = wire.values is not None and value not in wire.values
        if wire is not LAUNCH and not is_switched_off:
            _put(body, wire.path, value if wire.values is None else wire.values[value])
    return _merged(body, options.get("extra_body", {}))


def _merged(body: Payload, extra: Payload) -> Payload:
    """`extra` over `body`; objects that both have are merged in turn."""
    merged = {**body, **extra}
    for key in body.keys() & extra.keys():
        if isinstance(body[key], dict) and isinstance(extra[key], dict):
            merged[key] = _merged(body[key], extra[key])
    return merged


def _others(option: str) -> str:
    """Who would honour `option`."""
    names = {"engine": "a GGUF file", OPENAI: "an OpenAI-compatible server"}
    row = [*TABLE[option]]
    if "llamacpp" in row and "engine" not in row:
        row.append("engine")
    return " or ".join(names.get(kind) or f"a model of {kind_of(kind).title}'s" for kind in row)


def _put(body: Payload, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        body = body.setdefault(parent, {})
    body[last] = value
