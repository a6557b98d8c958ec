"""Ollama: a request says how large the context is to be.

A request that says nothing gets the server's default, 4,096 tokens on most machines, and one that
says something else than the last loads the model anew. So short prompts say nothing until a long
one has made the context grow; from then on the larger one is kept while the model stays loaded.
"""

from dataclasses import replace

from llm_localrun.chat.serving_common import (
    PATIENCE,
    Server,
    Wish,
    asked_context,
    checked,
    put,
    size_of,
)
from llm_localrun.config import read_config
from llm_localrun.engine.memory_check import free_memory
from llm_localrun.memory.fit import largest_context
from llm_localrun.memory.footprint import Footprint, Setting
from llm_localrun.memory.geometry import geometry_of
from llm_localrun.models import LocalModel, RunsOn
from llm_localrun.servers.loading import ollama_header, ollama_running
from llm_localrun.tokens import learned
from llm_localrun.tokens.window import LEAST, grown


def find(model: LocalModel, server: Server, wish: Wish) -> Server:
    """The server, with the context that is to be asked of it. Raises `PromptTooLong`."""
    asked = asked_context(model, wish)
    server = replace(server, context_size=model.context_loaded)
    if asked is not None:
        server = _told(server, asked)
    if wish.prompt is None or model.runs_on == RunsOn.CLOUD:
        return server
    size = size_of(wish.prompt, model, (asked or LEAST) - wish.answer)
    if asked is None:
        server = _with_room(model, server, size.tokens + wish.answer)
    return checked(size, server)


def _told(server: Server, context_size: int) -> Server:
    options = {"context_size": context_size}
    return replace(server, context_size=context_size, options=options)


def _with_room(model: LocalModel, server: Server, needed: int) -> Server:
    known = learned.known_of(model.id)
    if needed <= LEAST and not known.context_size:
        return server
    running = put(ollama_running(model.name), server, PATIENCE)
    loaded = (running and running.context_length) or 0
    if needed > max(loaded, LEAST):
        wanted = _grown(model, server, needed, running.size if running else 0)
    else:
        wanted = loaded if loaded > LEAST else 0
    if wanted != known.context_size:
        learned.keep(model.id, known.model_copy(update={"context_size": wanted}))
    return _told(server, wanted) if wanted else server


def _grown(model: LocalModel, server: Server, needed: int, held: int) -> int:
    """A context for so many tokens, rounded up as far as memory goes.

    Whether what is needed fits is for Ollama to say, which shares a model out among GPUs. `held`
    are the bytes that the model takes now, and will give back.
    """
    wanted = grown(needed, server.limits.trained)
    if model.size is None or model.runs_on != RunsOn.THIS_MACHINE:
        return wanted
    free = free_memory(read_config().llama_server)
    if free is None:
        return wanted
    header = put(ollama_header(model.name), server, PATIENCE)
    geometry = geometry_of(header) if header else None
    if geometry is None:
        return wanted
    footprint = Footprint(geometry, model.size)
    affordable = largest_context(footprint, Setting(wanted), free + held)
    return min(wanted, max(needed, affordable))
