"""The parts of the documents that the code determines: `just docs` writes them.

A part stands between `<!-- NAME -->` and `<!-- /NAME -->`. What is measured or recorded is written
by a script in `benchmarks/` instead; README.md repeats some figures of docs/comparison.md.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

import click

from llm_localrun.chat.options import Options, choices_of
from llm_localrun.engine.serve import EngineServer
from llm_localrun.files.base import Store, stores
from llm_localrun.models import Endpoint, LocalModel, Served, default_key_alias
from llm_localrun.names.aliases import aliases_of
from llm_localrun.names.quantizations import quantization_in
from llm_localrun.recommended.bandwidth import Rates
from llm_localrun.recommended.choose import Recommendation, recommend
from llm_localrun.recommended.models import Use, listed_models
from llm_localrun.recommended.speed import TokenCost, speed_by
from llm_localrun.servers.base import (
    GENERIC_KIND,
    CallForcing,
    Server,
    server_class,
    server_kinds,
)
from llm_localrun.servers.msty import PORT_OWNERS
from llm_localrun.servers.openai_compatible import OpenAICompatible
from tests.support.commands import GROUP, all_commands, help_of

ROOT = Path(__file__).parents[2]

OPTION_COLUMNS = {
    "Ollama": "ollama",
    "LM Studio": "lmstudio",
    "llama-server": "llamacpp",
    "vLLM": "vllm",
    "other OpenAI-compatible servers": "openai",
    "GGUF files": EngineServer.kind,
}
"""The heads of the columns of options, and the kind that each column is about."""

_TYPES = {
    "number": "a number",
    "integer": "a whole number",
    "string": "a text",
    "array": "a text",
    "object": "a JSON object",
}
_LIMITS = {"exclusiveMinimum": "above", "minimum": "from", "maximum": "up to"}

RECOMMENDED_RAM_GB = (8, 16, 32, 64)
RECOMMENDED_USES = {"chat": Use.CHAT, "code": Use.CODE}
"""The heads of the columns of recommended models, and what each column is for."""
_DESKTOP = Rates(reads={"Q4_K": 40e9}, step=2e-6)
"""The speed of a desktop computer without a GPU: 40 GB of weights a second."""

COMPARED_ROWS = {
    "`llm --version`": "`llm --version`",
    "`llm models`": "`llm models`",
    "`llm logs`": "`llm logs`",
    "`llm models`, the first time, its server's port hangs": "`llm models`, a server hangs",
    "CPU time of a streamed chunk, OpenAI's language": "CPU per chunk, OpenAI's API",
    "CPU time of a streamed chunk, Ollama's language": "CPU per chunk, Ollama's API",
}
"""Rows of docs/comparison.md that README.md repeats, and how it calls them."""
_TIME = re.compile(r"\((ended after )?([\d.]+ (?:s|µs))\)$")


_USER_PATH, _SETTINGS = "`LLM_USER_PATH`", "its settings"

STORES: dict[str, tuple[str, str, str]] = {
    "localrun": ("`pull` and `quantize`", "`localrun/models` in llm's user directory", _USER_PATH),
    "folders": ("you", "those in `folders` of config.json", "config.json"),
    "lmstudio": ("LM Studio", "`~/.lmstudio/models`", _SETTINGS),
    "huggingface": ("the Hugging Face hub's library", "", ""),
    "llamacpp": ("llama.cpp", "", ""),
    "ollama": ("Ollama", "", ""),
    "msty": ("Msty Studio", "", _SETTINGS),
    "gpt4all": ("GPT4All", "`~/.cache/gpt4all`", _SETTINGS),
    "jan": ("Jan", "", _SETTINGS),
    "llm-gguf": ("the plugin llm-gguf", "`gguf` in llm's user directory", _USER_PATH),
    "docker": ("Docker Model Runner", "", ""),
    "ramalama": ("RamaLama", "", ""),
    "lemonade": ("Lemonade", "", ""),
    "models": ("you", "", ""),
}
"""By the name of the store: who keeps models there, and what its class does not list: a folder on
every system, and what moves it besides variables."""

_SYSTEMS = ("linux", "mac", "windows")
_VARIABLES = {
    "$XDG_CACHE_HOME": "~/.cache",
    "$XDG_CONFIG_HOME": "~/.config",
    "$XDG_DATA_HOME": "~/.local/share",
    "$APPDATA": "%APPDATA%",
    "$LOCALAPPDATA": "%LOCALAPPDATA%",
}


def stores_table() -> str:
    """Markdown: each store of files, its folders on each system, and what moves them."""
    heads = ("store", "whose", "Linux", "macOS", "Windows", "moved by")
    return "".join(f"{line}\n" for line in _markdown(heads, map(_store_row, stores())))


def _store_row(store: Store) -> tuple[str, ...]:
    owner, folder, more = STORES[store.name]
    variables = [f"`{name.partition('/')[0]}`" for name in store.overrides]
    places = [_places(folder, getattr(store, name) or store.linux) for name in _SYSTEMS]
    others = ("same" if place == places[0] else place for place in places[1:])
    moved_by = ", ".join(filter(None, [*variables, more]))
    return (f"`{store.name}`", owner, places[0], *others, moved_by)


def _places(folder: str, paths: Iterable[str]) -> str:
    return ", ".join(filter(None, [*_folders(paths), folder]))


def _folders(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        first, slash, rest = path.partition("/")
        yield f"`{_VARIABLES.get(first, first)}{slash}{rest}`"


NAMED = (
    ("qwen3:8b", "ollama"),
    ("qwen/qwen3-8b", "lmstudio"),
    ("Qwen3-8B-Q8_0", "gguf"),
    ("Qwen2.5-Coder-7B-Instruct-Q4_K_M", "gguf"),
    ("deepseek-r1:8b", "ollama"),
    ("hermes3:8b", "ollama"),
    ("gemma-3-4b-it-Q4_K_M", "gguf"),
    ("Mistral-Small-3.2-24B-Instruct-2506-Q4_K_M", "gguf"),
)
"""Names of models, and their sources."""


def aliases_table() -> str:
    """Markdown: names of models, their ids and their aliases without quantization and source."""
    heads = ("name", "id", "aliases, from specific to general")
    rows = []
    for name, source in NAMED:
        endpoint = Endpoint(name=source, kind=source, url="http://127.0.0.1")
        quantization = quantization_in(name)
        model = LocalModel(
            id=f"local/{source}/{name}",
            name=name,
            quantization=quantization,
            routes=(Served(endpoint=endpoint),),
        )
        endings = (source, quantization.lower().replace("_", "-") or source)
        aliases = [each for each in aliases_of(model)[:-1] if not each.endswith(endings)]
        rows.append((f"`{name}`", f"`{model.id}`", ", ".join(f"`{each}`" for each in aliases)))
    return "".join(f"{line}\n" for line in _markdown(heads, rows))


def servers_table() -> str:
    """Markdown: each kind of server, how it is found, what it supports, and its versions."""
    kinds = [*product_kinds(), server_class(GENERIC_KIND)]
    rows = [
        (*_title_and_ports(cls), _also_found_by(cls), _supports(cls), cls.checked) for cls in kinds
    ]
    heads = ("server", "ports", "also found by", "supports", "versions run or read")
    return "".join(f"{line}\n" for line in _markdown(heads, rows))


def kinds_table() -> str:
    """Markdown: how each kind of server is called in commands, and where its key may stand."""
    kinds = (cls for cls in server_kinds().values() if cls.is_product or cls.kind == GENERIC_KIND)
    rows = (
        (
            _title_and_ports(cls)[0],
            f"`{cls.kind}`",
            f"`{default_key_alias(cls.kind)}`",
            ", ".join(f"`{name}`" for name in cls.key_variables),
        )
        for cls in kinds
    )
    heads = ("server", "kind", "key in `llm keys`", "or in the variable")
    return "".join(f"{line}\n" for line in _markdown(heads, rows))


def _title_and_ports(cls: type[Server]) -> tuple[str, str]:
    if cls.kind == GENERIC_KIND:
        return "any other server with OpenAI's API", "any of these"
    return cls.title, _ports(cls)


def _supports(cls: type[Server]) -> str:
    """What not every kind supports, in the words that docs/servers.md explains."""
    asks = {
        "schema": cls.accepts_schemas,
        "tool_choice": cls.call_forcing is not CallForcing.NONE,
        "count": _counts(cls),
        "keep_alive": "keep_alive" in cls.options,
        "pull": cls.pull_names is not None,
        "quantize": bool(cls.quantizes_to),
        "delete": cls.can_delete,
    }
    return ", ".join(name for name, has in asks.items() if has)


def _counts(cls: type[Server]) -> bool:
    if not issubclass(cls, OpenAICompatible):
        return False
    return cls.count_tokens is not OpenAICompatible.count_tokens


def product_kinds() -> list[type[Server]]:
    return [cls for cls in server_kinds().values() if cls.is_product]


def _ports(cls: type[Server]) -> str:
    # Neither the variables nor the settings of the machine that writes the table count.
    with patch.dict(os.environ, {"HOME": "/nonexistent"}, clear=True):
        usual = [urlsplit(url).port or 0 for url in cls.addresses()]
    ports = [*cls.shared_ports, *usual]
    owners = (f" ({PORT_OWNERS[port]})" if port in PORT_OWNERS else "" for port in ports)
    return ", ".join(f"{port}{owner}" for port, owner in zip(ports, owners, strict=True))


def _also_found_by(cls: type[Server]) -> str:
    return ", ".join([*(f"`{name}`" for name in cls.url_variables), *cls.found_by])


def options_table() -> str:
    """Markdown: each option, what it takes, and what holds without it."""
    rows = [(f"`{option}`", *_facts(option)) for option in Options.model_fields]
    lines = _markdown(("option", "what it is", "values", "default"), rows)
    return "".join(f"{line}\n" for line in lines)


def option_names_table() -> str:
    """Markdown: each option, and the name under which each backend receives it."""
    rows = [
        (f"`{option}`", *(_cell(option, kind) for kind in OPTION_COLUMNS.values()))
        for option in Options.model_fields
    ]
    return "".join(f"{line}\n" for line in _markdown(("option", *OPTION_COLUMNS), rows))


def _facts(option: str) -> tuple[str, str, str]:
    """What an option is, what it takes, and its default, from its description and its schema."""
    description = (Options.model_fields[option].description or "").replace("|", "\\|")
    text, _, default = description.partition(". Default: ")
    what, _, choices = text.partition(". One of: ")
    return what, choices or ", ".join(choices_of(option)) or _values(option), default


def _values(option: str) -> str:
    """What an option takes that has no choices: "a number from 0 to 1"."""
    schema = Options.model_json_schema()["properties"][option]["anyOf"][0]
    if option == "keep_alive":
        return "a duration"
    limits = [f"{word} {schema[key]:g}" for key, word in _LIMITS.items() if key in schema]
    return " ".join([_TYPES[schema["type"]], *limits])


def _cell(option: str, kind: str) -> str:
    wire = server_class(kind).options.get(option)
    if wire is None:
        return ""
    return f"`{wire.path}`" if wire.path else "✓"


def recommended_table() -> str:
    """Markdown: for each size of RAM, the first recommended model of each use."""
    rows = [
        (f"{ram} GB", *(_first_for(use, ram) for use in RECOMMENDED_USES.values()))
        for ram in RECOMMENDED_RAM_GB
    ]
    return "".join(f"{line}\n" for line in _markdown(("RAM", *RECOMMENDED_USES), rows))


def _first_for(use: Use, ram_gb: int) -> str:
    first = recommended_for(use, ram_gb)[0].model
    return f"`{first.name}` ({first.size / 1e9:.{0 if first.size >= 9.95e9 else 1}f} GB)"


def recommended_for(use: Use, ram_gb: int) -> list[Recommendation]:
    """What `llm localrun recommend --for USE --memory` says on such a desktop, without a log."""
    return recommend(listed_models(), use, ram_gb * 2**30, speed_of=_desktop_speed)


def _desktop_speed(cost: TokenCost) -> float | None:
    return speed_by(_DESKTOP, cost, ())


def compared_table() -> str:
    """Markdown: rows of the first table of docs/comparison.md."""
    text = (ROOT / "docs" / "comparison.md").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    heads, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in lines)
    cells = {title: [_time_of(cell) for cell in row] for title, *row in rows}
    shown = [(short, *cells[title]) for title, short in COMPARED_ROWS.items()]
    return "".join(f"{line}\n" for line in _markdown(tuple(heads), shown))


def _time_of(cell: str) -> str:
    """The time in a cell that has a ratio and a time; a dash where nothing was measured."""
    found = _TIME.search(cell)
    return f"{'over ' if found[1] else ''}{found[2]}" if found else "-"


def _markdown(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (heads, ("---",) * len(heads), *rows)]


# The commands that are not settings, in the order of docs/commands.md.
_COMMAND_GROUPS = {
    "Find out": ("", "models", "show", "which", "doctor", "refresh"),
    "Get and keep models": (
        *("recommend", "search", "pull", "outdated", "update", "verify", "quantize", "rm", "du"),
        "import",
    ),
    "The engine": ("engine", "ps", "unload"),
    "Speed": ("bench", "stats"),
}
_OTHER_GROUP = "Settings"
_SAME = "status"
"""What `llm localrun` alone shows."""


def command_groups() -> dict[str, list[str]]:
    """What is typed for each command, by the heading of its section in docs/commands.md."""
    top = [each for each in all_commands() if each.count(" ") <= 2 and not each.endswith(_SAME)]
    groups = {
        heading: [typed for name in names if (typed := f"{GROUP} {name}".rstrip()) in top]
        for heading, names in _COMMAND_GROUPS.items()
    }
    grouped = {typed for names in groups.values() for typed in names}
    return {**groups, _OTHER_GROUP: [typed for typed in top if typed not in grouped]}


def commands_table() -> str:
    """Markdown: each command with the first line of its help."""
    commands = all_commands()
    rows = [
        (f"[`{typed}`](#{_anchor(typed)})", _first_line(commands[typed]), group)
        for group, names in command_groups().items()
        for typed in names
    ]
    lines = _markdown(("command", "what it does", "for"), rows)
    return "".join(f"{line}\n" for line in lines)


def _anchor(typed: str) -> str:
    return typed.replace(" ", "-")


def _first_line(command: click.Command) -> str:
    if command.name == "localrun":
        return "Show what is available here, and what to do next"
    return (command.help or "").partition("\n")[0].removesuffix(".")


def command_help(typed: str) -> str:
    """Markdown: what `--help` of a command prints, and of the commands below it."""
    below = [each for each in all_commands() if each.startswith(f"{typed} ")]
    shown = [typed, *(below if typed != GROUP else [])]
    commands = all_commands()
    return "\n".join(f"```text\n{help_of(each, commands[each])}\n```\n" for each in shown)


def _help_part(typed: str) -> str:
    """The name of the part with the help of a command."""
    return f"help: {typed}"


COMMANDS_DOCUMENT = "docs/commands.md"

PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "servers": ("docs/servers.md", servers_table),
    "kinds": ("docs/servers.md", kinds_table),
    "aliases": ("docs/names.md", aliases_table),
    "stores": ("docs/files.md", stores_table),
    "options": ("docs/options.md", options_table),
    "option-names": ("docs/options.md", option_names_table),
    "recommended": ("README.md", recommended_table),
    "compared": ("README.md", compared_table),
    "commands": (COMMANDS_DOCUMENT, commands_table),
    **{
        _help_part(typed): (COMMANDS_DOCUMENT, partial(command_help, typed))
        for names in command_groups().values()
        for typed in names
    },
}
"""By name: the document that a part stands in, and its text, which ends with a line break."""


def regenerated(name: str, text: str) -> str:
    """`text`, a document's, with the part `name` as the code has it.

    Raises ValueError if the document does not have the part once.
    """
    _, part = PARTS[name]
    between = re.compile(rf"(?<=<!-- {name} -->\n\n).*(?=\n<!-- /{name} -->)", re.DOTALL)
    text, count = between.subn(lambda _: part(), text)
    if count != 1:
        raise ValueError(f"there are {count} places for {name}")
    return text


def with_all_commands(text: str) -> str:
    """`text`, of docs/commands.md, with an empty section at its end for each command without."""
    for names in command_groups().values():
        for typed in names:
            if f"<!-- {_help_part(typed)} -->" not in text:
                part = _help_part(typed)
                marks = f"<!-- {part} -->\n\n\n<!-- /{part} -->"
                text = f"{text.rstrip()}\n\n### {typed}\n\n{marks}\n"
    return text


def main() -> None:
    commands = ROOT / COMMANDS_DOCUMENT
    commands.write_text(with_all_commands(commands.read_text("utf-8")), "utf-8")
    for name, (document, _) in PARTS.items():
        path = ROOT / document
        path.write_text(regenerated(name, path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
