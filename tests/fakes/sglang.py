"""A fake of SGLang."""

from tests.fakes.http_server import json_reply
from tests.fakes.openai_compatible import Json, Server, fake_tags, fastapi, listing
from tests.fakes.vllm import SmallVllm, prompt_tokens


def sglang() -> Server:
    """It imitates Ollama."""
    entry = {"id": "Qwen/Qwen3-8B", "owned_by": "sglang", "root": "Qwen/Qwen3-8B", "parent": None}
    return Server(
        {
            "/v1/models": listing({**entry, "max_model_len": 40960}),
            "/model_info": {
                "model_path": "Qwen/Qwen3-8B",
                "tokenizer_path": "Qwen/Qwen3-8B",
                "is_generation": True,
                "has_image_understanding": True,
                "has_audio_understanding": False,
                "reasoning_parser": "qwen3",
                "tool_call_parser": None,
            },
            "/server_info": {"version": "0.5.23", "model_path": "Qwen/Qwen3-8B"},
            "/api/tags": fake_tags("Qwen/Qwen3-8B"),
        },
        fastapi,
    )


class SmallSglang(SmallVllm):
    """SGLang 0.5.20 with a small context: its tokenizer manager has other words."""

    def error(self, message: str, param: str | None = None) -> bytes:
        error = {"object": "error", "message": message, "type": "BadRequest", "param": param}
        return json_reply({**error, "code": 400}, 400)

    def refuse(self, body: Json) -> bytes | None:
        asked, tokens = body.get("max_tokens", 0), prompt_tokens(body)
        if tokens >= self.window:
            return self.error(
                f"The input ({tokens} tokens) is longer than the model's context length"
                f" ({self.window} tokens)."
            )
        if asked + tokens < self.window:
            return None
        return self.error(
            "Requested token count exceeds the model's maximum context length of"
            f" {self.window} tokens. You requested a total of {asked + tokens} tokens: {tokens}"
            f" tokens from the input messages and {asked} tokens for the completion. Please reduce"
            " the number of tokens in the input messages or the completion to fit within the limit."
        )
