"""How long a scan of the stores takes: `python benchmarks/scan.py [FILES]`.

Builds a folder of small GGUF files that resemble real ones except for the vocabulary and weights,
and times the first scan, later scans, and storing the result. The project's own limits for 10,000
files: 1 s for the first scan, 60 ms if nothing has changed.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from llm_localrun.catalogue import read_snapshot, write_snapshot  # noqa: E402
from llm_localrun.files import scan  # noqa: E402
from llm_localrun.models import Snapshot  # noqa: E402
from tests.support.trees import MIB, field, header, write  # noqa: E402

FILES_IN_A_FOLDER = 20
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\\n{{ m.content }}{% endfor %}" * 8


def build(below: Path, count: int) -> None:
    """Writes PUBLISHER/REPOSITORY/….gguf, as LM Studio does, with a megabyte of zeros each."""
    numbers = {
        "context_length": 4096,
        "embedding_length": 4096,
        "block_count": 32,
        "feed_forward_length": 11008,
    }
    for number in range(count):
        folder = below / f"publisher{number // 1000}" / f"repository{number // FILES_IN_A_FOLDER}"
        fields = [
            field("general.architecture", "llama"),
            field("general.type", "model"),
            field("general.name", f"Model {number}"),
            field("general.size_label", "7B"),
            field("general.file_type", 15),
            *(field(f"llama.{key}", number) for key, number in numbers.items()),
            field("llama.attention.head_count", 32),
            field("llama.attention.head_count_kv", 8),
            field("tokenizer.ggml.model", "gpt2"),
            field("tokenizer.chat_template", TEMPLATE),
        ]
        write(folder / f"Model{number}-7B-Q4_K_M.gguf", header(*fields), MIB)


def timed(what: str, act: Callable[[], object], rounds: int = 1) -> None:
    """Prints the median over `rounds`: elapsed time, and CPU time of this process."""
    wall, own = [], []
    for _ in range(rounds):
        started, started_own = time.perf_counter(), time.process_time()
        act()
        wall.append(time.perf_counter() - started)
        own.append(time.process_time() - started_own)
    figures = (1000 * statistics.median(times) for times in (wall, own))
    print("{:<48} {:>6.0f} ms, {:>6.0f} ms of this process".format(what, *figures))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as name:
        below = Path(name)
        os.environ |= {"HOME": str(below / "home"), "LLM_USER_PATH": str(below / "user")}
        build(below / "models", count)
        folders = [str(below / "models")]
        found = []
        timed(f"first scan of {count:,} files", lambda: found.extend(scan(folders, [])[0]))
        assert len(found) == count
        timed("nothing has changed", lambda: scan(folders, found), rounds=9)
        snapshot = Snapshot(files=tuple(found))
        timed("storing it", lambda: write_snapshot(below, snapshot), rounds=5)
        timed("reading it", lambda: read_snapshot(below), rounds=5)
        size = (below / "catalogue.json").stat().st_size
        print(f"{size / 1e6:.1f} MB are stored")


if __name__ == "__main__":
    main()
