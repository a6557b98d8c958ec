"""What Ollama does with its models itself: it gets, quantizes and deletes them in its own store."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from llm_localrun.errors import PullFailed, QuantizeFailed
from llm_localrun.names.quantizations import with_quantization
from llm_localrun.servers.admin import Server
from llm_localrun.system.progress import Progress
from llm_localrun.wire import http
from llm_localrun.wire.response import Head, decode_lines, decode_whole
from llm_localrun.wire.shapes import error_in
from llm_localrun.wire.sse import Payload

MAKES = ("F32", "F16", "Q8_0", "Q4_K_M", "Q4_K_S")
TAKES = ("F32", "F16", "BF16")
"""What it can make of what, by its own word (0.32)."""


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of what it reports; `digest` names the layer that the bytes are of."""

    status: str
    digest: str
    done: int
    total: int


def pull(name: str, server: Server) -> Generator[Progress, None, None]:
    """Has Ollama pull `name`; it goes on by itself with what an earlier pull has left.

    Raises a `LocalRunError`.
    """
    last = yield from _followed("/api/pull", {"model": name}, server, "Downloading")
    if last != "success":
        raise PullFailed(
            f"{server.title} ended with '{last}' before it was done", "Pull it again: it goes on"
        )


def tag_for(name: str, quantization: str) -> str:
    """The name of the model `name` in another quantization, in the spelling of Ollama's library.

    `qwen3:8b` in Q8_0 is `qwen3:8b-q8_0`, and in F16 `qwen3:8b-fp16`. The size that the tag
    `latest` stands for is not known: `qwen3:latest` in Q8_0 is `qwen3:q8_0`.
    """
    model, _, tag = name.partition(":")
    is_repository = model.startswith(("hf.co/", "huggingface.co/"))
    if quantization == "F16" and not is_repository:
        quantization = "fp16"
    spelled = quantization[:1].lower() + quantization[1:]
    return f"{model}:{spelled if tag in ('', 'latest') else with_quantization(tag, spelled)}"


def quantize(
    name: str, source: str, quantization: str, server: Server
) -> Generator[Progress, None, None]:
    """Has Ollama make the model `name` of its model `source`. Raises a `LocalRunError`."""
    body = {"model": name, "from": source, "quantize": quantization}
    last = yield from _followed("/api/create", body, server, "Quantizing")
    if last != "success":
        raise QuantizeFailed(f"{server.title} ended with '{last}' before it was done", "Try again")


def _followed(
    path: str, body: dict[str, Any], server: Server, what: str
) -> Generator[Progress, None, str]:
    """Shows how far a request is; returns the last that Ollama says. Raises a `LocalRunError`."""
    layers: dict[str, _Line] = {}
    last = ""
    received = http.stream(server.call("POST", path, {**body, "stream": True}))
    for line in decode_lines(server.title, received, _line, server.key or ""):
        last = line.status
        if line.digest:
            layers[line.digest] = line
            done = sum(layer.done for layer in layers.values())
            yield Progress(what, done, sum(layer.total for layer in layers.values()))
        else:
            yield Progress(last[:1].upper() + last[1:])
    return last


def delete(name: str, server: Server) -> None:
    """Has Ollama delete `name`. Raises a `LocalRunError`."""
    head, *body = http.stream(server.call("DELETE", "/api/delete", {"model": name}))
    # A success has neither a body nor a type.
    if not isinstance(head, Head) or head.status != 200:
        decode_whole(server.title, (head, *body), _line, server.key or "")


def _line(payload: Payload) -> _Line:
    if error := error_in(payload):
        raise error
    return _Line(
        status=str(payload.get("status") or ""),
        digest=str(payload.get("digest") or ""),
        done=_bytes(payload.get("completed")),
        total=_bytes(payload.get("total")),
    )


def _bytes(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
