"""Each test of this package has a user directory of its own, unless its module is marked pure."""

import pytest


@pytest.fixture(autouse=True)
def own_user_directory(request: pytest.FixtureRequest) -> None:
    """A user directory and a home directory that hold nothing."""
    if not request.node.get_closest_marker("pure"):
        request.getfixturevalue("user_path")
