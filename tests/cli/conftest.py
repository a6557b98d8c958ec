"""Each test of this package has a user directory of its own, unless its module is marked pure."""

import time

import pytest

from llm_localrun import catalogue
from llm_localrun.models import Snapshot
from llm_localrun.name_cache import settings_stamp


@pytest.fixture(autouse=True)
def own_user_directory(request: pytest.FixtureRequest) -> None:
    """A user directory and a home directory that hold nothing."""
    if not request.node.get_closest_marker("pure"):
        request.getfixturevalue("user_path")


@pytest.fixture
def still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Discovery finds what it found last, so that a catalogue that is put on disk stays."""

    def discover(before: Snapshot, *_: object) -> Snapshot:
        changes = {"taken_at": time.time(), "stamp": settings_stamp([]), "is_complete": True}
        return before.model_copy(update=changes)

    monkeypatch.setattr(catalogue, "_discover", discover)
