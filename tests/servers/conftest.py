"""The tests of this room do input and output, so each has a user directory of its own."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_user_directory(user_path: Path) -> None:
    """A user directory and a home directory that hold nothing."""
