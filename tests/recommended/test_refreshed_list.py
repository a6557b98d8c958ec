"""The package's list and the user's: which entry wins, and what a damaged one costs."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.recommended import models
from llm_localrun.recommended.models import (
    ListedFile,
    RecommendedModel,
    Use,
    listed_models,
    read_recommended,
    recommended_named,
    refreshed_path,
    write_refreshed,
)


def changed(like: RecommendedModel, name: str, **facts: Any) -> RecommendedModel:
    return replace(like, name=name, repository=facts.pop("repository", f"org/{name}"), **facts)


BASE = listed_models()[-1]
LARGE = changed(BASE, "large", parameters=30, active_parameters=30, uses=(Use.CHAT,))
MIXTURE = changed(BASE, "mixture", parameters=30, active_parameters=3, uses=(Use.CHAT, Use.CODE))
SMALL = changed(BASE, "small", parameters=2, active_parameters=2, uses=(Use.CHAT,))
EMBEDS = changed(BASE, "embeds", parameters=1, active_parameters=1, uses=(Use.EMBED,))
LISTED = (LARGE, MIXTURE, SMALL, EMBEDS)
LATER = "2027-01-02"


@pytest.fixture
def package_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "listed_models", lambda: LISTED)


def names(found: Sequence[RecommendedModel]) -> list[str]:
    return [each.name for each in found]


def put(text: str) -> None:
    refreshed_path().parent.mkdir(parents=True, exist_ok=True)
    refreshed_path().write_text(text)


def test_without_a_list_of_the_user(package_list: None) -> None:
    assert read_recommended() == LISTED


def test_what_is_written_is_read(package_list: None) -> None:
    new = changed(listed_models()[0], "new", date=LATER)
    write_refreshed([new])
    assert recommended_named("NEW") == new
    assert recommended_named("other") is None


@pytest.mark.parametrize("model", listed_models(), ids=lambda model: str(model.name))
def test_every_entry_of_the_package_survives_being_written(model: RecommendedModel) -> None:
    new = replace(model, name="new", repository="org/new")
    write_refreshed([new])
    assert recommended_named("new") == new


@pytest.mark.parametrize(
    ("new", "order"),
    [
        # Behind the last one for its use that is as capable: the mixture counts as 9.5.
        (changed(BASE, "n", parameters=40, active_parameters=40, uses=(Use.CHAT,)), "n large"),
        (changed(BASE, "n", parameters=30, active_parameters=30, uses=(Use.CHAT,)), "large n"),
        (changed(BASE, "n", parameters=9, active_parameters=9, uses=(Use.CODE,)), "mixture n"),
        (changed(BASE, "n", parameters=1, active_parameters=1, uses=(Use.CHAT,)), "small n"),
        (changed(BASE, "n", parameters=1, active_parameters=1, uses=(Use.EMBED,)), "embeds n"),
    ],
)
def test_place_of_a_new_model(package_list: None, new: RecommendedModel, order: str) -> None:
    write_refreshed([new])
    assert order in " ".join(names(read_recommended()))
    assert len(read_recommended()) == 5


def test_newer_entry_of_a_repository_wins_and_keeps_its_name(package_list: None) -> None:
    newer = replace(SMALL, date=LATER, name="renamed", revision="f" * 40)
    older = replace(LARGE, date="2025-01-01", revision="f" * 40)
    as_old = replace(MIXTURE, revision="f" * 40)
    write_refreshed([newer, older, as_old])
    assert names(read_recommended()) == names(LISTED)
    assert recommended_named("small") == replace(newer, name="small")
    assert recommended_named("large") == LARGE
    assert recommended_named("mixture") == MIXTURE


def test_known_facts_of_a_refreshed_model_stay(package_list: None) -> None:
    newer = replace(SMALL, date=LATER, unread_parameters=1)
    write_refreshed([newer])
    assert recommended_named("small") == newer


@pytest.mark.parametrize(
    ("facts", "active_bytes", "capability"),
    [
        ({"parameters": 100, "active_parameters": 100}, 1000, 100),
        ({"parameters": 100, "active_parameters": 25}, 250, 50),
        # No more than all are active.
        ({"parameters": 100, "active_parameters": 400}, 1000, 100),
        ({"parameters": 100, "active_parameters": 100, "unread_parameters": 10}, 900, 100),
        ({"parameters": 100, "active_parameters": 25, "unread_parameters": 5}, 200, 50),
        ({"parameters": 100, "active_parameters": 25, "unread_parameters": 50}, 0, 50),
    ],
    ids=str,
)
def test_what_is_read_and_how_capable_it_is(
    facts: dict[str, int], active_bytes: int, capability: float
) -> None:
    file, none = ListedFile(path="a.gguf", size=500), {"unread_parameters": 0}
    model = changed(BASE, "m", files=(file, file), **{**none, **facts})
    assert (model.active_bytes, model.capability) == (active_bytes, capability)


def test_name_that_is_taken_stays_that_of_the_package(package_list: None) -> None:
    write_refreshed([replace(SMALL, repository="other/small", date=LATER)])
    assert read_recommended() == LISTED


@pytest.mark.parametrize(
    "damage",
    [
        {"name": ""},
        {"name": "../../etc"},
        {"name": "UPPER"},
        {"uses": []},
        {"uses": ["flying"]},
        {"files": []},
        {"files": [{"path": "a.gguf", "size": -1}]},
        {"files": [{"path": "a.gguf", "size": 1, "sha256": "abc"}]},
        {"parameters": 0},
        {"active_parameters": 0},
        {"unread_parameters": -1},
        {"parameters": 10**300},
        {"active_parameters": 10**300},
        {"unread_parameters": 10**300},
        {"files": [{"path": "a.gguf", "size": 10**300}]},
        {"header": {"a": 10**400}},
        {"repository": "no-owner"},
        {"date": "yesterday"},
        {"header": {"a": None}},
        {"header": "none"},
    ],
    ids=str,
)
def test_damaged_entry_costs_only_itself(package_list: None, damage: dict[str, Any]) -> None:
    good = changed(EMBEDS, "good")
    write_refreshed([good, changed(EMBEDS, "bad")])
    entries = json.loads(refreshed_path().read_text())
    entries[1] |= damage
    put(json.dumps([*entries, 3, None]))
    assert names(read_recommended()) == [*names(LISTED), "good"]


@pytest.mark.parametrize("text", ["", "{", "{}", "3", "null", "[" * 5000, "\ufeff[]"])
def test_damaged_file_counts_as_none(package_list: None, text: str) -> None:
    put(text)
    assert read_recommended() == LISTED


def test_file_that_others_can_have_written_counts_as_none(package_list: None) -> None:
    write_refreshed([changed(BASE, "new")])
    refreshed_path().chmod(0o666)
    assert read_recommended() == LISTED


def test_header_that_cannot_be_reckoned_is_a_bound(tmp_path: Path, package_list: None) -> None:
    write_refreshed([changed(BASE, "odd")])
    entries = json.loads(refreshed_path().read_text())
    entries[0]["header"] = {"general.architecture": "odd", "odd.block_count": [True, 1.5]}
    put(json.dumps(entries))
    (odd,) = (each for each in read_recommended() if each.name == "odd")
    assert odd.footprint.geometry is None
    assert odd.context_max is None
