"""The machine that the documents' examples run on, and what they did there.

A home directory with llm's user directory, in which three models have been pulled; a folder with a
few notes, a report and a photo; fakes of servers that a document asks for. The real `llm` runs the
real engine. What an example should print is `example_output`'s.
"""

import hashlib
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import sqlite_utils
from llm import migrations
from llm.cli import cli

from llm_localrun.engine.stop import stop_all
from llm_localrun.pull import starter
from llm_localrun.pull.records import PulledFile, PullRecord
from tests.fakes.http_server import Respond, StandIn
from tests.fakes.llama_server import llama_server
from tests.fakes.lmstudio import LMStudio
from tests.fakes.ollama import Ollama
from tests.fakes.says import Says
from tests.fakes.vllm import vllm
from tests.support.example_output import difference, is_another_answer, pieces
from tests.support.examples import Command, Example

TIMEOUT_S = 300
"""For a block, on a machine that does other things too."""
_SCRIPT = Path(__file__).parent / "answers_of_script.py"
_END = "\x1eend {} $?"
"""What the shell prints after a command of a `console` example."""
_PULLED_AT = 1_790_000_000.0
_ANSWERING = frozenset({"prompt", "chat"})

_NOTES = {
    "bread.md": "# Bread\n\nMix 500 g of flour, 350 g of water, 10 g of salt and a little yeast."
    " Let the dough rise\novernight. Bake the loaf in a covered pot at 240 degrees for 45 min.\n",
    "tomatoes.md": "# Tomatoes\n\nSow indoors in March. Plant the seedlings outside after the last"
    " frost, in full sun.\nWater the soil and not the leaves, and pinch out the side shoots.\n",
    "bicycle.md": "# Bicycle\n\nThe chain squeaks when it is dry: clean it and put on oil. Pump the"
    " tires to 4 bar.\nReplace the brake pads when less than a millimeter is left.\n",
    "taxes.md": "# Taxes\n\nThe return is due on July 31. Keep the receipts for the desk and the"
    " train tickets.\nThe refund of last year came in September.\n",
}
_REPORT = """\
Report of the harbor office for October

In October, 212 ships called at the harbor, 18 more than in September. Most of them carried grain
and timber. Four ships had to wait for longer than a day, because the second crane was out of order
from the 6th to the 14th. The crane works again since its motor was replaced, and the repair cost
8,400 euros.

A storm on the 21st damaged the roof of the warehouse on the north quay. Rain came in, and 30 sacks
of flour were spoiled. A provisional cover has been put on. The roof will be repaired in November;
the offers of two firms are expected this week.

The new lamp of the lighthouse was tested on three nights. It can be seen from 19 sea miles, two
more than the old one, and it takes a third of the current. The keeper asks for a second lamp as a
reserve.

The office proposes three things for November: to repair the roof before the next storm, to buy the
second lamp, and to have both cranes inspected each spring. Two apprentices begin their training on
the 1st.
"""
_JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010101004800480000ffdb004300" + "03" * 64 + "ffc9000b080001000101011100"
    "ffcc000600101005ffda0008010100003f00d2cf20ffd9"
)
"""A photo of one pixel."""


def _ollama() -> Respond:
    has = ["qwen3:8b", "gemma3:4b", "gpt-oss:120b-cloud"]
    capabilities = ("completion", "tools", "thinking")
    hosts = {"gpt-oss:120b-cloud": "https://ollama.com:443"}
    return Ollama(lambda _: Says("Hello."), has, capabilities, trained=40_960, remote=hosts)


_SERVERS: dict[str, tuple[int, Callable[[], Respond]]] = {
    "ollama": (11434, _ollama),
    "lmstudio": (1234, LMStudio),
    "vllm": (8000, vllm),
    "llama-server": (8080, llama_server),
}
"""The usual port of each, and its fake."""


@dataclass
class ExampleWorld:
    """Runs the examples of one document."""

    folder: Path
    environment: dict[str, str]
    servers: ExitStack = field(default_factory=ExitStack)
    started: set[str] = field(default_factory=set)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def user(self) -> Path:
        """llm's user directory, where it is on Linux."""
        return self.home / ".config" / "io.datasette.llm"

    @property
    def work(self) -> Path:
        """Where examples run."""
        return self.home / "work"

    def run(self, example: Example) -> Iterator[str]:
        """Runs `example`; what is wrong with it, one text for each command."""
        for name in example.servers:
            if name not in self.started:
                self.started.add(name)
                port, fake = _SERVERS[name]
                self.servers.enter_context(StandIn(fake(), port=port))
        if example.kind == "console":
            yield from self._run_console(example)
        elif example.kind == "python":
            yield from self._run_python(example)
        else:
            yield from self._run_bash(example)

    def _run_bash(self, example: Example) -> Iterator[str]:
        # The line is counted from the line of the fence.
        trap = f"trap 'echo \"line $((LINENO + {example.line - 2})) failed\"' ERR"
        status, shown = self._shell(f"set -e -o pipefail; {trap}\n\n{example.text}\n")
        if status != 0:
            yield _failure(example.line, example.text, f"It ended with status {status}:\n{shown}")

    def _run_console(self, example: Example) -> Iterator[str]:
        before, commands = self._answers(), example.commands
        script = "".join(
            f"{_with_typed(command)}\nprintf '%s\\n' \"{_END.format(number)}\"\n"
            for number, command in enumerate(commands)
        )
        status, shown = self._shell(script)
        for number, command in enumerate(commands):
            printed, ended, rest = shown.partition(_END.format(number).removesuffix("$?"))
            line, _, shown = rest.partition("\n")
            if not ended:
                said = f"The shell ended with status {status}:\n{printed}"
                yield _failure(command.line, command.text, said)
                return
            if problem := self._problem(command, printed, int(line), before):
                yield _failure(command.line, command.text, problem)

    def _problem(self, command: Command, printed: str, status: int, before: list[str]) -> str:
        """What is wrong with what a command printed, and with its status; empty if nothing is."""
        expected = command.output
        if command.is_chat:
            expected, printed = _without_typed(expected), _without_prompts(printed)
        fails = any(line.startswith("Error: ") for line in command.output.splitlines())
        if status != 0 and not fails:
            return f"It ended with status {status}:\n{printed}"
        answers = self._answers()
        found = difference(expected, printed, pieces(answers))
        # What a pipe makes of an answer, and an answer that is not logged, cannot be found.
        unknown = _is_piped(command.text) or len(answers) == len(before)
        if found and _asks(command.text) and unknown and is_another_answer(expected, printed):
            return ""
        return found

    def _run_python(self, example: Example) -> Iterator[str]:
        script, answers = self.folder / "example.py", self.folder / "answers.json"
        script.write_text(f"{example.text}\n", "utf-8")
        answers.unlink(missing_ok=True)
        status, shown = self._execute([sys.executable, str(_SCRIPT), str(script), str(answers)])
        if status != 0:
            yield _failure(example.line, example.text, f"It ended with status {status}:\n{shown}")
        elif example.output is not None:
            said = [*json.loads(answers.read_text("utf-8")), *self._answers()]
            if found := difference(example.output, shown, pieces(said)):
                yield _failure(example.line, example.text, found)

    def _shell(self, script: str) -> tuple[int, str]:
        return self._execute(["bash", "-c", script])

    def _execute(self, command: list[str]) -> tuple[int, str]:
        """The status, and what was printed, with `~` for the home directory."""
        try:
            ended = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.work,
                env=self.environment,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            shown = (error.stdout or b"").decode(errors="replace")
            return 124, f"{shown}\nIt did not end within {TIMEOUT_S} s"
        shown = ended.stdout.decode(errors="replace")
        return ended.returncode, shown.replace(str(self.home), "~")

    def _answers(self) -> list[str]:
        """What llm's log has of models' answers and thoughts, the oldest first."""
        query = (
            "SELECT parts.text FROM parts JOIN messages ON messages.hash = parts.message_hash"
            " WHERE messages.role = 'assistant' AND parts.text <> '' ORDER BY parts.id"
        )
        with closing(sqlite3.connect(self.user / "logs.db")) as database:
            return [text for (text,) in database.execute(query)]


@contextmanager
def example_world(folder: Path, models: Mapping[str, Path]) -> Iterator[ExampleWorld]:
    """A world in `folder`, with `models` in its models folder, by the REF that pulled them."""
    world = ExampleWorld(folder, {})
    world.environment = {
        **os.environ,
        "HOME": str(world.home),
        "LLM_USER_PATH": str(world.user),
        "COLUMNS": "80",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "PYTHONIOENCODING": "utf-8",
    }
    world.user.mkdir(parents=True)
    _write_files(world.work)
    # Two commands that a pipe starts must not both create the log.
    migrations.migrate(sqlite_utils.Database(world.user / "logs.db"))  # type: ignore[no-untyped-call]
    (world.user / "localrun" / "models").mkdir(parents=True)
    # Two threads that wait for each other starve on a busy machine.
    (world.user / "localrun" / "config.json").write_text('{"threads": 1}\n')
    _put(models, world.user / "localrun" / "models")
    with world.servers:
        try:
            yield world
        finally:
            if (engines := world.user / "localrun" / "engine").exists():
                stop_all(engines)


def _put(models: Mapping[str, Path], folder: Path) -> None:
    """Puts models where `pull` would, and records them, without a copy of their bytes."""
    records = []
    for ref, file in models.items():
        target = folder / file.name
        try:
            target.hardlink_to(file)
        except OSError:
            target.symlink_to(file)
        pulled = PulledFile(path=file.name, size=file.stat().st_size, sha256=_sha256(file))
        records.append(PullRecord(ref=ref, source="starter", files=(pulled,), pulled_at=_PULLED_AT))
    values = [record.model_dump() for record in records]
    (folder / "pulled.json").write_text(json.dumps({"pulled": values}))


@cache
def _sha256(file: Path) -> str:
    known = {model.file_name: model.sha256 for model in (starter.TINY, starter.CODER)}
    return known.get(file.name) or hashlib.sha256(file.read_bytes()).hexdigest()


def _write_files(work: Path) -> None:
    notes = work / "notes"
    notes.mkdir(parents=True)
    for name, text in _NOTES.items():
        (notes / name).write_text(text, "utf-8")
    (work / "report.txt").write_text(_REPORT, "utf-8")
    (work / "photo.jpg").write_bytes(_JPEG)


def _with_typed(command: Command) -> str:
    """The command, with what is typed as its input."""
    if not command.typed:
        return command.text
    return f"{{ {command.text}\n}} <<'\x1f'\n{command.typed}\x1f"


def _without_typed(shown: str) -> str:
    """What the document shows of a conversation, without what a person types."""
    return "\n".join(line for line in shown.splitlines() if not line.startswith(">"))


def _without_prompts(printed: str) -> str:
    """A conversation as it is printed where no terminal echoes what is typed."""
    return re.sub(r"^(> )+", "", printed, flags=re.MULTILINE)


def _words(command: str) -> list[str]:
    """The words of a command, pipes and other operators among them."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    try:
        return [*lexer]
    except ValueError:
        return command.split()


def _asks(command: str) -> bool:
    """Whether it asks a model: `llm "…"`, `llm -m …`, `llm chat`."""
    words = _words(command)
    after = [words[at + 1] for at, word in enumerate(words[:-1]) if word == "llm"]
    others = {*cli.commands} - _ANSWERING
    return any(word not in others and word not in ("--help", "--version") for word in after)


def _is_piped(command: str) -> bool:
    """Whether another program gets what the last `llm` of the command prints."""
    words = _words(command)
    last = max((at for at, word in enumerate(words) if word == "llm"), default=-1)
    return "|" in words[last + 1 :]


def _failure(line: int, text: str, problem: str) -> str:
    shown = "\n".join(f"    $ {each}" for each in text.splitlines())
    return f"line {line}:\n{shown}\n{problem}\n"
