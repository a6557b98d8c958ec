"""`llm localrun pull NAME` of a recommended model: exactly the file that the list pins."""

import json
from collections.abc import Callable

import pytest

from llm_localrun.pull.plan import PullPlan
from llm_localrun.pull.records import PullRecord
from llm_localrun.pull.refs import HubRef, parse_ref
from llm_localrun.recommended.models import read_recommended
from tests.support.hub_models import (
    HELPER,
    HELPER_NAME,
    helper_file,
    offer_ten,
    recommend_helper,
)
from tests.support.pulling import World, done, failed
from tests.support.suggested import commands_in

PINNED = f"hf:{HELPER}@{'ab' * 20}/Little-Helper-1B-Q4_K_M.gguf"


@pytest.fixture
def helped(world: World) -> World:
    """A hub with a model that is recommended."""
    offer_ten(world)
    recommend_helper(world)
    return world


@pytest.mark.parametrize("name", [HELPER_NAME, HELPER_NAME.upper()])
def test_name_gets_the_pinned_file(helped: World, name: str) -> None:
    path, data = helper_file(helped)
    assert json.loads(done("pull", name, "--json"))["ref"] == PINNED
    assert helped.there == {f"{HELPER}/{path}": data}
    assert [request.path for request in helped.at_hub.requests] == [
        f"/api/models/{HELPER}/revision/{'ab' * 20}?blobs=true",
        f"/{HELPER}/resolve/{'ab' * 20}/{path}",
    ]
    assert done("update", "--quiet") == f"{PINNED}: up to date\n"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sha256": "00" * 32}, "is not the file that is recommended: the hub lists another size"),
        ({"size": 7}, "is not the file that is recommended: the hub lists another size"),
        ({"path": "gone.gguf"}, f"{HELPER} has no gone.gguf at abababababab."),
    ],
)
def test_hub_with_another_file(helped: World, changes: dict[str, object], said: str) -> None:
    recommend_helper(helped, **changes)
    assert said in failed("pull", HELPER_NAME)
    assert not helped.there
    assert not helped.at_files.requests


def without_repository(world: World) -> None:
    world.hub.others = [each for each in world.hub.others if each.name != HELPER]


def with_another_commit(world: World) -> None:
    world.hub.repositories[HELPER].commit = "cd" * 20


def unreachable(world: World) -> None:
    world.at_hub.respond = lambda _: iter(())


@pytest.mark.parametrize(
    ("change", "commands"),
    [
        (
            without_repository,
            [
                "llm localrun search little helper",
                "llm keys set localrun-huggingface",
                "hf auth login",
            ],
        ),
        (with_another_commit, [f"llm localrun pull {HELPER}"]),
        (unreachable, ["llm localrun pull starter"]),
    ],
)
def test_hub_that_lacks_it(
    helped: World, change: Callable[[World], None], commands: list[str]
) -> None:
    """Who gives a name has typed no repository."""
    change(helped)
    said = failed("pull", HELPER_NAME)
    assert commands_in(said) == commands
    assert "Check its name" not in said


def test_hub_that_lies_about_the_file(helped: World) -> None:
    """It lists the SHA-256 that is pinned, and delivers something else."""
    path, data = helper_file(helped)
    recommend_helper(helped)
    other = bytes(len(data))
    helped.files.content = dict.fromkeys(helped.files.content, other)
    assert failed("pull", HELPER_NAME).startswith(f"Error: The SHA-256 of {path} is wrong")
    assert not helped.there


def test_hub_that_lists_no_hash(helped: World) -> None:
    path, data = helper_file(helped)
    helped.hub.lies[path] = ""
    helped.files.content = {key: bytes(len(data)) for key in helped.files.content}
    assert failed("pull", HELPER_NAME).startswith(f"Error: The SHA-256 of {path} is wrong")


def test_other_quantization_of_the_same_commit(helped: World) -> None:
    done("pull", HELPER_NAME, "-q", "q8_0")
    assert [record["ref"] for record in helped.records] == [f"hf:{HELPER}@{'ab' * 20}:Q8_0"]


@pytest.mark.parametrize(
    ("ref", "title"),
    [
        (f"hf:{HELPER}@{'ab' * 20}:Q8_0", "Little-Helper-1B-GGUF:Q8_0"),
        (f"hf:{HELPER}@feature%2Fx", "Little-Helper-1B-GGUF"),
        (f"hf:{HELPER}:Q8_0", "Little-Helper-1B-GGUF:Q8_0"),
        (PINNED, "Little-Helper-1B-Q4_K_M.gguf"),
        (f"hf:{HELPER}/sub/a@b.gguf", "a@b.gguf"),
        ("https://example.org/a@b.gguf", "a@b.gguf"),
        ("starter:tiny", "starter:tiny"),
    ],
)
def test_title_has_no_revision(ref: str, title: str) -> None:
    record = PullRecord(ref=ref, source="huggingface")
    assert PullPlan(record, lambda: iter(())).title == title  # type: ignore[arg-type,return-value]


def test_every_name_means_its_file() -> None:
    for model in read_recommended():
        ref = HubRef(model.repository, model.revision, file=model.files[0].path)
        assert parse_ref(model.name) == parse_ref(ref.text) == ref
        assert parse_ref(model.name, model.quantization.lower()) == ref
