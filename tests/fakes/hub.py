"""Fakes of the sources that models are pulled from: a web server, and a Hugging Face hub.

The hub has the API that huggingface_hub 2.4 reads. It redirects requests for files to another
address, as the real one does. The files are small but complete GGUF files: see `model`.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from llm_localrun.gguf.header import Tensor
from llm_localrun.gguf.tensor_types import TensorType
from llm_localrun.quantize.layout import lay_out
from tests.fakes.http_server import Request, json_reply, whole
from tests.support.gguf_files import Value, pair

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_REPOSITORY = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/revision/(?P<revision>.+))?")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
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
class HubRepository:
    """A repository of a hub. `downloads` are those of the last 30 days."""

    name: str
    files: dict[str, bytes]
    commit: str = COMMIT
    downloads: int = 4321
    tags: tuple[str, ...] = ("gguf", "endpoints_compatible", "license:apache-2.0")

    def listed(self, *, is_gated: bool = False) -> dict[str, Any]:
        """What the hub says of it, without its files."""
        gguf = {"total": 1_235_814_432, "architecture": "llama", "context_length": 32_768}
        return {
            "_id": "68a0c0ffee",
            "id": self.name,
            "modelId": self.name,
            "author": self.name.partition("/")[0],
            "sha": self.commit,
            "lastModified": "2026-08-20T10:00:00.000Z",
            "createdAt": "2026-08-19T10:00:00.000Z",
            "private": False,
            "gated": "manual" if is_gated else False,
            "disabled": False,
            "downloads": self.downloads,
            "likes": 12,
            "trendingScore": 3,
            "tags": [*self.tags],
            "gguf": gguf,
        }


@dataclass
class Hub:
    """A Hugging Face hub, whose files are at `cdn`: the repository `repo`, and `others`.

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
    others: list[HubRepository] = field(default_factory=list)
    held: dict[str, threading.Event] = field(default_factory=dict)
    """Repositories that it does not list before something happens, by name."""
    odd_entries: list[Any] = field(default_factory=list)
    """What every search finds first."""

    @property
    def repositories(self) -> dict[str, HubRepository]:
        """All repositories, by name."""
        first = HubRepository(self.repo, self.files, self.commit)
        return {each.name: each for each in (first, *self.others)}

    def __call__(self, request: Request) -> Chunks:
        if self.refusal is not None:
            yield self.refusal
            return
        parts = urlsplit(request.path)
        path = unquote(parts.path)
        if path == "/api/models":
            yield self._found(request, parse_qs(parts.query))
            return
        match = _REPOSITORY.fullmatch(path) or _FILE.fullmatch(path)
        repository = self.repositories.get(match["repo"]) if match else None
        if match is None or repository is None:
            # Without a token the hub does not say whether there is such a repository.
            yield _error(401, "", "Invalid username or password.")
        elif match.re is _REPOSITORY:
            if held := self.held.get(repository.name):
                held.wait(60)
            yield self._listing(repository, match["revision"] or "main")
        else:
            yield self._resolved(request, repository, match["revision"], match["file"])

    def _found(self, request: Request, query: dict[str, list[str]]) -> bytes:
        """A page of the repositories that match, with a link to the next one."""
        words = re.findall(r"[a-z0-9]+", query.get("search", [""])[0].lower())
        limit, start = int(query.get("limit", ["1000"])[0]), int(query.get("cursor", ["0"])[0])
        matching = [
            each
            for each in self.repositories.values()
            if all(word in each.name.lower() for word in words)
            and {*query.get("filter", [])} <= {*each.tags}
            and query.get("author", [each.name.partition("/")[0]])[0] == each.name.split("/")[0]
        ]
        matching.sort(key=lambda each: -each.downloads)
        page = [each.listed(is_gated=self.gated) for each in matching[start : start + limit]]
        if wanted := query.get("expand"):
            page = [{key: each[key] for key in ("_id", "id", *wanted)} for each in page]
        body = json.dumps([*self.odd_entries, *page]).encode()
        lines = ["Content-Type: application/json"]
        if len(matching) > start + limit:
            rest = re.sub(r"&cursor=\d+", "", request.path)
            next_page = f"http://{request.headers['host']}{rest}&cursor={start + limit}"
            lines.append(f'Link: <{next_page}>; rel="next"')
        return _head(200, len(body), lines) + body

    def _listing(self, repository: HubRepository, revision: str) -> bytes:
        if revision not in ("main", repository.commit):
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return json_reply(
            {
                **repository.listed(is_gated=self.gated),
                "siblings": [
                    {"rfilename": "README.md", "size": 11, "blobId": "a" * 40},
                    *(self._sibling(path, data) for path, data in repository.files.items()),
                ],
                "usedStorage": sum(map(len, repository.files.values())),
            }
        )

    def _sibling(self, path: str, data: bytes) -> dict[str, Any]:
        oid = self.lies.get(path, sha256(data))
        lfs = {"sha256": oid, "size": len(data), "pointerSize": 135}
        return {"rfilename": path, "size": len(data), "blobId": oid[:40], "lfs": lfs}

    def _resolved(
        self, request: Request, repository: HubRepository, revision: str, path: str
    ) -> bytes:
        if self.gated and request.headers.get("authorization") != f"Bearer {self.token}":
            return _error(401, "GatedRepo", f"Access to model {repository.name} is restricted.")
        is_known = revision in ("main", repository.commit)
        if not is_known or path not in repository.files:
            return _error(404, "EntryNotFound", "Entry not found")
        data = repository.files[path]
        lines = [
            f"Location: {self.cdn}/{sha256(data)}?Expires=1781098782&Signature=abc",
            f"X-Repo-Commit: {repository.commit}",
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
