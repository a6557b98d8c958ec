"""How large a context has to be for a prompt, and what to say when it cannot be.

Pure. A context holds a prompt and its answer together; a prompt fits if it leaves room for at least
one token. What can be done about one that does not is `serving`'s business.
"""

from dataclasses import dataclass
from math import inf

from llm_localrun.errors import PromptTooLong, UnsupportedOption

LEAST = 4096
"""Tokens: the smallest context that is asked for when nobody has said how large it is to be."""
ANSWER = 1024
"""Tokens that are kept free for an answer, if nobody has said how long it may be."""
_EARLY = 8
"""Tokens before the end of the context at which servers may stop."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a context can be made, in tokens, and by whom.

    `trained` is what the model was trained for, `affordable` what there is memory for, `fixed` what
    the server was started with, if that cannot be changed from here; then `flag` is what it has to
    be started with instead, `{}` standing for the tokens, "" if nobody knows.
    """

    trained: float = inf
    affordable: float = inf
    fixed: bool = False
    flag: str = ""

    @property
    def largest(self) -> float:
        return 0 if self.fixed else min(self.trained, self.affordable)


UNLIMITED = Limits()
FIXED = Limits(fixed=True)


@dataclass(frozen=True, slots=True)
class Size:
    """The tokens of a prompt; an estimate is on the safe side."""

    tokens: int
    is_exact: bool

    def fits(self, context_size: float) -> bool:
        return self.tokens < context_size


def grown(tokens: int, largest: float) -> int:
    """The context for so many tokens: the next power of two, of at least 4,096, up to `largest`."""
    size = LEAST
    while size < tokens:
        size *= 2
    return int(min(size, largest))


def too_long(prompt: Size, server: str, context_size: int, limits: Limits) -> PromptTooLong:
    """What to say of a prompt that does not fit into the context at a server."""
    about = "" if prompt.is_exact else "about "
    return PromptTooLong(
        f"The prompt takes {about}{prompt.tokens:,} tokens and {server} holds {context_size:,}",
        ways_out(prompt.tokens, limits),
    )


def ways_out(tokens: int, limits: Limits) -> str:
    """What to do with a prompt of so many tokens that does not fit."""
    wanted = tokens + ANSWER
    if limits.fixed:
        return f"Shorten it, or {_start_with(wanted, limits.flag)}"
    if wanted <= limits.largest:
        return f"Shorten it, or give room with -o context_size {grown(wanted, limits.largest)}"
    if limits.affordable < limits.trained:
        return (
            "Shorten it, or take less memory for each token with -o kv_cache_type q8_0: there is"
            f" enough for a context of {limits.affordable:,}"
        )
    return (
        f"Shorten it, or choose a model with a larger context: this one was trained for"
        f" {limits.trained:,} tokens"
    )


def larger_than(wanted: int, context_size: int, server: str, flag: str) -> UnsupportedOption:
    """What to say when a server that cannot be told holds less than the context that is wanted."""
    problem = f"{server} holds {context_size:,} tokens, not {wanted:,}"
    advice = _start_with(wanted, flag)
    return UnsupportedOption(problem, advice[0].upper() + advice[1:])


def lack_of_room(used: int | None, context_size: int | None, limits: Limits) -> str:
    """What to say of an answer that a limit has cut short which nobody has asked for.

    `used` are the tokens of the prompt and the answer together, None if nobody has counted.
    """
    if used is None or context_size is None or used + _EARLY < context_size:
        return "The answer stopped at a limit of its server's; -o max_tokens sets another."
    full = f"The answer stopped for lack of room: the context of {context_size:,} tokens is full"
    if limits.fixed:
        return f"{full}. To give it more, {_start_with(2 * context_size, limits.flag)}."
    if 2 * context_size <= limits.largest:
        return f"{full}. Give it more with -o context_size {2 * context_size}."
    return f"{full}, and it cannot be larger."


def _start_with(tokens: int, flag: str) -> str:
    if not flag:
        return "start the server with a larger context"
    return f"start the server with {flag.format(grown(tokens, inf))}"
