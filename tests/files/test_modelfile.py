"""A file of Ollama's is run as Ollama runs it: its template, its system prompt, its parameters."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_localrun.chat.modelfile import RequestDefaults, request_defaults
from llm_localrun.engine.state import EngineState, list_running
from llm_localrun.files import scan
from llm_localrun.files.modelfile import Modelfile, chat_template_of, read_modelfile, template_of
from llm_localrun.models import Endpoint, LocalModel, OnDisk, Snapshot
from llm_localrun.wire.request import ChatMessage, ChatRequest
from tests.conftest import Llm
from tests.support.contract import chain
from tests.support.drive import ask, failure
from tests.support.models import changed
from tests.support.trees import LIBRARY, blob, gguf, ollama_model

TEMPLATE = """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
SYSTEM = "You are a parrot."
EXAMPLE = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello!"}]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "home" / ".ollama" / "models"


def in_store(store: Path) -> LocalModel:
    """The model of the one tag there."""
    entries = scan([], Snapshot()).files
    (model,) = (entry.model for entry in entries if entry.model is not None)
    return model


def route_of(model: LocalModel) -> OnDisk:
    assert model.on_disk is not None
    return model.on_disk


def template_in(store: Path) -> str:
    model = in_store(store)
    return chat_template_of(model, route_of(model))


def defaults_in(store: Path) -> RequestDefaults:
    model = in_store(store)
    return request_defaults(model, route_of(model))


@pytest.fixture
def parrot(store: Path, starter_model: Path) -> Path:
    parameters = {"num_ctx": 512, "num_predict": 3, "temperature": 0, "seed": 7, "num_keep": 4}
    return ollama_model(
        store,
        f"{LIBRARY}/parrot/latest",
        starter_model,
        template=TEMPLATE,
        system=SYSTEM,
        params=json.dumps(parameters),
        messages=json.dumps(EXAMPLE),
    )


def tokens(engine: EngineState, text: str) -> int:
    """How many tokens a prompt is."""
    body = {"content": text, "add_special": True, "parse_special": True}
    headers = {"Authorization": f"Bearer {engine.key}"}
    response = httpx.post(f"{engine.url}/tokenize", json=body, headers=headers, timeout=30)
    return len(response.json()["tokens"])


def written(*turns: tuple[str, str]) -> str:
    """What the template makes of a conversation."""
    lines = (f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
    return "".join(lines) + "<|im_start|>assistant\n"


def test_command_runs_a_file_as_ollama_would(parrot: Path, run_llm: Llm, user_path: Path) -> None:
    for more in ((), ("-s", "Sing.", "-o", "max_tokens", "2")):
        said = run_llm("-m", "local/gguf/parrot:latest", "Polly?", *more)
        assert (said.returncode, said.stderr) == (0, "")
    first, second = json.loads(run_llm("logs", "--json", "-n", "2").stdout)
    (engine,) = list_running(user_path / "localrun" / "engine")
    example = [(turn["role"], turn["content"]) for turn in EXAMPLE]
    for turn, system in ((first, SYSTEM), (second, "Sing.")):
        prompt = written(("system", system), *example, ("user", "Polly?"))
        assert turn["input_tokens"] == tokens(engine, prompt)
    assert (first["output_tokens"], second["output_tokens"]) == (3, 2)
    assert first["response_json"]["context_size"] == 512
    assert engine.spec.settings.chat_template != ""
    # What Ollama settles is no option that the user has set.
    assert first["options_json"] in ({}, None)


CALLING = """{{- if .Tools }}<|im_start|>system
{{ .Tools }}<|im_end|>
<|im_start|>user
What is the weather in Rome?<|im_end|>
<|im_start|>assistant
<tool_call>
{"name": "get_weather", "arguments": {"city":"Rome"}}
</tool_call><|im_end|>
<|im_start|>user
What is the weather in Oslo?<|im_end|>
<|im_start|>assistant
<tool_call>
{"name": "get_weather", "arguments": {"city":"Oslo"}}
</tool_call><|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}{{ range .ToolCalls }}<tool_call>
{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
</tool_call>{{ end }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ if gt (len .Messages) 1 }}It is{{ end }}"""


def get_weather(city: str) -> str:
    "The weather in a city"
    return f"{len(city)} degrees in {city}"


@pytest.mark.parametrize("way", ["sync", "async unstreamed"])
def test_tools_by_a_template_of_ollamas(store: Path, starter_model: Path, way: str) -> None:
    """llama.cpp finds the calls in what is said by what the template makes of calls."""
    ollama_model(store, f"{LIBRARY}/caller/latest", starter_model, template=CALLING)
    options = {"temperature": 0, "max_tokens": 40, "stop": "."}
    first, last = chain(
        in_store(store), "What is the weather in Paris?", way, tools=[get_weather], options=options
    )
    assert [call.arguments for call in first.tool_calls()] == [{"city": "Paris"}]
    assert first.text() == ""
    assert last.text().strip()


def test_template_that_only_ollama_understands(store: Path, tmp_path: Path) -> None:
    only = "{{ toTypeScriptType .Tools }}"
    ollama_model(store, f"{LIBRARY}/m/latest", gguf(tmp_path / "w"), template=only)
    said = failure(lambda: ask(in_store(store), "Hi"))
    assert said == (
        "The template that Ollama keeps for m:latest has the function 'toTypeScriptType' of 1"
        " values, which only Ollama understands, and the file has none of its own. Run it with"
        " Ollama: start it with `ollama serve`."
    )


OWN = {"tokenizer.chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}


@pytest.mark.parametrize(
    ("template", "config", "own", "is_used"),
    [
        pytest.param("{{ .Prompt }}", {}, {}, True, id="its own"),
        pytest.param("{{ .Prompt }}", {}, OWN, True, id="its own before the file's"),
        pytest.param("{{ .Nonsense }}", {}, OWN, False, id="not understood"),
        pytest.param("{{ .Prompt }}", {"renderer": "qwen3"}, OWN, False, id="Ollama's renderer"),
        pytest.param("{{ .Prompt }}", {"renderer": "qwen3"}, {}, True, id="no other"),
        pytest.param("", {}, OWN, False, id="empty"),
        pytest.param(None, {}, {}, False, id="none"),
    ],
)
def test_which_template_is_used(
    template: str | None,
    config: dict[str, str],
    own: dict[str, int | str],
    is_used: bool,
    store: Path,
    tmp_path: Path,
) -> None:
    layers = {} if template is None else {"template": template}
    weights = gguf(tmp_path / "weights", own)
    ollama_model(store, f"{LIBRARY}/m/latest", weights, config, **layers)
    assert (template_in(store) != "") is is_used


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ({"stop": ["<|im_end|>", "</s>"]}, {"stop": ["<|im_end|>", "</s>"]}),
        ({"temperature": 0.5, "top_k": 20}, {"temperature": 0.5, "top_k": 20}),
        ({"num_ctx": 4096, "num_predict": 100}, {"context_size": 4096, "max_tokens": 100}),
        ({"num_ctx": 131072}, {"context_size": 8192}),
        ({"num_predict": 131072}, {"max_tokens": 8192}),
        ({"num_gpu": 0, "num_thread": 2}, {"gpu_layers": 0, "threads": 2}),
        ({"num_predict": -1, "num_gpu": -1, "num_thread": 0}, {}),
        ({"num_keep": 4, "mirostat": 1, "extra_body": {"model": "x"}, "lora": "/etc/passwd"}, {}),
        ({"extra": {"model": "x"}}, {}),
        ({"temperature": "hot", "top_p": 2, "stop": 5}, {}),
        ([], {}),
        ("{", {}),
        (None, {}),
    ],
    ids=str,
)
def test_parameters(parameters: Any, options: dict[str, Any], store: Path, tmp_path: Path) -> None:
    weights = gguf(tmp_path / "weights", {"llama.context_length": 8192})
    text = parameters if isinstance(parameters, str) else json.dumps(parameters)
    ollama_model(store, f"{LIBRARY}/m/latest", weights, params=text)
    assert defaults_in(store).options == options


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (["user"], ["system:default", "user:example", "user"]),
        (["system", "user"], ["system", "user:example", "user"]),
        (["user", "assistant", "user"], ["system:default", "user:example", *"uau"]),
        ([], ["system:default", "user:example"]),
    ],
)
def test_what_the_user_says_stands_before_what_ollama_says(
    given: list[str], sent: list[str]
) -> None:
    defaults = RequestDefaults(
        system="default",
        options={"temperature": 0.1, "top_k": 5},
        messages=(ChatMessage("user", "example"),),
    )
    messages = tuple(ChatMessage(role, role[0]) for role in given)
    request = ChatRequest(messages, {"temperature": 1.0}, stream=True)
    applied = defaults.applied_to(request)
    names = {"s": "system", "u": "user", "a": "assistant"}
    spelt = [name if ":" in name else f"{names[name[0]]}:{name[0]}" for name in sent]
    assert [f"{message.role}:{message.text}" for message in applied.messages] == spelt
    assert applied.options == {"temperature": 1.0, "top_k": 5}


@pytest.mark.parametrize(("given", "sent"), [({}, 256), ({"max_tokens": 300}, 300)])
def test_default_length_of_answers_fits_the_context(given: dict[str, int], sent: int) -> None:
    """What the user says is not changed."""
    request = ChatRequest((), {"context_size": 256, **given}, stream=True)
    applied = RequestDefaults(options={"max_tokens": 512}).applied_to(request)
    assert applied.options == {"context_size": 256, "max_tokens": sent}


@pytest.mark.parametrize(
    "messages", ["", "{", "5", "[5, null]", '[{"role": "tool", "content": "x"}]']
)
def test_broken_messages_are_none(messages: str, store: Path) -> None:
    ollama_model(store, f"{LIBRARY}/m/latest", messages=messages)
    assert defaults_in(store).messages == ()


def test_adapter_is_loaded_with_its_model(store: Path, starter_model: Path) -> None:
    """llama.cpp says of which file it is that it cannot be one."""
    ollama_model(store, f"{LIBRARY}/m/latest", starter_model, adapter="no adapter")
    file = store / "blobs" / f"sha256-{blob(store, 'no adapter')}"
    assert read_modelfile(route_of(in_store(store))).adapter == str(file)
    said = failure(lambda: ask(in_store(store), "Hi"))
    assert said.startswith(f"{file} is not a GGUF model: it does not begin with GGUF.")


def test_model_that_its_server_runs_gets_the_defaults_from_its_server(
    store: Path, parrot: Path
) -> None:
    served = Endpoint(name="ollama", kind="ollama", url="http://127.0.0.1:1")
    model = changed(in_store(store), endpoint=served)
    by_server, by_file = model.routes
    assert request_defaults(model, by_server) == RequestDefaults()
    # If its file is run after all, it is run as Ollama would run it.
    assert isinstance(by_file, OnDisk)
    assert request_defaults(model, by_file) == defaults_in(store)
    assert chat_template_of(model, by_file) == template_in(store) != ""


def test_manifest_that_is_gone_is_no_error(store: Path, parrot: Path) -> None:
    model = in_store(store)
    parrot.unlink()
    assert read_modelfile(route_of(model)) == Modelfile()
    defaults = request_defaults(model, route_of(model))
    assert (defaults.system, defaults.options, defaults.messages) == ("", {}, ())
    assert chat_template_of(model, route_of(model)) == ""


@pytest.mark.parametrize(
    ("template", "own", "expected"),
    [
        pytest.param("{{ .Prompt }}", OWN, "{{ .Prompt }}", id="Ollama's before the file's"),
        pytest.param("{{ .Prompt }}", {}, "{{ .Prompt }}", id="Ollama's alone"),
        pytest.param("{{ .Nonsense }}", {}, "{{ .Nonsense }}", id="one that is not translated"),
        pytest.param(None, OWN, OWN["tokenizer.chat_template"], id="the file's"),
        pytest.param("", OWN, OWN["tokenizer.chat_template"], id="an empty one"),
        pytest.param(None, {}, "", id="none"),
    ],
)
def test_template_that_is_displayed(
    template: str | None, own: dict[str, int | str], expected: str, store: Path, tmp_path: Path
) -> None:
    layers = {} if template is None else {"template": template}
    ollama_model(store, f"{LIBRARY}/m/latest", gguf(tmp_path / "weights", own), {}, **layers)
    assert template_of(route_of(in_store(store))) == expected
