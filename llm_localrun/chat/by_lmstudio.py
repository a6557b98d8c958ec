"""LM Studio: a context belongs to an instance of a model, and is settled when that is loaded.

A request for a model that is not loaded loads it with the context that is set in the app, 4,096
tokens at first. Where that is not enough an instance is loaded that has more, in the place of those
that are there: to load a model that is loaded makes a second copy of it.
"""

from dataclasses import replace

from llm_localrun.chat.by_fixed import find as find_fixed
from llm_localrun.chat.serving_common import (
    PATIENCE,
    Server,
    Wish,
    asked_context,
    checked,
    put,
    size_of,
)
from llm_localrun.errors import ServerUnreachable
from llm_localrun.models import LocalModel
from llm_localrun.servers.loading import Instance, lmstudio_instances, lmstudio_reload
from llm_localrun.tokens.window import MIN_CONTEXT_TOKENS, round_up_context


def find(model: LocalModel, server: Server, wish: Wish) -> Server:
    """The server, and which instance is to answer.

    Raises `PromptTooLong`, `ServerRefused` and `ServerUnreachable`.
    """
    asked = asked_context(model, wish)
    if wish.prompt is None:
        return server
    size = size_of(wish.prompt, model, MIN_CONTEXT_TOKENS - wish.answer)
    needed = asked or size.tokens + wish.answer
    usual = min(model.context_loaded or MIN_CONTEXT_TOKENS, MIN_CONTEXT_TOKENS)
    if asked is None and needed <= usual:
        return replace(server, context_size=model.context_loaded)
    instances = put(lmstudio_instances(model.name), server, PATIENCE)
    if instances is None:
        # Before 0.4.0 there was no way to load a model from outside.
        return find_fixed(model, server, wish)
    context_size = asked or round_up_context(needed, server.limits.trained)
    checked(size, replace(server, context_size=context_size))
    enough = [each for each in instances if each.context_size >= min(needed, context_size)]
    if not enough:
        return _reloaded(model, server, wish, instances, context_size)
    instance = min(enough, key=lambda each: each.context_size)
    return replace(server, model=instance.id, context_size=instance.context_size)


def _reloaded(
    model: LocalModel, server: Server, wish: Wish, instances: list[Instance], context_size: int
) -> Server:
    asking = lmstudio_reload(model.name, instances, context_size, server.title)
    loaded = put(asking, server, wish.timeout)
    if loaded is None:
        raise ServerUnreachable(
            f"{server.title} has not loaded {model.name} within {wish.timeout:g} seconds",
            "Look whether it is busy, or wait longer with -o timeout SECONDS",
        )
    return replace(server, model=loaded.id, context_size=context_size, load_seconds=loaded.seconds)
