"""What servers say of a prompt that does not fit: the numbers in it, and what to do about it.

Sources: vLLM 0.32 as recorded, and its code; SGLang 0.5.20's `TokenizerManager`; llama.cpp b10434
and LiteLLM 1.108 as recorded; LM Studio's bug tracker (237, 546, 2256) and what its clients expect;
Ollama 0.32.15 as recorded; oMLX's, mistral.rs's, GPT4All's and TabbyAPI's code.
"""

from dataclasses import dataclass

import pytest

from llm_localrun.errors import LocalRunError, PromptTooLong, UnsupportedOption
from llm_localrun.servers.base import find_overflow, server_kinds
from llm_localrun.wire.shapes import Overflow
from tests.fakes.http_server import StandIn, events, json_reply
from tests.support.drive import WAYS, ask, served

VLLM = "This model's maximum context length is 1024 tokens. "
MANY = "However, your prompt contains 100080 characters (more than 82944 characters, which is the"
BOUND = f"{VLLM}{MANY} upper bound for 1024 input tokens). Please reduce the length of the prompt."
LARGER = "start the server with a larger --max-model-len"


@dataclass(frozen=True)
class Case:
    """What a server of `kind` says, what is read from it, and the error that comes of it.

    In `problem`, {box} is the server, {said} its own words.
    """

    kind: str
    said: str
    overflow: Overflow
    problem: str
    remedy: str
    error: type[LocalRunError] = PromptTooLong


def takes(tokens: str, holds: str) -> str:
    return f"The prompt takes {tokens} tokens and {{box}} holds {holds}"


CASES = [
    Case(
        "vllm",
        f"{VLLM}However, your prompt contains at least 1025 input tokens, which exceeds this limit"
        " even without any output tokens. Please reduce the length of the input prompt."
        " (parameter=input_tokens, value=1025)",
        Overflow(1024, 1025, is_least=True),
        takes("at least 1,025", "1,024"),
        f"Shorten it, or {LARGER}",
    ),
    Case(
        "vllm",
        BOUND,
        Overflow(1024, 1025, is_least=True),
        takes("at least 1,025", "1,024"),
        f"Shorten it, or {LARGER}",
    ),
    Case(
        "vllm",
        "max_tokens=2000 cannot be greater than max_model_len=1024. Please request fewer output"
        " tokens. (parameter=max_tokens, value=2000)",
        Overflow(1024, answer_tokens=2000),
        "{box} holds 1,024 tokens, less than -o max_tokens 2000",
        f"Use -o max_tokens 1023 or less, or {LARGER}",
        UnsupportedOption,
    ),
    Case(
        "vllm",
        "max_tokens=2000 cannot be greater than max_model_len=max_total_tokens=1024.",
        Overflow(1024, answer_tokens=2000),
        "{box} holds 1,024 tokens, less than -o max_tokens 2000",
        f"Use -o max_tokens 1023 or less, or {LARGER}",
        UnsupportedOption,
    ),
    Case(
        "vllm",
        f"{VLLM}However, you requested 200 output tokens and your prompt contains at least 825"
        " input tokens, for a total of at least 1025 tokens. Please reduce the length.",
        Overflow(1024, 825, is_least=True, answer_tokens=200),
        "The prompt takes at least 825 tokens, its answer may take 200 more, and {box} holds 1,024",
        "Use a smaller -o max_tokens",
    ),
    Case(
        "vllm",
        f"{VLLM}However, you requested 1224 tokens (1000 in the messages, 224 in the completion)."
        " Please reduce the length of the messages or completion.",
        Overflow(1024, 1000, answer_tokens=224),
        "The prompt takes 1,000 tokens, its answer may take 224 more, and {box} holds 1,024",
        "Use -o max_tokens 23 or less",
    ),
    # As OpenAI counts it, too.
    Case(
        "vllm",
        "This model's maximum context length is 4096 tokens. However, you requested 5360 tokens"
        " (1296 in the messages, 64 in the functions, and 4000 in the completion). Please reduce"
        " the length of the messages, functions, or completion.",
        Overflow(4096, 1360, answer_tokens=4000),
        "The prompt takes 1,360 tokens, its answer may take 4,000 more, and {box} holds 4,096",
        "Use -o max_tokens 2735 or less",
    ),
    Case(
        "vllm",
        "This model's maximum context length is 4097 tokens, however you requested 4927 tokens"
        " (3927 in your prompt; 1000 for the completion). Please reduce your prompt; or completion"
        " length.",
        Overflow(4097, 3927, answer_tokens=1000),
        "The prompt takes 3,927 tokens, its answer may take 1,000 more, and {box} holds 4,097",
        "Use -o max_tokens 169 or less",
    ),
    Case(
        "vllm",
        "You passed 600 input tokens and requested 500 output tokens. However, the model's context"
        " length is only 1024 tokens, resulting in a maximum input length of 524 tokens.",
        Overflow(1024, 600, answer_tokens=500),
        "The prompt takes 600 tokens, its answer may take 500 more, and {box} holds 1,024",
        "Use -o max_tokens 423 or less",
    ),
    Case(
        "vllm",
        "'max_tokens' or 'max_completion_tokens' is too large: 500. This model's maximum context"
        " length is 1024 tokens and your request has 600 input tokens (500 > 1024 - 600).",
        Overflow(1024, 600, answer_tokens=500),
        "The prompt takes 600 tokens, its answer may take 500 more, and {box} holds 1,024",
        "Use -o max_tokens 423 or less",
    ),
    Case(
        "vllm",
        f"{VLLM}However, your request has 1500 input tokens. Please reduce the length.",
        Overflow(1024, 1500),
        takes("1,500", "1,024"),
        "Shorten it, or start the server with --max-model-len 4096",
    ),
    Case(
        "vllm",
        "You passed 1025 input tokens and requested 0 output tokens. However, the model's context"
        " length is only 1024 tokens, resulting in a maximum input length of 1024 tokens.",
        Overflow(1024, 1025),
        takes("1,025", "1,024"),
        "Shorten it, or start the server with --max-model-len 4096",
    ),
    Case(
        "vllm",
        "Input length (1025) exceeds model's maximum context length (1024).",
        Overflow(1024, 1025),
        takes("1,025", "1,024"),
        "Shorten it, or start the server with --max-model-len 4096",
    ),
    Case(
        "vllm",
        "The decoder prompt (length 12324) is longer than the maximum model length of 8192. Make"
        " sure that `max_model_len` is no smaller than the number of text tokens.",
        Overflow(8192, 12324),
        takes("12,324", "8,192"),
        "Shorten it, or start the server with --max-model-len 16384",
    ),
    Case(
        "sglang",
        "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
        Overflow(4096, 5000),
        takes("5,000", "4,096"),
        "Shorten it, or start the server with --context-length 8192",
    ),
    Case(
        "sglang",
        "Requested token count exceeds the model's maximum context length of 64000 tokens. You"
        " requested a total of 71897 tokens: 7897 tokens from the input messages and 64000 tokens"
        " for the completion. Please reduce the number of tokens in the input messages.",
        Overflow(64000, 7897, answer_tokens=64000),
        "The prompt takes 7,897 tokens, its answer may take 64,000 more, and {box} holds 64,000",
        "Use -o max_tokens 56102 or less",
    ),
    Case(
        "llamacpp",
        "request (4031 tokens) exceeds the available context size (2048 tokens), try increasing it",
        Overflow(2048, 4031),
        takes("4,031", "2,048"),
        "Shorten it, or start the server with -c 8192",
    ),
    Case(
        "llamacpp",
        "the request exceeds the available context size. try increasing the context size or enable"
        " context shift",
        Overflow(),
        "{said}",
        "Shorten the prompt, or start the server with a larger -c",
    ),
    Case(
        "lmstudio",
        "Trying to keep the first 9000 tokens when context the overflows. However, the model is"
        " loaded with context length of only 4096 tokens, which is not enough.",
        Overflow(4096, 9000, is_least=True),
        takes("at least 9,000", "4,096"),
        "Shorten it, or enlarge the context with -o context_size 16384",
    ),
    Case(
        "lmstudio",
        "The number of tokens to keep from the initial prompt is greater than the context length"
        " (n_keep: 13055>= n_ctx: 4096). Try to load the model with a larger context length.",
        Overflow(4096, 13055, is_least=True),
        takes("at least 13,055", "4,096"),
        "Shorten it, or enlarge the context with -o context_size 16384",
    ),
    Case(
        "lmstudio",
        "The number of tokens to keep from the initial prompt is greater than the context length.",
        Overflow(),
        "{said}",
        "Shorten the prompt, or set a larger -o context_size",
    ),
    Case(
        "lmstudio",
        "Cannot truncate prompt with n_keep (8199) >= n_ctx (4096)",
        Overflow(4096, 8199, is_least=True),
        takes("at least 8,199", "4,096"),
        "Shorten it, or enlarge the context with -o context_size 16384",
    ),
    Case(
        "ollama",
        "the prompt is longer than the context length currently available to the model; shorten"
        " the prompt, adjust the context length in settings, or use a model with a longer one",
        Overflow(),
        "{said}",
        "Shorten the prompt, or set a larger -o context_size",
    ),
    Case(
        "omlx",
        "Prompt too long: 360012 tokens exceeds max context window of 262144 tokens",
        Overflow(262_144, 360_012),
        takes("360,012", "262,144"),
        "Shorten it, or start the server with a larger context",
    ),
    Case(
        "mistralrs",
        "Prompt sequence length is greater than 4096, perhaps consider using `truncate_sequence`?",
        Overflow(4096),
        "{said}",
        "Shorten the prompt, or start the server with a larger context",
    ),
    Case(
        "gpt4all",
        "ERROR: The prompt size exceeds the context window size and cannot be processed.",
        Overflow(),
        "{said}",
        "Shorten the prompt, or start the server with a larger context",
    ),
    Case(
        "openai",
        "This model's maximum context length is 4097 tokens. However, your messages resulted in"
        " 6164 tokens. Please reduce the length of the messages.",
        Overflow(4097, 6164),
        takes("6,164", "4,097"),
        "Shorten it, or start the server with a larger context",
    ),
    Case(
        "openai",
        "Prompt length 5000 is greater than max_seq_len 4096",
        Overflow(4096, 5000),
        takes("5,000", "4,096"),
        "Shorten it, or start the server with a larger context",
    ),
]
each_case = pytest.mark.parametrize("case", CASES, ids=[f"{c.kind}: {c.said[:50]}" for c in CASES])


def outcome(case: Case, reply: bytes, way: str = "sync", kind: str = "") -> tuple[str, str, int]:
    """The error that `reply` comes to, how messages call the server, and how often it is asked."""
    with StandIn(lambda _: [reply]) as server:
        kind = kind or case.kind
        with pytest.raises(case.error) as caught:
            ask(served(server.url, kind, "m"), "Hello", way)
    box = f"{server_kinds()[kind].title} at {server.url}"
    return str(caught.value), box, len(server.requests)


@each_case
@pytest.mark.parametrize("way", WAYS)
def test_refusal_is_translated(case: Case, way: str) -> None:
    error, box, requests = outcome(case, json_reply({"error": {"message": case.said}}, 400), way)
    said = f"{box} says: {case.said.rstrip('.')} (HTTP 400)"
    problem = case.problem.format(box=box, said=said)
    assert error == f"{problem}. {case.remedy}."
    assert requests == 1


@each_case
def test_numbers_are_read(case: Case) -> None:
    assert find_overflow(case.said) == case.overflow


@pytest.mark.parametrize(
    "wrapping",
    [
        "litellm.ContextWindowExceededError: litellm.BadRequestError: ContextWindowExceededError:"
        " OpenAIException - {}\nmodel=smol. context_window_fallbacks=None.",
        "rpc error: code = Internal desc = {}",
        'upstream said: {{"error":{{"message":"{}"}}}}',
    ],
)
@each_case
def test_refusal_that_a_gateway_hands_on(case: Case, wrapping: str) -> None:
    said = wrapping.format(case.said)
    error, box, _ = outcome(case, json_reply({"error": {"message": said}}, 400), kind="openai")
    assert find_overflow(said) == case.overflow
    if case.problem != "{said}":
        assert error.startswith(case.problem.format(box=box))


@pytest.mark.parametrize(
    "shape",
    [
        lambda said: json_reply({"error": said}, 400),
        lambda said: json_reply({"object": "error", "message": said, "code": 400}, 400),
        lambda said: json_reply({"detail": said}, 400),
        lambda said: events({"error": {"message": said, "type": "internal_error"}}),
        lambda said: json_reply({"error": {"message": said}}),
    ],
    ids=["text", "flat", "FastAPI", "in a stream", "in a success"],
)
@each_case
def test_shapes_of_a_refusal(case: Case, shape: object) -> None:
    assert callable(shape)
    error, box, _ = outcome(case, shape(case.said))
    said = f"{box} says: {case.said.rstrip('.')}"
    assert error.startswith(case.problem.format(box=box, said=said))


@pytest.mark.parametrize(
    "said",
    [
        "Context size has been exceeded.",
        "input type is not supported",
        "max_tokens must be at least 1",
        "the model is too large to load",
        "Rate limit exceeded: 5 requests",
    ],
)
def test_other_errors_are_no_overflow(said: str) -> None:
    assert find_overflow(said) is None


@pytest.mark.parametrize(
    ("said", "overflow"),
    [
        ("the context length is only 1024 tokens, resulting in less input", Overflow(1024)),
        ("the prompt (length 9) is longer than the maximum model length of 8.", Overflow(8, 9)),
        (f"{VLLM}However, you requested 1500 tokens.", Overflow(1024, 1500)),
    ],
)
def test_numbers_that_may_be_missing(said: str, overflow: Overflow) -> None:
    assert find_overflow(said) == overflow


def test_numbers_beyond_reason_are_no_failure() -> None:
    said = f"request ({'9' * 5000} tokens) exceeds the available context size (1 tokens)"
    assert find_overflow(said) is None
