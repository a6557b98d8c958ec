"""The table of stores in docs/files.md: where each tool keeps GGUF files."""

from collections.abc import Iterable, Iterator

from llm_localrun.files.base import Store, stores
from tests.support.generated.markdown import table

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
    return table(heads, map(_store_row, stores()))


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
