"""What this plugin costs and saves, beside llm alone and two other plugins for local models.

    python -m benchmarks.comparison [--only NAME,…] [--rounds N] [--quick] [--write [--anyway]]

Makes an environment of its own for llm alone, this checkout, llm-ollama and llm-lmstudio, with the
same llm, from the package index. docs/design/bench.md says how each row is measured. Prints two
tables in Markdown: one that compares the four, and one about this plugin alone.

    --only     these parts: commands, hang, stream, many, first-token, conversation, engine, files
    --rounds   of the commands (11); other parts take fewer
    --quick    tries everything out: few rounds, short answers, few files
    --write    puts the tables into docs/comparison.md, with the machine, the date and the versions;
               `just docs` then repeats some rows in README.md
    --anyway   also if other programs compute

An idle machine takes about 7 minutes. What cannot be measured says why.
"""

import argparse
import asyncio
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from itertools import count, islice
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import llm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import record, scan, stream  # noqa: E402
from benchmarks.engine import continuing, first_output, story, user_directory  # noqa: E402
from llm_localrun.engine.state import list_running  # noqa: E402
from llm_localrun.engine.stop import stop_all  # noqa: E402
from llm_localrun.pull import starter  # noqa: E402
from tests.support.environment import VARIABLES  # noqa: E402

DOCUMENT = ROOT / "docs" / "comparison.md"
LLM, OURS, OLLAMA, LMSTUDIO = PLUGINS = ("llm", "llm-localrun", "llm-ollama", "llm-lmstudio")
NOT_MEASURED = "not measured: "
_COMMANDS = {"--version": ["--version"], "models": ["models"], "logs": ["logs", "-n", "1"]}
_BOUND_S = 20
"""A command that takes longer is ended."""
_IDLE_LOAD = 0.5
"""Of each core: at a higher load, figures are not written."""
_AT_ONCE = 64
_FILES = 10_000
_PROBE = Path(__file__).with_name("comparison_probe.py").read_text("utf-8")
_NO_SERVER = {OLLAMA: f"{NOT_MEASURED}needs Ollama", LMSTUDIO: f"{NOT_MEASURED}needs LM Studio"}
_LOGS = """
import sqlite_utils
from llm.cli import logs_db_path
from llm.migrations import migrate
migrate(sqlite_utils.Database(logs_db_path()))
"""


class Unavailable(Exception):
    """What cannot be measured here; the message says why."""


# A part that fails does not cost the others. SystemExit: `first_output` got no answer.
_FAILURES = (Unavailable, llm.ModelError, subprocess.SubprocessError, OSError, SystemExit)

Cells = Mapping[str, str]
"""What stands in the columns of a row."""
Round = dict[str, float]
"""The seconds of each way."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Part:
    """Rows that are measured together. `compares` says in which table they stand."""

    rows: tuple[str, ...]
    measure: Callable[["Bench"], list[Cells]]
    compares: bool = True


@dataclass
class Bench:
    """What all parts need: the options, a folder, and the environments."""

    folder: Path
    rounds: int
    quick: bool

    @property
    def pythons(self) -> dict[str, str]:
        """The Python of the environment of each plugin."""
        if isinstance(self._environments, str):
            raise Unavailable(self._environments)
        return self._environments

    @cached_property
    def _environments(self) -> dict[str, str] | str:
        """Those Pythons, or why they cannot be had."""
        if importlib.util.find_spec("pip") is None:
            return "this Python has no pip"
        packages = {LLM: [], OURS: [f"{ROOT}[gguf]"], OLLAMA: [OLLAMA], LMSTUDIO: [LMSTUDIO]}
        try:
            return {name: self._made(name, packages[name]) for name in PLUGINS}
        except Unavailable as error:
            return str(error)

    def _made(self, name: str, packages: list[str]) -> str:
        print(f"Making the environment of {name}", file=sys.stderr)
        home = self.folder / "environments" / name
        venv.create(home)
        python = str(home / "bin" / "python")
        command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
        command += [
            "--disable-pip-version-check",
            "--retries",
            "1",
            f"llm=={version('llm')}",
            *packages,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise Unavailable(f"the package index: {last}"[:120])
        return python

    def environment(self, name: str) -> dict[str, str]:
        """Variables for a command, with a user directory of `name`'s own."""
        kept = {key: value for key, value in os.environ.items() if key not in VARIABLES}
        user = self.folder / "users" / name
        user.mkdir(parents=True, exist_ok=True)
        return {**kept, "LLM_USER_PATH": str(user), "HOME": str(user), "PYTHONPATH": ""}


def _in_turn(rounds: int, ways: Mapping[str, Callable[[], _T]]) -> list[dict[str, _T]]:
    """What each way gives in each round. The first round fills caches, and is left out."""
    return [{name: way() for name, way in ways.items()} for _ in range(rounds + 1)][1:]


def _cell(rounds: list[Round], name: str) -> str:
    """The medians of the ratios to llm alone in the same round, and of the seconds."""
    seconds = median(each[name] for each in rounds)
    ratio = median(each[name] / each[LLM] for each in rounds)
    if seconds >= _BOUND_S:
        return f"over {ratio:.0f} (ended after {_BOUND_S} s)"
    return f"{ratio:.2f} ({seconds:.2f} s)"


def _beside_llm(rounds: list[Round]) -> Cells:
    return {name: _cell(rounds, name) for name in PLUGINS}


def _commands(bench: Bench) -> list[Cells]:
    for name in PLUGINS:
        _output([bench.pythons[name], "-c", _LOGS], bench.environment(name))
    # A model, as on a machine where the plugin is used. Without any, each command looks for some.
    scan.build(bench.folder / "users" / OURS / "localrun" / "models", 1)
    ways = {
        f"{command} {name}": partial(
            _seconds, bench.pythons[name], arguments, bench.environment(name)
        )
        for command, arguments in _COMMANDS.items()
        for name in PLUGINS
    }
    with _pinned():
        rounds = _in_turn(bench.rounds, ways)
    return [
        _beside_llm([{name: each[f"{command} {name}"] for name in PLUGINS} for each in rounds])
        for command in _COMMANDS
    ]


def _hang(bench: Bench) -> list[Cells]:
    """Each command in a user directory of its own that has never found anything, as at first."""
    _output([bench.pythons[LLM], "-c", _LOGS], bench.environment("logs"))
    rows = []
    with _silent_port() as one, _silent_port() as two, _pinned():
        hanging = {"OLLAMA_HOST": f"http://127.0.0.1:{one}"}
        hanging["LMSTUDIO_API_BASE"] = f"http://127.0.0.1:{two}"
        for command in _COMMANDS.values():
            ended: set[str] = set()
            ways = {
                name: partial(_at_first, bench, name, command, hanging, ended) for name in PLUGINS
            }
            rows.append(_beside_llm(_in_turn(1 if bench.quick else 3, ways)))
    return rows


def _at_first(
    bench: Bench, name: str, command: list[str], hanging: dict[str, str], ended: set[str]
) -> float:
    """The seconds of a command in a new user directory. One that was ended does not run again."""
    if name in ended:
        return _BOUND_S
    users = bench.folder / "users"
    shutil.rmtree(users / "new", ignore_errors=True)
    shutil.copytree(users / "logs", users / "new")
    seconds = _seconds(bench.pythons[name], command, bench.environment("new") | hanging)
    if seconds == _BOUND_S:
        ended.add(name)
    return seconds


def _seconds(python: str, command: list[str], environment: Mapping[str, str]) -> float:
    """Seconds that `llm` takes; `_BOUND_S` if it took longer."""
    begun = time.perf_counter()
    try:
        _output([python, "-m", "llm", *command], environment, _BOUND_S)
    except subprocess.TimeoutExpired:
        return _BOUND_S
    return time.perf_counter() - begun


def _output(command: list[str], environment: Mapping[str, str], bound: float = 300) -> str:
    done = subprocess.run(
        command,
        env=environment,
        cwd=environment["HOME"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=bound,
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"a command failed: {done.stderr.strip()[-200:]}".replace("\n", " "))
    return done.stdout


@contextmanager
def _pinned() -> Iterator[None]:
    """Keeps this process, and what it starts, on one CPU, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(usable)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


@contextmanager
def _silent_port() -> Iterator[int]:
    """A port that accepts connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        yield listening.getsockname()[1]


_SPOKEN: dict[str, dict[str, str]] = {
    "text": {LLM: LLM, OURS: OURS, LMSTUDIO: LMSTUDIO},
    stream.OLLAMA: {OURS: f"{OURS}, Ollama", OLLAMA: OLLAMA},
}
"""Which probe speaks for each plugin in OpenAI's language, and in Ollama's."""
_LANGUAGES = {"text": "OpenAI's", stream.OLLAMA: "Ollama's"}


def _stream(bench: Bench) -> list[Cells]:
    chunks = 1000 if bench.quick else 10_000
    least: dict[str, float] = {}
    with stream.server() as port, _pinned():
        for _ in range(1 if bench.quick else max(3, bench.rounds // 3)):
            for kind, spoken in _SPOKEN.items():
                for probe in spoken.values():
                    took = _probe(bench, probe, "cpu", f"{port}/{kind}", chunks)
                    least[probe] = min(least.get(probe, took), took)
    rows: list[Cells] = []
    for kind, spoken in _SPOKEN.items():
        cells = dict.fromkeys(PLUGINS, f"{NOT_MEASURED}does not speak {_LANGUAGES[kind]} language")
        for name, probe in spoken.items():
            each = least[probe] / (chunks - stream.SHORT) * 1e6
            cells[name] = f"{least[probe] / least[LLM]:.2f} ({each:.1f} µs)"
        rows.append(cells)
    return rows


def _many(bench: Bench) -> list[Cells]:
    """64 prompts at once, of a stand-in that takes a second for each."""
    with stream.server() as port:
        ways = {
            name: partial(_probe, bench, name, "many", f"{port}/{kind}", _AT_ONCE)
            for name, kind in zip(PLUGINS, ("text", "text", stream.OLLAMA, "text"), strict=True)
        }
        results = _in_turn(1 if bench.quick else 3, ways)
    rounds = [{name: took for name, (took, _) in each.items()} for each in results]
    answered = {name: min(each[name][1] for each in results) for name in PLUGINS}
    return [{k: f"{_cell(rounds, k).removesuffix(')')}; {answered[k]} answered)" for k in PLUGINS}]


def _probe(bench: Bench, probe: str, mode: str, at: str, number: int) -> Any:
    name = probe.partition(",")[0]
    command = [bench.pythons[name], "-c", _PROBE, probe, mode, f"http://127.0.0.1:{at}"]
    return json.loads(_output([*command, str(number)], bench.environment(name)))


def _first_token(bench: Bench) -> list[Cells]:
    """The starter model: `llm` in a process of its own until it prints something.

    llm's own OpenAI class asks the same engine, so that the clients differ and nothing else.
    """
    pythons, numbers = bench.pythons, count()

    def ours() -> float:
        return first_output(story(1, f"ours {next(numbers)}"), pythons[OURS])

    with _engine() as user:
        folder = user / "localrun" / "engine"

        def cold() -> float:
            stop_all(folder)
            return ours()

        def own() -> float:
            (engine,) = list_running(folder)
            with _settings(bench, engine.url, engine.key):
                return first_output(story(1, f"own {next(numbers)}"), pythons[LLM], "own")

        ways = {"cold": cold, OURS: ours, LLM: own}
        rounds = _in_turn(1 if bench.quick else max(3, bench.rounds // 3), ways)
    return [
        {**_NO_SERVER, LLM: _cell(rounds, LLM), OURS: _cell(rounds, OURS)},
        {**_NO_SERVER, LLM: f"{NOT_MEASURED}starts no server", OURS: _cell(rounds, "cold")},
    ]


@contextmanager
def _settings(bench: Bench, url: str, key: str) -> Iterator[None]:
    """llm's own OpenAI class has the engine as the model `own`."""
    before = dict(os.environ)
    os.environ |= bench.environment("own")
    user = Path(os.environ["LLM_USER_PATH"])
    model = {"model_id": "own", "model_name": "m", "api_base": f"{url}/v1", "api_key_name": "own"}
    # JSON is YAML.
    (user / "extra-openai-models.yaml").write_text(json.dumps([model]))
    (user / "keys.json").write_text(json.dumps({"own": key}))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


@contextmanager
def _engine() -> Iterator[Path]:
    """A user directory with the starter model."""
    before = dict(os.environ)
    cached = ROOT / ".pytest_cache" / "d" / "localrun" / "models" / starter.FILE_NAME
    try:
        with user_directory(cached if cached.exists() else None) as user:
            yield user
    finally:
        os.environ.clear()
        os.environ |= before


def _conversation(_bench: Bench) -> list[Cells]:
    """Each once: evaluating all of it takes long."""
    with _engine() as user:
        cases = continuing(user)
    full, _ = cases.pop("evaluated in full")
    return [_own([(seconds, full)], "evaluating all of it again") for seconds, _ in cases.values()]


def _engine_at_once(bench: Bench) -> list[Cells]:
    """Answers of 4 tokens, by the starter model."""
    with _engine():
        model, numbers = llm.get_async_model("local"), count()
        ways = {
            each: partial(_gathered, model, prompts, numbers)
            for each, prompts in (("one", 1), ("many", 8 if bench.quick else _AT_ONCE))
        }
        rounds = _in_turn(1 if bench.quick else 3, ways)
    return [_own([(each["many"], each["one"]) for each in rounds], "one prompt")]


def _gathered(model: llm.AsyncModel, prompts: int, numbers: Iterator[int]) -> float:
    async def ask(number: int) -> str:
        prompt = f"{number}: name a color."
        return await model.prompt(prompt, max_tokens=4, temperature=0).text()

    async def ask_all() -> list[str]:
        return await asyncio.gather(*map(ask, islice(numbers, prompts)))

    begun = time.perf_counter()
    answered = asyncio.run(ask_all())
    seconds = time.perf_counter() - begun
    if not all(answered):
        raise Unavailable(f"{sum(map(bool, answered))} of {prompts} prompts were answered")
    return seconds


_LISTS = {"new": ["localrun", "models"], "models": ["models"], "ours": ["localrun", "models"]}


def _files(bench: Bench) -> list[Cells]:
    """Lists a folder of files, and an empty one. Each round begins with new user directories."""
    files = 200 if bench.quick else _FILES
    scan.build(bench.folder / "files", files)
    (bench.folder / "nothing").mkdir()
    ways = {
        f"{title} {folder}": partial(_listed, bench, folder, title)
        for title in _LISTS
        for folder in ("files", "nothing")
    }
    rounds = _in_turn(1 if bench.quick else 3, ways)
    command = [bench.pythons[OURS], "-m", "llm", "localrun", "models", "--json"]
    listed = json.loads(_output(command, bench.environment("with-files")))
    if len(listed) != files:
        raise Unavailable(f"{len(listed):,} of {files:,} files were listed")
    pairs = [[(each[f"{k} files"], each[f"{k} nothing"]) for each in rounds] for k in _LISTS]
    return [_own(each, "no files") for each in pairs]


def _listed(bench: Bench, folder: str, title: str) -> float:
    """The seconds of a command that lists the files in `folder`."""
    user = bench.folder / "users" / f"with-{folder}"
    if title == "new":
        shutil.rmtree(user, ignore_errors=True)
        settings = {"default_endpoints": False, "folders": [str(bench.folder / folder)]}
        (user / "localrun").mkdir(parents=True)
        (user / "localrun" / "config.json").write_text(json.dumps(settings))
    return _seconds(bench.pythons[OURS], _LISTS[title], bench.environment(user.name))


def _own(rounds: list[tuple[float, float]], what: str) -> Cells:
    """A row from the seconds of each round, and those of `what` they stand beside."""
    return {
        "ratio": f"{median(seconds / base for seconds, base in rounds):.2f}",
        "seconds": f"{median(seconds for seconds, _ in rounds):.2f} s",
        "beside": f"{what}, {median(base for _, base in rounds):.2f} s",
    }


PARTS: dict[str, Part] = {
    "commands": Part(tuple(f"`llm {each}`" for each in _COMMANDS), _commands),
    "hang": Part(
        tuple(f"`llm {each}`, the first time, its server's port hangs" for each in _COMMANDS),
        _hang,
    ),
    "stream": Part(
        tuple(f"CPU time of a streamed chunk, {each} language" for each in _LANGUAGES.values()),
        _stream,
    ),
    "many": Part((f"{_AT_ONCE} prompts at once, to a stand-in that takes 1 s",), _many),
    "first-token": Part(
        (
            "`llm` to the first token, the model is loaded",
            "`llm` to the first token, the model is not loaded, its file in the system's cache",
        ),
        _first_token,
    ),
    "conversation": Part(
        tuple(
            f"Next turn after 4,000 tokens, {each} (measured once)"
            for each in ("in memory", "restored from disk after the engine ended")
        ),
        _conversation,
        compares=False,
    ),
    "engine": Part((f"{_AT_ONCE} prompts at once, to the engine",), _engine_at_once, False),
    "files": Part(
        (
            f"`llm localrun models`, {_FILES:,} files that are new",
            f"`llm models`, {_FILES:,} files",
            f"`llm localrun models`, {_FILES:,} files",
        ),
        _files,
        compares=False,
    ),
}
HEADS = {True: PLUGINS, False: ("ratio", "seconds", "beside")}
"""The columns of the table that compares, and of the one about this plugin."""


def measured(bench: Bench, names: list[str]) -> dict[bool, list[tuple[str, ...]]]:
    """The rows of both tables."""
    rows: dict[bool, list[tuple[str, ...]]] = {True: [], False: []}
    for name in names:
        part, begun = PARTS[name], time.monotonic()
        heads = HEADS[part.compares]
        try:
            results = part.measure(bench)
        except _FAILURES as error:
            text = " ".join(f"{NOT_MEASURED}{error}".split())
            results = [dict.fromkeys(heads, text)] * len(part.rows)
        for title, cells in zip(part.rows, results, strict=True):
            row = (title, *(cells[head] for head in heads))
            rows[part.compares].append(row)
            print(" | ".join(row), file=sys.stderr, flush=True)
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return rows


def table(rows: dict[bool, list[tuple[str, ...]]]) -> str:
    """Both tables, without one that has no rows."""
    tables = []
    for compares, heads in HEADS.items():
        lines = [("", *heads), ("---",) * (len(heads) + 1), *rows[compares]]
        text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        tables.append(text if rows[compares] else "")
    return "\n\n".join(filter(None, tables))


def _where(bench: Bench, names: list[str], load: float) -> str:
    after = os.getloadavg()[0]
    packages = ["llm", "xllamacpp"]
    if {*names} & {"commands", "hang", "stream", "many"}:
        with suppress(Unavailable):
            packages += [_installed(bench, name) for name in (OLLAMA, LMSTUDIO)]
    return record.where("comparison.py", packages, load, after)


def _installed(bench: Bench, name: str) -> str:
    """A plugin and its version."""
    asks = f"from importlib.metadata import version; print(version({name!r}), end='')"
    return f"{name} {_output([bench.pythons[name], '-c', asks], bench.environment(name))}"


def _options(load: float) -> argparse.Namespace:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--anyway", action="store_true")
    given = parser.parse_args()
    given.only = given.only.split(",")
    if unknown := {*given.only} - {*PARTS}:
        parser.error(f"there is no part {', '.join(sorted(unknown))}: {', '.join(PARTS)}")
    if given.write and (given.quick or given.only != [*PARTS]):
        parser.error("--write needs a whole run, without --only and --quick")
    if given.write and not given.anyway and load > _IDLE_LOAD * (os.cpu_count() or 1):
        parser.error(
            f"--write needs an idle machine, and the load is {load:.1f}, more than {_IDLE_LOAD} of"
            " each core: wait until other programs have ended, or add --anyway"
        )
    return given


def main() -> None:
    load = os.getloadavg()[0]
    given = _options(load)
    # What is started ends with the benchmark.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), 2 if given.quick else given.rounds, given.quick)
        text = f"{table(measured(bench, given.only))}\n\n{_where(bench, given.only, load)}"
        print(text)
        if given.write:
            record.write(DOCUMENT, "comparison", text)


if __name__ == "__main__":
    main()
