"""What is known of a response before it comes, from the model, the request and the server.

Reading the response is left to `wire.response`, what a template shows to `wire.think_tags`.
"""

from collections.abc import Callable
from dataclasses import replace

from llm_localrun.catalogue import add_name
from llm_localrun.chat.attempts import Attempt, wants_json
from llm_localrun.chat.tools import naming_tools
from llm_localrun.engine import serve
from llm_localrun.engine.settings import given_template
from llm_localrun.errors import LocalRunError, PromptTooLong
from llm_localrun.files.modelfile import thinking_in
from llm_localrun.models import LocalModel, TemplateThinking
from llm_localrun.names.parse import parse_name
from llm_localrun.servers.base import PreparedRequest, ServeRequest
from llm_localrun.tokens.window import explain_overflow
from llm_localrun.wire.request import ChatRequest
from llm_localrun.wire.response import ResponseContext
from llm_localrun.wire.shapes import Overflow
from llm_localrun.wire.think_tags import Renderer, Thinking, expect_thinking, read_template


def response_context(
    request: ServeRequest, prepared: PreparedRequest, attempt: Attempt
) -> ResponseContext:
    """What to expect of the response to the request of an attempt."""
    server, wanted = prepared.server, attempt.wanted
    facts = {"context_size": prepared.context_size, "load_seconds": prepared.load_seconds}

    def explain(overflow: Overflow, said: str) -> LocalRunError:
        sizes = prepared.context_size, prepared.limits
        error = explain_overflow(overflow, said, server.label, *sizes)
        return naming_tools(error, wanted) if isinstance(error, PromptTooLong) else error

    return replace(
        server.response_context,
        facts={name: value for name, value in facts.items() if value is not None},
        on_overflow=explain,
        model=prepared.model,
        is_other_model=model_check(request.model, prepared),
        is_json=wants_json(wanted),
        may_be_no_json=attempt.may_be_no_json,
        schema=wanted.schema,
        thinking=_expected_thinking(request, prepared, wanted),
        tools=attempt.callable_tools,
    )


def model_check(model: LocalModel, prepared: PreparedRequest) -> Callable[[str], bool] | None:
    """Returns whether a name in the reply is that of another model; None if it shows nothing.

    Some servers answer with whichever model is loaded, and name it only in the reply.
    """
    server, served = prepared.server, model.served
    if server.is_private or served is None:
        return None

    def is_other_model(name: str) -> bool:
        names = (prepared.model, model.name, *served.also_named)
        if any(server.is_same_name(each, name) for each in names):
            return False
        if not server.names_models_as_listed and server.lists(prepared.model):
            add_name(model, name)
            return False
        return True

    return is_other_model


def _expected_thinking(
    request: ServeRequest, prepared: PreparedRequest, wanted: ChatRequest
) -> Thinking:
    model = request.model
    # A server that publishes the levels of a model's thinking separates thinking from the answer.
    may_think = model.can("thinking", if_unknown=False) and model.think_levels is None
    thinks = may_think or parse_name(model.name).thinks
    template, is_certain = template_thinking(request, prepared)
    if is_certain and template is not None and template.tags:
        thinks = bool(template.opened)
    # Not what is sent: the description of tools, and results, are not the user's words.
    asked = (m.text for m in wanted.messages if m.role in ("system", "user"))
    is_off = request.options.get("think") == "off"
    renderer = Renderer.LLAMA_CPP if is_certain else Renderer.UNKNOWN
    is_bound = wants_json(wanted) or wants_json(request.chat) or "grammar" in request.options
    if isinstance(prepared.server, serve.EngineServer) and not is_bound:
        renderer = Renderer.ENGINE
    text = "\n".join(asked)
    return expect_thinking(template, text, thinks=thinks, is_off=is_off, renderer=renderer)


def template_thinking(
    request: ServeRequest, prepared: PreparedRequest
) -> tuple[TemplateThinking | None, bool]:
    """What the model's template shows of thinking, and whether it is the one that is used."""
    model, given = request.model, request.options.get("chat_template")
    if given is not None:
        return read_template(given_template(given)), True
    is_file = isinstance(prepared.server, serve.EngineServer)
    if model.template_thinking is not None and not is_file:
        return model.template_thinking, True
    return (thinking_in(model.on_disk) if model.on_disk else None), is_file
