"""Who answers a request, with a context that its prompt fits into.

What runs a model decides what can be done about its context: Ollama is told with each request, LM
Studio is made to load the model anew, an engine is started with it, other servers have what they
were started with; a module each. A prompt that cannot fit is refused before it is sent. How large a
context has to be is `context`'s arithmetic.
"""

import shlex
from math import inf

from llm_localrun.catalogue import locate
from llm_localrun.chat import by_engine, by_fixed, by_lmstudio, by_ollama
from llm_localrun.chat.serving_common import Server, Wish
from llm_localrun.config import Config, read_config
from llm_localrun.errors import NotAllowed
from llm_localrun.models import LocalModel
from llm_localrun.privacy import WHERE, requires_consent
from llm_localrun.tokens.window import Limits

__all__ = ["Server", "Wish", "find"]

_BY_KIND = {"ollama": by_ollama.find, "lmstudio": by_lmstudio.find}


def find(model: LocalModel, wish: Wish) -> Server:
    """Who runs `model`; starts an engine, or has a server load the model, if that is what it takes.

    Raises a `LocalRunError`: `PromptTooLong` if the prompt fits into no context that there can be.
    """
    config = read_config()
    if model.endpoint is None:
        return by_engine.find(model, wish, config)
    _check_allowed(model, config)
    limits = Limits(trained=model.context_max or inf)
    server = Server(model.endpoint, wish.key, model.name, limits=limits)
    return _BY_KIND.get(model.endpoint.kind, by_fixed.find)(model, server, wish)


def _check_allowed(model: LocalModel, config: Config) -> None:
    """Raises `NotAllowed` if prompts would go where the user has not said that they may."""
    if model.id in config.allow:
        return
    model = locate(model)
    if requires_consent(model):
        where = WHERE[model.runs_on] + (f" ({model.remote_host})" if model.remote_host else "")
        raise NotAllowed(
            f"{model.id} runs {where}, so the prompt would leave this machine",
            f"If it may: `llm localrun allow {shlex.quote(model.id)}`",
        )
