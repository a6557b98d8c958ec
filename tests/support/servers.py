"""Servers of each kind for tests that send nothing, and asking a fake without a socket."""

from llm_localrun.engine.serve import EngineServer
from llm_localrun.models import Endpoint
from llm_localrun.servers.base import Server, open_server
from llm_localrun.servers.ollama import Ollama
from llm_localrun.wire import ollama, openai
from llm_localrun.wire.request import ChatRequest
from llm_localrun.wire.sse import Payload

HERE = "http://127.0.0.1:1"


def server(kind: str, url: str = HERE) -> Server:
    return open_server(Endpoint(name="box", kind=kind, url=url))


ENGINE = server(EngineServer.kind)
OLLAMA = server("ollama")
OPENAI = server("openai")


def encode(kind: str, request: ChatRequest, options: Payload) -> Payload:
    """The body that a server of `kind` is sent, with `options` as they go on the wire."""
    at = server(kind)
    if isinstance(at, Ollama):
        return ollama.encode("qwen3:8b", request, options)
    reasoning_field = getattr(at, "reasoning_field", "")
    return openai.encode(
        "qwen3:8b", request, options, reasoning_field=reasoning_field, streams=at.streams
    )
