"""How long `llm localrun stats` takes: `python benchmarks/stats.py [ROWS] [turns|responses]`.

Makes a log with llm's tables and rows as long as real ones, and times the whole command, with the
log in the page cache, against `llm --version`. The project's own limit: 2 s for 1,000,000 rows.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.llm_log import fill_log  # noqa: E402

TIMES = 5


def seconds(user: Path, *arguments: str) -> float:
    """The shortest time that a command of llm took."""
    environment = {**os.environ, "LLM_USER_PATH": str(user), "HOME": str(user)}
    environment["PYTHONPATH"] = str(ROOT)
    command, best = [sys.executable, "-m", "llm", *arguments], float("inf")
    for _ in range(TIMES):
        began = time.perf_counter()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        best = min(best, time.perf_counter() - began)
    return best


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    table = sys.argv[2] if len(sys.argv) > 2 else "turns"
    with tempfile.TemporaryDirectory() as folder:
        user = Path(folder)
        size = fill_log(user, count, table).stat().st_size
        print(f"{count:,} rows of {table}, {size / 1e6:,.0f} MB; the best of {TIMES}")
        for arguments in (
            ["--version"],
            ["localrun", "stats"],
            ["localrun", "stats", "--days", "30"],
            ["localrun", "stats", "local/gguf/*", "--json"],
        ):
            print(f"{seconds(user, *arguments):6.2f} s  llm {' '.join(arguments)}")


if __name__ == "__main__":
    main()
