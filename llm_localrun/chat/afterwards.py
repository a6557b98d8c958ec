"""What a server's counts at the end of a reply teach, and what the user has to be told of them."""

from llm_localrun.chat.serving_common import Server, Wish
from llm_localrun.models import LocalModel
from llm_localrun.tokens import learned as calibration
from llm_localrun.tokens.count import Prompt
from llm_localrun.tokens.estimate import learned, least_plausible
from llm_localrun.tokens.window import LEAST, lack_of_room
from llm_localrun.wire.events import Finished

_COUNTING = ("engine", "llamacpp")
"""Servers that count prompts beforehand: there is nothing to be learned."""


def learn(model: LocalModel, server: Server, prompt: Prompt, finished: Finished) -> None:
    """Brings the estimate of this model's prompts nearer to what was counted of this one."""
    tokens = finished.prompt_tokens
    if tokens is None or server.endpoint.kind in _COUNTING:
        return
    if tokens < least_plausible(prompt.units):
        return
    known = calibration.known_of(model.id)
    factors = learned(known.factors, prompt.units, tokens)
    if factors != known.factors:
        calibration.keep(model.id, known.model_copy(update={"factors": factors}))


def said_of(server: Server, wish: Wish, prompt: Prompt, finished: Finished) -> str:
    """What the user has to know of an answer that came to an end; "" if there is nothing."""
    if is_cut(server, prompt, finished):
        return (
            f"{server.title} has read {finished.prompt_tokens:,} tokens of a prompt of about"
            f" {prompt.estimate({}).tokens:,}: it may have cut it. Look for a newer version."
        )
    limit, answer = wish.options.get("max_tokens"), finished.completion_tokens
    if finished.finish_reason != "length" or (limit and (answer is None or answer >= limit)):
        return ""
    is_counted = answer is not None and finished.prompt_tokens is not None
    used = (finished.prompt_tokens or 0) + (answer or 0) if is_counted else None
    return lack_of_room(used, server.context_size, server.limits)


def is_cut(server: Server, prompt: Prompt, finished: Finished) -> bool:
    """Whether a server has read less of a prompt than there can have been.

    What it reports fills a good part of the context then: one that leaves out what it had cached,
    as Ollama did before 0.30, mostly reports little.
    """
    tokens = finished.prompt_tokens
    if tokens is None or server.endpoint.kind in _COUNTING:
        return False
    return (server.context_size or LEAST) // 8 < tokens < least_plausible(prompt.units)
