"""Damaged headers, read as a scan and a load read them, and sparse files in a scanned folder.

A header is clean if reading it ends in a model, in half a sentence or in an error of the package's
tree. `python -m tests.support.faults.headers FIRST COUNT FOLDER` reads some, in a process that can
be measured.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.support.faults.command import Home, Ran
from tests.support.faults.engine import problem_of
from tests.support.faults.trial import GB, Result, Trial
from tests.support.hostile_headers import mutated, sparse_files

HEADERS, SCANS = "mutated headers", "sparse files in a scanned folder"
COUNT = 20_000
_AT_ONCE = 1000
_MAX_HEADER_SECONDS = 1.0
"""Of CPU time, for a header of a few kilobytes."""
_MAX_SCAN_SECONDS = 10.0
"""Of CPU time, for a command that scans a folder."""


def trials(guard_bytes: int, count: int = COUNT) -> Iterator[Trial]:
    for first in range(0, count, _AT_ONCE):
        amount = min(_AT_ONCE, count - first)
        yield Trial(HEADERS, "headers", partial(_read_some, first, amount, guard_bytes))


def scan_trials(guard_bytes: int) -> Iterator[Trial]:
    files = sparse_files()
    for note, write in files.items():
        yield Trial(SCANS, note, partial(_scan, {note: write}, guard_bytes))
    yield Trial(SCANS, "all of them", partial(_scan, files, guard_bytes))


def _read_some(first: int, count: int, guard_bytes: int) -> Result:
    with Home(guard_bytes) as home:
        module = ["-m", "tests.support.faults.headers", str(first), str(count), str(home.path)]
        ran = home.run([*module])
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.endswith(b"}")]
    bad = [line["bad"] for line in lines if "bad" in line]
    done = [line["seconds"] for line in lines if "seconds" in line]
    if ran.status or not done:
        last = max((line["seed"] for line in lines if "seed" in line), default=first)
        what = ran.stopped or f"status {ran.status}: {ran.error[-300:]}"
        bad.append(f"header of a seed from {last}: {what}")
    return Result(count, tuple(bad), ran.own_peak, max(done, default=ran.seconds))


def _scan(files: dict[str, Callable[[Path], None]], guard_bytes: int) -> Result:
    with Home(guard_bytes) as home:
        folder = home.path / "files"
        folder.mkdir()
        home.configure(folders=[str(folder)])
        for note, write in files.items():
            write(folder / f"{note.replace(' ', '-')}.gguf")
        ran = home.llm("localrun", "models", "--json")
    problem = problem_of(ran) or _problem_of_scan(ran)
    bad = (f"{', '.join(files) if len(files) == 1 else 'all together'}: {problem}",)
    return Result(1, bad if problem else (), ran.own_peak, ran.seconds)


def _problem_of_scan(ran: Ran) -> str:
    if ran.own_peak > GB:
        return f"the scan took {ran.own_peak / 1e6:,.0f} MB"
    if ran.cpu_seconds > _MAX_SCAN_SECONDS:
        return f"the scan took {ran.cpu_seconds:.1f} s of CPU time"
    try:
        json.loads(ran.stdout)
    except ValueError:
        return f"no JSON: {ran.stdout[-200:]!r}"
    return ""


# In a process of its own.


def _read_header(path: Path) -> None:
    """As a scan, a check of the memory and a load do."""
    from llm_localrun.errors import LocalRunError
    from llm_localrun.files.contents import read_model
    from llm_localrun.files.found import file_at
    from llm_localrun.gguf.files import opened
    from llm_localrun.gguf.header import read_header
    from llm_localrun.memory.footprint import Setting, footprint_of_files

    found = file_at(str(path))
    if found is not None:
        read_model(found)
    if (footprint := footprint_of_files(str(path))) is not None:
        footprint.need(Setting(8192))
    try:
        with opened(path) as file:
            read_header(file, path.stat().st_size)
    except LocalRunError:
        pass


def main(first: int, count: int, folder: Path) -> None:
    path, longest = folder / "mutated.gguf", 0.0
    for seed in range(first, first + count):
        data, size = mutated(seed)
        with path.open("wb") as file:
            file.write(data)
            file.truncate(size)
        print(json.dumps({"seed": seed}), flush=True)  # noqa: T201
        begun = time.process_time()
        try:
            _read_header(path)
        except Exception as error:  # noqa: BLE001  # that is what is looked for
            print(json.dumps({"bad": f"header of seed {seed}: {error!r}"}))  # noqa: T201
        seconds = time.process_time() - begun
        longest = max(longest, seconds)
        if seconds > _MAX_HEADER_SECONDS:
            print(json.dumps({"bad": f"header of seed {seed}: {seconds:.1f} s"}))  # noqa: T201
    print(json.dumps({"seconds": longest}))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
