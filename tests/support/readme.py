"""The README's tables that the code determines: `just readme` writes them.

The table of what quantizing costs is measured by `benchmarks/quantize.py` instead.
"""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

from llm_localrun.chat.options import Options
from llm_localrun.engine.serve import EngineServer
from llm_localrun.servers.base import GENERIC_KIND, Server, server_class, server_kinds
from llm_localrun.servers.msty import PORT_OWNERS

README = Path(__file__).parents[2] / "README.md"

OPTION_COLUMNS = {
    "Ollama": "ollama",
    "LM Studio": "lmstudio",
    "llama-server": "llamacpp",
    "vLLM": "vllm",
    "other OpenAI-compatible servers": "openai",
    "GGUF files": EngineServer.kind,
}
"""The heads of the columns of options, and the kind that each column is about."""

_OPTION_LEGEND = (
    "A name is the one under which the backend receives the option; ✓: supported in another way.\n"
)


def servers_table() -> str:
    """Markdown: each kind of server, its ports, what else says where it is, and its versions."""
    rows = [(cls.title, _ports(cls), _also_found_by(cls), cls.checked) for cls in product_kinds()]
    others = server_class(GENERIC_KIND).checked
    rows.append(("any other server with OpenAI's API", "any of these", "", others))
    heads = ("server", "ports", "also found by", "versions run or read")
    # The table belongs to an item of a list.
    return "".join(f"  {line}\n" for line in _markdown(heads, rows))


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
    """Markdown: each option, and the name under which each backend receives it."""
    rows = [
        (f"`{option}`", _description(option), *(_cell(option, k) for k in OPTION_COLUMNS.values()))
        for option in Options.model_fields
    ]
    lines = _markdown(("option", "what it is", *OPTION_COLUMNS), rows)
    return f"{_OPTION_LEGEND}\n" + "".join(f"{line}\n" for line in lines)


def _description(option: str) -> str:
    return (Options.model_fields[option].description or "").replace("|", "\\|")


def _cell(option: str, kind: str) -> str:
    wire = server_class(kind).options.get(option)
    if wire is None:
        return ""
    return f"`{wire.path}`" if wire.path else "✓"


def _markdown(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (heads, ("---",) * len(heads), *rows)]


TABLES: dict[str, Callable[[], str]] = {"servers": servers_table, "options": options_table}
"""What stands between `<!-- NAME -->` and `<!-- /NAME -->`."""


def regenerated(text: str) -> str:
    """`text`, the README's, with every table as the code has it.

    Raises ValueError if the README lacks a table.
    """
    for name, table in TABLES.items():
        between = re.compile(rf"(?<=<!-- {name} -->\n\n).*(?=\n *<!-- /{name} -->)", re.DOTALL)
        text, count = between.subn(table().replace("\\", r"\\"), text)
        if count != 1:
            raise ValueError(f"the README has {count} tables of {name}")
    return text


if __name__ == "__main__":
    README.write_text(regenerated(README.read_text("utf-8")), "utf-8")
