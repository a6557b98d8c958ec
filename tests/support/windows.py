"""Servers whose models see no more than their context; prompts that begin with the answer."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.http_server import Request, chunked, json_reply
from tests.fakes.says import Says
from tests.support.corpus import CORPUS

SECRET = "banana"
FIRST_LINE = f"Remember: the password is {SECRET}."
QUESTION = "The text above begins with a password. What is the password?"


def long_prompt(characters: int) -> str:
    """A prompt of so many characters, four to a token, which only its first line answers."""
    room = characters - len(FIRST_LINE) - len(QUESTION) - 4
    filler = (CORPUS["prose"] * (room // len(CORPUS["prose"]) + 1))[:room]
    return f"{FIRST_LINE}\n\n{filler}\n\n{QUESTION}"


def answer_to(prompt: str) -> str:
    """What a model says that sees `prompt`, or what is left of it."""
    found = re.search(r"the password is (\w+)\.", prompt)
    return f"{found[1]}." if found else "I do not know."


def says(body: dict[str, Any]) -> Says:
    """The same, for a model of the stand-in for LM Studio."""
    return Says(answer_to(body["messages"][-1]["content"]))


def four_to_a_token(text: str) -> int:
    return -(-len(text) // 4)


@dataclass
class Ollama:
    """Ollama 0.32 with one model, as far as its context goes: `ollama-0.32.15/context_overflow`.

    A request with another `num_ctx` than the last loads the model anew; one without has `default`.
    """

    default: int = 4096
    trained: int = 131_072
    keys: dict[str, Any] = field(default_factory=dict)
    """Of the model's header, beside its architecture and trained context."""
    tokens_of: Callable[[str], int] = four_to_a_token
    cuts: bool = False
    """Whether it is so old that it knows no `truncate`."""
    loaded: int = 0
    loads: list[int] = field(default_factory=list)
    overflows: int = 0

    def __call__(self, request: Request) -> Iterator[bytes]:
        if request.path == "/api/ps":
            yield json_reply({"models": [self._running()] if self.loaded else []})
        elif request.path == "/api/show":
            info = {"general.architecture": "llama", "llama.context_length": self.trained}
            yield json_reply({"model_info": {**info, **self.keys}})
        else:
            yield self._chat(request.body)

    def _running(self) -> dict[str, Any]:
        return {"name": "smollm2:135m", "context_length": self.loaded, "size": 10**8}

    def _chat(self, body: dict[str, Any]) -> bytes:
        context = min(body.get("options", {}).get("num_ctx", self.default), self.trained)
        if context != self.loaded:
            self.loaded = context
            self.loads.append(context)
        prompt = "".join(message["content"] for message in body["messages"])
        tokens = self.tokens_of(prompt)
        if tokens >= context:
            self.overflows += 1
            if not self.cuts:
                return json_reply({"error": _overflow(tokens, context)}, 400)
            prompt = prompt[-2 * context :]
        return self._reply(body, answer_to(prompt), self.tokens_of(prompt))

    def _reply(self, body: dict[str, Any], text: str, tokens: int) -> bytes:
        message = {"role": "assistant", "content": text}
        end = {"done": True, "done_reason": "stop", "prompt_eval_count": tokens, "eval_count": 3}
        whole = {"model": body["model"], "message": message, **end}
        if not body["stream"]:
            return json_reply(whole)
        return chunked([json.dumps(whole).encode() + b"\n"], "application/x-ndjson")


def _overflow(tokens: int, context: int) -> str:
    """An error of llama-server's, as Ollama hands it on."""
    error = {
        "code": 400,
        "message": f"request ({tokens} tokens) exceeds the available context size ({context})",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": tokens,
        "n_ctx": context,
    }
    return json.dumps({"error": error})
