"""The six tools and forty prompts of `benchmarks/tools_prompts.json`, with functions that do them.

The functions take what the tools' schemas say and raise an exception for anything else: a call that
they take is valid. Nothing is looked up: they know one time, one list of files and one weather.
"""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import llm

PROMPTS = Path(__file__).parents[2] / "benchmarks" / "tools_prompts.json"


@dataclass(frozen=True)
class Question:
    """A prompt, and the tools that it asks for: one name for each call."""

    prompt: str
    expected: tuple[str, ...]


def questions() -> list[Question]:
    return [Question(each["prompt"], tuple(each["expected"])) for each in _committed()["prompts"]]


def tools() -> list[llm.Tool]:
    """The tools as llm runs them."""
    return [
        llm.Tool(name, tool["description"], tool["parameters"], _checked(function, tool))
        for name, tool in _committed()["tools"].items()
        for function in _FUNCTIONS
        if function.__name__ == name
    ]


def _committed() -> dict[str, Any]:
    committed: dict[str, Any] = json.loads(PROMPTS.read_text("utf-8"))
    return committed


def current_time() -> str:
    return "Tuesday, 2026-12-01 14:23:05"


def set_light(room: str, state: str) -> str:
    return f"The light in the {room} is {state}"


def add_contact(name: str, address: dict[str, str]) -> str:
    return f"Added {name}, {address['street']}, {address['city']}"


def sum_numbers(numbers: list[float]) -> str:
    return str(sum(numbers))


def search_files(text: str, folder: str | None = None, limit: int = 10) -> str:
    found = [f"{folder or 'notes'}/{number}.txt" for number in range(1, 4)][:limit]
    return f"{text!r} is in {', '.join(found)}"


def get_weather(city: str) -> str:
    return f"It is sunny in {city}, 21 degrees"


_FUNCTIONS: tuple[Callable[..., str], ...] = (
    *(current_time, set_light, add_contact, sum_numbers, search_files, get_weather),
)


def _checked(function: Callable[..., str], tool: dict[str, Any]) -> Callable[..., str]:
    """The function, for arguments that it names and that follow the tool's schema."""

    def run(**arguments: Any) -> str:
        jsonschema.validate(arguments, tool["parameters"])
        return function(**inspect.signature(function).bind(**arguments).arguments)

    return run
