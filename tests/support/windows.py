"""Prompts that begin with the answer, and models that see no more of them than their context."""

import re
from typing import Any

from tests.fakes.ollama import Ollama
from tests.fakes.says import Says
from tests.support.corpus import CORPUS

SECRET = "banana"
FIRST_LINE = f"Remember: the password is {SECRET}."
QUESTION = "The text above begins with a password. What is the password?"


def long_prompt(characters: int) -> str:
    """A prompt of so many characters, four to a token, which only its first line answers."""
    length = characters - len(FIRST_LINE) - len(QUESTION) - 4
    filler = (CORPUS["prose"] * (length // len(CORPUS["prose"]) + 1))[:length]
    return f"{FIRST_LINE}\n\n{filler}\n\n{QUESTION}"


def says(body: dict[str, Any]) -> Says:
    """What a model says that sees only the messages of `body`."""
    found = re.search(r"the password is (\w+)\.", body["messages"][-1]["content"])
    return Says(f"{found[1]}." if found else "I do not know.")


def reading_ollama(**settings: Any) -> Ollama:
    """An Ollama whose model answers from what it sees of the prompt."""
    return Ollama(says=says, **settings)
