"""The parts of the documents that the code determines: `just docs` writes them.

A part stands between `<!-- NAME -->` and `<!-- /NAME -->`. What is measured or recorded is written
by a script in `benchmarks/` instead.
"""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

from llm_localrun.chat.options import Options, choices_of
from llm_localrun.engine.serve import EngineServer
from llm_localrun.servers.base import GENERIC_KIND, Server, server_class, server_kinds
from llm_localrun.servers.msty import PORT_OWNERS

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


def servers_table() -> str:
    """Markdown: each kind of server, its ports, what else says where it is, and its versions."""
    rows = [(cls.title, _ports(cls), _also_found_by(cls), cls.checked) for cls in product_kinds()]
    others = server_class(GENERIC_KIND).checked
    rows.append(("any other server with OpenAI's API", "any of these", "", others))
    heads = ("server", "ports", "also found by", "versions run or read")
    return "".join(f"{line}\n" for line in _markdown(heads, rows))


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


def _markdown(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (heads, ("---",) * len(heads), *rows)]


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "servers": ("docs/servers.md", servers_table),
    "options": ("docs/options.md", options_table),
    "option-names": ("docs/options.md", option_names_table),
}
"""By name: the document that a part stands in, and its text, which ends with a line break."""


def regenerated(name: str, text: str) -> str:
    """`text`, a document's, with the part `name` as the code has it.

    Raises ValueError if the document does not have the part once.
    """
    _, part = PARTS[name]
    between = re.compile(rf"(?<=<!-- {name} -->\n\n).*(?=\n<!-- /{name} -->)", re.DOTALL)
    text, count = between.subn(part().replace("\\", r"\\"), text)
    if count != 1:
        raise ValueError(f"there are {count} places for {name}")
    return text


def main() -> None:
    for name, (document, _) in PARTS.items():
        path = ROOT / document
        path.write_text(regenerated(name, path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
