"""`llm localrun bench` and llama-bench of the same build, in turn: ratios of their speeds.

    .venv/bin/python benchmarks/llama_bench.py --llama-bench PROGRAM --llama-server PROGRAM FILE...

Both programs have to be of one build. `--depth 0,4096`, `--prompt`, `--generate` and `--rounds` set
what is measured; `--threads` is given to both. Everything runs in a temporary user directory.
A ratio above 1 means that `bench` has measured more tokens a second. On a busy machine, only the
ratio of the best means something, and only with `--threads 1`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from llm_localrun.engine.stop import stop_all

_Key = tuple[str, int, str]
"""File, depth, and what was measured."""


def main() -> None:
    options = _options()
    ours: dict[_Key, list[float]] = {}
    theirs: dict[_Key, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        user = Path(name)
        os.environ |= {"LLM_USER_PATH": name, "HOME": name}
        config: dict[str, Any] = {"default_endpoints": False, "threads": options.threads}
        (user / "localrun").mkdir()
        (user / "localrun" / "config.json").write_text(json.dumps(config))
        try:
            for _ in range(options.rounds):
                for file in options.files:
                    _add(theirs, file, _llama_bench(file, options))
                    _add(ours, file, _bench(file, options))
        finally:
            stop_all(user / "localrun" / "engine")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.rounds} rounds")
    for key, rates in sorted(ours.items()):
        ratios = [own / other for own, other in zip(rates, theirs[key], strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(
            f"{Path(key[0]).name}, depth {key[1]}, {key[2]}: {median(rates):.1f} and"
            f" {median(theirs[key]):.1f} by llama-bench, ratio {median(ratios):.3f} ({spread}),"
            f" of the best {max(rates) / max(theirs[key]):.3f}"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--depth", default="0")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


def _add(found: dict[_Key, list[float]], file: str, rates: dict[tuple[int, str], float]) -> None:
    for (depth, what), rate in rates.items():
        found.setdefault((file, depth, what), []).append(rate)


def _llama_bench(file: str, options: argparse.Namespace) -> dict[tuple[int, str], float]:
    command = [options.llama_bench, "-m", file, "-r", "1", "-o", "json"]
    command += ["-p", str(options.prompt), "-n", str(options.generate), "-d", options.depth]
    rows = json.loads(_output([*command, "-t", str(options.threads)]))
    kinds = {True: "prompt", False: "answer"}
    return {(row["n_depth"], kinds[bool(row["n_prompt"])]): row["avg_ts"] for row in rows}


def _bench(file: str, options: argparse.Namespace) -> dict[tuple[int, str], float]:
    command = [sys.executable, "-m", "llm", "localrun", "bench", file, "--repeat", "1", "--json"]
    command += ["--prompt", str(options.prompt), "--generate", str(options.generate)]
    command += ["--depth", options.depth, "--engine", options.llama_server]
    rates = {}
    for row in json.loads(_output(command)):
        if row["error"]:
            sys.exit(row["error"])
        for what, field in (("prompt", "prompt"), ("answer", "generation")):
            rates[row["depth"], what] = row[f"{field}_tokens_per_second"]["median"]
    return rates


def _output(command: list[str]) -> bytes:
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


if __name__ == "__main__":
    main()
