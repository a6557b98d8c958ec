"""`-o think` with a model that cannot think: refused before anything is sent, unless it is off."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llm_localrun.catalogue import get_catalogue
from llm_localrun.files.modelfile import has_place_for_thinking
from llm_localrun.models import LocalModel, OnDisk
from llm_localrun.name_cache import CachePolicy
from llm_localrun.wire.think_tags import may_think
from tests.conftest import CONFIG, Llm, configure, put_starter
from tests.fakes.http_server import Request, StandIn
from tests.fakes.llama_server import llama_server
from tests.fakes.ollama import Ollama
from tests.support.drive import ask, failure
from tests.support.engines import SHORT_ANSWER, in_file
from tests.support.models import changed
from tests.support.trees import LIBRARY, gguf, ollama_model

ADVICE = "Leave out -o think. Choose a model that thinks: `llm localrun recommend --for thinking`."


@pytest.mark.pure
@pytest.mark.parametrize(
    "trace",
    [
        pytest.param("{{'<Assistant><think>\\n'}}", id="DeepSeek R1 and its distills"),
        pytest.param("{{ content.split('</think>')[-1] }}", id="older distills"),
        pytest.param("{%- if enable_thinking is false %}", id="Qwen3, SmolLM3, Gemma 4"),
        pytest.param("{{ '<|start|>assistant<|channel|>analysis<|message|>' }}", id="gpt-oss"),
        pytest.param("Reasoning: {{ reasoning_effort }}", id="gpt-oss, Mistral Small 4"),
        pytest.param("[THINK]Your thoughts[/THINK]", id="Magistral"),
        pytest.param("{%- if thinking %}Respond with your thought process.", id="Granite 3.2"),
        pytest.param("{{ '<seed:think>' }}", id="Seed-OSS"),
        pytest.param("[|assistant|]<thought>\\n", id="EXAONE Deep"),
        pytest.param("<|START_THINKING|>", id="Command A Reasoning"),
        pytest.param("present your reasoning step by step", id="Apriel"),
        pytest.param("{{- open_tag('think' if thinking else 'response') -}}", id="Kimi K3"),
        pytest.param("{%- set preserve_thinking = false -%}", id="LFM2.5"),
        pytest.param("'/no_think' in content", id="Nemotron Nano"),
        pytest.param("{{ if .ThinkLevel }}", id="in Go"),
        pytest.param("", id="unknown"),
    ],
)
def test_traces_of_thinking(trace: str) -> None:
    assert may_think(trace)


@pytest.mark.pure
@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + m['content'] }}{% endfor %}",
        "{{ '<start_of_turn>' + role + '\\n' }}",
        "<|start_header_id|>user<|end_header_id|>\\n\\n{{ .Prompt }}<|eot_id|>",
    ],
)
def test_no_trace_of_thinking(template: str) -> None:
    assert not may_think(template)


@pytest.mark.pure
@pytest.mark.parametrize(
    ("own", "of_ollama", "expected"),
    [
        ("{{ messages }}", None, False),
        ("{{ messages }}", "{{ .Prompt }}", False),
        ("{{ messages }}", "{{ .Thinking }}", True),
        # A built-in renderer is named beside a template that leaves all to it.
        ("{{ '<think>' }}", "{{ .Prompt }}", True),
        (None, None, True),
    ],
)
def test_place_for_thinking_in_a_file(
    own: str | None, of_ollama: str | None, expected: bool, tmp_path: Path
) -> None:
    path = gguf(tmp_path / "m.gguf", {"tokenizer.chat_template": own} if own else {})
    manifest = ""
    if of_ollama is not None:
        store = tmp_path / "store"
        manifest = str(ollama_model(store, f"{LIBRARY}/m/latest", path, template=of_ollama))
    assert has_place_for_thinking(OnDisk(path=str(path), manifest=manifest)) is expected


@pytest.mark.pure
def test_file_that_is_gone_may_think(tmp_path: Path) -> None:
    assert has_place_for_thinking(OnDisk(path=str(tmp_path / "gone.gguf")))


# The engine


@pytest.mark.parametrize("level", ["high", "on", "low", "max", True])
def test_starter_model_cannot_think(user_path: Path, starter_model: Path, level: object) -> None:
    model = in_file(starter_model)
    said = failure(lambda: ask(model, "Hi", think=level))
    assert said == f"{model.id} cannot think: its chat template has no place for it. {ADVICE}"
    assert not (user_path / "localrun/engine").exists()


def in_use(warm: Path) -> LocalModel:
    """The model whose engine stays warm."""
    (file,) = (warm / "localrun/models").iterdir()
    return in_file(file)


def test_thinking_can_be_off_where_there_is_none(warm: Path) -> None:
    assert ask(in_use(warm), "Hi", think=False, **SHORT_ANSWER).text


def test_name_that_says_thinking_is_enough(warm: Path) -> None:
    """The first reasoning models had plain templates."""
    model = in_use(warm).model_copy(update={"name": "QwQ-32B-Preview"})
    assert ask(model, "Hi", think="on", **SHORT_ANSWER).text


def test_refusal_on_the_command_line(user_path: Path, starter_model: Path, run_llm: Llm) -> None:
    configure(user_path, **CONFIG)
    put_starter(user_path, starter_model)
    done = run_llm("-m", "local", "-o", "think", "true", "Hi")
    assert (done.returncode, done.stdout) == (1, "")
    assert " cannot think: its chat template has no place for it. Leave out" in done.stderr


# Servers


def the_model(user: Path, server: StandIn) -> LocalModel:
    configure(user, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
    (model,) = get_catalogue(CachePolicy.REFRESH).models
    return model


@pytest.mark.parametrize(
    ("template", "levels"),
    [
        ("{{ tools }} <think> {{ messages }}", None),
        ("Reasoning: {{ reasoning_effort }}", None),
        ("{{ messages }}", ("off",)),
        ("", None),
    ],
)
def test_template_of_a_llama_server(
    template: str, levels: tuple[str, ...] | None, user_path: Path
) -> None:
    fake = llama_server()
    shown = {**fake.answers["/props"], "chat_template": template}
    with StandIn(replace(fake, answers={**fake.answers, "/props": shown})) as server:
        model = the_model(user_path, server)
        assert model.think_levels == levels
        if levels:
            said = failure(lambda: ask(model, "Hi", think="high"))
            assert said == f"{model.id} cannot think. {ADVICE}"


def test_ollama_says_what_a_model_can_do(user_path: Path) -> None:
    with StandIn(Ollama(has=["plain:1b"])) as server:
        model = the_model(user_path, server)
        said = failure(lambda: ask(model, "Hi", think="high"))
        assert said == f"{model.id} cannot think. {ADVICE}"


def test_list_of_ollama_does_not_decide(user_path: Path) -> None:
    """It leaves out what only the template in the file can do."""
    ollama = Ollama(has=["plain:1b"])

    def answer(request: Request) -> Iterator[bytes]:
        # A connection that closes is no answer.
        yield from () if request.path == "/api/show" else ollama(request)

    with StandIn(answer) as server:
        assert the_model(user_path, server).think_levels is None


def test_served_model_has_the_template_of_its_file(starter_model: Path, user_path: Path) -> None:
    with StandIn(llama_server()) as server:
        model = changed(
            the_model(user_path, server),
            path=str(starter_model),
            capabilities=(),
            think_levels=None,
        )
        said = failure(lambda: ask(model, "Hi", think="on"))
        assert said == f"{model.id} cannot think: its chat template has no place for it. {ADVICE}"
