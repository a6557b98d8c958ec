"""What the tests of llm's contract share: servers that say what they are told, chains of tool calls
in each of the four ways, and GGUF files with another chat template."""

import asyncio
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llm

from llm_localrun.chat.models import AsyncLocalChat, LocalChat
from llm_localrun.models import LocalModel
from tests.fakes.http_server import Respond, StandIn
from tests.fakes.lmstudio import LMStudio
from tests.fakes.ollama import Ollama
from tests.fakes.says import Says, in_turn
from tests.support.drive import served

SERVERS = ["ollama", "lmstudio"]

NAMES = {"ollama": "smollm2:135m", "lmstudio": "google/gemma-4-26b-a4b"}


@contextmanager
def saying(kind: str, *turns: Says, **known: Any) -> Iterator[tuple[LocalModel, StandIn]]:
    """A model at a server of `kind` that says one of `turns` to each request."""
    says = in_turn(*turns)
    with StandIn(respond_as(kind, says)) as server:
        yield served(server.url, kind, NAMES[kind], **known), server


def respond_as(kind: str, says: Callable[[dict[str, Any]], Says]) -> Respond:
    """What a `StandIn` for a server of `kind` answers."""
    if kind == "lmstudio":
        return LMStudio(says)
    able = ("completion", "tools", "vision", "thinking")
    return Ollama(says, has=[NAMES[kind]], capabilities=able)


def found(name: str) -> LocalModel:
    """The model of this name, as llm's registry has it."""
    model: Any = llm.get_model(name)
    local: LocalModel = model.local
    return local


def sent(server: StandIn) -> list[Any]:
    """The bodies of the chat requests that a stand-in has got."""
    chats = ("/api/chat", "/v1/chat/completions")
    return [request.body for request in server.requests if request.path in chats]


def chain(model: LocalModel, prompt: str, way: str = "sync", **known: Any) -> list[llm.Response]:
    """Prompts `model` in one of the `WAYS`, runs the tools it asks for; every turn's response."""
    stream = "unstreamed" not in way
    if way.startswith("async"):
        return asyncio.run(_chain_async(model, prompt, stream, known))
    responses = []
    for response in LocalChat(model).chain(prompt, stream=stream, **known).responses():
        response.text()
        responses.append(response)
    return responses


async def _chain_async(
    model: LocalModel, prompt: str, stream: bool, known: dict[str, Any]
) -> list[llm.Response]:
    responses = []
    async for response in AsyncLocalChat(model).chain(prompt, stream=stream, **known).responses():
        await response.text()
        responses.append(await response.to_sync_response())
    return responses


def call_ids(response: llm.Response) -> list[str]:
    """The ids of the calls in a response, which its parts and its calls must have in common."""
    parts = [part.to_dict() for message in response.messages() for part in message.parts]
    in_parts = [part["tool_call_id"] for part in parts if part["type"] == "tool_call"]
    in_calls = [call.tool_call_id for call in response.tool_calls()]
    assert in_parts == in_calls
    assert len(set(in_calls)) == len(in_calls)
    assert all(isinstance(each, str) and each for each in in_calls)
    return [str(each) for each in in_calls]


_TEMPLATE_KEY = b"tokenizer.chat_template"
_ALIGNMENT = 32


def with_template(source: Path, target: Path, template: str) -> Path:
    """A copy of a GGUF file with another chat template, which must end in a tag.

    Spaces in that tag keep what follows the header where tensors may begin.
    """
    data = bytearray(source.read_bytes())
    at = data.index(_TEMPLATE_KEY) + len(_TEMPLATE_KEY) + 4
    (size,) = struct.unpack_from("<Q", data, at)
    text = template.encode()
    assert text.endswith(b"%}")
    gap = (size - len(text)) % _ALIGNMENT
    text = text[:-2] + b" " * gap + text[-2:]
    data[at : at + 8 + size] = struct.pack("<Q", len(text)) + text
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return target
