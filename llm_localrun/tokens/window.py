"""Which context a prompt needs, and what to tell the user when it does not fit.

Pure. A context holds the prompt and its answer. A prompt fits if at least one token is left for the
answer. Counting the tokens is left to `count`, making the context larger to `servers` and
`engine.serve`.
"""

from dataclasses import dataclass
from math import inf

from llm_localrun.errors import ConfigError, LocalRunError, PromptTooLong, UnsupportedOption
from llm_localrun.wire.shapes import Overflow

MIN_CONTEXT_TOKENS = 4096
"""The smallest context that is requested, unless the user asks for a smaller one."""
ANSWER_RESERVE_TOKENS = 1024
"""What is kept free for an answer, unless the user limits its length."""
USE_LARGER_MODEL = "Split it, or choose an embedding model with a larger context"
"""The remedy for a text to embed that is too long for the model."""
MAX_TRAINED_TOKENS = 10 * 2**20
"""The largest context that a published model was trained for: Llama 4 Scout's."""
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
    least: int = 0
    """The fewest that an estimate stands for; all its `tokens` if a server counted no further."""

    def fits(self, context_size: float) -> bool:
        return self.tokens < context_size

    def may_fit(self, context_size: float) -> bool:
        return (self.tokens if self.is_exact else self.least) < context_size

    @property
    def is_open(self) -> bool:
        """Whether there may be any number of tokens more."""
        return not self.is_exact and self.least >= self.tokens

    def __str__(self) -> str:
        how = "" if self.is_exact else "at least " if self.is_open else "about "
        return f"{how}{self.tokens:,} tokens"


def round_up_context(tokens: float, largest: float) -> int:
    """The context for this many tokens: a power of two from 4,096 on, but at most `largest`."""
    size = MIN_CONTEXT_TOKENS
    while size < tokens:
        size *= 2
    return int(min(size, largest))


def too_long(
    prompt: Size, server: str, context_size: int, limits: Limits, answer_tokens: int = 0
) -> PromptTooLong:
    """The error for a prompt that does not fit into the context of a server.

    If the prompt alone does, it is for the `answer_tokens` that there is no room.
    """
    if answer_tokens and prompt.fits(context_size):
        most = 0 if prompt.is_open else context_size - prompt.tokens - 1
        error = PromptTooLong(
            f"The prompt takes {prompt}, its answer may take {answer_tokens:,} more, and {server}"
            f" holds {context_size:,}",
            f"Use -o max_tokens {most} or less" if most else "Use a smaller -o max_tokens",
        )
    else:
        error = PromptTooLong(
            f"The prompt takes {prompt} and {server} holds {context_size:,}",
            f"Shorten it, or {_remedy(prompt, limits)}",
        )
    error.prompt_tokens, error.context_size = prompt.tokens, context_size
    return error


def answer_too_long(
    answer_tokens: int, limited_to: str, context_size: int, limits: Limits
) -> UnsupportedOption:
    """The error for a `max_tokens` above a context; `limited_to` says whose: "Ollama holds"."""
    advice = f"Use -o max_tokens {context_size - 1} or less"
    if context_size < answer_tokens < limits.trained:
        # The model may not have been trained for what such a number needs.
        wanted = answer_tokens + ANSWER_RESERVE_TOKENS if limits.trained < inf else inf
        advice += f", or {_larger_context(wanted, limits)}"
    return UnsupportedOption(
        f"{limited_to} {context_size:,} tokens, less than -o max_tokens {answer_tokens}", advice
    )


def explain_overflow(
    overflow: Overflow, said: str, server: str, context_size: int | None, limits: Limits
) -> LocalRunError:
    """The error for a request that a server refuses as too long; `said` is how it says that."""
    context_size = overflow.context_size or context_size
    if not context_size or not (overflow.prompt_tokens or overflow.answer_tokens):
        return PromptTooLong(said, f"Shorten the prompt, or {_larger_context(inf, limits)}")
    if not overflow.prompt_tokens:
        return answer_too_long(overflow.answer_tokens, f"{server} holds", context_size, limits)
    least = overflow.prompt_tokens if overflow.is_least else 0
    prompt = Size(overflow.prompt_tokens, is_exact=not overflow.is_least, least=least)
    return too_long(prompt, server, context_size, limits, overflow.answer_tokens)


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
        return f"Split it, or {_larger_context(tokens, limits)}"
    return "Split it, or free memory for a larger context"


def context_too_small(
    wanted: int, context_size: int, server: str, limits: Limits
) -> UnsupportedOption:
    """The error for a server with a fixed context that is smaller than the user wants."""
    problem = f"{server} holds {context_size:,} tokens, not {wanted:,}"
    if limits.trained <= context_size:
        return UnsupportedOption(problem, f"Use -o context_size {context_size} or less")
    advice = _larger_context(wanted, limits)
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
    if limits.fixed and context_size < limits.trained:
        return f"{full}. To enlarge it, {_larger_context(2 * context_size, limits)}."
    if 2 * context_size <= limits.largest:
        return f"{full}. Enlarge it with -o context_size {2 * context_size}."
    return f"{full}, and it cannot be larger."


def _remedy(prompt: Size, limits: Limits) -> str:
    """How to get a context for a prompt and its answer, or what to do instead."""
    wanted = prompt.tokens + ANSWER_RESERVE_TOKENS
    if limits.fixed and prompt.fits(limits.trained):
        return _larger_context(limits.trained if prompt.is_open else wanted, limits)
    if wanted <= limits.largest:
        return _larger_context(wanted, limits)
    if limits.affordable < limits.trained:
        return (
            "use less memory per token with -o kv_cache_type q8_0: the memory is enough for a"
            f" context of {limits.affordable:,}"
        )
    return (
        f"choose a model with a larger context: this one was trained for {limits.trained:,} tokens"
    )


def _larger_context(tokens: float, limits: Limits) -> str:
    """How to get a context of `tokens`, or the largest if that is less; inf stands for any."""
    largest = limits.trained if limits.fixed else limits.largest
    is_named = tokens < inf and min(tokens, largest) <= MAX_TRAINED_TOKENS
    size = round_up_context(tokens, largest) if is_named else 0
    if not limits.fixed:
        named = f"enlarge the context with -o context_size {size}"
        return named if size else "set a larger -o context_size"
    named = limits.flag.format(size) if size else f"a larger {limits.flag.partition(' ')[0]}"
    return f"start the server with {named if limits.flag else 'a larger context'}"
