"""Decides what the last word of a command line is, and what it can become.

Knows the commands that take a name of ours: those of `llm localrun` and those of llm. Everything
else, such as the names of options, is left to click.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from llm_localrun.completion import sources
from llm_localrun.completion.sources import Candidate, Source, matching

_GROUPS = frozenset({"engine", "endpoints"})
ARGUMENTS: Mapping[tuple[str, ...], Sequence[Source]] = {
    ("allow",): [sources.all_names],
    ("bench",): [sources.all_names],
    ("endpoints", "remove"): [sources.endpoints],
    ("engine", "remove"): [sources.installed_builds],
    ("engine", "use"): [sources.usable_builds],
    ("forget",): [sources.remembered_paths],
    ("pull",): [sources.recommended],
    ("quantize",): [sources.all_names, sources.quantize_types],
    ("rm",): [sources.pulled],
    ("show",): [sources.all_names],
    ("stats",): [sources.all_names],
    ("unload",): [sources.loaded],
    ("update",): [sources.pulled],
    ("verify",): [sources.pulled],
    ("which",): [sources.all_names],
}
"""The commands of `llm localrun` that take names, and where those of each argument come from."""
REPEATED = frozenset({("bench",), ("stats",), ("update",)})
"""Those of them that take any number of names."""
FLAGS = frozenset(
    {
        *("--all", "--embed", "--force", "--json", "--no-measure", "--quiet", "--remove"),
        *("--replace", "--requantize", "--template", "--tiny", "--unfinished", "--yes", "-y"),
    }
)
"""The options of these commands that take no value."""
OPTIONS: Mapping[tuple[tuple[str, ...], str], Source] = {
    (("bench",), "--engine"): sources.builds,
    (("pull",), "-q"): sources.quantizations,
    (("pull",), "--quantization"): sources.quantizations,
}
"""The options of these commands whose values are names."""

_CHAT_COMMANDS = frozenset({"prompt", "chat", "logs", "models", "tools"})
_EMBEDDING_COMMANDS = frozenset({"embed", "embed-multi"})
LLM_ARGUMENTS: Mapping[tuple[str, ...], tuple[int, Source]] = {
    ("models", "default"): (0, sources.chat_names),
    ("models", "options", "set"): (0, sources.chat_names),
    ("models", "options", "show"): (0, sources.chat_names),
    ("models", "options", "clear"): (0, sources.chat_names),
    ("embed-models", "default"): (0, sources.embedding_names),
    ("aliases", "set"): (1, sources.names_and_aliases),
}
"""The commands of llm that take the name of a model: as which argument, counted from 0."""


class Completions(NamedTuple):
    """What the last word can become."""

    candidates: list[Candidate]
    is_file: bool = False
    """Whether it is the beginning of a path instead."""


def answer(words: Sequence[str], typed: str, user: Path) -> Completions | None:
    """The answer for `typed`, the word after `words`; None if it is not one of our names.

    `words` are those after the program. `user` is llm's user directory.
    """
    prefix = ""
    if typed.startswith("--") and "=" in typed:
        option, _, typed = typed.partition("=")
        prefix, words = f"{option}=", [*words, option]
    is_ours = words[:1] == ["localrun"]
    source = _of_ours(words[1:], typed) if is_ours else _of_llm(words)
    if source is None or typed.startswith("-"):
        return None
    if typed.startswith((".", "/", "~")):
        return Completions([], is_file=not prefix)
    found = matching(source(user), typed)
    return Completions([Candidate(prefix + each.value, each.help) for each in found])


def needs_names(words: Sequence[str], user: Path) -> bool:
    """Whether the names that `answer` needs are still to be made."""
    source = _of_ours(words[1:], "") if words[:1] == ["localrun"] else _of_llm(words)
    return source in _FROM_NAMES and sources.is_pending(user)


_FROM_NAMES = (
    *(sources.chat_names, sources.embedding_names, sources.all_names),
    *(sources.names_and_aliases, sources.pulled),
)


def _of_ours(words: Sequence[str], typed: str) -> Source | None:
    """Where the word after `llm localrun` and `words` comes from."""
    if not words:
        return sources.commands
    path = tuple(words[: 2 if words[0] in _GROUPS else 1])
    given = words[len(path) :]
    if given and (path, given[-1]) in OPTIONS:
        return OPTIONS[path, given[-1]]
    arguments, is_value = 0, False
    for word in given:
        is_option = word.startswith("-") and not is_value
        arguments += not is_option and not is_value
        is_value = is_option and word not in FLAGS and "=" not in word
    found = ARGUMENTS.get(path, ())
    if is_value or not found:
        return None
    if path == ("allow",) and "--remove" in given:
        return sources.allowed
    if path in REPEATED:
        return found[0]
    return found[arguments] if arguments < len(found) else None


def _of_llm(words: Sequence[str]) -> Source | None:
    """Where the word after `llm` and `words` comes from, unless that is llm's to know."""
    if not words:
        return None
    command = "prompt" if words[0].startswith("-") or " " in words[0] else words[0]
    if words[-1] in ("-m", "--model"):
        if command in _EMBEDDING_COMMANDS:
            return sources.embedding_names
        return sources.chat_names if command in _CHAT_COMMANDS else None
    for path, (position, source) in LLM_ARGUMENTS.items():
        if tuple(words[: len(path)]) == path:
            arguments = [word for word in words[len(path) :] if not word.startswith("-")]
            return source if len(arguments) == position else None
    return None
