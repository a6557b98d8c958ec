"""A fake of vLLM. What it says to options is what version 0.32 says."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.http_server import Request, json_reply
from tests.fakes.openai_compatible import Json, Server, fastapi, listing
from tests.fakes.says import count_tokens

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def _bad_request(message: str, param: str | None = None) -> bytes:
    error = {"message": message, "type": "BadRequestError", "param": param, "code": 400}
    return json_reply({"error": error}, 400)


def vllm_says(body: Json) -> str | bytes:
    """It refuses bad values of the options that it has, and ignores those that it does not have."""
    grammar = body.get("structured_outputs", {}).get("grammar")
    wants_json = body.get("response_format", {}).get("type", "text") != "text"
    if body.get("reasoning_effort", "low") not in _EFFORTS:
        return _bad_request(f"1 validation error: Input should be {_EFFORTS}", "reasoning_effort")
    if len(body.get("stop", ())) > 4:
        return _bad_request("List should have at most 4 items after validation", "stop")
    if body.get("max_tokens", 1) > 40960:
        given = body["max_tokens"]
        message = f"max_tokens={given} cannot be greater than max_model_len=40960."
        return _bad_request(f"{message} Please request fewer output tokens.", "max_tokens")
    if grammar and wants_json:
        return _bad_request("You can only use one kind of structured outputs constraint")
    return '{"a": 1}' if wants_json else "yes" if grammar else "Hello."


def without_tool_parser(body: Json) -> str | bytes:
    """vLLM 0.32 started without --tool-call-parser: the model's calls stay in its text."""
    choice = body.get("tool_choice", "auto" if body.get("tools") else None)
    if choice == "auto":
        needed = "--enable-auto-tool-choice and --tool-call-parser to be set"
        return _bad_request(f'"auto" tool choice requires {needed}')
    if choice not in (None, "none"):
        return _bad_request(f'tool_choice="{choice}" requires --tool-call-parser to be set')
    if not body.get("tools") or body["messages"][-1]["role"] == "tool":
        return vllm_says(body)
    call = json.dumps({"name": body["tools"][0]["function"]["name"], "arguments": {}})
    return call if "response_format" in body else f"<tool_call>\n{call}\n</tool_call>"


def vllm(key: str | None = None) -> Server:
    base = {"owned_by": "vllm", "permission": []}
    return Server(
        {
            "/v1/models": listing(
                {
                    **base,
                    "id": "Qwen/Qwen3-8B",
                    "root": "Qwen/Qwen3-8B",
                    "parent": None,
                    "max_model_len": 40960,
                },
                {
                    **base,
                    "id": "sql-lora",
                    "root": "/adapters/sql",
                    "parent": "Qwen/Qwen3-8B",
                    "max_model_len": None,
                },
            ),
            "/version": {"version": "0.33.0"},
        },
        fastapi,
        key,
        json_reply({"error": "Unauthorized"}, 401),
        ("/version", "/health"),
        says=vllm_says,
    )


def vllm_of(name: str) -> Server:
    """With one model, which it was started with under this name."""
    entry = {"id": name, "owned_by": "vllm", "root": name, "max_model_len": 4096}
    return Server({"/v1/models": listing(entry), "/version": {"version": "0.33.0"}}, fastapi)


def vllm_with_a_file() -> Server:
    entry = {"id": "qwen3", "owned_by": "vllm", "root": "/models/qwen3-8b-Q8_0.gguf"}
    return Server({"/v1/models": listing({**entry, "max_model_len": 4096})}, fastapi)


@dataclass
class SmallVllm(Server):
    """vLLM 0.32 with a text model and a small context: it counts chats, and refuses as recorded."""

    answers: Mapping[str, Any] = field(default_factory=dict)
    window: int = 1024
    counts: bool = True
    """Whether it is so new that /tokenize takes messages."""

    def __call__(self, request: Request) -> Iterator[bytes]:
        if request.path != "/tokenize":
            yield from super().__call__(request)
            return
        tokens = prompt_tokens(request.body)
        counted = {"count": tokens, "max_model_len": self.window, "tokens": [0] * tokens}
        yield self.refuse_media(request.body) or (
            json_reply({**counted, "token_strs": None}) if self.counts else self.error("prompt")
        )

    def error(self, message: str, param: str | None = None) -> bytes:
        error = {"message": message, "type": "BadRequestError", "param": param, "code": 400}
        return json_reply({"error": error}, 400)

    def refuse_media(self, body: Json) -> bytes | None:
        has_media = any(not isinstance(each["content"], str) for each in body["messages"])
        return self.error(f"{body['model']} is not a multimodal model") if has_media else None

    def refuse(self, body: Json) -> bytes | None:
        asked, tokens = body.get("max_tokens", 0), prompt_tokens(body)
        if asked > self.window:
            return self.error(
                f"max_tokens={asked} cannot be greater than max_model_len={self.window}. Please"
                f" request fewer output tokens. (parameter=max_tokens, value={asked})",
                "max_tokens",
            )
        if refusal := self.refuse_media(body):
            return refusal
        if tokens <= self.window:
            return None
        # It splits one token more than it takes.
        return self.error(
            f"This model's maximum context length is {self.window} tokens. However, your prompt"
            f" contains at least {self.window + 1} input tokens, which exceeds this limit even"
            " without any output tokens. Please reduce the length of the input prompt."
            f" (parameter=input_tokens, value={self.window + 1})",
            "input_tokens",
        )


def prompt_tokens(body: Json) -> int:
    """A token for every four characters of the messages; an image takes none."""
    texts = (each["content"] for each in body["messages"] if isinstance(each["content"], str))
    return count_tokens("".join(texts))
