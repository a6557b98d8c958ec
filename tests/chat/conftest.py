"""Each test of this package has a user directory of its own, unless its module is marked pure, and
begins as a new process does."""

from collections.abc import Iterator

import pytest

from llm_localrun.chat import run


@pytest.fixture(autouse=True)
def own_user_directory(request: pytest.FixtureRequest) -> None:
    """A user directory and a home directory that hold nothing."""
    if not request.node.get_closest_marker("pure"):
        request.getfixturevalue("user_path")


@pytest.fixture(autouse=True)
def new_process() -> Iterator[None]:
    """What a process remembers of servers is forgotten after each test."""
    yield
    run.tools_refused.clear()
