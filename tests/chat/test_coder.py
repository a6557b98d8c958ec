"""A real small model that writes its calls as text: its tools run, through the real `llm`.

Greedy decoding makes its words the same in each run, apart from the time of day.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.chat.models import LocalChat
from llm_localrun.models import LocalModel
from tests.conftest import Llm
from tests.support import six_tools
from tests.support.contract import chain, found
from tests.support.drive import ask

MODEL = "local-qwen-coder"
QUESTION = "What time is it now?"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 200}
COMMAND = (
    "-m",
    MODEL,
    "-T",
    "llm_time",
    "--td",
    "-o",
    "temperature",
    "0",
    "-o",
    "max_tokens",
    "200",
)


@pytest.fixture
def coder(with_coder: Path) -> LocalModel:
    """The coder model, as discovery finds it."""
    return found(MODEL)


def tells_the_time(text: str, result: str) -> bool:
    """Whether hours and minutes that llm_time has returned are in a text, as people write them."""
    told = re.search(r'"local_time": "\S+ (\d\d):(\d\d)', result)
    assert told, result
    hour, minute = int(told[1]), told[2]
    return bool(re.search(rf"\b(?:0?{hour}|0?{hour % 12 or 12}):{minute}\b", text))


def test_command_prints_the_time(coder: LocalModel, run_llm: Llm) -> None:
    done = run_llm(*COMMAND, QUESTION)
    assert done.returncode == 0, done.stderr
    assert "Tool call: llm_time({})" in done.stderr
    assert tells_the_time(done.stdout, done.stderr)
    first, second = json.loads(run_llm("logs", "--json", "-n", "2").stdout)
    (call,) = first["tool_calls"]
    (result,) = second["tool_results"]
    assert (call["name"], call["arguments"], first["response"]) == ("llm_time", {}, "")
    assert (result["name"], result["tool_call_id"]) == ("llm_time", call["tool_call_id"])
    assert tells_the_time(result["output"], done.stderr)


def test_chat_runs_tools(coder: LocalModel, run_llm: Llm) -> None:
    done = run_llm("chat", *COMMAND, input=f"{QUESTION}\nquit\n")
    assert done.returncode == 0, done.stderr
    assert "Tool call: llm_time({})" in done.stderr
    assert tells_the_time(done.stdout, done.stderr)


@pytest.mark.parametrize("way", ["async", "sync unstreamed"])
def test_chain(coder: LocalModel, way: str) -> None:
    first, *_, last = chain(coder, QUESTION, way, tools=[llm_time], options=GREEDY)
    (call,) = first.tool_calls()
    assert (call.name, call.arguments, first.text()) == ("llm_time", {}, "")
    assert "14:23" in last.text()


def llm_time() -> str:
    "Returns the current time, as local time and UTC"
    return json.dumps({"utc_time": "2026-12-01 13:23:05 UTC", "local_time": "2026-12-01 14:23:05"})


CALLS = {
    "What is the weather in Paris?": ("get_weather", {"city": "Paris"}),
    "Turn on the light in the kitchen.": ("set_light", {"room": "kitchen", "state": "on"}),
    "What is the sum of 12, 30 and 58?": ("sum_numbers", {"numbers": [12, 30, 58]}),
    "What time is it now?": ("current_time", {}),
}


@pytest.mark.parametrize("prompt", CALLS)
def test_calls(coder: LocalModel, prompt: str) -> None:
    response = LocalChat(coder).prompt(prompt, tools=[*six_tools.tools()], **GREEDY)
    (call,) = response.tool_calls()
    assert (call.name, call.arguments) == CALLS[prompt]
    (result,) = response.execute_tool_calls()
    assert result.exception is None


ANSWERS = {"What is the weather in Paris?": "sunny", "Turn on the light in the kitchen.": "light"}


@pytest.mark.parametrize("prompt", ANSWERS)
def test_chain_ends_with_a_sentence(
    coder: LocalModel, prompt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By itself the model would make its call again, and others that nobody asked for."""
    first, last = chain(coder, prompt, tools=[*six_tools.tools()], options=GREEDY)
    assert [(call.name, call.arguments) for call in first.tool_calls()] == [CALLS[prompt]]
    assert ANSWERS[prompt] in last.text()
    assert "it was asked once more, without tools." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {tool.name for tool in six_tools.tools()}),
        ("get_weather", {"get_weather"}),
        ("add_contact", {"add_contact"}),
    ],
)
def test_forced_call(coder: LocalModel, choice: str, names: set[str]) -> None:
    model, tools = LocalChat(coder), six_tools.tools()
    response = model.prompt("Say hello.", tools=[*tools], tool_choice=choice, **GREEDY)
    (call,) = response.tool_calls()
    assert call.name in names
    (result,) = response.execute_tool_calls()
    assert result.exception is None


def test_no_call(coder: LocalModel) -> None:
    model, tools = LocalChat(coder), six_tools.tools()
    prompt = "Turn on the light in the kitchen."
    response = model.prompt(prompt, tools=[*tools], tool_choice="none", **GREEDY)
    assert response.tool_calls() == []
    assert response.text().strip()


def test_text_stays_text(coder: LocalModel) -> None:
    """The model writes a call of a tool that it was not offered."""
    prompt = "Write a Python function that reverses a string."
    response = LocalChat(coder).prompt(prompt, tools=[*six_tools.tools()], **GREEDY)
    assert response.tool_calls() == []
    assert "reverse_string" in response.text()


RIGHT = ({"red", "green", "blue"}, {"red", "yellow", "blue"})
COLORS = re.compile(
    r"\b(red|green|blue|yellow|orange|purple|violet|indigo|white|black|brown|pink|cyan|magenta)\b"
)


def test_first_question_is_answered_rightly(coder: LocalModel) -> None:
    """At default settings: the recommended list knows it. With llama.cpp's, half is wrong."""
    questions = ["Name the primary colors", "Name the primary colours"] * 5
    texts = [ask(coder, text, seed=seed, max_tokens=40).text for seed, text in enumerate(questions)]
    assert sum({*COLORS.findall(text.lower())} in RIGHT for text in texts) >= 8, texts
