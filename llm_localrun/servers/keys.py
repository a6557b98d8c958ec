"""The keys of servers."""

import os

import llm

from llm_localrun.servers.kinds import kind_of


def key_in_environment(kind: str) -> str | None:
    """The key for servers of `kind` that is in a variable which their own clients read."""
    return next(filter(None, map(os.environ.get, kind_of(kind).key_variables)), None)


def stored_keys() -> dict[str, str]:
    """What `llm keys` holds; nothing if its file is damaged, which llm itself reports on use."""
    try:
        keys: dict[str, str] = llm.load_keys()  # type: ignore[no-untyped-call]
    except (OSError, ValueError):
        return {}
    return keys if isinstance(keys, dict) else {}
