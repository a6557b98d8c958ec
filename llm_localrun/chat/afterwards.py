"""What follows from a server's counts at the end of a reply: corrected estimates, and warnings."""

from llm_localrun.chat.serving_common import Server, Wish
from llm_localrun.models import LocalModel
from llm_localrun.tokens.count import Prompt
from llm_localrun.tokens.estimate import least_plausible
from llm_localrun.tokens.learned import learn_from_reply
from llm_localrun.tokens.window import MIN_CONTEXT_TOKENS, describe_cut_answer
from llm_localrun.wire.events import Finished

_COUNTING = ("engine", "llamacpp")
"""Servers that count prompts beforehand, so that nothing is estimated."""


def correct_estimate(model: LocalModel, server: Server, prompt: Prompt, finished: Finished) -> None:
    """Learns from the count of the prompt's tokens, if the server reports one."""
    if finished.prompt_tokens is not None and server.endpoint.kind not in _COUNTING:
        learn_from_reply(model.id, prompt.parts, finished.prompt_tokens)


def describe_ending(server: Server, wish: Wish, prompt: Prompt, finished: Finished) -> str:
    """What the user has to know about an answer that ended; "" if there is nothing."""
    if _is_prompt_cut(server, prompt, finished):
        return (
            f"{server.title} has read {finished.prompt_tokens:,} tokens of a prompt of about"
            f" {prompt.estimate({}).tokens:,}: it may have cut it. Look for a newer version."
        )
    limit, answer = wish.options.get("max_tokens"), finished.completion_tokens
    if finished.finish_reason != "length" or (limit and (answer is None or answer >= limit)):
        return ""
    is_counted = answer is not None and finished.prompt_tokens is not None
    used = (finished.prompt_tokens or 0) + (answer or 0) if is_counted else None
    return describe_cut_answer(used, server.context_size, server.limits)


def _is_prompt_cut(server: Server, prompt: Prompt, finished: Finished) -> bool:
    """Whether a server read fewer tokens than the prompt can have.

    A count that is small beside the context does not show it: Ollama before 0.30 left out the
    tokens that it had cached.
    """
    tokens = finished.prompt_tokens
    if tokens is None or server.endpoint.kind in _COUNTING:
        return False
    smallest = (server.context_size or MIN_CONTEXT_TOKENS) // 8
    return smallest < tokens < least_plausible(prompt.parts)
