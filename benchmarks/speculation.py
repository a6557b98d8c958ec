"""What guessing from the conversation saves or costs: `-o draft_model auto` and `ngram`.

    .venv/bin/python benchmarks/speculation.py [--model FILE] [--rounds N]

Runs an engine for each way and asks each question of all of them in turn, at temperature 0, after
its prompt has been read. Prints the ratio of tokens per second of CPU time, which other work on the
machine changes little, and of tokens per second; both beside an engine that guesses nothing.
"""

import argparse
import http.client
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import psutil

from llm_localrun.engine.launch import find_or_start
from llm_localrun.engine.settings import EngineLimits, EngineRequest
from llm_localrun.engine.state import AUTO, NGRAM, EngineSettings, EngineState
from llm_localrun.engine.stop import stop_all

CODER = (
    Path.home() / ".cache/llm-localrun-tests/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
)  # what the tests keep
CODE = Path(tempfile.__file__).read_text()[3300:5600]
"""Some 600 tokens of a program."""
TEXT = (
    "The harbour master kept two clocks on the wall of his office, and they had not agreed for"
    " eleven years. One had come with the building. The other had belonged to his father, who had"
    " wound it every Sunday evening and had taught his son to do the same. Ships came in by the"
    " first clock, because the authority in the capital required it; tea was made by the second."
)
QUESTIONS = {
    "rewriting": (
        f"Add a docstring to each function, and return all of the code.\n```python\n{CODE}```",
        f"Rename `dir` to `folder` everywhere, and return all of the code.\n```python\n{CODE}```",
        f"Correct the spelling of this text, and return all of it.\n\n{TEXT}",
    ),
    "prose": (
        "Write a story about a lighthouse keeper who finds a letter in a bottle.",
        "Explain how a refrigerator works, to somebody who has never seen one.",
        "Write a Python program that plays tic-tac-toe against a user in a terminal.",
        "List 20 famous rivers with their countries and one sentence on each.",
    ),
}
WAYS = ("", AUTO, NGRAM)


@dataclass(frozen=True)
class Answer:
    text: str
    timings: dict[str, Any]
    by_processor: float
    """Tokens per second of CPU time."""
    by_clock: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=CODER)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=400)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as user:
        os.environ |= {"LLM_USER_PATH": user, "HOME": user}
        folder = Path(user, "localrun", "engine")
        try:
            engines = {way: _engine(options.model, folder, way) for way in WAYS}
            for kind, questions in QUESTIONS.items():
                for question in questions:
                    print(f"{kind}: {question.partition(chr(10))[0]}")
                    _compare(engines, question, options)
        finally:
            stop_all(folder)


def _engine(model: Path, folder: Path, way: str) -> EngineState:
    settings = EngineSettings(8192, draft_model=way)
    # A file has one engine at a time.
    link = folder.parent.parent / f"{way or 'plain'}.gguf"
    link.symlink_to(model)
    request = EngineRequest(str(link), link.stem, settings, EngineLimits(overcommit=True))
    return find_or_start(request, folder, keep_alive=-1)[0]


def _compare(engines: dict[str, EngineState], question: str, options: argparse.Namespace) -> None:
    results: dict[str, list[Answer]] = {way: [] for way in engines}
    for number in range(options.rounds):
        for way in (*engines, *reversed(engines))[number % 2 * len(engines) :][: len(engines)]:
            results[way].append(_answered(engines[way], question, options.tokens, number))
    plain = results[""]
    for way in filter(None, engines):
        pairs = [*zip(results[way], plain, strict=True)]
        processor = median(a.by_processor / b.by_processor for a, b in pairs)
        clock = median(a.by_clock / b.by_clock for a, b in pairs)
        differing = sum(a.text != b.text for a, b in pairs)
        guessed, right = (
            sum(a.timings.get(name, 0) for a, _ in pairs)
            for name in ("draft_n", "draft_n_accepted")
        )
        print(
            f"    {way}: {processor:.2f} by CPU time, {clock:.2f} by the clock;"
            f" {right} of {guessed} guessed tokens right; {differing} answers differ"
        )


def _answered(engine: EngineState, question: str, tokens: int, number: int) -> Answer:
    assert engine.server_pid is not None
    server = psutil.Process(engine.server_pid)
    prompt = f"<|im_start|>user\nQuestion {number}. {question}<|im_end|>\n<|im_start|>assistant\n"
    _post(engine, prompt, 1)
    used, begun = sum(server.cpu_times()[:2]), time.monotonic()
    reply = _post(engine, prompt, tokens)
    took, used = time.monotonic() - begun, sum(server.cpu_times()[:2]) - used
    written = reply["timings"]["predicted_n"]
    return Answer(reply["content"], reply["timings"], written / used, written / took)


def _post(engine: EngineState, prompt: str, tokens: int) -> dict[str, Any]:
    connection = http.client.HTTPConnection(urlsplit(engine.url).netloc)
    headers = {"Authorization": f"Bearer {engine.key}", "Content-Type": "application/json"}
    body = {"prompt": prompt, "n_predict": tokens, "temperature": 0}
    connection.request("POST", "/completion", json.dumps(body), headers)
    reply: dict[str, Any] = json.loads(connection.getresponse().read())
    return reply


if __name__ == "__main__":
    main()
