"""Models that Ollama gets and deletes: it keeps them in its own store and checks them itself."""

from collections.abc import Generator
from dataclasses import dataclass

from llm_localrun import transport
from llm_localrun.dialects.wire import error_in
from llm_localrun.errors import PullFailed
from llm_localrun.framing import Payload
from llm_localrun.hub.progress import Progress
from llm_localrun.hub.servers import Server
from llm_localrun.reply import Head, decode_lines, decode_whole


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of what /api/pull reports; `digest` names the layer that the bytes are of."""

    status: str
    digest: str
    done: int
    total: int


def pull(name: str, server: Server) -> Generator[Progress, None, None]:
    """Has Ollama pull `name`; it goes on by itself with what an earlier pull has left.

    Raises a `LocalRunError`.
    """
    layers: dict[str, _Line] = {}
    last = ""
    received = transport.stream(server.call("POST", "/api/pull", {"model": name, "stream": True}))
    for line in decode_lines(server.title, received, _line, server.key or ""):
        last = line.status
        if line.digest:
            layers[line.digest] = line
            done = sum(layer.done for layer in layers.values())
            yield Progress("Downloading", done, sum(layer.total for layer in layers.values()))
        else:
            yield Progress(last[:1].upper() + last[1:])
    if last != "success":
        raise PullFailed(
            f"{server.title} ended with '{last}' before it was done", "Pull it again: it goes on"
        )


def delete(name: str, server: Server) -> None:
    """Has Ollama delete `name`. Raises a `LocalRunError`."""
    head, *body = transport.stream(server.call("DELETE", "/api/delete", {"model": name}))
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
