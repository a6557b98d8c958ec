"""A busy machine, and the slow but healthy servers on it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.fakes.http_server import Request, Respond, StandIn
from tests.fakes.ollama import Ollama
from tests.fakes.vllm import vllm

OLLAMA_MODELS = [f"model{number}:1b" for number in range(10)]
COLD_SHOW_S = 0.04
"""What Ollama 0.32 takes for the first /api/show of a model."""
LISTING_S = 0.5


@contextmanager
def busy_processes(count: int = 2 * (os.cpu_count() or 1)) -> Iterator[None]:
    """Processes that compute without end: by default two for each core."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def cold_ollama() -> Respond:
    """An Ollama that reads each model when it is first asked for its details."""
    fake, shown = Ollama(has=list(OLLAMA_MODELS)), set[str]()

    def respond(request: Request) -> Iterator[bytes | float]:
        if request.path == "/api/show" and (name := request.body["model"]) not in shown:
            shown.add(name)
            yield COLD_SHOW_S
        yield from fake(request)

    return respond


def slow_vllm() -> Respond:
    """A vLLM that takes long to list its models."""
    fake = vllm()

    def respond(request: Request) -> Iterator[bytes | float]:
        if request.path == "/v1/models":
            yield LISTING_S
        yield from fake(request)

    return respond


@contextmanager
def slow_servers() -> Iterator[tuple[str, str]]:
    """The URLs of such an Ollama and such a vLLM."""
    with StandIn(cold_ollama()) as ollama, StandIn(slow_vllm()) as other:
        yield ollama.url, other.url
