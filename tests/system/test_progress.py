"""The line that shows work: its text, where it stands, and that it goes away."""

import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import TypeAlias

import pytest

from llm_localrun.system import progress
from llm_localrun.system.progress import Progress, Work, duration_text, hidden, tell, working
from llm_localrun.system.text import width_of
from tests.support.terminal import drawn_by, drawn_in

pytestmark = pytest.mark.pure

GB, MB, KB = 10**9, 10**6, 10**3
Trace: TypeAlias = Callable[[FrameType, str, object], "Trace | None"]
Reports: TypeAlias = Sequence[tuple[float, Progress]]

LONG = "loading Qwen3-Coder-30B-A3B-Instruct-2507-UD-Q4_K_XL"


def work_of(reports: Reports) -> Work:
    """Work that began at 0 with the first of `reports`, as the others said."""
    now = 0.0
    work = Work(reports[0][1], lambda: now)
    for now, each in reports:  # noqa: B007  # the clock reads it
        work.report(each)
    return work


def text_of(reports: Reports, now: float, width: int = 100) -> str:
    return work_of(reports).text(now, width)


def files(
    *done: tuple[float, float], what: str = "loading x", total: int = 25 * GB // 10
) -> Reports:
    return [(0.0, Progress(what)), *((at, Progress(what, int(size), total)) for at, size in done)]


def tokens(*done: tuple[float, int], is_estimate: bool = False) -> Reports:
    return [
        (at, Progress("reading the prompt", each, 6000, "tokens", is_estimate)) for at, each in done
    ]


@pytest.mark.parametrize(
    ("reports", "now", "expected"),
    [
        ([(0, Progress("waiting for 2 other prompts"))], 14.0, "waiting for 2 other prompts, 14 s"),
        (files((1, 5e8), (3, 1.5e9)), 3.0, "loading x: 1.5 of 2.5 GB, 500 MB/s, 2 s left"),
        (files((1, 5e8), (3, 998e6)), 3.0, "loading x: 998 MB of 2.5 GB, 249 MB/s, 6 s left"),
        (
            files((1, 0), (3, 4e4), total=2 * MB),
            3.0,
            "loading x: 40 kB of 2.0 MB, 20 kB/s, 98 s left",
        ),
        # Nothing of the rate is known in the first second.
        (files((1, 0), (1.5, 1.5e9)), 1.5, "loading x: 1.5 of 2.5 GB, 2 s"),
        ([(0, Progress("x", 5 * MB)), (5, Progress("x", 55 * MB))], 5.0, "x: 55 MB, 10 MB/s, 5 s"),
        (tokens((0, 0), (10, 2560)), 10.0, "reading the prompt: 2,560 of 6,000 tokens, 13 s left"),
        (
            tokens((0, 0), (10, 2560), is_estimate=True),
            10.0,
            "reading the prompt: about 2,560 of 6,000 tokens, 13 s left",
        ),
        # Between two reports, the time goes on.
        (tokens((0, 0), (10, 2560)), 18.0, "reading the prompt: 2,560 of 6,000 tokens, 5 s left"),
        # It is never over before it is over.
        (tokens((0, 0), (10, 5900)), 10.0, "reading the prompt: 5,900 of 6,000 tokens, 1 s left"),
        (tokens((0, 0), (10, 5900)), 12.0, "reading the prompt: 5,900 of 6,000 tokens, 12 s"),
        (tokens((0, 0), (10, 6000)), 60.0, "reading the prompt: 6,000 of 6,000 tokens, 60 s"),
        # What was there already says nothing about the speed.
        (
            [(0, Progress("reading the prompt")), *tokens((1, 4000), (11, 5000))],
            11.0,
            "reading the prompt: 5,000 of 6,000 tokens, 10 s left",
        ),
        # Nor does what another step did, or what was before it began again.
        (
            [
                *files((5, 2.4e9)),
                (6, Progress("checking x", 0, GB)),
                (8, Progress("checking x", GB // 5, GB)),
            ],
            8.0,
            "checking x: 200 MB of 1.0 GB, 100 MB/s, 8 s left",
        ),
        (files((5, 2.4e9), (6, 0), (8, 1e9)), 8.0, "loading x: 1.0 of 2.5 GB, 500 MB/s, 3 s left"),
        # A source that falls silent is slower than it was.
        (
            files((1, 0), (2, 1e8), (3, 2e8)),
            21.0,
            "loading x: 200 MB of 2.5 GB, 10 MB/s, 4 min left",
        ),
        ([(0, Progress("x", 0, 0))], 2.0, "x, 2 s"),
        ([(0, Progress("x", 3, 2))], 2.0, "x: 0 of 0 kB, 2 s"),
        ([(0, Progress("x", 42, 100, "%"))], 2.0, "x: 42%, 2 s"),
        ([(0, Progress("x", 42, None, "%", is_estimate=True))], 2.0, "x: about 42%, 2 s"),
        # Waiting for fewer is the same waiting.
        (
            [
                (0, Progress("waiting for 2 other prompts")),
                (9, Progress("waiting for another prompt")),
            ],
            12.0,
            "waiting for another prompt, 12 s",
        ),
        ([(0, Progress("waiting for x")), (9, Progress("loading x"))], 12.0, "loading x, 3 s"),
        # So is waiting again after the server has said what it does.
        (
            [
                (0, Progress("waiting for the answer")),
                *tokens((2, 4000), (8, 5000)),
                (9, Progress("waiting for the answer")),
            ],
            12.0,
            "waiting for the answer, 12 s",
        ),
        ([(0, Progress("loading a\x1b[2Jb\n"))], 1.0, "loading a\\x1b[2Jb\\n, 1 s"),
    ],
)
def test_text(reports: Reports, now: float, expected: str) -> None:
    assert text_of(reports, now) == expected


NAMED = files((1, 2e8), (3, 1.2e9), what=LONG)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (99, f"{LONG}: 1.2 of 2.5 GB, 500 MB/s, 3 s left"),
        (79, "loading Qwen3-Coder-30B-A3B-Instruct-2507...: 1.2 of 2.5 GB, 500 MB/s, 3 s left"),
        (50, "loading Qwen3-Coder-30...: 1.2 of 2.5 GB, 3 s left"),
        (39, "loading Qwen3-Coder-3...: 48%, 3 s left"),
        (19, "loading Qwe...: 48%"),
        (5, "...: "),
        (1, "."),
    ],
)
def test_a_name_is_shortened_before_the_numbers(width: int, expected: str) -> None:
    shown = text_of(NAMED, 3.0, width)
    assert shown == expected
    assert len(shown) <= width


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (39, "reading the prompt: 42%, 13 s left"),
        (23, "reading the prompt: 42%"),
        (21, "reading the p...: 42%"),
        (12, "reading: 42%"),
    ],
)
def test_a_narrow_terminal_shows_whole_words(width: int, expected: str) -> None:
    assert text_of(tokens((0, 0), (10, 2560)), 10.0, width) == expected


@pytest.mark.parametrize("name", ["模型" * 40, "e\u0301" * 60, "👩\u200d💻" * 20, "\u202e" * 30])
@pytest.mark.parametrize("width", [19, 39, 79])
def test_odd_names_are_not_wider_than_the_terminal(name: str, width: int) -> None:
    shown = text_of(files((1, 2e8), (3, 1.2e9), what=f"loading {name}"), 3.0, width)
    assert width_of(shown) <= width
    assert "48%" in shown or "1.2 of" in shown


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.4, "0 s"), (99.4, "99 s"), (300, "5 min"), (7200, "2 h")]
)
def test_durations(seconds: float, expected: str) -> None:
    assert duration_text(seconds) == expected


def test_the_time_that_is_left_does_not_jump() -> None:
    """A download of 100 s whose speed changes by a half from second to second."""
    now, done = 0.0, 0.0
    work = Work(Progress("x", 0, 1000 * MB), lambda: now)
    shown: list[int] = []
    while done < 1000 * MB:
        now += 0.25
        done += MB * (1.25 if int(now) % 2 else 3.75)
        work.report(Progress("x", int(done), 1000 * MB))
        if found := re.search(r"(\d+) s left", work.text(now, 80)):
            shown.append(int(found[1]))
    steps = [before - after for before, after in pairwise(shown)]
    assert {*steps} <= {-1, 0, 1}
    assert shown[-1] == 1


# On a terminal

HEAD = f"""
import contextlib, io, os, signal, sys, threading, time
sys.path.insert(0, {str(Path.cwd())!r})
from llm_localrun.system import progress
from llm_localrun.system.progress import Progress, hidden, tell, working
progress._DELAY_S = progress._REDRAW_S = 0.05
"""
CASES: dict[str, tuple[str, str, str]] = {
    # The code, a line that stood there meanwhile, and what stands there at the end.
    "it ends": ("with working(Progress('loading x')): time.sleep(0.4)", "loading x", ""),
    "it fails": (
        "with contextlib.suppress(OSError), working(Progress('loading x')):\n"
        "    time.sleep(0.4); raise OSError",
        "loading x",
        "",
    ),
    "Ctrl-C": (
        "threading.Timer(0.4, os.kill, [os.getpid(), signal.SIGINT]).start()\n"
        "with contextlib.suppress(KeyboardInterrupt), working(Progress('loading x')):\n"
        "    time.sleep(60)\n"
        "time.sleep(0.2); tell('stopped')",
        "loading x",
        "stopped\n",
    ),
    "the program ends": (
        "work = working(Progress('loading x')); work.__enter__(); time.sleep(0.4); sys.exit()",
        "loading x",
        "",
    ),
    "a thread works on": (
        "def run():\n"
        "    with working(Progress('loading x')): time.sleep(60)\n"
        "threading.Thread(target=run, daemon=True).start(); time.sleep(0.4)",
        "loading x",
        "",
    ),
    "a text is printed": (
        "with working(Progress('loading x')):\n"
        "    time.sleep(0.4); tell('one'); time.sleep(0.2); tell('two')",
        "loading x",
        "one\ntwo\n",
    ),
    "a text without a line end": (
        "with working(Progress('loading x')):\n"
        "    tell('one ', ends_line=False); time.sleep(0.3); tell('two'); time.sleep(0.3)",
        "loading x",
        "one two\n",
    ),
    "work within work": (
        "with working(Progress('outer')), working(Progress('inner')): time.sleep(0.4)",
        "inner",
        "",
    ),
    "work after work within it": (
        "with working(Progress('outer')):\n"
        "    with working(Progress('inner')): pass\n"
        "    time.sleep(0.4)",
        "outer",
        "",
    ),
    "work in two threads": (
        "def run():\n"
        "    with working(Progress('other')): time.sleep(0.2)\n"
        "thread = threading.Thread(target=run)\n"
        "with working(Progress('main')):\n"
        "    thread.start(); thread.join(); time.sleep(0.3)",
        "main",
        "",
    ),
    "stderr is replaced": (
        "with working(Progress('loading x')):\n"
        "    time.sleep(0.3)\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as caught: time.sleep(0.3)\n"
        "print(repr(caught.getvalue()))",
        "loading x",
        "",
    ),
    "a forked process works": (
        "with working(Progress('loading x')):\n"
        "    time.sleep(0.3)\n"
        "    if os.fork() == 0:\n"
        "        with working(Progress('child')): pass\n"
        "        os._exit(0)\n"
        "    assert os.wait()[1] == 0",
        "loading x",
        "",
    ),
    "an ASCII terminal": (
        "sys.stderr.reconfigure(encoding='ascii', errors='strict')\n"
        "with working(Progress('loading \\xe9')): time.sleep(0.4)",
        "loading \\xe9",
        "",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_stands_there_and_goes_away(case: str) -> None:
    code, line, left = CASES[case]
    ended = drawn_by(sys.executable, "-c", HEAD + code)
    assert (ended.status, ended.drawn.screen) == (0, left)
    assert line in {each.rpartition(", ")[0] or each for each in ended.drawn.lines}
    assert ended.stdout in ("", "''\n")


@pytest.mark.parametrize(
    "code",
    [
        "for _ in range(100):\n    with working(Progress('x')): pass",
        "progress._DELAY_S = 60\nwith working(Progress('x')): time.sleep(0.3)",
        "with hidden(), working(Progress('x')): time.sleep(0.3)",
        "sys.stderr = None\nwith working(Progress('x')): time.sleep(0.3)",
        "sys.stderr = type('', (), {'closed': 1})()\nwith working(Progress('x')): time.sleep(0.3)",
        "sys.stderr.close()\nwith working(Progress('x')): time.sleep(0.3)",
    ],
)
def test_nothing_is_drawn(code: str) -> None:
    ended = drawn_by(sys.executable, "-c", HEAD + code)
    assert (ended.status, ended.drawn) == (0, ([], ""))


SHOWS_X = HEAD + "with working(Progress('loading ' + 'x' * 300)): time.sleep(0.4)"


@pytest.mark.parametrize(
    ("columns", "environment", "width"),
    [
        (80, {}, 77),
        (20, {}, 17),
        (0, {}, 77),
        (0, {"COLUMNS": "40"}, 37),
        (60, {"COLUMNS": "40"}, 37),
        # A value from before the window became narrower.
        (60, {"COLUMNS": "200"}, 57),
        (60, {"COLUMNS": "9" * 30}, 57),
        (60, {"COLUMNS": "-3"}, 57),
        (60, {"TERM": "dumb"}, 57),
        (60, {"NO_COLOR": "1"}, 57),
        (60, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, 57),
    ],
)
def test_the_line_is_as_wide_as_the_terminal(
    columns: int, environment: dict[str, str], width: int
) -> None:
    ended = drawn_by(sys.executable, "-c", SHOWS_X, columns=columns, environment=environment)
    assert ended.drawn.lines[0].endswith("x..., 1 s")
    assert {len(each) for each in ended.drawn.lines} == {width}
    assert ended.drawn.screen == ""


def test_nothing_in_a_pipe() -> None:
    done = subprocess.run([sys.executable, "-c", SHOWS_X], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


BEHIND = """
import fcntl, subprocess, termios
os.setsid()
fcntl.ioctl(2, termios.TIOCSCTTY, 0)
subprocess.run([sys.executable, "-c", os.environ["CODE"]], preexec_fn=os.setpgrp, check=True)
"""


def test_a_program_in_the_background_draws_nothing() -> None:
    code = HEAD + "with working(Progress('x')): time.sleep(0.3)\nprint('done')"
    ended = drawn_by(sys.executable, "-c", HEAD + BEHIND, environment={"CODE": code})
    assert (ended.status, ended.stdout, ended.drawn) == (0, "done\n", ([], ""))


def test_a_terminal_that_is_closed_stops_nothing() -> None:
    import pty

    ours, its = pty.openpty()
    code = HEAD + "with working(Progress('x')):\n    print(os.read(0, 1)); time.sleep(0.3)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=its
    ) as process:
        os.close(its)
        assert os.read(ours, 9).startswith(b"\rx")
        os.close(ours)
        assert process.communicate(b"x")[0] == b"b'x'\n"
    assert process.returncode == 0


# In this process


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setattr("sys.stderr", stream := Terminal())
    yield stream


IN_SCREEN = ("add", "remove", "hide", "unhide", "clear", "_write")


def test_much_short_work_has_one_thread(terminal: Terminal) -> None:
    before = threading.active_count()
    for _ in range(2000):
        with working(Progress("x")) as work:
            work.report(Progress("x", 1, 2))
    assert threading.active_count() <= before + 1
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("block", [lambda: working(Progress("x")), hidden])
def test_an_interrupt_leaves_nothing_behind(
    block: Callable[[], AbstractContextManager[object]],
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C may come wherever Python looks for signals: in each line that it runs."""
    screen, lines = progress._screen, 0

    def interrupt(at: int) -> None:
        seen, last = 0, dict[FrameType, int]()

        def trace(frame: FrameType, event: str, _: object) -> "Trace | None":
            nonlocal seen
            code = frame.f_code
            # Before these, nothing has begun; after them, all of it is over.
            if code.co_filename != progress.__file__ or code.co_name not in IN_SCREEN:
                return None
            # Python releases a lock at the end of its block before it looks for signals: then the
            # number of the line is that of the block's beginning.
            is_new = event == "line" and frame.f_lineno > last.get(frame, 0)
            last[frame] = max(frame.f_lineno, last.get(frame, 0))
            seen += is_new
            if is_new and seen == at:
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            with block():
                pass
        finally:
            sys.settrace(None)

    for lines in range(1, 500):
        try:
            interrupt(lines)
        except KeyboardInterrupt:
            assert (screen._works, screen._hiding) == ([], [])
        else:
            break
    assert 5 < lines < 499
    acquired: list[bool] = []

    def acquire() -> None:
        acquired.append(screen.lock.acquire(blocking=False))
        screen.lock.release()

    other = threading.Thread(target=acquire)
    other.start()
    other.join()
    assert acquired == [True]


def test_reports_from_many_threads() -> None:
    work = Work(Progress("x"))
    is_over = threading.Event()

    def report() -> None:
        for at in range(3000):
            work.report(Progress(f"x{at % 3}", at, 3000))

    threads = [threading.Thread(target=report) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert work.text(0.0, 80).startswith("x")
    is_over.set()


def test_tell_escapes_what_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    tell("a\x1b[2J")
    tell()
    assert capsys.readouterr().err == "a\\x1b[2J\n\n"


def test_what_a_terminal_shows() -> None:
    assert drawn_in("\rab\rc\r\n1\r  \r") == (["ab", "cb", "1"], "cb\n")
