"""Puts the user's folder into a state: which servers are configured, how old the catalogue is."""

from pathlib import Path
from typing import Any

from llm_localrun import catalogue
from llm_localrun.catalogue import read_snapshot, write_snapshot
from llm_localrun.name_cache import FRESH_S, delete_names
from tests.conftest import CONFIG, configure


def point_at(user: Path, *urls: str, **settings: Any) -> None:
    """Configures the servers at `urls` as `box`, `box1`, `box2`…, and no others."""
    endpoints = [{"name": f"box{n or ''}", "url": url} for n, url in enumerate(urls)]
    configure(user, **{**CONFIG, "endpoints": endpoints, **settings})


def age(user: Path, seconds: float = FRESH_S + 5) -> None:
    """Makes the snapshot on disk older, and deletes everything that this process knows of it."""
    folder = user / "localrun"
    snapshot = read_snapshot(folder)
    taken_at = snapshot.taken_at - seconds
    write_snapshot(folder, snapshot.model_copy(update={"taken_at": taken_at}))
    delete_names()
    catalogue._memory.clear()
