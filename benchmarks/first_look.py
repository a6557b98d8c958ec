"""How often a first look misses a healthy server, on an idle machine and on a busy one.

    python -m benchmarks.first_look [LOOKS [idle] [busy]]

Each look begins with an empty user directory, and asks a stand-in of Ollama (10 models, 40 ms for
the first /api/show of each) and one of vLLM (0.5 s to list its models). Prints for each command
how many of LOOKS (default: 40) missed a model, and the seconds that they took. The busy machine
runs twice as many computing processes as it has cores.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from tests.support.busy import OLLAMA_MODELS, busy_processes, slow_servers

_WANTED = {*(f"local/box/{name}" for name in OLLAMA_MODELS), "local/other/Qwen/Qwen3-8B"}
_COMMANDS = {
    "llm -m local/box/…": ["-m", f"local/box/{OLLAMA_MODELS[-1]}", "hi"],
    "llm -m local/other/…": ["-m", "local/other/Qwen/Qwen3-8B", "hi"],
    "llm localrun models": ["localrun", "models", "--json"],
    "llm localrun refresh": ["localrun", "refresh"],
}


def main() -> None:
    looks = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    machines = sys.argv[2:] or ["idle", "busy"]
    loads: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "idle": nullcontext,
        "busy": busy_processes,
    }
    for machine, load in ((each, loads[each]) for each in machines):
        for title, command in _COMMANDS.items():
            with load():
                rows = [_look(command) for _ in range(looks)]
            missed = sum(not found for found, _ in rows)
            seconds = [each for _, each in rows]
            print(
                f"{machine}: {title}: {missed} of {looks} missed,"
                f" {statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f})",
                flush=True,
            )


def _look(command: list[str]) -> tuple[bool, float]:
    """Whether a first look finds what it looks for, and the seconds that it takes."""
    with tempfile.TemporaryDirectory() as user, slow_servers() as (ollama, vllm):
        endpoints = [{"name": "box", "url": ollama}, {"name": "other", "url": vllm}]
        settings = {"default_endpoints": False, "endpoints": endpoints}
        (Path(user) / "localrun").mkdir()
        (Path(user) / "localrun" / "config.json").write_text(json.dumps(settings))
        environment = {**os.environ, "LLM_USER_PATH": user, "HOME": user}
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "llm", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return _has_found(command, done), time.perf_counter() - begun


def _has_found(command: list[str], done: "subprocess.CompletedProcess[str]") -> bool:
    if done.returncode:
        return False
    if "refresh" in command:
        return done.stdout.startswith("12 models")
    if "models" in command:
        return {each["id"] for each in json.loads(done.stdout)} >= _WANTED
    return bool(done.stdout.strip())


if __name__ == "__main__":
    main()
