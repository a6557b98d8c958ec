"""What RAM a machine has, and how much of it is free."""

import sys
from pathlib import Path

import pytest

from llm_localrun.memory import machine


def system(root: Path, available: str, groups: dict[str, dict[str, str]], own: str = "/") -> Path:
    """A root with as much of /proc and /sys as tells of memory."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text(f"MemTotal: 999 kB\n{available}")
    (root / "proc" / "self" / "cgroup").write_text(f"0::{own}\n")
    for group, files in groups.items():
        folder = root / "sys" / "fs" / "cgroup" / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / f"memory.{name}").write_text(text)
    return root


def group(limit: str, current: int, cached: int) -> dict[str, str]:
    stat = f"anon 1\ninactive_file {cached}\nactive_file 0\nfile_mapped 7\n"
    return {"max": f"{limit}\n", "current": f"{current}\n", "stat": stat}


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
AVAILABLE = "MemAvailable:    4000 kB\n"


@LINUX
@pytest.mark.parametrize(
    ("available", "groups", "own", "free"),
    [
        pytest.param(AVAILABLE, {}, "/", 4_096_000, id="no groups"),
        pytest.param("", {}, "/", None, id="unknown"),
        pytest.param(AVAILABLE, {"": group("max", 1, 0)}, "/", 4_096_000, id="no limit"),
        pytest.param(AVAILABLE, {"": group("2000000", 700_000, 0)}, "/", 1_300_000, id="container"),
        pytest.param(
            AVAILABLE, {"": group("2000000", 1_900_000, 900_000)}, "/", 1_000_000, id="cached files"
        ),
        pytest.param(
            AVAILABLE,
            {"a/b": group("max", 5, 0), "a": group("1000000", 400_000, 0)},
            "/a/b",
            600_000,
            id="the group around it",
        ),
        pytest.param(AVAILABLE, {"": group("1000", 5000, 0)}, "/", 0, id="over its limit"),
    ],
)
def test_free_ram(
    tmp_path: Path, available: str, groups: dict[str, dict[str, str]], own: str, free: int | None
) -> None:
    assert machine.free_ram(system(tmp_path, available, groups, own)) == free


@LINUX
@pytest.mark.parametrize(
    ("physical", "groups", "own", "usable"),
    [
        pytest.param(3_000_000, {}, "/", 3_000_000, id="no groups"),
        pytest.param(3_000_000, {"": group("max", 1, 0)}, "/", 3_000_000, id="no limit"),
        pytest.param(3_000_000, {"": group("2000000", 1, 0)}, "/", 2_000_000, id="container"),
        pytest.param(3_000_000, {"": group("2000000", 2_000_000, 0)}, "/", 2_000_000, id="used up"),
        pytest.param(3_000_000, {"": group("9000000", 1, 0)}, "/", 3_000_000, id="more than there"),
        pytest.param(
            3_000_000,
            {"a/b": group("2000000", 5, 0), "a": group("1000000", 7, 0)},
            "/a/b",
            1_000_000,
            id="the group around it",
        ),
        pytest.param(None, {"": group("2000000", 1, 0)}, "/", None, id="unknown"),
    ],
)
def test_usable_ram(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    physical: int | None,
    groups: dict[str, dict[str, str]],
    own: str,
    usable: int | None,
) -> None:
    monkeypatch.setattr(machine, "physical_memory", lambda: physical)
    assert machine.usable_ram(system(tmp_path, AVAILABLE, groups, own)) == usable


def test_free_memory_of_this_machine() -> None:
    free, physical = machine.free_ram(), machine.physical_memory()
    assert free is not None
    assert physical is not None
    assert 0 < free < physical
