"""Fakes of transformers serve, of what 5.19 was seen to answer; 5.24 adds the status."""

from tests.fakes.http_server import text
from tests.fakes.openai_compatible import Json, Server, fastapi, listing

_POSTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/load_model", "/reset")


def _serving(models: Json | bytes) -> Server:
    paths: Json = {**{path: {"post": {}} for path in _POSTS}, "/v1/models": {"get": {}}}
    openapi = {"openapi": "3.1.0", "info": {"title": "FastAPI", "version": "0.1.0"}, "paths": paths}
    return Server(
        {"/v1/models": models, "/health": {"status": "ok"}, "/openapi.json": openapi}, fastapi
    )


def transformers() -> Server:
    """It signs each model with the owner of its repository."""
    return _serving(
        listing(
            {"id": "openai/gpt-oss-20b", "owned_by": "openai", "status": {"value": "loaded"}},
            {"id": "unsloth/Qwen3-8B-GGUF:Qwen3-8B-Q4_K_M.gguf", "owned_by": "unsloth"},
            {"id": "BAAI/bge-m3", "owned_by": "BAAI"},
        )
    )


def transformers_without_models() -> Server:
    return _serving(listing())


def transformers_without_cache() -> Server:
    """It cannot list what is in a cache that does not exist."""
    return _serving(text("Internal Server Error", 500))
