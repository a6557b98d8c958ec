"""A fake of llama-swap, and of a version before it listed what is loaded."""

from typing import Any

from tests.fakes.openai_compatible import Json, Server, listing


def llamaswap() -> Server:
    def entry(name: str, kind: str, status: str = "unloaded", **more: Any) -> Json:
        meta = {"llamaswap": {"type": kind}}
        return {
            "id": name,
            "owned_by": "llama-swap",
            "status": {"value": status},
            "meta": meta,
            **more,
        }

    return Server(
        {
            "/v1/models": listing(
                entry(
                    "qwen3-8b",
                    "model",
                    "loaded",
                    context_length=32768,
                    capabilities={"function_calling": True},
                    meta={"llamaswap": {"type": "model"}, "n_ctx": 32768},
                ),
                entry("gemma-3", "model", capabilities={"vision": True}),
                entry("unsloth/Qwen3-8B-GGUF:Q4_K_M", "peer", peerID="nas"),
                entry("best", "selector"),
            ),
            "/api/version": {"version": "180", "commit": "abc", "build_date": "2026-08-22"},
            "/running": {"running": []},
            "/health": "OK",
        }
    )


def llamaswap_of_old() -> Server:
    """Its list says neither what is loaded nor what is a peer's, but for the peer's id."""
    return Server(
        {
            "/v1/models": listing(
                {"id": "qwen3-8b", "owned_by": "llama-swap"},
                {
                    "id": "glm-5",
                    "owned_by": "llama-swap",
                    "name": "nas: glm-5",
                    "meta": {"llamaswap": {"peerID": "nas"}},
                },
            ),
            "/running": {"running": [{"model": "qwen3-8b", "state": "ready", "ttl": 0}]},
            "/health": "OK",
        }
    )
