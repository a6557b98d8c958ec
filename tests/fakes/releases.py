"""GitHub's releases of llama.cpp, as a mirror of them has them: the lists and the files.

The fields are those of GitHub's REST API (2022-11-28, "Get a release by tag name"); files are sent
from the address that a release's page links.
"""

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.fakes.http_server import Request, json_reply
from tests.fakes.hub import Chunks, Files, sha256

_PATH = "/ggml-org/llama.cpp/releases"


@dataclass
class Releases:
    """Releases by tag, the newest first, each with its files by name."""

    content: dict[str, dict[str, bytes]] = field(default_factory=dict)
    files: Files = field(default_factory=Files)
    """How files are sent: with cuts, slowly, without ranges."""
    digests: dict[str, str | None] = field(default_factory=dict)
    """What is listed in place of a file's digest, by name."""
    refusal: bytes | None = None
    """The reply to every request for a list."""
    odd_entries: list[Any] = field(default_factory=list)
    """Added to the files of every release."""

    def __call__(self, request: Request) -> Chunks:
        path = urlsplit(request.path).path
        if not path.startswith(f"/repos{_PATH}"):
            self.files.content = {
                f"{_PATH[1:]}/download/{tag}/{name}": data
                for tag, files in self.content.items()
                for name, data in files.items()
            }
            yield from self.files(request)
        elif self.refusal is not None:
            yield self.refusal
        else:
            yield self._list(path.removeprefix(f"/repos{_PATH}"))

    def _list(self, what: str) -> bytes:
        if not what:
            return json_reply([self._release(tag) for tag in self.content])
        match = re.fullmatch(r"/tags/([\w.]+)", what)
        tag = match[1] if match else next(iter(self.content), "")
        if tag not in self.content:
            return json_reply({"message": "Not Found", "status": "404"}, 404)
        return json_reply(self._release(tag))

    def _release(self, tag: str) -> dict[str, Any]:
        assets = [self._asset(tag, *file) for file in self.content[tag].items()]
        return {
            "tag_name": tag,
            "name": tag,
            "draft": False,
            "prerelease": False,
            "published_at": "2026-11-20T10:00:00Z",
            "assets": [*self.odd_entries, *assets],
        }

    def _asset(self, tag: str, name: str, data: bytes) -> dict[str, Any]:
        return {
            "name": name,
            "content_type": "application/gzip",
            "state": "uploaded",
            "size": len(data),
            "digest": self.digests.get(name, f"sha256:{sha256(data)}"),
            "download_count": 12,
            # A list must not be able to send a client elsewhere.
            "browser_download_url": f"https://elsewhere.example{_PATH}/download/{tag}/{name}",
        }


def limited(reset: int, status: int = 403) -> bytes:
    """What GitHub's API says to the 61st request of an hour; `reset` is a second of the epoch."""
    body = b'{"message":"API rate limit exceeded for 192.0.2.1."}'
    lines = [
        f"HTTP/1.1 {status} rate limit exceeded",
        "Content-Type: application/json; charset=utf-8",
        "X-RateLimit-Limit: 60",
        "X-RateLimit-Remaining: 0",
        f"X-RateLimit-Reset: {reset}",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
