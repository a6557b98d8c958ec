"""What tests of the contract with llm share: servers that say what a test gives them, chains of
tool calls in each of the four ways, and GGUF files with another chat template."""

import asyncio
import json
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llm
import pytest
from click.testing import CliRunner, Result
from llm.cli import cli
from llm.parts import Message, ReasoningPart, TextPart, ToolCallPart, ToolResultPart

from llm_localrun import catalogue
from llm_localrun.chat.models import AsyncLocalChat, LocalChat
from llm_localrun.models import LocalModel
from tests.fakes.http_server import Respond, StandIn
from tests.fakes.lmstudio import LMStudio
from tests.fakes.ollama import Ollama
from tests.fakes.says import Says, in_turn
from tests.support.drive import WAYS, Outcome, ask, served

SERVERS = ["ollama", "lmstudio"]

NAMES = {"ollama": "smollm2:135m", "lmstudio": "google/gemma-4-26b-a4b"}

in_every_way = pytest.mark.parametrize("way", WAYS)
at_every_server = pytest.mark.parametrize("kind", SERVERS)
STARTER = "local/gguf/SmolLM2-135M-Instruct.Q4_1"
THINKING = 'root ::= "<think>" [a-z ]{3,10} "</think>" [a-z ]{3,10}'
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63f8cf"
    "c0f01f0005000201ff1a8d1b3c0000000049454e44ae426082"
)
HISTORY = [
    llm.system("Be brief."),
    llm.user("Look", llm.Attachment(content=PNG)),
    Message(
        role="assistant",
        parts=[
            ReasoningPart(text="Hm."),
            TextPart(text="I ask."),
            ToolCallPart(name="search", arguments={"q": 1}, tool_call_id="s", server_executed=True),
            ToolResultPart(name="search", output="x", tool_call_id="s", server_executed=True),
            ToolCallPart(name="f", arguments={"a": 1}, tool_call_id="1"),
        ],
    ),
    Message(
        role="tool",
        parts=[
            ToolResultPart(name="f", output="", exception="ValueError: no", tool_call_id="1"),
        ],
    ),
    llm.user("And?"),
]


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


def command(*arguments: str, **settings: Any) -> Result:
    """Runs an `llm` command in this process, without a catalogue in memory."""
    catalogue._memory.clear()
    return CliRunner().invoke(cli, arguments, **settings)


def output(*arguments: str, **settings: Any) -> str:
    """The output of a command that has to succeed."""
    done = command(*arguments, **settings)
    assert done.exit_code == 0, done.output
    return done.stdout


def turns(count: int = 1) -> list[dict[str, Any]]:
    """The last turns in the log, the oldest first."""
    logged: list[dict[str, Any]] = json.loads(output("logs", "--json", "-n", str(count)))
    return logged


@dataclass(frozen=True)
class Backend:
    """A model that thinks and then answers, as the command line has it."""

    kind: str
    model: LocalModel
    options: dict[str, Any]
    server: StandIn | None = None

    @property
    def given(self) -> list[str]:
        """The options as a command takes them."""
        texts = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in self.options.items()
        }
        return [argument for each in texts.items() for argument in ("-o", *each)]

    @property
    def arguments(self) -> list[str]:
        return ["-m", self.model.id, *self.given]

    def ask(self, prompt: str, way: str = "sync", **more: Any) -> Outcome:
        return ask(self.model, prompt, way, **self.options, **more)


def ours() -> list[Any]:
    return [each for each in llm.get_models_with_aliases() if isinstance(each.model, LocalChat)]


def slow(_: Any = None) -> Says:
    return Says("word " * 1000, pause=0.01)
