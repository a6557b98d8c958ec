"""Tools for models whose chat template has no place for them: described in the system message.

Also what servers refuse to read of tools and of calls. With fakes for the exact bytes, with the
real engine for what the template makes of them.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llm
import pytest

from llm_localrun.chat.models import AsyncLocalChat, LocalChat
from llm_localrun.chat.tools import with_tools_described
from llm_localrun.engine import serve
from llm_localrun.errors import PromptTooLong, ServerRefused
from llm_localrun.models import LocalModel
from llm_localrun.servers.base import server_class
from llm_localrun.tokens.count import Prompt
from llm_localrun.wire.request import ChatMessage, ChatRequest, Media, PastCall, ToolSpec
from tests.fakes.http_server import Request, Respond, StandIn, events, json_reply, not_found
from tests.fakes.openai_compatible import completion
from tests.fakes.says import Call, Says
from tests.support.contract import HISTORY, chain, found, saying, sent
from tests.support.drive import WAYS, ask, served

in_every_way = pytest.mark.parametrize("way", WAYS)

WEATHER = ToolSpec("weather", "The weather", {"type": "object", "properties": {"é": {}}})
CLOCK = ToolSpec("clock", "", {"type": "object", "properties": {}})
WEATHER_TEXT = """\
<tool name="weather">
The weather
Schema of its arguments: {"type": "object", "properties": {"é": {}}}
</tool>"""
CLOCK_TEXT = """\
<tool name="clock">
Schema of its arguments: {"type": "object", "properties": {}}
</tool>"""
PICTURE = Media("image/png", b"a")
CALL, OTHER = PastCall("1", "weather", {"é": "ü"}), PastCall("2", "clock", {})
CALL_TEXT = '{"name": "weather", "arguments": {"é": "ü"}}'
OTHER_TEXT = '{"name": "clock", "arguments": {}}'


def user(text: str, *media: Media) -> ChatMessage:
    return ChatMessage("user", text, media=media)


def answer(text: str, *calls: PastCall, reasoning: str = "") -> ChatMessage:
    return ChatMessage("assistant", text, calls=calls, reasoning=reasoning)


def result(call: PastCall, text: str) -> ChatMessage:
    return ChatMessage("tool", text, call_id=call.id, tool_name=call.name)


def described(*messages: ChatMessage, tools: tuple[ToolSpec, ...] = ()) -> ChatRequest:
    return with_tools_described(ChatRequest(messages, {}, stream=True, tools=tools))


TURNS: dict[str, tuple[list[ChatMessage], list[ChatMessage]]] = {
    "no calls": ([user("Hi"), answer("Hello."), user("Who?")],) * 2,
    "a call": (
        [user("Hi"), answer("", CALL), result(CALL, "sunny")],
        [user("Hi"), answer(CALL_TEXT), user("The tool weather returned:\nsunny")],
    ),
    "a call after words and thinking": (
        [user("Hi"), answer("I ask.", CALL, reasoning="Hm."), result(CALL, "")],
        [
            user("Hi"),
            answer(f"I ask.\n{CALL_TEXT}", reasoning="Hm."),
            user("The tool weather returned:\n"),
        ],
    ),
    "two calls": (
        [user("Hi"), answer("", CALL, OTHER), result(CALL, "sunny"), result(OTHER, "12:00")],
        [
            user("Hi"),
            answer(f"[{CALL_TEXT}, {OTHER_TEXT}]"),
            user("The tool weather returned:\nsunny\n\nThe tool clock returned:\n12:00"),
        ],
    ),
    "a picture of a tool": (
        [user("Hi"), answer("", CALL), result(CALL, "a picture"), user("", PICTURE)],
        [user("Hi"), answer(CALL_TEXT), user("The tool weather returned:\na picture", PICTURE)],
    ),
    "a question after a result": (
        [user("Hi"), answer("", CALL), result(CALL, "sunny"), user("And?", PICTURE)],
        [user("Hi"), answer(CALL_TEXT), user("The tool weather returned:\nsunny\n\nAnd?", PICTURE)],
    ),
    "a chain": (
        [user("Hi"), answer("", CALL), result(CALL, "a"), answer("", OTHER), result(OTHER, "b")],
        [
            user("Hi"),
            answer(CALL_TEXT),
            user("The tool weather returned:\na"),
            answer(OTHER_TEXT),
            user("The tool clock returned:\nb"),
        ],
    ),
}


@pytest.mark.pure
@pytest.mark.parametrize("case", TURNS)
def test_earlier_calls_become_text(case: str) -> None:
    """Without tools on offer, too: a conversation may go on without them."""
    before, after = TURNS[case]
    assert [*described(*before).messages] == after
    system, *rest = described(*before, tools=(WEATHER,)).messages
    assert (system.role, rest) == ("system", after)
    roles = [message.role for message in rest]
    assert all(a != b for a, b in itertools.pairwise(roles)), "templates want turns"


@pytest.mark.pure
def test_tools_stand_in_the_system_message() -> None:
    request = described(user("Hi"), tools=(WEATHER, CLOCK))
    assert request.tools == ()
    assert f"{WEATHER_TEXT}\n{CLOCK_TEXT}\n\n" in request.messages[0].text
    assert '\n{"name": "TOOL", "arguments": {"ARGUMENT": "VALUE"}}\n' in request.messages[0].text
    with_own = described(ChatMessage("system", "Be brief."), user("Hi"), tools=(WEATHER, CLOCK))
    assert with_own.messages[0].text == f"Be brief.\n\n{request.messages[0].text}"
    assert [message.role for message in with_own.messages] == ["system", "user"]


@pytest.mark.pure
def test_estimate_counts_what_is_sent() -> None:
    plain = Prompt(ChatRequest((user("Hi"),), {}, stream=True))
    asked = Prompt(described(user("Hi"), tools=(WEATHER,) * 70))
    assert asked.estimate({}).tokens > plain.estimate({}).tokens + 70 * 20
    assert asked.bound > plain.bound + 70 * len(WEATHER_TEXT)


# At a server

CANNOT: dict[str, Any] = {"capabilities": ()}
HAS = {"capabilities": ("tools",)}


def get_weather(city: str) -> str:
    "The weather in a city"
    return f"{len(city)} degrees in {city}"


@pytest.mark.parametrize("kind", ["ollama", "lmstudio"])
@pytest.mark.parametrize(("known", "is_native"), [(CANNOT, False), (HAS, True), ({}, True)])
@in_every_way
def test_only_a_model_that_is_known_not_to_take_tools_reads_them(
    way: str, known: dict[str, Any], is_native: bool, kind: str
) -> None:
    turns = (Says(calls=(Call("get_weather", {"city": "Lima"}),)), Says("Warm."))
    with saying(kind, *turns, **known) as (model, server):
        chain(model, "Hi", way, tools=[get_weather])
    first, second = sent(server)
    assert ("tools" in first, "tools" in second) == (is_native, is_native)
    roles = [message["role"] for message in second["messages"]]
    if is_native:
        assert roles == ["user", "assistant", "tool"]
    else:
        assert roles == ["system", "user", "assistant", "user"]
        assert '<tool name="get_weather">' in first["messages"][0]["content"]
        assert second["messages"][0] == first["messages"][0]
        assert second["messages"][-1]["content"].endswith("4 degrees in Lima")


def test_history_of_another_model(user_path: Path) -> None:
    """Calls of a model that takes tools, continued with one that does not."""
    with saying("lmstudio", Says("Hm."), **{"capabilities": ("vision",)}) as (model, server):
        response = LocalChat(model).prompt(messages=HISTORY)
        assert response.text() == "Hm."
    (body,) = sent(server)
    assert [message["role"] for message in body["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert body["messages"][2]["content"] == 'I ask.\n{"name": "f", "arguments": {"a": 1}}'
    assert body["messages"][3]["content"] == "The tool f returned:\nValueError: no\n\nAnd?"


@in_every_way
@pytest.mark.parametrize("kind", ["ollama", "lmstudio"])
def test_schema_waits_until_no_tool_is_called(kind: str, way: str) -> None:
    """Under a schema, no call could be written as text."""
    says = (Says("Hm."), Says('{"x": 1}'))
    with saying(kind, *says, **CANNOT) as (model, server):
        schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
        responses = chain(model, "Hi", way, tools=[get_weather], schema=schema)
    assert responses[-1].text() == '{"x": 1}'
    first, second = sent(server)
    field = "format" if kind == "ollama" else "response_format"
    assert (field in first, field in second) == (False, True)


@in_every_way
def test_description_is_not_what_the_user_says(way: str) -> None:
    """A tag that the user names is no thinking."""

    def keep(text: str) -> str:
        "Keeps a thought"
        return text

    says = Says("<thought>Hm.</thought>Warm.")
    with saying("ollama", says, **{"capabilities": ("thinking",)}) as (model, _):
        (response,) = chain(model, "Hi", way, tools=[keep])
    assert response.text() == "Warm."


@pytest.mark.parametrize("known", [CANNOT, HAS, {}])
def test_every_chat_model_supports_tools(known: dict[str, Any]) -> None:
    model = served("http://127.0.0.1:9", "ollama", **known)
    assert LocalChat(model).supports_tools
    assert AsyncLocalChat(model).supports_tools


# Servers that refuse

REFUSALS = {
    "ollama": ("ollama", 400, "registry.ollama.ai/library/m:1b does not support tools"),
    "vllm": (
        "vllm",
        400,
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
    ),
    "no parser": (
        "llamacpp",
        400,
        "Unable to generate parser for this template. Automatic parser generation failed: JSON"
        " schema error at #/properties/s: true",
    ),
    "no grammar": ("llamacpp", 400, "Failed to initialize samplers: failed to parse grammar"),
}
"""What servers say to tools, or to one tool's schema: recorded, but for vLLM's."""
MALFORMED = "The model produced output that does not match the expected peg-native format"
OFFERED = [llm.Tool("get_weather", input_schema={})]
CHAT_PATHS = ("/api/chat", "/v1/chat/completions")


def texts(*answers: str | tuple[int, str] | Says) -> Respond:
    """A server of any kind that gives each of `answers` once: a refusal or what a model says."""
    waiting = list(answers)

    def respond(request: Request) -> Iterator[bytes]:
        if request.path not in CHAT_PATHS:
            yield not_found(request.path)
            return
        answer, is_ollama = waiting.pop(0), request.path == "/api/chat"
        if isinstance(answer, tuple):
            status, message = answer
            error = message if is_ollama else {"message": message, "type": "server_error"}
            yield json_reply({"error": error}, status)
        elif isinstance(answer, Says):
            yield broken_stream(answer.text, request.body["stream"])
        elif is_ollama:
            yield json_reply({"message": {"content": answer}, "done": True})
        elif request.body["stream"]:
            yield events({"choices": [{"delta": {"content": answer}, "finish_reason": "stop"}]})
        else:
            yield json_reply(completion(answer, finish_reason="stop"))

    return respond


def broken_stream(text: str, is_streamed: bool) -> bytes:
    """llama.cpp's answer with a call that it cannot read: the text before it, and an error."""
    error = {"error": {"code": 500, "message": MALFORMED, "type": "server_error"}}
    if not is_streamed:
        return json_reply(error, 500)
    before = [{"choices": [{"delta": {"content": text}}]}] if text else []
    return events(*before, error)


@in_every_way
@pytest.mark.parametrize("case", REFUSALS)
def test_refused_tools_are_described(case: str, way: str) -> None:
    """Servers that can leave calls in the text are asked for that before."""
    kind, status, message = REFUSALS[case]
    forms = 2 if server_class(kind).text_choice else 1
    said = [(status, message)] * forms
    with StandIn(texts(*said, "Warm.", "Cold.")) as server:
        model = served(server.url, kind)
        (response,) = chain(model, "Hi", way, tools=[get_weather])
        (again,) = chain(model, "Hi", way, tools=[get_weather])
    assert (response.text(), again.text()) == ("Warm.", "Cold.")
    bodies = sent(server)
    assert ["tools" in body for body in bodies] == [*[True] * forms, False, False]
    assert ["tool_choice" in body for body in bodies] == [
        False,
        *[True] * (forms - 1),
        False,
        False,
    ]
    assert all('<tool name="get_weather">' in str(body["messages"][0]) for body in bodies[-2:])


@in_every_way
def test_tools_are_sent_again_if_to_describe_them_fails_too(way: str) -> None:
    refusal = REFUSALS["ollama"][1:]
    with StandIn(texts(refusal, (500, "boom"), "Warm.")) as server:
        model = served(server.url, "ollama")
        with pytest.raises(ServerRefused, match="boom"):
            ask(model, "Hi", way, tools=OFFERED)
        assert ask(model, "Hi", way, tools=OFFERED).text == "Warm."
    assert ["tools" in body for body in sent(server)] == [True, False, True]


@in_every_way
@pytest.mark.parametrize("message", ["failed to parse grammar", "JSON schema conversion failed"])
def test_error_about_the_users_schema_is_no_refusal_of_tools(message: str, way: str) -> None:
    with StandIn(texts("It is warm.", (400, message), "Warm.")) as server:
        model = served(server.url, "llamacpp")
        with pytest.raises(ServerRefused, match=message):
            ask(
                model,
                "Hi",
                way,
                tools=OFFERED,
                schema={"type": "object"},
            )
        assert ask(model, "Hi", way, tools=OFFERED).text == "Warm."
    assert ["tools" in body for body in sent(server)] == [True] * 3
    assert ["tool_choice" in body for body in sent(server)] == [False, True, False]


@in_every_way
def test_refusal_without_tools_is_an_error(way: str) -> None:
    with (
        StandIn(texts(REFUSALS["no grammar"][1:])) as server,
        pytest.raises(ServerRefused, match="failed to parse grammar"),
    ):
        ask(served(server.url, "llamacpp"), "Hi", way)
    assert len(sent(server)) == 1


CALL_JSON = '{"name": "get_weather", "arguments": {"city": "Lima"}}'


@in_every_way
@pytest.mark.parametrize("lead", ["", "I look.\n"])
def test_call_that_llama_cpp_cannot_read_gets_a_second_chance(lead: str, way: str) -> None:
    with StandIn(texts(Says(lead), CALL_JSON, "Warm.")) as server:
        first, second = chain(served(server.url, "llamacpp"), "Hi", way, tools=[get_weather])
    assert [call.arguments for call in first.tool_calls()] == [{"city": "Lima"}]
    assert first.text() == ("" if "unstreamed" in way else lead)
    assert second.text() == "Warm."
    bodies = sent(server)
    assert ["response_format" in body for body in bodies] == [False, True, False]


@in_every_way
def test_call_that_llama_cpp_cannot_read_without_a_second_chance(way: str) -> None:
    with (
        StandIn(texts(Says())) as server,
        pytest.raises(ServerRefused, match=r"does not match the expected.*-o max_tokens"),
    ):
        options = {"tool_repair": False}
        chain(served(server.url, "llamacpp"), "Hi", way, tools=[get_weather], options=options)
    assert len(sent(server)) == 1


@in_every_way
def test_second_chance_that_fails_shows_the_first_error(way: str) -> None:
    with (
        StandIn(texts(Says(), "Hm.")) as server,
        pytest.raises(ServerRefused, match="does not match the expected"),
    ):
        chain(served(server.url, "llamacpp"), "Hi", way, tools=[get_weather])
    assert len(sent(server)) == 2


MANY = [
    llm.Tool(
        name=f"search_{i}",
        description=f"Searches the index number {i} for what the user names",
        input_schema={
            "type": "object",
            "properties": {f"field_{k}": {"type": "string"} for k in range(6)},
        },
    )
    for i in range(70)
]


@pytest.mark.parametrize("known", [CANNOT, HAS])
@in_every_way
def test_context_that_tools_do_not_fit_into(known: dict[str, Any], way: str) -> None:
    said = "request (6543 tokens) exceeds the available context size (4096 tokens)"
    with (
        StandIn(texts((400, said))) as server,
        pytest.raises(PromptTooLong) as caught,
    ):
        chain(served(server.url, "llamacpp", **known), "Hi", way, tools=MANY)
    assert caught.value.problem.endswith("holds 4,096; most of it is its 70 tools")
    assert caught.value.remedy.startswith("Offer fewer tools, or start the server with -c ")


# In the engine

WITHOUT_SYSTEM = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not \
supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != \
(loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/\
user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}\
{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + \
message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}\
{{'<start_of_turn>model\n'}}{% endif %}"""
"""Gemma 2's: https://huggingface.co/google/gemma-2-2b-it/blob/main/tokenizer_config.json."""
OPTIONS = {"temperature": 0, "max_tokens": 4}


@pytest.fixture
def plain(warm: Path) -> LocalModel:
    """The starter model, whose template has no place for tools."""
    return found("local-smollm2")


@pytest.fixture
def template_options(plain: LocalModel, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param is None:
        return OPTIONS
    file = tmp_path / "template.jinja"
    file.write_text(request.param)
    return {**OPTIONS, "chat_template": str(file)}


@pytest.mark.parametrize("template_options", [None, WITHOUT_SYSTEM], indirect=True)
@pytest.mark.parametrize("way", ["sync", "async unstreamed"])
def test_engine_evaluates_the_description(
    plain: LocalModel, template_options: dict[str, Any], way: str
) -> None:
    without = ask(plain, "Hi", way, options=template_options).input or 0
    (response, *_) = chain(plain, "Hi", way, tools=[get_weather], options=template_options)
    assert (response.usage().input or 0) > without + 50
    history = [llm.user("Hi"), *HISTORY[2:]]
    assert LocalChat(plain).prompt(messages=history, options=template_options).text()


TAKES_TOOLS = (
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
)


def test_engine_counts_the_tools(plain: LocalModel) -> None:
    with pytest.raises(PromptTooLong) as caught:
        chain(plain, "Hi", tools=MANY * 2, options=OPTIONS)
    assert caught.value.problem.endswith(
        " tokens and llama.cpp holds 8,192; most of it is its 140 tools"
    )
    assert caught.value.remedy.startswith("Offer fewer tools, or choose a model with a larger")
    long = "word " * 20_000
    with pytest.raises(PromptTooLong) as caught:
        chain(plain, long, tools=[get_weather], options=OPTIONS)
    assert "tools" not in str(caught.value)


def test_questions_with_the_same_tools_share_a_slot(plain: LocalModel, tmp_path: Path) -> None:
    """The tools, which are most of the prompt, are evaluated once."""
    file = tmp_path / "t.jinja"
    file.write_text(TAKES_TOOLS)
    for options in (OPTIONS, {**OPTIONS, "chat_template": str(file)}):
        cached = []
        for question in ("What is the weather in Paris?", "Where is my umbrella?"):
            (response,) = chain(plain, question, tools=MANY[:8], options=options)
            cached.append((response.response_json or {}).get("cached_tokens", 0))
        assert 2 * cached[1] > (response.usage().input or 0)


@pytest.mark.parametrize(("template", "is_native"), [(TAKES_TOOLS, True), (WITHOUT_SYSTEM, False)])
def test_given_template_decides(
    template: str,
    is_native: bool,
    plain: LocalModel,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    encode, sent_to_engine = serve.EngineServer.encode, list[ChatRequest]()

    def recorded(server: Any, model: str, chat: ChatRequest, **more: Any) -> Any:
        sent_to_engine.append(chat)
        return encode(server, model, chat, **more)

    monkeypatch.setattr(serve.EngineServer, "encode", recorded)
    file = tmp_path / "t.jinja"
    file.write_text(template)
    chain(plain, "Hi", tools=[get_weather], options={**OPTIONS, "chat_template": str(file)})
    assert [bool(chat.tools) for chat in sent_to_engine] == [is_native]


@pytest.mark.parametrize(("count", "is_told"), [(10, False), (70, True)])
def test_many_tools_are_announced_on_a_terminal(
    count: int, is_told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = {"type": "object", "properties": {"text": {"description": "word " * 100}}}
    tools = [llm.Tool(name=f"tool_{i}", description="", input_schema=schema) for i in range(count)]
    for is_terminal in (True, False):
        with StandIn(texts("Warm.")) as server:
            monkeypatch.setattr("sys.stderr.isatty", lambda is_it=is_terminal: is_it, raising=False)
            ask(served(server.url, "llamacpp"), "Hi", tools=tools)
        told = f"The {count} tools take about" in capsys.readouterr().err
        assert told == (is_told and is_terminal)
