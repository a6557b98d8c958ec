"""A fake of Ollama 0.32.15: lists, contexts, chats, pulls, copies at another precision, deletions.

Records, errors and deletions are those that one sent (tests/transcripts/ollama-0.32.15). A pull
that succeeds could not be recorded without a network: its lines are those of the API's description.
With `version` it also sends what 0.33 to 0.40 added, as their source has it: none of them was run.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.http_server import (
    Request,
    Respond,
    chunked,
    json_reply,
    not_found,
    transcript,
    whole,
)
from tests.fakes.says import Json, Says, count_tokens

NAME = "smollm2:135m"
"""The model that was recorded."""
LINES = "application/x-ndjson"
GONE = transcript("pull")[0]
"""A pull that could not reach the registry: the reply begins well."""
_DELETED, UNKNOWN = transcript("delete")[1:3]
_CREATED, _, _UNSUPPORTED, _NOT_PRECISE = transcript("create")[1:5]
(_LISTED,) = json.loads(transcript("tags")[0].body)["models"]
(_RUNNING,) = json.loads(transcript("ps")[0].body)["models"]


def recorded(*names: str) -> Respond:
    """A function for `StandIn` that sends what was recorded, to the same requests only."""
    exchanges = [exchange for name in names for exchange in transcript(name)]

    def respond(request: Request) -> Iterator[bytes]:
        for exchange in exchanges:
            asked = (exchange.method, exchange.path, exchange.request)
            if asked == (request.method, request.path, request.body):
                yield exchange.reply()
                return
        yield not_found(request.path)

    return respond


@dataclass
class Ollama:
    """The server: what it has, what the registry has, and the context of its one loaded model.

    A request with another `num_ctx` than the last loads the model again; one without has the
    Modelfile's, or `default`. Tags of one file share a runner, which has the name of the tag that
    loaded it (`ps_shared_blob`).
    """

    says: Callable[[Json], Says] = lambda _body: Says("Hello.")
    """What its models say, by the body of the request."""
    has: list[str] = field(default_factory=list)
    capabilities: tuple[str, ...] = ("completion",)

    default: int = 4096
    """The context of a model that is loaded without `num_ctx`."""
    trained: int = 131_072
    keys: Json = field(default_factory=dict)
    """Keys of the model's header, in addition to its architecture and trained context."""
    tokens_of: Callable[[str], int] = count_tokens
    cuts: bool = False
    """Whether it is so old that it knows no `truncate`."""
    files: dict[str, str] = field(default_factory=dict)
    """The file of each tag; a tag that is not named has a file of its own."""
    num_ctx: dict[str, int] = field(default_factory=dict)
    """What Modelfiles say, by tag."""
    loaded: int = 0
    """The context of the model that is loaded; 0 if none is."""
    wanted: int = 0
    """The context that was wanted for it, which may have been too large: compared as it was."""
    running: str = NAME
    """The tag for which it was loaded."""
    loads: list[int] = field(default_factory=list)
    overflows: int = 0

    version: str = ""
    """What it says of itself, if anything; from 0.33.3 on it counts the cached tokens."""
    cached: int = 0
    """Tokens of each prompt that it had computed before."""
    thinking: Json = field(default_factory=dict)
    """What it knows of the thinking of its models (0.34.3)."""
    runners: tuple[Json, ...] = ()
    """More entries of its list: the same names for other runners."""
    remote: dict[str, str] = field(default_factory=dict)
    """The host that each stub is passed on to."""

    registry: dict[str, list[int]] = field(default_factory=dict)
    """Sizes of the layers of what can be pulled."""
    ends_early: bool = False
    """Whether a pull ends, without an error, before it is done."""

    def __call__(self, request: Request) -> Iterator[bytes]:
        answers: dict[str, Callable[[Json], bytes]] = {
            "/": lambda _: whole(b"Ollama is running", "text/plain; charset=utf-8"),
            "/v1/models": self._list_openai,
            "/api/version": lambda _: json_reply({"version": "0.12.5" if self.cuts else "0.32.15"}),
            "/api/tags": self._list,
            "/api/ps": self._list_running,
            **({"/api/version": self._say_version} if self.version else {}),
            "/api/show": self._show,
            "/api/chat": self._chat,
            "/api/embed": self._embed,
            "/api/pull": self._pull,
            "/api/create": self._create,
            "/api/delete": self._delete,
        }
        answer = answers.get(request.path)
        yield answer(request.body) if answer else not_found(request.path)

    def _list_openai(self, _body: Json) -> bytes:
        return json_reply({"data": [{"id": name, "owned_by": "library"} for name in self.has]})

    def _list(self, _body: Json) -> bytes:
        listed = (self._listed(name) for name in self.has)
        return json_reply({"models": [*listed, *({**_LISTED, **each} for each in self.runners)]})

    def _say_version(self, _body: Json) -> bytes:
        return json_reply({"version": self.version})

    def _remote(self, name: str) -> Json:
        host = self.remote.get(name)
        return {"remote_model": "far:1t", "remote_host": host} if host else {}

    def _listed(self, name: str) -> Json:
        own = {"name": name, "model": name, "digest": _digest(name)}
        remote = self._remote(name)
        return {**_LISTED, **own, **remote, "capabilities": self.capabilities}

    def _list_running(self, _body: Json) -> bytes:
        names = {"name": self.running, "model": self.running, "digest": _digest(self.running)}
        running = {**_RUNNING, **names, "context_length": self.loaded}
        return json_reply({"models": [running] if self.loaded else []})

    def _file(self, name: str) -> str:
        return f"sha256-{_digest(self.files.get(name, name))}"

    def _show(self, body: Json) -> bytes:
        info = {"general.architecture": "llama", "llama.context_length": self.trained, **self.keys}
        path = f"/home/user/.ollama/models/blobs/{self._file(body['model'])}"
        lines = ['stop                           "<|im_end|>"']
        if num_ctx := self.num_ctx.get(body["model"]):
            lines.insert(0, f"{'num_ctx':30} {num_ctx}")
        return json_reply(
            {
                "modelfile": f"# Modelfile\n# FROM {body['model']}\n\nFROM {path}\nTEMPLATE x\n",
                "parameters": "\n".join(lines),
                "capabilities": self.capabilities,
                "model_info": info,
                **({"thinking": self.thinking} if self.thinking else {}),
                **self._remote(body["model"]),
            }
        )

    def _chat(self, body: Json) -> bytes:
        name = body["model"]
        usual = self.num_ctx.get(name, self.default)
        wanted = body.get("options", {}).get("num_ctx", usual)
        context = min(wanted, self.trained)
        is_other = wanted != self.wanted if self.wanted else context != self.loaded
        if not self.loaded or is_other or self._file(name) != self._file(self.running):
            self.loaded, self.running, self.wanted = context, name, wanted
            self.loads.append(context)
        prompt = "".join(message.get("content") or "" for message in body["messages"])
        tokens = self.tokens_of(prompt)
        if tokens >= context:
            self.overflows += 1
            if not self.cuts:
                return json_reply({"error": _overflow(tokens, context)}, 400)
            prompt = prompt[-2 * context :]
            body = {**body, "messages": [{"role": "user", "content": prompt}]}
        counts = {"prompt_eval_count": self.tokens_of(prompt)}
        if self.version:
            counts["prompt_eval_cached_count"] = self.cached
        return _encode(self.says(body), body, counts, self._remote(name))

    def _embed(self, body: Json) -> bytes:
        """As recorded; where the vectors were made is not said."""
        vectors = [[0.6, 0.8] for _ in body["input"]]
        return json_reply({"model": body["model"], "embeddings": vectors})

    def _pull(self, body: Json) -> bytes:
        name = body["model"]
        if name not in self.registry:
            return GONE.reply()
        lines = [*_pulled(self.registry[name])]
        if self.ends_early:
            lines = lines[:-1]
        else:
            self.has.append(name if ":" in name else f"{name}:latest")
        return _lines(*lines)

    def _create(self, body: Json) -> bytes:
        if body["quantize"] not in ("Q8_0", "Q4_K_M"):
            return _UNSUPPORTED.reply()
        if "f16" not in body["from"]:
            return _NOT_PRECISE.reply()
        self.has.append(body["model"])
        return _CREATED.reply()

    def _delete(self, body: Json) -> bytes:
        if body["model"] not in self.has:
            return UNKNOWN.reply()
        self.has.remove(body["model"])
        # It has no body, and no type.
        return _DELETED.reply().replace(b"Content-Type: \r\n", b"")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _encode(says: Says, body: Json, counts: Json, remote: Json) -> bytes:
    """A reply to /api/chat: in one piece, or a line with what is said and one with the counts."""
    message: Json = {"role": "assistant", "content": says.text}
    if says.reasoning:
        message["thinking"] = says.reasoning
    if says.calls:
        message["tool_calls"] = [
            {"id": f"call_{index}", "function": {"name": call.name, "arguments": call.arguments}}
            for index, call in enumerate(says.calls)
        ]
    end = {"done": True, "done_reason": "stop", **counts, "eval_count": says.tokens}
    model = {"model": body["model"], **remote}
    if not body["stream"]:
        return json_reply({**model, "message": message, **end})
    last = {**model, "message": {"role": "assistant", "content": ""}, **end}
    return _lines({**model, "message": message, "done": False}, last)


def _lines(*values: Any) -> bytes:
    return chunked([json.dumps(value).encode() + b"\n" for value in values], LINES)


def _overflow(tokens: int, context: int) -> str:
    """An error of llama-server, as Ollama hands it on (`context_overflow`)."""
    error = {
        "code": 400,
        "message": f"request ({tokens} tokens) exceeds the available context size ({context})",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": tokens,
        "n_ctx": context,
    }
    return json.dumps({"error": error})


def _pulled(sizes: list[int]) -> Iterator[Json]:
    yield {"status": "pulling manifest"}
    for number, size in enumerate(sizes):
        digest = f"{number:064x}"
        layer = {"status": f"pulling {digest[:12]}", "digest": f"sha256:{digest}", "total": size}
        # The count is left out while it is zero.
        yield layer
        yield {**layer, "completed": size // 2}
        yield {**layer, "completed": size}
    yield {"status": "verifying sha256 digest"}
    yield {"status": "writing manifest"}
    yield {"status": "success"}
