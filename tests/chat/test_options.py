"""Which values `-o` accepts, and what each kind of server receives for them."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from llm_localrun.chat.options import Options
from llm_localrun.errors import UnsupportedOption
from llm_localrun.servers.base import server_kinds
from llm_localrun.wire.sse import Payload
from tests.support.servers import server

pytestmark = pytest.mark.pure

# llm passes every value as the text that the user typed.
GOOD: list[tuple[str, str, object]] = [
    ("temperature", "0", 0.0),
    ("temperature", "0.7", 0.7),
    ("temperature", "2", 2.0),
    ("temperature", " 1e-1 ", 0.1),
    ("top_p", "1", 1.0),
    ("top_p", "0.05", 0.05),
    ("top_k", "0", 0),
    ("top_k", "40", 40),
    ("min_p", "0", 0.0),
    ("min_p", "1", 1.0),
    ("typical_p", "0.5", 0.5),
    ("repeat_penalty", "1.1", 1.1),
    ("presence_penalty", "-2", -2.0),
    ("presence_penalty", "2", 2.0),
    ("frequency_penalty", "-0.5", -0.5),
    ("seed", "42", 42),
    ("seed", "-1", -1),
    ("max_tokens", "1", 1),
    ("max_tokens", "4096", 4096),
    ("stop", "END", ["END"]),
    ("stop", "a, b", ["a, b"]),
    ("json_object", "true", True),
    ("json_object", "1", True),
    ("json_object", "yes", True),
    ("json_object", "false", False),
    ("json_object", "0", False),
    ("context_size", "16", 16),
    ("context_size", "32768", 32768),
    ("context_size", "max", "max"),
    ("logit_bias", '{"15043": -100}', {"15043": -100.0}),
    ("logit_bias", "{}", {}),
    *(("tool_choice", typed, typed) for typed in ("auto", "required", "none", "get.weather-2")),
    ("tool_choice", " Get_Weather ", "Get_Weather"),
    ("tool_repair", "off", False),
    ("tool_repair", "on", True),
    ("tool_repair", "no", False),
    ("think", "off", "off"),
    ("think", "on", "on"),
    ("think", " LOW ", "low"),
    ("think", "Medium", "medium"),
    ("think", "high", "high"),
    ("think", "max", "max"),
    *(("think", typed, "on") for typed in ("true", " True ", "yes", "1")),
    *(("think", typed, "off") for typed in ("false", "FALSE", "no", "0")),
    ("quantization", "q4_k_m", "Q4_K_M"),
    ("quantization", " 4bit ", "4BIT"),
    ("kv_cache_type", "q8_0", "q8_0"),
    ("kv_cache_type", "IQ4_NL", "iq4_nl"),
    ("kv_cache_type", " F16 ", "f16"),
    ("overcommit", "true", True),
    ("flash_attention", "on", True),
    ("flash_attention", "off", False),
    ("draft_model", "~/Draft.gguf", "~/Draft.gguf"),
    ("draft_model", "auto", "auto"),
    ("lora", "Adapter.gguf", "Adapter.gguf"),
    ("chat_template", "~/Chat.jinja", "~/Chat.jinja"),
    ("chat_template", "gemma", "gemma"),
    ("grammar", 'root ::= "yes"', 'root ::= "yes"'),
    ("extra_body", '{"options": {"num_batch": 8}}', {"options": {"num_batch": 8}}),
    ("extra_body", "{}", {}),
    ("keep_alive", "90", 90.0),
    ("keep_alive", "0", 0.0),
    ("keep_alive", "-1", -1.0),
    ("keep_alive", "1.5", 1.5),
    ("keep_alive", "45s", 45.0),
    ("keep_alive", "10m", 600.0),
    ("keep_alive", "1h", 3600.0),
    ("keep_alive", "1h30m", 5400.0),
    ("keep_alive", "1h1m1s", 3661.0),
    ("keep_alive", "1.5h", 5400.0),
    ("keep_alive", "500ms", 0.5),
    ("keep_alive", "0s", 0.0),
    ("keep_alive", " 10M ", 600.0),
    ("gpu_layers", "0", 0),
    ("gpu_layers", "99", 99),
    ("threads", "1", 1),
    ("threads", "512", 512),
    ("timeout", "0.5", 0.5),
    ("timeout", "30", 30.0),
]


@pytest.mark.parametrize(("name", "typed", "value"), GOOD)
def test_accepted(name: str, typed: str, value: object) -> None:
    accepted = getattr(Options.model_validate({name: typed}), name)
    assert (accepted, type(accepted)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("temperature", "-0.1"),
        ("temperature", "hot"),
        ("temperature", ""),
        ("top_p", "0"),
        ("top_p", "1.01"),
        ("top_k", "-1"),
        ("top_k", "1.5"),
        ("min_p", "-0.1"),
        ("min_p", "1.1"),
        ("typical_p", "0"),
        ("typical_p", "1.1"),
        ("repeat_penalty", "0"),
        ("repeat_penalty", "-1"),
        ("presence_penalty", "2.1"),
        ("presence_penalty", "-2.1"),
        ("frequency_penalty", "2.1"),
        ("frequency_penalty", "-2.1"),
        ("seed", "x"),
        ("seed", "0.5"),
        ("max_tokens", "0"),
        ("max_tokens", "-1"),
        ("max_tokens", "many"),
        ("json_object", "maybe"),
        ("json_object", "2"),
        ("context_size", "15"),
        ("context_size", "-1"),
        ("context_size", "8k"),
        ("context_size", "most"),
        ("logit_bias", "15043"),
        ("logit_bias", "[]"),
        ("logit_bias", '{"15043": "never"}'),
        ("logit_bias", '{"15043": NaN}'),
        ("logit_bias", '{"15043": 1e999}'),
        ("tool_choice", ""),
        ("tool_choice", " "),
        ("tool_repair", "never"),
        ("think", ""),
        ("think", "2"),
        ("think", "xhigh"),
        ("kv_cache_type", "q3_0"),
        ("flash_attention", "maybe"),
        ("extra_body", ""),
        ("extra_body", "{"),
        ("extra_body", "[1]"),
        ("extra_body", '"text"'),
        # No JSON can carry these.
        ("extra_body", '{"a": NaN}'),
        ("extra_body", '{"a": [-Infinity]}'),
        ("extra_body", '{"a": 1e999}'),
        ("extra_body", '{"a":' * 100_000),
        ("keep_alive", ""),
        ("keep_alive", "ten minutes"),
        ("keep_alive", "m"),
        ("keep_alive", "10x"),
        ("keep_alive", "10m5"),
        ("keep_alive", "5 10m"),
        ("keep_alive", "-5m"),
        ("keep_alive", "1d"),
        ("gpu_layers", "-1"),
        ("gpu_layers", "all"),
        ("threads", "0"),
        ("threads", "513"),
        ("timeout", "0"),
        ("timeout", "-1"),
        ("timeout", "10m"),
        ("unknown", "1"),
        *((name, typed) for name in ("temperature", "repeat_penalty") for typed in ("nan", "inf")),
        *((name, typed) for name in ("keep_alive", "timeout") for typed in ("nan", "inf")),
    ],
)
def test_refused(name: str, typed: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Options.model_validate({name: typed})
    # A union has an error for each of its members.
    assert {error["loc"][0] for error in refused.value.errors()} == {name}


def test_error_for_a_duration_gives_examples() -> None:
    with pytest.raises(ValidationError, match="such as 45s, 10m or 1h30m"):
        Options.model_validate({"keep_alive": "soon"})


@pytest.mark.parametrize("name", ["extra_body", "logit_bias"])
def test_error_for_json_says_how_to_give_it(name: str) -> None:
    with pytest.raises(ValidationError, match="give a JSON object, in quotes"):
        Options.model_validate({name: "{a: 1}"})


def test_python_values_are_accepted_too() -> None:
    options = Options(
        stop=["END", "\n"],
        keep_alive=600,
        temperature=1,
        seed=None,
        logit_bias={"15043": -100},
        extra_body={"options": {"num_batch": 8}},
    )
    assert options.model_dump(exclude_none=True) == {
        "stop": ["END", "\n"],
        "keep_alive": 600.0,
        "temperature": 1.0,
        "logit_bias": {"15043": -100.0},
        "extra_body": {"options": {"num_batch": 8}},
    }


@pytest.mark.parametrize(("value", "level"), [(True, "on"), (False, "off"), (1, "on"), (0, "off")])
def test_thinking_can_be_switched_from_python(value: object, level: str) -> None:
    assert Options(think=value).think == level  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [1.0, [], {}, 2])
def test_thinking_is_no_other_value(value: object) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate({"think": value})


@pytest.mark.parametrize("name", ["extra", "extra_body"])
def test_extra_is_an_old_name_of_extra_body(name: str) -> None:
    assert Options.model_validate({name: '{"a": 1}'}).extra_body == {"a": 1}
    options = Options.model_validate({name: {"a": 1}})
    assert options.model_dump(exclude_none=True) == {"extra_body": {"a": 1}}


def test_extra_and_extra_body_together_are_refused() -> None:
    with pytest.raises(ValidationError, match="extra is the old name of extra_body; give only one"):
        Options.model_validate({"extra": "{}", "extra_body": "{}"})


def test_options_are_unset_by_default() -> None:
    assert set(Options().model_dump().values()) == {None}


@pytest.mark.parametrize("name", Options.model_fields)
def test_every_option_has_a_description(name: str) -> None:
    description = Options.model_fields[name].description
    assert description
    assert description[0].isupper()
    assert not description.endswith(".")


def test_no_option_has_the_name_of_an_argument_of_prompt() -> None:
    taken = {
        *("prompt", "fragments", "attachments", "system", "schema", "tools", "tool_results"),
        *("system_fragments", "messages", "stream", "key", "options", "hide_reasoning"),
    }
    assert taken.isdisjoint(Options.model_fields)


def test_every_option_is_supported_by_a_kind_and_no_kind_supports_another() -> None:
    supported = {name for cls in server_kinds().values() for name in cls.options}
    assert supported == set(Options.model_fields)


KINDS = (
    *("ollama", "lmstudio", "llamacpp", "llamafile", "engine", "vllm", "sglang", "lemonade"),
    "openai",
)

Bodies = dict[str, Payload]


def to(kinds: str, body: Payload) -> Bodies:
    return dict.fromkeys(kinds.split(), body)


def to_all(ollama: Payload, others: Payload) -> Bodies:
    return {**dict.fromkeys(KINDS, others), "ollama": ollama}


def as_named(name: str, value: object) -> Bodies:
    return to_all({"options": {name: value}}, {name: value})


ANY_OBJECT = {"type": "json_object", "schema": {"type": "object"}}
LOW = {"enable_thinking": True, "thinking": True, "reasoning_effort": "low"}
"""What a chat template gets for `-o think low`."""

# The body that each kind of server receives; a missing kind does not support the option.
BODIES: dict[str, tuple[object, Bodies]] = {
    "temperature": (0.5, as_named("temperature", 0.5)),
    "top_p": (0.9, as_named("top_p", 0.9)),
    "top_k": (
        40,
        to("ollama", {"options": {"top_k": 40}})
        | to("lmstudio llamacpp llamafile engine vllm sglang lemonade", {"top_k": 40}),
    ),
    "min_p": (
        0.1,
        to("ollama", {"options": {"min_p": 0.1}})
        | to("llamacpp llamafile engine vllm sglang", {"min_p": 0.1}),
    ),
    "typical_p": (
        0.5,
        to("ollama", {"options": {"typical_p": 0.5}})
        | to("llamacpp llamafile engine", {"typical_p": 0.5}),
    ),
    "repeat_penalty": (
        1.1,
        to("ollama", {"options": {"repeat_penalty": 1.1}})
        | to("lmstudio llamacpp llamafile engine lemonade", {"repeat_penalty": 1.1})
        | to("vllm sglang", {"repetition_penalty": 1.1}),
    ),
    "presence_penalty": (-1.0, as_named("presence_penalty", -1.0)),
    "frequency_penalty": (1.0, as_named("frequency_penalty", 1.0)),
    "seed": (0, as_named("seed", 0)),
    "max_tokens": (9, to_all({"options": {"num_predict": 9}}, {"max_tokens": 9})),
    "stop": (["END"], as_named("stop", ["END"])),
    "json_object": (
        True,
        to("ollama", {"format": "json"})
        | to("llamacpp llamafile engine", {"response_format": ANY_OBJECT})
        | to("vllm sglang", {"response_format": {"type": "json_object"}}),
    ),
    "context_size": (8192, to_all({"options": {"num_ctx": 8192}}, {})),
    "keep_alive": (
        600.0,
        to("ollama", {"keep_alive": 600.0}) | to("lmstudio", {"ttl": 600.0}) | to("engine", {}),
    ),
    "gpu_layers": (0, to("ollama", {"options": {"num_gpu": 0}}) | to("engine", {})),
    "threads": (4, to("ollama", {"options": {"num_thread": 4}}) | to("engine", {})),
    "logit_bias": (
        {"15043": -100.0},
        to(" ".join(KINDS[1:]), {"logit_bias": {"15043": -100.0}}),
    ),
    "tool_choice": ("required", to_all({}, {})),
    "tool_repair": (False, to_all({}, {})),
    "think": (
        "low",
        to("ollama", {"think": "low"})
        | to("lmstudio lemonade openai", {"reasoning_effort": "low"})
        | to("llamacpp llamafile engine", {"chat_template_kwargs": LOW})
        | to("vllm sglang", {"chat_template_kwargs": LOW, "reasoning_effort": "low"}),
    ),
    "quantization": ("Q8_0", to_all({}, {})),
    "kv_cache_type": ("q8_0", to("engine", {})),
    "overcommit": (True, to("engine", {})),
    "flash_attention": (True, to("engine", {})),
    "draft_model": ("Draft.gguf", to("engine", {})),
    "lora": ("Adapter.gguf", to("engine", {})),
    "chat_template": ("gemma", to("engine", {})),
    "grammar": (
        "root ::= x",
        to("llamacpp llamafile engine", {"grammar": "root ::= x"})
        | to("vllm", {"structured_outputs": {"grammar": "root ::= x"}}),
    ),
    "timeout": (30.0, to_all({}, {})),
    "extra_body": ({"n_probs": 3, "seed": 1}, to_all(*[{"n_probs": 3, "seed": 1}] * 2)),
}


def test_bodies_has_every_option() -> None:
    assert set(BODIES) == set(Options.model_fields)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", BODIES)
def test_body_for_each_option_and_kind(option: str, kind: str) -> None:
    value, bodies = BODIES[option]
    if kind in bodies:
        assert server(kind).encode_options({option: value}) == bodies[kind]
    else:
        with pytest.raises(UnsupportedOption, match=rf" does not support -o {option}\. "):
            server(kind).encode_options({option: value})


@pytest.mark.parametrize(
    ("options", "body"),
    [
        ({}, {"max_tokens": 2**17}),
        ({"max_tokens": 9}, {"max_tokens": 9}),
        (
            {"top_k": 40, "min_p": 0.1, "repeat_penalty": 1.1, "max_tokens": 9},
            {"top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1, "max_tokens": 9},
        ),
        ({"extra_body": {"max_tokens": 7}}, {"max_tokens": 7}),
        # It ignores `reasoning_effort` beside the variables of the template.
        ({"think": "low"}, {"chat_template_kwargs": LOW, "max_tokens": 2**17}),
    ],
)
def test_body_for_mlx(options: Payload, body: Payload) -> None:
    """Without max_tokens it stops after 512 tokens."""
    assert server("mlx").encode_options(options) == body


OFF = {"enable_thinking": False, "thinking": False}


@pytest.mark.parametrize("kind", ["ollama", "llamacpp", "engine", "vllm"])
def test_json_object_false_sends_nothing(kind: str) -> None:
    assert server(kind).encode_options({"json_object": False}) == {}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "ollama",
            {
                "options": {"temperature": 0.0, "num_predict": 9, "num_ctx": 8192},
                "keep_alive": 0.0,
                "format": "json",
            },
        ),
        (
            "engine",
            {"temperature": 0.0, "max_tokens": 9, "response_format": ANY_OBJECT},
        ),
    ],
)
def test_body_for_several_options(kind: str, expected: Payload) -> None:
    options: dict[str, Any] = {
        "temperature": 0.0,
        "max_tokens": 9,
        "context_size": 8192,
        "keep_alive": 0.0,
        "json_object": True,
        "timeout": 5.0,
    }
    assert server(kind).encode_options(options) == expected


def test_body_without_options() -> None:
    assert server("ollama").encode_options({}) == {}


@pytest.mark.parametrize(
    ("options", "kind", "expected"),
    [
        ({"seed": 1}, "openai", {"seed": 7, "n_probs": 3}),
        ({"temperature": 0.5}, "openai", {"temperature": 0.5, "seed": 7, "n_probs": 3}),
        (
            {"temperature": 0.5},
            "ollama",
            {"options": {"temperature": 0.5}, "seed": 7, "n_probs": 3},
        ),
    ],
)
def test_extra_body_overrides_other_options(options: Payload, kind: str, expected: Payload) -> None:
    extra = {"seed": 7, "n_probs": 3}
    assert server(kind).encode_options({"extra_body": extra, **options}) == expected


@pytest.mark.parametrize(
    ("options", "kind", "extra", "expected"),
    [
        (
            {"temperature": 0.5, "seed": 1},
            "ollama",
            {"options": {"num_batch": 8, "seed": 7}},
            {"options": {"temperature": 0.5, "seed": 7, "num_batch": 8}},
        ),
        (
            {"think": "off"},
            "vllm",
            {"chat_template_kwargs": {"tone": "dry"}},
            {"chat_template_kwargs": {**OFF, "tone": "dry"}},
        ),
    ],
)
def test_extra_body_is_merged_into_objects_of_other_options(
    options: Payload, kind: str, extra: Payload, expected: Payload
) -> None:
    given, without = json.dumps(extra), server(kind).encode_options(options)
    assert server(kind).encode_options({**options, "extra_body": extra}) == expected
    assert json.dumps(extra) == given
    assert server(kind).encode_options(options) == without


@pytest.mark.parametrize(
    ("seconds", "refusal"),
    [
        (1.0, None),
        (600.0, None),
        (0.0, "LM Studio does not support -o keep_alive 0. Leave it out, or use 1 or more."),
        (0.5, "LM Studio does not support -o keep_alive 0.5. Leave it out, or use 1 or more."),
        (-1.0, "LM Studio does not support -o keep_alive -1. Leave it out, or use 1 or more."),
    ],
)
def test_smallest_keep_alive_of_lm_studio(seconds: float, refusal: str | None) -> None:
    if refusal is None:
        assert server("lmstudio").encode_options({"keep_alive": seconds}) == {"ttl": seconds}
    else:
        with pytest.raises(UnsupportedOption) as refused:
            server("lmstudio").encode_options({"keep_alive": seconds})
        assert str(refused.value) == refusal


@pytest.mark.parametrize(
    ("option", "kind", "alternatives"),
    [
        ("keep_alive", "vllm", "a model of Ollama or LM Studio, or a GGUF file"),
        ("threads", "vllm", "a model of Ollama, or a GGUF file"),
        ("typical_p", "vllm", "a model of Ollama, llama-server or llamafile, or a GGUF file"),
        (
            "min_p",
            "lmstudio",
            "a model of Ollama, llama-server, vLLM, llamafile, mlx_lm.server or SGLang,"
            " or a GGUF file",
        ),
        ("logit_bias", "ollama", "a model of LM Studio, llama-server or vLLM, or a GGUF file"),
        ("grammar", "ollama", "a model of llama-server, vLLM or llamafile, or a GGUF file"),
        ("grammar", "sglang", "a model of llama-server, vLLM or llamafile, or a GGUF file"),
        *(
            (
                *refused,
                "a model of Ollama, LM Studio, llama-server or vLLM, or a GGUF file",
            )
            for refused in (("stop", "mlx"), ("presence_penalty", "transformers"))
        ),
        ("lora", "llamacpp", "a GGUF file"),
        ("draft_model", "ollama", "a GGUF file"),
        (
            "json_object",
            "lmstudio",
            "a model of Ollama, llama-server, vLLM, llamafile or SGLang, or a GGUF file",
        ),
    ],
)
def test_refusal_names_the_server_and_the_alternatives(
    option: str, kind: str, alternatives: str
) -> None:
    with pytest.raises(UnsupportedOption) as refused:
        server(kind).encode_options({"seed": 1, option: 1})
    assert str(refused.value) == (
        f"{server(kind).title} does not support -o {option}. Leave it out, or use {alternatives}."
    )
