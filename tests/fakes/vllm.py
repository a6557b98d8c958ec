"""A fake of vLLM. What it says to options is what version 0.32 says."""

from tests.fakes.http_server import json_reply
from tests.fakes.openai_compatible import Json, Server, fastapi, listing

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


def vllm_with_a_file() -> Server:
    entry = {"id": "qwen3", "owned_by": "vllm", "root": "/models/qwen3-8b-Q8_0.gguf"}
    return Server({"/v1/models": listing({**entry, "max_model_len": 4096})}, fastapi)
