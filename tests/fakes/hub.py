"""Fakes of the sources that models are pulled from: a web server, and a Hugging Face hub.

The hub has the API that huggingface_hub 2.4 reads. It redirects requests for files to another
address, as the real one does. The files are small but complete GGUF files: see `model`.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from llm_localrun.gguf.header import Tensor
from llm_localrun.gguf.tensor_types import TensorType
from llm_localrun.quantize.layout import lay_out
from tests.fakes.http_server import Request, json_reply, whole
from tests.support.gguf_files import Value, pair

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_CHUNK_BYTES = 2**16

Chunks = Iterator[bytes | float]


def model(name: str = "tiny", size: int = 1_200_000, **more: int) -> bytes:
    """A GGUF file of a llama with 2 layers and `size` bytes of weights in one tensor."""
    numbers = {
        "context_length": 32_768,
        "block_count": 2,
        "embedding_length": 64,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        **more,
    }
    keys: dict[str, Value] = {
        "general.architecture": "llama",
        "general.name": name,
        **{f"llama.{key}": value for key, value in numbers.items()},
        "tokenizer.chat_template": "{{ messages }}",
    }
    weights = hashlib.shake_256(name.encode()).digest(size // 4 * 4)
    tensor = Tensor("output.weight", (len(weights) // 4,), TensorType.F32, 0)
    layout = lay_out([pair(*item) for item in keys.items()], [tensor], alignment=32)
    return layout.head + weights


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Files:
    """A web server with files. Its next replies break off after so many bytes as `cuts` has.

    `ranges`: it answers Range requests. `etags`: it sends ETags.
    """

    content: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    etags: bool = True
    pause: float = 0.0
    """Seconds between two chunks of 64 KiB."""

    def __call__(self, request: Request) -> Chunks:
        data = self.content.get(unquote(urlsplit(request.path).path).lstrip("/"))
        if data is None:
            yield whole(b"Not Found", "text/plain", 404)
            return
        yield from self._cut(self._sent(request, data))

    def _sent(self, request: Request, data: bytes) -> Chunks:
        etag = f'"{sha256(data)[:16]}"'
        match = _RANGE.fullmatch(request.headers.get("range", ""))
        is_current = request.headers.get("if-range", etag) == etag
        head = [f"ETag: {etag}"] if self.etags else []
        if match and self.ranges and is_current:
            first = int(match[1])
            last = min(int(match[2] or len(data)), len(data) - 1)
            if first > last:
                yield _head(416, 0, [f"Content-Range: bytes */{len(data)}"])
                return
            head.append(f"Content-Range: bytes {first}-{last}/{len(data)}")
            data = data[first : last + 1]
            yield _head(206, len(data), head)
        else:
            yield _head(200, len(data), head)
        for at in range(0, len(data), _CHUNK_BYTES):
            yield data[at : at + _CHUNK_BYTES]
            if self.pause:
                yield self.pause

    def _cut(self, chunks: Chunks) -> Chunks:
        """The head, and the body up to the next cut."""
        yield next(chunks)
        left = self.cuts.pop(0) if self.cuts else None
        for chunk in chunks:
            if left is None or isinstance(chunk, float):
                yield chunk
            elif left >= 0:
                yield chunk[:left]
                left -= len(chunk)


def _head(status: int, length: int, lines: list[str]) -> bytes:
    first = [f"HTTP/1.1 {status} Status", "Accept-Ranges: bytes", f"Content-Length: {length}"]
    return "\r\n".join([*first, *lines, "", ""]).encode()


@dataclass
class Hub:
    """A Hugging Face hub with one repository, whose files are at `cdn`.

    `gated`: files need the token. `refusal`: the reply to every request.
    """

    cdn: str
    files: dict[str, bytes] = field(default_factory=dict)
    repo: str = "tiny-org/Tiny-1B-GGUF"
    commit: str = COMMIT
    gated: bool = False
    token: str = "hf_secret"
    refusal: bytes | None = None
    lies: dict[str, str] = field(default_factory=dict)
    """Wrong SHA-256 that it lists, by path."""

    def __call__(self, request: Request) -> Chunks:
        if self.refusal is not None:
            yield self.refusal
            return
        path = unquote(urlsplit(request.path).path)
        if match := re.fullmatch(rf"/api/models/{self.repo}(?:/revision/(.+))?", path):
            yield self._listing(match[1] or "main")
        elif match := re.fullmatch(rf"/{self.repo}/resolve/([^/]+)/(.+)", path):
            yield self._resolved(request, match[1], match[2])
        else:
            # Without a token the hub does not say whether there is such a repository.
            yield _error(401, "", "Invalid username or password.")

    def _knows(self, revision: str) -> bool:
        return revision in ("main", self.commit)

    def _listing(self, revision: str) -> bytes:
        if not self._knows(revision):
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        gguf = {"total": 1_235_814_432, "architecture": "llama", "context_length": 32_768}
        return json_reply(
            {
                "_id": "68a0c0ffee",
                "id": self.repo,
                "modelId": self.repo,
                "author": self.repo.partition("/")[0],
                "sha": self.commit,
                "lastModified": "2026-08-20T10:00:00.000Z",
                "private": False,
                "gated": "manual" if self.gated else False,
                "disabled": False,
                "downloads": 4321,
                "likes": 12,
                "tags": ["gguf", "endpoints_compatible"],
                "gguf": gguf,
                "siblings": [
                    {"rfilename": "README.md", "size": 11, "blobId": "a" * 40},
                    *(self._sibling(path, data) for path, data in self.files.items()),
                ],
                "usedStorage": sum(map(len, self.files.values())),
            }
        )

    def _sibling(self, path: str, data: bytes) -> dict[str, Any]:
        oid = self.lies.get(path, sha256(data))
        lfs = {"sha256": oid, "size": len(data), "pointerSize": 135}
        return {"rfilename": path, "size": len(data), "blobId": oid[:40], "lfs": lfs}

    def _resolved(self, request: Request, revision: str, path: str) -> bytes:
        if self.gated and request.headers.get("authorization") != f"Bearer {self.token}":
            return _error(401, "GatedRepo", f"Access to model {self.repo} is restricted.")
        if not self._knows(revision) or path not in self.files:
            return _error(404, "EntryNotFound", "Entry not found")
        data = self.files[path]
        lines = [
            f"Location: {self.cdn}/{sha256(data)}?Expires=1781098782&Signature=abc",
            f"X-Repo-Commit: {self.commit}",
            f"X-Linked-Size: {len(data)}",
            f'X-Linked-ETag: "{sha256(data)}"',
        ]
        return _head(302, 0, lines)


def _error(status: int, code: str, message: str) -> bytes:
    lines = [f"X-Error-Message: {message}", *([f"X-Error-Code: {code}"] if code else [])]
    return _head(status, 0, lines)


TOO_MANY = _head(
    429, 0, ['RateLimit: "api";r=0;t=55', 'RateLimit-Policy: "fixed window";"api";q=500;w=300']
)
