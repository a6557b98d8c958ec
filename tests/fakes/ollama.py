"""A stand-in for Ollama as somebody pulls and quantizes with it: its API, and what one sent.

What fails is what Ollama 0.32.15 sent when it did, and so are lists and deletions. A pull that
succeeds could not be recorded without a network: its lines are those of the API's description.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.http_server import Request, chunked, json_reply, transcript, whole

LINES = "application/x-ndjson"
GONE = transcript("pull")[0]
"""A pull that could not reach the registry: the reply begins well."""
_DELETED, UNKNOWN = transcript("delete")[1:3]
_CREATED, _, _UNSUPPORTED, _NOT_PRECISE = transcript("create")[1:5]


@dataclass
class Ollama:
    """The server: what it has, and what the registry has."""

    registry: dict[str, list[int]] = field(default_factory=dict)
    """Sizes of the layers of what can be pulled."""
    has: list[str] = field(default_factory=list)
    ends_early: bool = False
    """Whether a pull ends, without an error, before it is done."""

    def __call__(self, request: Request) -> Iterator[bytes]:
        path = request.path
        if path == "/":
            yield whole(b"Ollama is running", "text/plain; charset=utf-8")
        elif path == "/api/tags":
            yield json_reply({"models": [_listed(name) for name in self.has]})
        elif path == "/api/show":
            yield json_reply({"capabilities": ["completion"]})
        elif path == "/api/pull":
            yield self._pull(request.body["model"])
        elif path == "/api/delete":
            yield self._delete(request.body["model"])
        elif path == "/api/create":
            yield self._create(request.body)
        else:
            yield whole(b"404 page not found", "text/plain", 404)

    def _pull(self, name: str) -> bytes:
        if name not in self.registry:
            return GONE.reply()
        lines = [*_pulled(self.registry[name])]
        if self.ends_early:
            lines = lines[:-1]
        else:
            self.has.append(name if ":" in name else f"{name}:latest")
        return chunked([json.dumps(line).encode() + b"\n" for line in lines], LINES)

    def _create(self, body: dict[str, Any]) -> bytes:
        if body["quantize"] not in ("Q8_0", "Q4_K_M"):
            return _UNSUPPORTED.reply()
        if "f16" not in body["from"]:
            return _NOT_PRECISE.reply()
        self.has.append(body["model"])
        return _CREATED.reply()

    def _delete(self, name: str) -> bytes:
        if name not in self.has:
            return UNKNOWN.reply()
        self.has.remove(name)
        # It has no body, and no type.
        return _DELETED.reply().replace(b"Content-Type: \r\n", b"")


def _pulled(sizes: list[int]) -> Iterator[dict[str, Any]]:
    yield {"status": "pulling manifest"}
    for number, size in enumerate(sizes):
        digest = f"{number:064x}"
        layer = {"status": f"pulling {digest[:12]}", "digest": f"sha256:{digest}", "total": size}
        # The count is left out while it is nought.
        yield layer
        yield {**layer, "completed": size // 2}
        yield {**layer, "completed": size}
    yield {"status": "verifying sha256 digest"}
    yield {"status": "writing manifest"}
    yield {"status": "success"}


def _listed(name: str) -> dict[str, Any]:
    (model,) = json.loads(transcript("tags")[0].body)["models"]
    return {**model, "name": name, "model": name, "digest": name.encode().hex()}
