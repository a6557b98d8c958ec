"""The files in .github are valid YAML, and what their commands name exists."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_localrun import __version__
from llm_localrun.cli import command_names
from tests.support.repository import ROOT

pytestmark = pytest.mark.pure

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
PINNED = re.compile(r"[\w.-]+/[\w./-]+@(v\d+(\.\d+)*|release/v\d+|[0-9a-f]{40})")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def steps_of(workflow: Any) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_there_are_workflows_and_forms() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml"]
    assert len([*GITHUB.rglob("*.yml")]) == 4


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_and_permissions_are_few(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    used = [step["uses"] for step in steps_of(workflow) if "uses" in step]
    assert used
    assert [each for each in used if not PINNED.fullmatch(each)] == []
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_commands_name_exists(path: Path) -> None:
    words = [
        word
        for step in steps_of(read(path))
        for word in shlex.split(step.get("run", ""))
        if re.match(r"(\.ci|tests|benchmarks|docs)(/|$)", word)
    ]
    assert [word for word in words if not (ROOT / word).exists()] == []
    assert bool(words) == (path.name == "ci.yml")


def test_every_python_is_tested_on_every_system() -> None:
    jobs = read(WORKFLOWS[0])["jobs"]
    assert [jobs[name]["strategy"]["matrix"]["python"] for name in ("linux", "elsewhere")] == [
        PYTHONS,
        PYTHONS,
    ]
    systems = jobs["elsewhere"]["strategy"]["matrix"]["system"]
    assert systems == ["macos-latest", "windows-latest"]
    classifiers = (ROOT / "pyproject.toml").read_text("utf-8")
    assert re.findall(r":: (3\.\d+)\"", classifiers) == PYTHONS


def test_a_release_needs_no_token() -> None:
    text = WORKFLOWS[1].read_text("utf-8")
    publish = read(WORKFLOWS[1])["jobs"]["publish"]
    assert (publish["environment"], publish["permissions"]) == ("pypi", {"id-token": "write"})
    assert publish["needs"] == "build"
    assert not re.search(r"secrets\.|password", text)


def test_the_form_for_problems_asks_for_commands_that_exist() -> None:
    form = read(GITHUB / "ISSUE_TEMPLATE" / "bug.yml")
    required = {each["id"] for each in form["body"] if each.get("validations", {}).get("required")}
    assert required == {"what", "doctor", "versions"}
    commands = re.findall(r"llm localrun (\w+)", (GITHUB / "ISSUE_TEMPLATE/bug.yml").read_text())
    assert "doctor" in commands
    assert {*commands} <= {*command_names()}


def test_the_changelog_has_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## \[?(Unreleased|[\d.]+)\]?( - \d{4}-\d\d-\d\d)?$", changelog, re.M)
    assert [name for name, _ in versions][:2] == ["Unreleased", __version__]
    headings = re.findall(r"^### (.*)$", changelog, re.M)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert {*headings} <= kinds
