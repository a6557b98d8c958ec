"""The base of the fakes of OpenAI-compatible servers, and servers that are only that.

Each fake answers as its server's documentation or source says, quirks included: what it says to an
unknown path, which servers it imitates, what it says about a key. A fake is the function that a
`StandIn` calls.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.http_server import Request, events, json_reply, not_found, text

Json = dict[str, Any]
Otherwise = Callable[[str], bytes]
"""What a server says to a path that it does not know."""


def starlette(path: str) -> bytes:
    """mlx_lm.server's own, and what FastAPI would wrap into JSON."""
    return text("Not Found", 404)


def fastapi(path: str) -> bytes:
    return json_reply({"detail": "Not Found"}, 404)


def web_interface(path: str) -> bytes:
    """A page for people, whatever the path."""
    return text("<!doctype html><title>Welcome</title>", content_type="text/html")


@dataclass
class Server:
    """Answers requests from tables of JSON values, texts and whole replies, and prompts with
    `says`."""

    answers: Mapping[str, Any]
    otherwise: Otherwise = not_found
    key: str | None = None
    """The key that it asks for on all paths that are not `open`."""
    refusal: bytes = field(default_factory=lambda: json_reply({"detail": "Unauthorized"}, 401))
    open: tuple[str, ...] = ()
    chat_path: str = "/v1/chat/completions"
    streams: bool = True
    posts: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that answer POSTs, by path."""
    says: Callable[[Json], str | bytes] = lambda _: "Hello."
    """The answer to the body of a prompt, or a whole reply that refuses it."""
    asked: list[Request] = field(default_factory=list)
    """The prompts that it was sent."""

    def __call__(self, request: Request) -> Iterator[bytes]:
        path = request.path
        if self.key and path not in self.open and not self._has_key(request):
            yield self.refusal
        elif request.method == "POST" and path == self.chat_path:
            self.asked.append(request)
            yield self._chat(request.body)
        elif request.method == "POST" and path in self.posts:
            yield json_reply(self.posts[path])
        elif request.method == "GET" and path in self.answers:
            answer = self.answers[path]
            if isinstance(answer, bytes):
                yield answer
            else:
                yield text(answer) if isinstance(answer, str) else json_reply(answer)
        else:
            yield self.otherwise(path)

    def refuse(self, body: Json) -> bytes | None:
        """What it sends to a prompt instead of an answer."""
        return None

    def _has_key(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {self.key}"

    def _chat(self, body: Json) -> bytes:
        if refusal := self.refuse(body):
            return refusal
        said = self.says(body)
        if isinstance(said, bytes):
            return said
        if not body["stream"]:
            return json_reply(completion(said, finish_reason="stop", model=body["model"]))
        if not self.streams:
            return json_reply({"error": {"message": "streaming is not supported"}}, 400)
        delta = {"index": 0, "delta": {"content": said}, "finish_reason": "stop"}
        return events({"model": body["model"], "choices": [delta]})


def completion(text: str, *, finish_reason: str, **more: Any) -> Json:
    """A reply to /v1/chat/completions in one piece; `message` has more fields of the message."""
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return {"object": "chat.completion", "choices": [choice], **more}


def listing(*entries: Json) -> Json:
    """A /v1/models."""
    usual = {"object": "model", "created": 1763900000}
    return {"object": "list", "data": [{**usual, **entry} for entry in entries]}


def fake_tags(*names: str) -> Json:
    """What imitators of Ollama make of /api/tags."""
    return {
        "models": [{"name": name, "model": name, "digest": "", "details": {}} for name in names]
    }


def litellm() -> Server:
    """A proxy, which signs everything as OpenAI's."""
    return Server(
        {
            "/v1/models": listing(
                {"id": "gpt-4o", "owned_by": "openai"}, {"id": "my-claude", "owned_by": "openai"}
            )
        },
        fastapi,
    )
