"""Chat templates that fail, and others in their place."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llm
import pytest

from llm_localrun.chat.models import LocalChat
from llm_localrun.engine.state import EngineSettings
from llm_localrun.files.failed_loads import FailedLoads
from llm_localrun.models import OnDisk
from llm_localrun.wire.shapes import template_error_in
from tests.conftest import CONFIG, Llm, configure
from tests.support.drive import WAYS, ask, failure
from tests.support.engines import TEMPLATE_SIZE, in_file, patched, text_value

KEY = "tokenizer.chat_template"
STRICT = (
    "{% for m in messages %}{% if (m['role']=='user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}[{{ m['role'] }}] {{ m['content'] }}\n"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""As those of Gemma and Mistral."""
REFUSING = "{{ raise_exception('Only for people') }}"
BROKEN = "{% if %}"
MISTAKEN = "{{ messages[0].content.nope() }}"
OTHER = "give another template with -o chat_template FILE"
USUAL: dict[str, Any] = {"max_tokens": 1}


def with_template(source: Path, target: Path, template: str) -> Path:
    """A copy of a model in which `template` replaces its chat template."""
    padded = template + "{#" + " " * (TEMPLATE_SIZE - len(template) - 4) + "#}"
    return patched(source, target, KEY, text_value(padded.encode()))


@pytest.fixture(scope="module")
def strict(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield with_template(starter_model, tmp_path_factory.mktemp("m") / "strict.gguf", STRICT)


@pytest.mark.parametrize("way", WAYS)
def test_conversation_that_the_template_refuses(user_path: Path, strict: Path, way: str) -> None:
    """Its own message is shown; the file is not blamed, and other conversations go on."""
    configure(user_path, **CONFIG)
    model = in_file(strict)
    history = [llm.user("One"), llm.user("Two")]
    assert failure(lambda: ask(model, None, way, messages=history, **USUAL)) == (
        "The model's chat template refuses these messages: Roles must alternate."
        f" Begin a new conversation, or {OTHER}."
    )
    assert ask(model, "Hi", way, **USUAL).output == 1
    assert FailedLoads().problem_of(OnDisk(path=str(strict))) == ""
    assert ask(model, None, way, messages=history, chat_template="chatml", **USUAL).output == 1


def test_empty_answer_in_a_conversation(user_path: Path, strict: Path) -> None:
    configure(user_path, **CONFIG)
    conversation = LocalChat(in_file(strict)).conversation()
    # llama.cpp ends an answer before the text at which it has to stop.
    empty = conversation.prompt("Hi", grammar='root ::= "END"', stop="END", temperature=0)
    assert empty.text() == ""
    again = conversation.prompt("Who?", **USUAL)
    again.text()
    assert again.usage().output == 1


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (REFUSING, "Only for people"),
        (BROKEN, "Unexpected token: %} of type 9"),
        (MISTAKEN, "Callee is not a function: got Undefined (hint: 'nope')"),
    ],
)
def test_model_whose_template_fails(
    user_path: Path, starter_model: Path, tmp_path: Path, run_llm: Llm, template: str, said: str
) -> None:
    configure(user_path, **CONFIG)
    file = with_template(starter_model, tmp_path / "fails.gguf", template)
    assert run_llm("-m", str(file), "Hi").stderr == (
        f"Error: llama.cpp cannot use the chat template for {file}: {said}."
        f" {OTHER.capitalize().replace('file', 'FILE')}, or choose another model.\n"
    )
    problem = FailedLoads().problem_of(OnDisk(path=str(file)))
    assert problem == f"its chat template fails: {said}"
    answered = run_llm(
        "-m", str(file), "-o", "chat_template", "chatml", "-o", "max_tokens", "1", "Hi"
    )
    assert answered.returncode == 0


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "said"),
    [(BROKEN, "cannot use the chat template for"), (ENDLESS, "while it ran the chat template")],
    ids=["broken", "endless"],
)
def test_given_template_that_fails(
    user_path: Path, starter_model: Path, tmp_path: Path, template: str, said: str
) -> None:
    """The model's file is not to blame."""
    configure(user_path, **CONFIG)
    given = tmp_path / "given.jinja"
    given.write_text(template)
    model = in_file(starter_model)
    message = failure(lambda: ask(model, "Hi", chat_template=str(given), timeout=2))
    assert said in message
    assert FailedLoads().problem_of(OnDisk(path=str(starter_model))) == ""


@pytest.mark.parametrize("given", ["FILE", "gemma", "zephyr"])
def test_prompt_follows_the_given_template(
    user_path: Path, starter_model: Path, tmp_path: Path, given: str
) -> None:
    """The tokens of the prompt show the template: each has markers of its own."""
    configure(user_path, **CONFIG)
    file = tmp_path / "given.jinja"
    file.write_text("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]")
    given = str(file) if given == "FILE" else given
    own = ask(in_file(starter_model), "Hi", **USUAL).input
    other = ask(in_file(starter_model), "Hi", chat_template=given, **USUAL).input
    assert own and other and other != own


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no chat template {path}. Give the path of a Jinja file, or a name of"),
        (b"", "The chat template {path} is empty. Give another file."),
        (b" \n", "The chat template {path} is empty. Give another file."),
        (b"\xff\xfe", "{path} is no text. Give the path of a Jinja file."),
    ],
)
def test_files_that_are_no_template(
    tmp_path: Path, user_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "given.jinja"
    if content is not None:
        path.write_bytes(content)
    model = in_file(tmp_path / "m.gguf")
    found = failure(lambda: ask(model, "Hi", chat_template=str(path)))
    assert found.startswith(message.format(path=path))


@pytest.mark.parametrize(
    ("template", "needs_jinja"),
    [("", True), ("{{ x }}", True), ("chatml", True), ("gemma", False), ("llama2-sys", False)],
)
def test_names_are_read_without_jinja(template: str, needs_jinja: bool) -> None:
    assert EngineSettings(chat_template=template).needs_jinja is needs_jinja


VLLM = "Conversation roles must alternate user/assistant/user/assistant/..."
LONG = (
    "Unable to generate parser for this template. Automatic parser generation failed: \n------\n"
    "While executing CallExpression at line 1, column 96 in source:\n"
    "...{{ raise_exception('No.') }}{% endif %}\n   ^\nError: Jinja Exception: No. "
)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (LONG, "No."),
        (LONG.replace("\n", " "), "No."),
        ("Jinja Exception: Roles must alternate", "Roles must alternate"),
        ("0.1 E srv init: chat template parsing error: x\nError: Not a function", "Not a function"),
        (
            "0.1 E common_chat_templates_init: error: Bad token\nchat template parsing error: x",
            "Bad token",
        ),
        (
            "Conversation roles must alternate user/assistant",
            "Conversation roles must alternate user/assistant",
        ),
        ("RuntimeError: Failed to init server", ""),
        ("Error: no memory", ""),
        ("", ""),
    ],
)
def test_reasons_in_llama_cpps_messages(message: str, said: str) -> None:
    assert template_error_in(message) == said
