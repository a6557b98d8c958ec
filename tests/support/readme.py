"""The README's tables that the code determines: `just readme` writes them.

The table of what quantizing costs is measured by `benchmarks/quantize.py` instead.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from llm_localrun.chat.options import Options
from llm_localrun.servers.kinds import KINDS, Kind
from llm_localrun.servers.options import LAUNCH, TABLE, wire_for

README = Path(__file__).parents[2] / "README.md"

OPTION_COLUMNS = {
    "Ollama": "ollama",
    "LM Studio": "lmstudio",
    "llama-server": "llamacpp",
    "vLLM": "vllm",
    "other OpenAI-compatible servers": "openai",
    "GGUF files": "engine",
}
"""The heads of the columns of options, and the kind that each column is about."""

_OPTION_LEGEND = (
    "A name is the one under which the backend receives the option; ✓: supported in another way.\n"
)

_UNNAMED = ("engine", "gateway", "openai")
"""Kinds that are no product: they have no row of their own."""
_SHARED_PORTS = {
    "llamafile": (8080,),
    "mlx": (8080,),
    "omlx": (8000,),
    "localai": (8080,),
    "lemonade": (8000,),
    "llamaswap": (8080,),
    "mistralrs": (1234,),
}
"""Usual ports of a kind that are asked anyway, because another kind has declared them."""
_PORT_OWNERS = {10000: "Msty 1", **dict.fromkeys((11964, 11454, 11973), "Msty Studio")}
"""Other programs that run a server of the kind on a port of their own."""
_ALSO_FOUND_BY = {
    "ollama": "`OLLAMA_HOST`, Msty Studio's settings",
    "lmstudio": "`LMSTUDIO_API_BASE`, its settings",
    "mlx": "Msty Studio's settings",
    "omlx": "its settings",
    "unsloth": "`UNSLOTH_STUDIO_URL`",
}


def servers_table() -> str:
    """Markdown: each kind of server, its ports, and what else says where it is."""
    rows = [(kind.title, _ports(kind), _ALSO_FOUND_BY.get(kind.name, "")) for kind in named_kinds()]
    rows.append(("any other server with OpenAI's API", "any of these", ""))
    # The table belongs to an item of a list.
    return "".join(f"  {line}\n" for line in _markdown(("server", "ports", "also found by"), rows))


def named_kinds() -> list[Kind]:
    return [kind for kind in KINDS if kind.name not in _UNNAMED]


def _ports(kind: Kind) -> str:
    ports = [*_SHARED_PORTS.get(kind.name, ()), *kind.ports]
    owners = (f" ({_PORT_OWNERS[port]})" if port in _PORT_OWNERS else "" for port in ports)
    return ", ".join(f"{port}{owner}" for port, owner in zip(ports, owners, strict=True))


def options_table() -> str:
    """Markdown: each option, and the name under which each backend receives it."""
    rows = [
        (f"`{option}`", _description(option), *(_cell(option, k) for k in OPTION_COLUMNS.values()))
        for option in TABLE
    ]
    lines = _markdown(("option", "what it is", *OPTION_COLUMNS), rows)
    return f"{_OPTION_LEGEND}\n" + "".join(f"{line}\n" for line in lines)


def _description(option: str) -> str:
    return (Options.model_fields[option].description or "").replace("|", "\\|")


def _cell(option: str, kind: str) -> str:
    wire = wire_for(option, kind)
    if wire is None:
        return ""
    return "✓" if wire is LAUNCH else f"`{wire.path}`"


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
