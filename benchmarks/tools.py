"""How often a small model's tool calls are valid and executed: `python -m benchmarks.tools`.

Asks the 40 prompts of `tools_prompts.json`, with its six tools, of real models in the real engine,
through llm's Python API. A call counts if llm has executed it without an exception, and a prompt if
at least one of its calls was executed and none failed. Prints a table; each prompt that does not
count is listed.

It also looks for calls where there are none: 226 texts from servers that stand in for real ones
(`tests/support/no_calls.py`), and what the coder model answers to the 40 questions of
`plain_questions.txt`, which need no tool; what it wrote has to be what llm gets.

    --model NAME   coder or starter; can be repeated
    --mode NAME    auto, "no repair" or required; can be repeated
    --part NAME    calls, texts or questions; can be repeated
    --quick        ten prompts, at temperature 0 only
    --threads N    threads of the engine, if not its usual number
    --log FILE     appends what happened to each prompt, as lines of JSON
    --write        writes the tables into docs/design/tools.md

The starter model's template knows no tools, so it is asked with `tool_choice required` only. All of
it takes an hour or two on 2 cores. Uses temporary folders; the coder model is fetched once.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jsonschema
import llm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import record  # noqa: E402
from llm_localrun.engine.stop import stop_all  # noqa: E402
from llm_localrun.pull import starter  # noqa: E402
from llm_localrun.wire import http  # noqa: E402
from tests.support import coder_model, environment, six_tools  # noqa: E402
from tests.support.no_calls import CUTS, LANGUAGES, answers, wrong_answers  # noqa: E402
from tests.support.six_tools import Question  # noqa: E402

RECORD = ROOT / "docs" / "design" / "tools.md"
QUESTIONS = Path(__file__).with_name("plain_questions.txt")
_STARTER = ROOT / ".pytest_cache" / "d" / "localrun" / "models" / starter.FILE_NAME

MODELS = {"coder": "local-qwen-coder", "starter": "local-smollm2"}
MODES: dict[str, dict[str, Any]] = {
    "auto": {},
    "no repair": {"tool_repair": "off"},
    "required": {"tool_choice": "required"},
}
RUNS = [("coder", "auto"), ("coder", "no repair"), ("coder", "required"), ("starter", "required")]
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "default, seeds 1 to 3": [{"seed": 1}, {"seed": 2}, {"seed": 3}],
    "temperature 0": [{"temperature": 0}],
}
PARTS = ("calls", "texts", "questions")
MAX_TOKENS = 500
"""Of one answer: some do not end by themselves. What is received of more ends the trial."""
_CHAIN_LIMIT = 5
"""The usual one of llm's command."""


class Endless(Exception):
    """An answer does not end."""


@dataclass
class Tap:
    """What is sent to the engine, and what comes back."""

    bodies: list[Mapping[str, Any]] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)

    @contextlib.contextmanager
    def listening(self) -> Iterator["Tap"]:
        stream = http.stream
        http.stream = partial(self._stream, stream)
        try:
            yield self
        finally:
            http.stream = stream

    def _stream(self, stream: Any, request: http.HttpRequest) -> Generator[Any, None, None]:
        self.bodies.append(request.body)
        self.replies.append(b"")
        with contextlib.closing(stream(request)) as received:
            for piece in received:
                if isinstance(piece, bytes):
                    self.replies[-1] += piece
                    if self.replies[-1].count(b"data: ") > MAX_TOKENS:
                        raise Endless(f"an answer did not end within {MAX_TOKENS:,} tokens")
                yield piece

    @property
    def texts(self) -> list[str]:
        """What the model wrote in each reply, as the server sent it."""
        return [_content(reply) for reply in self.replies]


def _content(reply: bytes) -> str:
    lines = (line.removeprefix(b"data: ") for line in reply.splitlines())
    payloads = (json.loads(line) for line in lines if line.startswith(b"{"))
    choices = (choice for payload in payloads for choice in payload.get("choices", ()))
    return "".join((choice.get("delta") or {}).get("content") or "" for choice in choices)


@dataclass
class Trial:
    """What became of one prompt."""

    prompt: str
    expected: tuple[str, ...]
    executed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    answers: int = 0
    error: str = ""
    """What ended the chain."""
    seconds: float = 0.0
    """Until the first answer was whole."""
    texts: list[str] = field(default_factory=list)

    @property
    def is_valid(self) -> bool:
        return bool(self.executed) and not self.failed

    @property
    def is_right(self) -> bool:
        """Whether the first call is one that was asked for."""
        return self.is_valid and self.executed[0] in self.expected

    @property
    def has_all(self) -> bool:
        return self.is_valid and not Counter(self.expected) - Counter(self.executed)

    @property
    def is_repaired(self) -> bool:
        """Whether the model was asked more often than it answered."""
        return len(self.texts) > self.answers

    @property
    def problem(self) -> str:
        if self.failed:
            return f"failed: {'; '.join(self.failed)}"
        return "" if self.executed and not self.error else self.error or "no call"


def try_prompt(model: Any, question: Question, options: Mapping[str, Any]) -> Trial:
    """Asks `model`, a chat model of llm's, and has llm run the tools that it calls."""
    trial = Trial(question.prompt, question.expected)
    waiting: list[str] = []

    def before(_tool: Any, call: llm.ToolCall) -> None:
        waiting.append(f"{call.name} {json.dumps(dict.copy(call.arguments))}")

    def after(_tool: Any, call: llm.ToolCall, result: llm.ToolResult) -> None:
        if result.exception is None:
            waiting.pop()
            trial.executed.append(call.name)
        else:
            waiting[-1] += f": {str(result.exception).splitlines()[0]}"

    begun = time.monotonic()
    chain = model.conversation(chain_limit=_CHAIN_LIMIT).chain(
        question.prompt,
        tools=[*six_tools.tools()],
        options=dict(options),
        before_call=before,
        after_call=after,
    )
    with Tap().listening() as tap:
        try:
            for response in chain.responses():
                trial.answers += 1
                response.text()
                trial.seconds = trial.seconds or time.monotonic() - begun
        except (llm.ModelError, ValueError, Endless) as error:
            trial.error = str(error)
    trial.failed, trial.texts = waiting, tap.texts
    return trial


def calls_table(given: argparse.Namespace) -> Iterator[str]:
    """The table of calls; lists on stderr what did not go well."""
    yield (
        "| model | calls | settings | prompts | valid calls | right tool | both of two | repaired |"
        " failed | none | errors | seconds |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    for name, mode in RUNS:
        if name not in (given.model or MODELS) or mode not in (given.mode or MODES):
            continue
        for title, settings in SETTINGS.items():
            if given.quick and len(settings) > 1:
                continue
            trials = []
            for setting in settings:
                options = {**MODES[mode], **setting}
                for trial in _trials(name, options, quick=given.quick):
                    trials.append(trial)
                    _report(f"{name}, {mode}", setting, trial, given.log)
            yield _row(name, mode, title, trials)


def _trials(name: str, options: Mapping[str, Any], *, quick: bool) -> Iterator[Trial]:
    model = llm.get_model(MODELS[name])
    for question in six_tools.questions()[:: 4 if quick else 1]:
        yield try_prompt(model, question, options)


def _report(run: str, setting: Mapping[str, Any], trial: Trial, log: Path | None) -> None:
    if trial.problem or not trial.is_right:
        problem = trial.problem or f"wrong tool: {trial.executed[0]}"
        print(f"{run}, {dict(setting)}: {trial.prompt}: {problem}", file=sys.stderr)
    if log:
        with log.open("a") as file:
            file.write(json.dumps({"run": run, **setting, **asdict(trial)}) + "\n")


def _row(name: str, mode: str, title: str, trials: list[Trial]) -> str:
    pairs = [trial for trial in trials if len(trial.expected) > 1]
    cells = (
        name,
        mode,
        title,
        len(trials),
        sum(trial.is_valid for trial in trials),
        sum(trial.is_right for trial in trials),
        f"{sum(trial.has_all for trial in pairs)} of {len(pairs)}",
        sum(trial.is_repaired for trial in trials),
        sum(bool(trial.failed) for trial in trials),
        sum(not trial.executed and not trial.failed for trial in trials),
        sum(bool(trial.error) for trial in trials),
        f"{median(trial.seconds for trial in trials):.1f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def texts_lines() -> Iterator[str]:
    """What became of the texts that call nothing."""
    ways = [(language, cut) for language in LANGUAGES for cut in (*CUTS, "")]
    wrong = [line for way in ways for line in wrong_answers(*way)]
    for line in wrong:
        print(line, file=sys.stderr)
    sent = len(answers()) * len(ways)
    yield (
        f"- {len(answers())} texts without a call, each sent in {len(ways)} ways (two languages;"
        " whole, in single characters, in random pieces, not streamed) with six tools offered:"
        f" {sent - len(wrong):,} of {sent:,} arrived as they were, to the byte, and without a"
        " second request, but for those that are calls of tools that are not offered"
        f" ({sum(answer.names_unknown for answer in answers())} of the texts)."
    )


def questions_lines(*, quick: bool) -> Iterator[str]:
    """What became of the coder model's answers to questions that need no tool."""
    model = llm.get_model(MODELS["coder"])
    asked = QUESTIONS.read_text("utf-8").splitlines()[:: 4 if quick else 1]
    found: Counter[str] = Counter()
    again = 0
    for question in asked:
        with Tap().listening() as tap:
            response = model.prompt(
                question, tools=[*six_tools.tools()], temperature=0, max_tokens=400
            )
            text, calls = response.text(), response.tool_calls()
        outcome = _outcome(text, bool(calls), tap)
        found[outcome] += 1
        again += len(tap.bodies) > 1
        if outcome in (_CHANGED, _FALSE, _ANOTHER):
            print(f"{question}: {outcome}: {tap.texts!r} -> {text!r} {calls}", file=sys.stderr)
    counts = "; ".join(f"{found[outcome]} {outcome}" for outcome in _OUTCOMES)
    yield (
        f"- {len(asked)} questions that need no tool, asked of the coder model with six tools"
        f" offered (temperature 0): {counts}. {again} were asked twice."
    )


_SAME = "were text and arrived to the byte"
_OWN = "were a whole valid call that the model wrote by itself"
_REPAIRED = "were a failed call and repaired"
_ANOTHER = "were a call of a tool that is not offered, and became one of a tool that is"
_FALSE = "were text and became a call"
_CHANGED = "arrived otherwise"
_OUTCOMES = (_SAME, _OWN, _REPAIRED, _ANOTHER, _FALSE, _CHANGED)


def _outcome(text: str, has_calls: bool, tap: Tap) -> str:
    if not has_calls:
        return _SAME if text == tap.texts[0] else _CHANGED
    if len(tap.bodies) > 1:
        return _REPAIRED if "response_format" in tap.bodies[-1] else _ANOTHER
    return _OWN if _is_call(tap.texts[0]) else _FALSE


def _is_call(text: str) -> bool:
    """Whether a text, or all that its fence or its tags hold, is a valid call of an offered tool.

    A judge of its own, stricter than what it judges: a text that only leniency makes a call has
    to be looked at.
    """
    inner = re.fullmatch(
        r"\s*(?:```(?:json)?|<tool_call>)?\s*(\{.*\})\s*(?:```|</\w+>)?\s*", text, re.S
    )
    schemas = {tool.name: tool.input_schema for tool in six_tools.tools()}
    try:
        call = json.loads(inner[1] if inner else "")
        jsonschema.validate(call["arguments"], schemas[call["name"]])
    except (ValueError, KeyError, TypeError, jsonschema.ValidationError):
        return False
    return True


def where() -> str:
    """When and on what it was measured."""
    measured = record.where("tools.py", ["llm", "xllamacpp"], os.getloadavg()[0])
    return (
        f"{measured} Models: Qwen2.5-Coder-0.5B-Instruct Q4_K_M (coder), SmolLM2-135M-Instruct"
        " Q4_1 (starter)."
    )


def write(lines: str) -> None:
    """Puts `lines` between the markers of the design record, which may not be there yet."""
    text = RECORD.read_text("utf-8") if RECORD.exists() else ""
    if "<!-- tool-calls -->" not in text:
        text += "<!-- tool-calls -->\n\n-\n\n<!-- /tool-calls -->\n"
    between = re.compile(r"(?<=<!-- tool-calls -->\n\n).*(?=\n\n<!-- /tool-calls -->)", re.DOTALL)
    RECORD.write_text(between.sub(lambda _: lines, text), "utf-8")


@contextlib.contextmanager
def models_in_place(models: Iterable[Path], threads: int | None) -> Iterator[None]:
    """A user directory with the models, whose engines end with the block."""
    with tempfile.TemporaryDirectory() as name:
        user = Path(name) / "user"
        folder = user / "localrun" / "models"
        folder.mkdir(parents=True)
        config = {"default_endpoints": False, **({"threads": threads} if threads else {})}
        (user / "localrun" / "config.json").write_text(json.dumps(config))
        for model in models:
            (folder / model.name).symlink_to(model)
        with environment.cleaned(user, Path(name) / "home"):
            try:
                yield
            finally:
                stop_all(user / "localrun" / "engine")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--model", action="append", choices=[*MODELS])
    parser.add_argument("--mode", action="append", choices=[*MODES])
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--starter", type=Path, default=_STARTER)
    given = parser.parse_args()
    if not given.starter.exists():
        parser.error(f"{given.starter} does not exist: run the tests once, or give --starter FILE")
    return given


def main() -> int:
    given = _options()
    parts = given.part or PARTS
    # The engines end with the benchmark.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    coder = coder_model.fetched(coder_model.cache_folder())
    blocks = []
    with models_in_place([coder, given.starter.resolve()], given.threads):
        if "calls" in parts:
            blocks.append("\n".join(calls_table(given)))
        lines = [*(texts_lines() if "texts" in parts else ())]
        lines += questions_lines(quick=given.quick) if "questions" in parts else ()
    text = "\n\n".join(filter(None, [*blocks, "\n".join(lines), where()]))
    print(f"\n{text}")
    if given.write:
        write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
