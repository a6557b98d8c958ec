"""The parts of the documents that the code determines: `just docs` writes them.

A part stands between `<!-- NAME -->` and `<!-- /NAME -->`. What is measured or recorded is written
by a script in `benchmarks/` instead.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

from llm_localrun.chat.options import Options
from llm_localrun.engine.serve import EngineServer
from llm_localrun.files.base import Store, stores
from llm_localrun.models import Endpoint, LocalModel, Served, default_key_alias
from llm_localrun.names.aliases import aliases_of
from llm_localrun.names.quantizations import quantization_in
from llm_localrun.servers.base import (
    GENERIC_KIND,
    CallForcing,
    Server,
    server_class,
    server_kinds,
)
from llm_localrun.servers.msty import PORT_OWNERS
from llm_localrun.servers.openai_compatible import OpenAICompatible

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

_OPTION_LEGEND = (
    "A name is the one under which the backend receives the option; ✓: supported in another way.\n"
)


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


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "servers": ("docs/servers.md", servers_table),
    "kinds": ("docs/servers.md", kinds_table),
    "aliases": ("docs/names.md", aliases_table),
    "stores": ("docs/files.md", stores_table),
    "options": ("docs/options.md", options_table),
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
