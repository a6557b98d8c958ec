"""Thinking that stands in the text, at the engine and at servers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.catalogue import get_catalogue
from llm_localrun.chat.models import LocalChat
from llm_localrun.files.contents import read_model
from llm_localrun.files.found import FoundFile
from llm_localrun.files.modelfile import thinking_in
from llm_localrun.models import LocalModel, TemplateThinking
from llm_localrun.name_cache import CachePolicy
from tests.conftest import CONFIG, configure
from tests.fakes.http_server import Request, StandIn, events, json_reply
from tests.fakes.llama_server import llama_server
from tests.fakes.openai_compatible import completion
from tests.fakes.vllm import vllm
from tests.support.drive import WAYS, ask
from tests.support.engines import beginning_answers_with, in_file
from tests.support.replies import chunk
from tests.support.trees import gguf

in_every_way = pytest.mark.parametrize("way", WAYS)


def saying(text: str) -> dict[str, Any]:
    """Options that let a model write nothing but `text`."""
    escaped = text.replace("\n", "\\n")
    return {"grammar": f'root ::= "{escaped}"', "temperature": 0}


# The engine, with a model whose template opens a thinking that llama.cpp does not know.


@pytest.fixture(scope="module")
def thinker(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thinker")
    return beginning_answers_with(starter_model, folder / "Thinker.gguf", "<thinking>\\n")


def test_engine(thinker: Path, user_path: Path) -> None:
    model = in_file(thinker)
    for way in WAYS:
        outcome = ask(model, "Two and three?", way, **saying("Hm.\n</thinking>\n\nFive."))
        assert (outcome.reasoning, outcome.text) == ("Hm.\n", "Five.")
    # Other tags within it are what the model writes about.
    outcome = ask(model, "Two and three?", **saying("</think>\n</thinking>\nFive."))
    assert (outcome.reasoning, outcome.text) == ("</think>\n", "Five.")
    outcome = ask(model, "Two and three?", **saying("Five."))
    assert (outcome.reasoning, outcome.text) == ("", "Five.")


def test_engine_that_ends_within_the_thinking(
    thinker: Path, user_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = in_file(thinker)
    outcome = ask(model, "Two and three?", max_tokens=5)
    assert outcome.text == ""
    assert outcome.reasoning
    # This template cannot switch it off.
    assert capfd.readouterr().err == (
        f"{model.id} stopped while it was thinking (length) and gave no answer."
        " Use a larger -o max_tokens.\n"
    )


@pytest.mark.pure
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ messages }}", ()),
        ("{{ '<think>' }}", ("thinking",)),
        ("{% if enable_thinking %}", ("thinking",)),
        ("[THINK]…[/THINK]", ("thinking",)),
        ("<reasoning></reasoning>", ("thinking",)),
        ("<|START_THINKING|>", ("thinking",)),
        ("<|channel>thought\\n<channel|>", ("thinking",)),
        ("<|channel|>analysis<|message|>", ("thinking",)),
        ("I think so.", ()),
    ],
)
def test_model_that_thinks_by_its_template(
    template: str, expected: tuple[str, ...], tmp_path: Path
) -> None:
    keys = {"general.architecture": "llama", "tokenizer.chat_template": template}
    path = str(gguf(tmp_path / "m.gguf", keys))
    model = read_model(FoundFile(path, "m", size=1, modified=0.0, identity=(0, 0)))
    assert isinstance(model, LocalModel)
    assert model.capabilities == expected


def test_template_of_a_file(thinker: Path) -> None:
    route = in_file(thinker).on_disk
    assert route is not None
    assert thinking_in(route) == TemplateThinking(
        tags=("<thinking>",), opened="<thinking>", always=True
    )
    assert thinking_in(route.model_copy(update={"path": "/nowhere/m.gguf"})) is None


# Servers


def the_model(user: Path, server: StandIn) -> LocalModel:
    configure(user, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
    return get_catalogue(CachePolicy.REFRESH).models[0]


TEXTS = [
    ("<thinking>\nHm.\n</thinking>\n\nHi", "Hi?", "Hm.\n", "Hi"),
    ("[THINK]Hm.[/THINK]Hi", "Hi?", "Hm.", "Hi"),
    ("<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>Hi", "Hi?", "Hm.", "Hi"),
    ("<thinking>a</thinking>", "What does <thinking> do?", "", "<thinking>a</thinking>"),
    ("```\n<think>a</think>\n```", "Hi?", "", "```\n<think>a</think>\n```"),
    ("Use <think>.", "Hi?", "", "Use <think>."),
    ("<reason>Timeout</reason>", "Make an element of XML", "", "<reason>Timeout</reason>"),
    ("<think>\na\n</think>\n<answer>\n4\n</answer>", "Two and two?", "a\n", "4\n"),
]


@in_every_way
@pytest.mark.parametrize(("text", "prompt", "thought", "answer"), TEXTS)
def test_server_that_shows_no_template(
    text: str, prompt: str, thought: str, answer: str, way: str, user_path: Path
) -> None:
    rest = vllm()

    def answers(request: Request) -> Iterator[bytes]:
        if request.path != rest.chat_path:
            yield from rest(request)
        elif request.body["stream"]:
            pieces = [text[at : at + 3] for at in range(0, len(text), 3)]
            yield events(*(chunk(content=piece) for piece in pieces), chunk("stop"))
        else:
            yield json_reply(completion(text, finish_reason="stop"))

    with StandIn(answers) as server:
        outcome = ask(the_model(user_path, server), prompt, way)
    assert (outcome.reasoning, outcome.text) == (thought, answer)


OPENED = "{{ m }}{% if add_generation_prompt %}{{ '<reasoning>' }}{% endif %}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (OPENED, TemplateThinking(tags=("<reasoning>",), opened="<reasoning>", always=True)),
        ("{{ messages }}", TemplateThinking()),
        ("", None),
    ],
)
def test_template_that_llama_server_shows(
    template: str, expected: TemplateThinking | None, user_path: Path
) -> None:
    fake = llama_server()
    shown = {**fake.answers["/props"], "chat_template": template}
    with StandIn(replace(fake, answers={**fake.answers, "/props": shown})) as server:
        model = the_model(user_path, server)
    assert model.template_thinking == expected


def switched(variable: str) -> str:
    """A template like that of Qwen 3.5, in which `variable` switches thinking off."""
    return (
        "{{ m }}{% if add_generation_prompt %}{{ 'a' }}"
        f"{{% if {variable} is defined and {variable} is false %}}"
        "{{ '<think></think>' }}{% else %}{{ '<think>' }}{% endif %}{% endif %}"
    )


PIECES = ["Five", " is it"]
# DeepSeek V3.1
OFF = (
    "{{ m }}{% if add_generation_prompt %}{% if not thinking %}{{ '</think>' }}{% else %}"
    "{{ '<think>' }}{% endif %}{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "options", "pieces"),
    [
        # The server takes thinking apart, and may have switched it off.
        (switched("enable_thinking"), {}, PIECES),
        (switched("thinking"), {}, PIECES),
        # It does not see this one.
        (OPENED, {}, ["Five is it"]),
        (OFF, {}, ["Five is it"]),
        (OFF, {"think": "off"}, PIECES),
    ],
)
def test_answer_that_llama_server_cuts(
    template: str, options: dict[str, Any], pieces: list[str], user_path: Path
) -> None:
    fake = llama_server()
    shown = {**fake.answers["/props"], "chat_template": template}
    rest = replace(fake, answers={**fake.answers, "/props": shown})

    def answers(request: Request) -> Iterator[bytes]:
        if request.path == rest.chat_path:
            yield events(chunk(content="Five"), chunk(content=" is it"), chunk("length"))
        else:
            yield from rest(request)

    with StandIn(answers) as server:
        model = LocalChat(the_model(user_path, server))
        assert [*model.prompt("Two and three?", **options)] == pieces


@in_every_way
@pytest.mark.parametrize(
    ("template", "text", "thought", "answer"),
    [
        (OPENED, "Hm.</reasoning>Hi", "Hm.", "Hi"),
        (OPENED, "Hm.</think>Hi", "", "Hm.</think>Hi"),
        ("{{ messages }}", "Hm.</reasoning>Hi", "", "Hm.</reasoning>Hi"),
    ],
)
def test_closing_alone_at_llama_server(
    template: str, text: str, thought: str, answer: str, way: str, user_path: Path
) -> None:
    fake = llama_server()
    shown = {**fake.answers["/props"], "chat_template": template}
    rest = replace(fake, answers={**fake.answers, "/props": shown})

    def answers(request: Request) -> Iterator[bytes]:
        if request.path != rest.chat_path:
            yield from rest(request)
        elif request.body["stream"]:
            yield events(*(chunk(content=each) for each in text), chunk("stop"))
        else:
            yield json_reply(completion(text, finish_reason="stop"))

    with StandIn(answers) as server:
        outcome = ask(the_model(user_path, server), "Hi", way)
    assert (outcome.reasoning, outcome.text) == (thought, answer)
