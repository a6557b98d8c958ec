"""What llm itself stores of the user's choices, and the commands that change it.

A file that cannot be read holds nothing: llm's own functions have no sentence for it. The user's
aliases are read by `registration`.
"""

from collections.abc import Mapping
from typing import Any

from llm_localrun.system.json_files import read_json, read_text
from llm_localrun.system.paths import home
from llm_localrun.system.program import quoted
from llm_localrun.system.text import printable


def default_model() -> str:
    """The model of `llm models default`; "" if none is set."""
    return read_text(home().parent / "default_model.txt").strip()


def default_embedding_model() -> str:
    """The model of `llm embed-models default`; "" if none is set."""
    return read_text(home().parent / "default_embedding_model.txt").strip()


def all_default_options() -> Mapping[str, Any]:
    """What `llm models options set` has set, by model: `{"local/gguf/x": {"seed": "1"}}`."""
    options = read_json(home().parent / "model_options.json")
    return options if isinstance(options, dict) else {}


def default_options(model_id: str) -> Mapping[str, Any]:
    """What `llm models options set` has set for a model."""
    options = all_default_options().get(model_id)
    return options if isinstance(options, dict) else {}


def command(*words: str) -> str | None:
    """A command of llm's, quoted for the shell; None if a word cannot be shown as it is."""
    if any(printable(word) != word for word in words):
        return None
    # A word that begins with a dash would be an option.
    at = next((i for i, word in enumerate(words) if word.startswith("-")), None)
    if at is None:
        return quoted("llm", *words)
    start = 3 if words[1] == "options" else 2
    return quoted("llm", *words[:start], "--", *words[start:])
