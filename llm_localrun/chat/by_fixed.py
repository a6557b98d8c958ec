"""Servers whose context was settled when they were started, by somebody else."""

from dataclasses import replace

from llm_localrun.chat.serving_common import Server, Wish, checked, counted, size_of
from llm_localrun.errors import UnsupportedOption
from llm_localrun.models import LocalModel
from llm_localrun.servers.kinds import kind_of
from llm_localrun.tokens.window import Limits, context_too_small


def find(model: LocalModel, server: Server, wish: Wish) -> Server:
    """The server, if what it holds is enough for the prompt, and for what the user wants.

    llama-server counts the prompt itself. Raises `PromptTooLong` and `UnsupportedOption`.
    """
    kind, held = kind_of(server.endpoint.kind), model.context_loaded
    _check_wanted(wish.options.get("context_size"), held, server, kind.context_flag)
    limits = Limits(fixed=True, flag=kind.context_flag)
    server = replace(server, context_size=held, limits=limits)
    if wish.prompt is None or held is None or wish.prompt.bound < held:
        return server
    size = counted(server, wish) if kind.name == "llamacpp" else None
    return checked(size or size_of(wish.prompt, model, held), server)


def _check_wanted(wanted: int | str | None, held: int | None, server: Server, flag: str) -> None:
    if not isinstance(wanted, int):
        # "max" is what it holds.
        return
    if held is None:
        raise UnsupportedOption(
            f"{server.title} does not say how large its context is", "Leave out -o context_size"
        )
    if wanted > held:
        raise context_too_small(wanted, held, server.title, flag)
