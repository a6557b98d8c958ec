"""Which context a prompt needs, and what to tell the user when it does not fit.

Pure. A context holds the prompt and its answer. A prompt fits if at least one token is left for the
answer. Counting the tokens is left to `count`, making the context larger to `servers` and
`engine.serve`.
"""

from dataclasses import dataclass
from math import inf

from llm_localrun.errors import ConfigError, PromptTooLong, UnsupportedOption

MIN_CONTEXT_TOKENS = 4096
"""The smallest context that is requested, unless the user asks for a smaller one."""
ANSWER_RESERVE_TOKENS = 1024
"""What is kept free for an answer, unless the user limits its length."""
USE_LARGER_MODEL = "Split it, or choose an embedding model with a larger context"
"""The remedy for a text to embed that is too long for the model."""
STOP_DISTANCE_TOKENS = 8
"""How far before the end of its context a server may stop."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a context can be made, in tokens, and by whom.

    `trained` is what the model was trained for and `affordable` what the memory is enough for. If
    `fixed`, only a restart of the server changes its context; `flag` is then the server's flag with
    `{}` for the tokens, "" if unknown.
    """

    trained: float = inf
    affordable: float = inf
    fixed: bool = False
    flag: str = ""

    @property
    def largest(self) -> float:
        return 0 if self.fixed else min(self.trained, self.affordable)


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Size:
    """The tokens of a prompt: counted, or an estimate that is rather too high than too low."""

    tokens: int
    is_exact: bool

    def fits(self, context_size: float) -> bool:
        return self.tokens < context_size


def round_up_context(tokens: int, largest: float) -> int:
    """The context for this many tokens: a power of two from 4,096 on, but at most `largest`."""
    size = MIN_CONTEXT_TOKENS
    while size < tokens:
        size *= 2
    return int(min(size, largest))


def too_long(prompt: Size, server: str, context_size: int, limits: Limits) -> PromptTooLong:
    """The error for a prompt that does not fit into the context of a server."""
    about = "" if prompt.is_exact else "about "
    error = PromptTooLong(
        f"The prompt takes {about}{prompt.tokens:,} tokens and {server} holds {context_size:,}",
        f"Shorten it, or {_remedy(prompt.tokens + ANSWER_RESERVE_TOKENS, limits)}",
    )
    error.prompt_tokens, error.context_size = prompt.tokens, context_size
    return error


class TextTooLong(PromptTooLong):
    """A text to embed does not fit. It is the one at `index` of those that were given."""

    def __init__(
        self, tokens: int, holder: str, context_size: int, limits: Limits, index: int = 0
    ) -> None:
        self.index = index
        problem = f"It takes {tokens:,} tokens, and {holder} holds {context_size:,}"
        super().__init__(problem, remedy_for_text(tokens, limits))


def remedy_for_text(tokens: int, limits: Limits) -> str:
    """What to do about a text to embed that takes this many tokens."""
    if tokens > limits.trained:
        return USE_LARGER_MODEL
    if limits.fixed:
        return f"Split it, or {_restart(tokens, limits.flag, limits.trained)}"
    return "Split it, or free memory for a larger context"


def context_too_small(wanted: int, context_size: int, server: str, flag: str) -> UnsupportedOption:
    """The error for a server with a fixed context that is smaller than the user wants."""
    problem = f"{server} holds {context_size:,} tokens, not {wanted:,}"
    advice = _restart(wanted, flag)
    return UnsupportedOption(problem, advice[0].upper() + advice[1:])


def context_too_large(model: str, trained: int, asked: int) -> ConfigError:
    """The error for a context that is larger than what a model was trained for."""
    return ConfigError(
        f"{model} was trained for a context of {trained:,} tokens, not {asked:,}",
        f"Use -o context_size {trained} or less",
    )


def describe_cut_answer(used: int | None, context_size: int | None, limits: Limits) -> str:
    """What to tell the user when the server cut an answer that the user did not limit.

    `used` is the tokens of the prompt and the answer together, None if the server did not count.
    """
    if used is None or context_size is None or used + STOP_DISTANCE_TOKENS < context_size:
        return "The answer stopped at a limit of the server. Set another with -o max_tokens N."
    full = f"The answer stopped because the context of {context_size:,} tokens is full"
    if limits.fixed:
        return f"{full}. To enlarge it, {_restart(2 * context_size, limits.flag)}."
    if 2 * context_size <= limits.largest:
        return f"{full}. Enlarge it with -o context_size {2 * context_size}."
    return f"{full}, and it cannot be larger."


def _remedy(wanted: int, limits: Limits) -> str:
    """How to get a context of `wanted` tokens, or what to do instead."""
    if limits.fixed:
        return _restart(wanted, limits.flag)
    if wanted <= limits.largest:
        size = round_up_context(wanted, limits.largest)
        return f"enlarge the context with -o context_size {size}"
    if limits.affordable < limits.trained:
        return (
            "use less memory per token with -o kv_cache_type q8_0: the memory is enough for a"
            f" context of {limits.affordable:,}"
        )
    return (
        f"choose a model with a larger context: this one was trained for {limits.trained:,} tokens"
    )


def _restart(tokens: int, flag: str, largest: float = inf) -> str:
    if not flag:
        return "start the server with a larger context"
    return f"start the server with {flag.format(round_up_context(tokens, largest))}"
