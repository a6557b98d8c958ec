"""What hostile and broken files, servers and names cost: `python -m benchmarks.faults`.

Runs every trial of `tests.support.faults` and prints a table: how many were tried, how many were
clean, and the most memory and time that one took. Each that was not clean is listed with its seed
or its number. Everything happens in temporary folders, and what is started is ended. Linux only.

    --group NAME   only groups whose names contain NAME; can be repeated
    --kind NAME    only kinds whose names contain NAME; can be repeated
    --quick        a tenth of the trials
    --jobs N       how many at once (2)
    --write        writes the table into tests/README.md

All trials together need at most 6 GB: an engine or a command that takes more than its share is
killed, and its trial is not clean. With 2 jobs on 2 idle cores, all of it takes half an hour.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import record  # noqa: E402
from llm_localrun.pull import starter  # noqa: E402
from tests.support.faults.report import all_trials, run, table, tenth  # noqa: E402

README = ROOT / "tests" / "README.md"
_STARTER = ROOT / ".pytest_cache" / "d" / "localrun" / "models" / starter.FILE_NAME
_MEMORY = 6 * 10**9


def main() -> int:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--group", action="append")
    parser.add_argument("--kind", action="append")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--starter", type=Path, default=_STARTER)
    given = parser.parse_args()
    if not given.starter.exists():
        parser.error(f"{given.starter} does not exist: run the tests once, or give --starter FILE")
    trials = [
        trial
        for trial in all_trials(given.starter, _MEMORY // given.jobs)
        if any(name in trial.group for name in given.group or [""])
        and any(name in trial.kind for name in given.kind or [""])
    ]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begun = time.monotonic()
    results = run(tenth(trials) if given.quick else trials, given.jobs)
    lines = "\n".join(table(results))
    measured = record.where("faults.py", ["xllamacpp"], os.getloadavg()[0])
    print(f"\n{lines}\n\n{measured}\n{(time.monotonic() - begun) / 60:.1f} minutes")
    if given.write:
        record.write(README, "faults", f"{lines}\n\n{measured}")
    return 1 if any(result.bad for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
