"""Records what a person sees on a terminal while this plugin works, in docs/terminal.md.

    python -m benchmarks.terminal_sessions [--only NAME,…] [--models DIR]
        [--llama-server PROGRAM --server-model FILE]

Runs real commands with the engine and the coder model (in DIR, or where the tests keep it), in a
temporary user directory, on a pseudo-terminal of 80 columns. A small model of a screen says what
stands in the line at the cursor after each piece of output. Each session has its date; those that
`--only` leaves out stay as they are in the document: cold-start, long-prompt, busy-engine,
busy-server (which needs PROGRAM, a llama-server, and a model that it runs), continued, download
(which needs the package index), pipe.
"""

import argparse
import codecs
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import record  # noqa: E402
from benchmarks.long_prompt import FILLER, FIRST_LINE  # noqa: E402
from llm_localrun.engine.stop import stop_all  # noqa: E402
from llm_localrun.engine_defaults import SLOTS  # noqa: E402
from llm_localrun.system.text import width_of  # noqa: E402
from tests.support import coder_model  # noqa: E402
from tests.support.environment import VARIABLES  # noqa: E402

DOCUMENT = ROOT / "docs" / "terminal.md"
_COLUMNS, _ROWS = 80, 24
_CODER = "local-qwen-coder"
_LONG_LINES, _SHORT_LINES = 38, 13
"""Of the story: some 3,000 tokens, and some 1,000."""
_ANSWER_OF_OTHERS = 200
"""Tokens."""
_SHOWN_OF_A_KIND = 5
_KIND_WIDTH = 24
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_RECORDED = "<!-- recorded by benchmarks/terminal_sessions.py -->"
"""Tells the test of the documents' examples why it does not run these."""
_HEAD = """\
# What a terminal shows

Long work shows itself in one line on stderr, from the second second on, if stderr is a terminal. \
`benchmarks/terminal_sessions.py` recorded these sessions on a terminal of 80 columns, with real \
models; each says when, and on what. Each row has the seconds since the command began, and what \
the line at the cursor then shows; of many alike, five are here. `(empty)` is the moment at which \
that line is cleared. The other rows stay: they are the answer, at the time of their first \
characters.
"""


@dataclass(frozen=True)
class State:
    """What a row of the screen shows from `seconds` on."""

    seconds: float
    row: int
    text: str
    width: int = 0
    """Columns that have been written to in this row, spaces included."""


@dataclass
class Screen:
    """What characters make of a terminal: all of its rows. It does not wrap; `check` says so."""

    rows: list[str] = field(default_factory=lambda: [""])
    states: list[State] = field(default_factory=list)
    _column: int = 0

    def show(self, seconds: float, text: str) -> None:
        """Takes up what was written at `seconds`."""
        for piece in re.split(r"(\r+\n|\r|\n)", _ESCAPE.sub("", text)):
            if piece.endswith("\n"):
                self.rows.append("")
                self._column = 0
            elif piece == "\r":
                self._column = 0
            elif piece:
                row = self.rows[-1].ljust(self._column)
                end = self._column + len(piece)
                self.rows[-1] = row[: self._column] + piece + row[end:]
                self._column = end
                self._note(seconds)

    def _note(self, seconds: float) -> None:
        row = self.rows[-1]
        state = State(seconds, len(self.rows) - 1, row.rstrip(), width_of(row))
        last = self.states[-1] if self.states else State(0, 0, "")
        if (state.row, state.text) != (last.row, last.text):
            self.states.append(state)

    def is_kept(self, state: State) -> bool:
        """Whether what `state` shows stays on the screen."""
        return bool(state.text) and self.rows[state.row].startswith(state.text)

    def check(self) -> None:
        """Fails if the line that shows work was so wide that a terminal wraps it."""
        for state in self.lines:
            if state.width >= _COLUMNS:
                raise SystemExit(f"{state.width} of {_COLUMNS} columns are used: {state.text!r}")

    @property
    def lines(self) -> list[State]:
        """The states of the line that shows work, with the moments at which it is empty."""
        return [state for state in self.states if not self.is_kept(state)]

    @property
    def kept(self) -> list[State]:
        """The rows that stay, each since it began."""
        first: dict[int, float] = {}
        for state in self.states:
            if self.is_kept(state):
                first.setdefault(state.row, state.seconds)
        return [State(seconds, row, self.rows[row].rstrip()) for row, seconds in first.items()]


def recorded(command: list[str], environment: Mapping[str, str], folder: Path) -> Screen:
    """Runs `command` in `folder` on a terminal, to its end."""
    import fcntl
    import pty
    import termios

    screen, decoder = Screen(), codecs.getincrementaldecoder("utf-8")("replace")
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    begun = time.monotonic()
    given = {**environment, "TERM": "xterm"}
    with subprocess.Popen(
        command,
        stdin=its,
        stdout=its,
        stderr=its,
        env=given,
        cwd=folder,
        start_new_session=True,
    ) as process:
        os.close(its)
        try:
            # Linux reports the end of a terminal as an error.
            with suppress(OSError):
                while more := os.read(ours, 4096):
                    screen.show(time.monotonic() - begun, decoder.decode(more))
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            os.close(ours)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {screen.rows}")
    screen.check()
    return screen


def rendered(command: str, screen: Screen) -> str:
    """A session as text: the command, the line's states, and what stays."""
    rows = [f"$ {command}"]
    for seconds, text in sorted(
        [(each.seconds, each.text or "(empty)") for each in thinned(screen.lines)]
        + [(each.seconds, each.text) for each in screen.kept],
        key=lambda pair: pair[0],
    ):
        first, *more = textwrap.wrap(text, _COLUMNS) or [""]
        rows += [f"{seconds:6.1f}  {first}", *(f"{'':6}  {each}" for each in more)]
    return "\n".join(rows)


def thinned(states: Iterable[State]) -> Iterator[State]:
    """A few of the states of each kind of line, the first and the last among them."""
    for _, group in groupby(states, key=lambda state: _kind(state.text)):
        alike = [*group]
        last = len(alike) - 1
        shown = min(last, _SHOWN_OF_A_KIND - 1)
        yield from (alike[round(n * last / shown) if shown else 0] for n in range(shown + 1))


def _kind(text: str) -> str:
    """What texts have in common that say how far the same work is."""
    return re.sub(r"\d[\d,.]*", "#", text)[:_KIND_WIDTH]


@dataclass
class Stage:
    """A user directory with the coder model, and the sessions recorded in it."""

    home: Path
    llama_server: str
    server_model: Path | None
    sessions: list[str] = field(default_factory=list)
    _stories: int = 0

    @property
    def environment(self) -> dict[str, str]:
        left_out = {*VARIABLES, "COLUMNS", "LINES", "NO_COLOR"}
        kept = {key: value for key, value in os.environ.items() if key not in left_out}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
        own = {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(self.home)}
        return {**kept, **own, "LLM_USER_PATH": str(self.home / "user")}

    def write_story(self, lines: int = _LONG_LINES) -> None:
        """Writes `story.txt`, which begins as no story before."""
        self._stories += 1
        beginning = f"Story {self._stories}. {FIRST_LINE}"
        (self.home / "story.txt").write_text(f"{beginning}\n\n{FILLER * lines}\n")

    def show(self, command: str) -> None:
        """Records a command."""
        screen = recorded(["sh", "-c", command], self.environment, self.home)
        self.sessions.append(rendered(command, screen).replace(str(self.home), "~"))

    def run(self, *arguments: str) -> None:
        """Runs `llm` unseen."""
        subprocess.run(["llm", *arguments], **self._unseen(), check=True)

    @contextmanager
    def prompting(self, model: str, count: int, at_once: int) -> Iterator[None]:
        """While `count` prompts of other people are answered, at length.

        Begins when as many have begun as the server answers at once.
        """
        command = ["llm", "-m", model, "-o", "max_tokens", str(_ANSWER_OF_OTHERS)]
        asked: list[subprocess.Popen[bytes]] = []
        answers = [self.home / f"answer-{number}" for number in range(count)]
        try:
            for number, answer in enumerate(answers):
                prompt = f"Write a long story about {number}."
                with answer.open("wb") as file:
                    given = {**self._unseen(), "stdout": file}
                    asked.append(subprocess.Popen([*command, prompt], **given))
            while sum(answer.stat().st_size > 0 for answer in answers) < at_once:
                if any(process.poll() for process in asked):
                    raise SystemExit("a prompt of other people failed")
                time.sleep(0.1)
            yield
        finally:
            for process in asked:
                process.terminate()
                process.wait()

    def _unseen(self) -> dict[str, Any]:
        null = subprocess.DEVNULL
        given = {"stdin": null, "stdout": null, "stderr": null}
        return {**given, "env": self.environment, "cwd": self.home}

    def stop(self) -> None:
        stop_all(self.home / "user" / "localrun" / "engine")


def _cold_start(stage: Stage) -> None:
    stage.stop()
    (model,) = (stage.home / "user" / "localrun" / "models").iterdir()
    with model.open("rb") as file:
        # The file has to be read from the disk.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    stage.show(f'llm -m {_CODER} -o max_tokens 40 "Name the primary colors."')


def _long_prompt(stage: Stage) -> None:
    stage.write_story()
    stage.run("-m", _CODER, "-o", "max_tokens", "1", "Hello")
    stage.show(
        f'llm -m {_CODER} -o max_tokens 40 -f story.txt "What is the password for the vault?"'
    )


def _busy_engine(stage: Stage) -> None:
    stage.run("-m", _CODER, "-o", "max_tokens", "1", "Hello")
    with stage.prompting(_CODER, 6, at_once=SLOTS):
        stage.show(f'llm -m {_CODER} -o max_tokens 40 "Name the primary colors."')


def _busy_server(stage: Stage) -> None:
    if not (stage.llama_server and stage.server_model):
        raise SystemExit("busy-server needs --llama-server and --server-model")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [stage.llama_server, "-m", str(stage.server_model), "--alias", "small", "-np", "1"]
    command += ["-c", "8192", "-t", "1", "--port", str(port)]
    null = subprocess.DEVNULL
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=null, stderr=null) as server:
        try:
            _wait_for(f"{url}/health")
            stage.run("localrun", "endpoints", "add", "box", url)
            # It creates llm's log, which two commands at once cannot.
            stage.run("-m", "local/box/small", "-o", "max_tokens", "1", "Hello")
            stage.write_story(_SHORT_LINES)
            with stage.prompting("local/box/small", 2, at_once=1):
                stage.show(
                    'llm -m local/box/small -o max_tokens 40 -f story.txt "What is the password?"'
                )
            stage.run("localrun", "endpoints", "remove", "box")
        finally:
            server.terminate()


def _wait_for(url: str) -> None:
    for _ in range(600):
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url):
            return
        time.sleep(0.1)
    raise SystemExit(f"{url} did not answer within 60 s")


def _continued(stage: Stage) -> None:
    stage.write_story()
    question = "What do the two clocks show?"
    stage.run("-m", _CODER, "-o", "max_tokens", "40", "-f", "story.txt", question)
    stage.stop()
    stage.show('llm -c -o max_tokens 40 "And what is the password for the vault?"')


def _download(stage: Stage) -> None:
    stage.show("llm localrun pull starter --tiny")
    stage.run("localrun", "rm", "local-smollm2")


def _pipe(stage: Stage) -> None:
    stage.write_story(_SHORT_LINES)
    stage.stop()
    stage.show(
        f'llm -m {_CODER} -o max_tokens 40 -f story.txt "Who winds the clock?"'
        " 2>errors.txt | cat; wc -c errors.txt"
    )


@dataclass(frozen=True)
class Session:
    title: str
    about: str
    play: Callable[[Stage], None]


SESSIONS = {
    "cold-start": Session(
        "A cold start", "No engine runs, and the file is not in the system's cache.", _cold_start
    ),
    "long-prompt": Session(
        "A long prompt", "The engine has loaded the model; `story.txt` has 3,000 tokens.",
        _long_prompt,
    ),
    "busy-engine": Session(
        "A busy engine", "Six other prompts are being answered, at length.", _busy_engine
    ),
    "busy-server": Session(
        "A busy llama-server",
        "It has one slot, and two other prompts came before; `story.txt` has 1,000 tokens.",
        _busy_server,
    ),
    "continued": Session(
        "A continued conversation",
        "The engine has ended since, and the evaluated prompt is restored from the disk.",
        _continued,
    ),
    "download": Session("A download", "From the package index.", _download),
    "pipe": Session(
        "A pipe",
        "No engine runs, and `story.txt` has 1,000 tokens; nothing is shown, and stderr is empty.",
        _pipe,
    ),
}  # fmt: skip


@contextmanager
def staged(models: Path, llama_server: str, server_model: Path | None) -> Iterator[Stage]:
    """A stage, whose engines end with the block."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        folder = home / "user" / "localrun" / "models"
        folder.mkdir(parents=True)
        (folder.parent / "config.json").write_text(json.dumps({"default_endpoints": False}))
        (folder / coder_model.FILE_NAME).symlink_to((models / coder_model.FILE_NAME).absolute())
        stage = Stage(home, llama_server, server_model)
        try:
            yield stage
        finally:
            stage.stop()


def changed(text: str, sections: Mapping[str, str]) -> str:
    """The document `text` with new `sections`, by title, in the order of SESSIONS."""
    before = dict(re.findall(r"^## (.*?)\n\n(.*?)(?=\n## |\Z)", text, re.DOTALL | re.MULTILINE))
    titles = [each.title for each in SESSIONS.values()]
    known = {title: before.get(title, "").strip() for title in titles} | dict(sections)
    parts = [f"## {title}\n\n{known[title]}\n" for title in titles if known[title]]
    return "\n".join([_HEAD, *parts])


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--only", default=",".join(SESSIONS))
    parser.add_argument("--models", type=Path, default=coder_model.cache_folder())
    parser.add_argument("--llama-server", default="")
    parser.add_argument("--server-model", type=Path)
    given = parser.parse_args()
    names, load = given.only.split(","), os.getloadavg()[0]
    if unknown := {*names} - {*SESSIONS}:
        parser.error(f"there is no session {', '.join(sorted(unknown))}: {', '.join(SESSIONS)}")
    # What is started ends with the benchmark.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    measured = record.where("terminal_sessions.py", ["llm", "xllamacpp"], load)
    sections = {}
    with staged(given.models, given.llama_server, given.server_model) as stage:
        for name in names:
            session = SESSIONS[name]
            session.play(stage)
            shown = stage.sessions[-1]
            print(f"{session.title}\n{shown}\n", flush=True)
            parts = (session.about, measured, _RECORDED, f"```console\n{shown}\n```")
            sections[session.title] = "\n\n".join(parts)
    before = DOCUMENT.read_text("utf-8") if DOCUMENT.exists() else ""
    DOCUMENT.write_text(changed(before, sections), "utf-8")


if __name__ == "__main__":
    main()
