"""A made-up catalogue with models of all sorts, as one of a busy machine might be."""

import time
from pathlib import Path
from typing import Any

from llm_localrun.catalogue import write_snapshot
from llm_localrun.models import (
    Endpoint,
    EndpointReport,
    LocalModel,
    RunsOn,
    ScannedFile,
    ScannedStore,
    ServerStatus,
    Snapshot,
)
from llm_localrun.name_cache import settings_stamp
from tests.support.models import file_route, local_model

BOX = Endpoint(name="box", kind="vllm", url="http://192.168.1.5:8000")
OLLAMA = Endpoint(name="ollama", kind="ollama", url="http://127.0.0.1:11434")
LMSTUDIO = Endpoint(name="lmstudio", kind="lmstudio", url="http://127.0.0.1:1234")
SWAP = Endpoint(name="llamaswap", kind="llamaswap", url="http://127.0.0.1:9292")
LLAMACPP = Endpoint(name="llamacpp", kind="llamacpp", url="http://127.0.0.1:8080")

MEMORY = 24 * 10**9
_K = 1024


def _model(
    model_id: str, size: float, quantization: str, billions: float, context: int, **known: Any
) -> LocalModel:
    """Sizes in GB, contexts in 1,024 tokens; 0 and "" mean unknown."""
    return local_model(
        id=model_id,
        name=model_id.split("/", 2)[2],
        size=int(size * 1e9) or None,
        quantization=quantization,
        parameters=int(billions * 1e9) or None,
        context_max=context * _K or None,
        **known,
    )


def _served(endpoint: Endpoint, name: str, *facts: Any, can: str = "", **known: Any) -> LocalModel:
    known.setdefault("runs_on", RunsOn.ANOTHER_MACHINE if endpoint is BOX else RunsOn.THIS_MACHINE)
    capabilities = tuple(can.split())
    model_id = f"local/{endpoint.name}/{name}"
    return _model(model_id, *facts, endpoint=endpoint, capabilities=capabilities, **known)


def _file(store: str, name: str, *facts: Any, can: str = "", **known: Any) -> LocalModel:
    path = f"/home/ada/{store}/{name}.gguf"
    capabilities = tuple(can.split())
    model_id = f"local/gguf/{name}"
    return _model(model_id, *facts, path=path, store=store, capabilities=capabilities, **known)


EMBEDS: dict[str, Any] = {"purpose": "embedding"}
LOADED: dict[str, Any] = {"loaded": True, "context_loaded": 8 * _K}
QWEN3_BLOB = "/home/ada/.ollama/models/blobs/sha256-a3de86cd1c132c822487ededd47a324c50491393e656"

ON_OLLAMA = (
    _served(
        *(OLLAMA, "qwen3:8b", 5.2, "Q4_K_M", 8.2, 40),
        can="tools thinking",
        **LOADED,
        architecture="qwen3",
        path=QWEN3_BLOB,
        store="ollama",
        file_id="local/gguf/qwen3:8b",
    ),
    _served(OLLAMA, "llama3.2:latest", 2.0, "Q4_K_M", 3.2, 128, can="tools"),
    _served(OLLAMA, "gemma3:27b", 17.4, "Q4_K_M", 27.4, 128, can="vision"),
    _served(OLLAMA, "deepseek-r1:14b", 9.0, "Q4_K_M", 14.8, 128, can="thinking"),
    _served(OLLAMA, "gpt-oss:20b", 13.8, "MXFP4", 20.9, 128, can="tools thinking"),
    _served(
        *(OLLAMA, "gpt-oss:120b-cloud", 0, "MXFP4", 116.8, 128),
        can="tools thinking",
        runs_on=RunsOn.CLOUD,
        remote_host="ollama.com",
    ),
    _served(OLLAMA, "nomic-embed-text:latest", 0.274, "F16", 0.137, 2, **EMBEDS),
    _served(
        *(OLLAMA, "hf.co/unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF:UD-Q4_K_XL"),
        *(17.7, "UD-Q4_K_XL", 30.5, 256),
        can="tools",
    ),
    _served(OLLAMA, "minicpm-v:8b", 5.5, "Q4_0", 7.6, 32, can="vision"),
    _served(OLLAMA, "mistral-small3.2:24b", 15.2, "Q4_K_M", 24.0, 128, can="vision tools"),
)
ON_LMSTUDIO = (
    _served(LMSTUDIO, "qwen/qwen3-coder-30b", 17.2, "4BIT", 30.5, 256, can="tools"),
    _served(
        *(LMSTUDIO, "google/gemma-4-26b-a4b", 18.0, "Q4_K_M", 26, 256),
        can="vision tools thinking",
        **LOADED,
    ),
    _served(LMSTUDIO, "openai/gpt-oss-20b", 12.1, "MXFP4", 20.9, 128, can="tools thinking"),
    _served(
        *(LMSTUDIO, "text-embedding-nomic-embed-text-v1.5", 0.084, "Q4_K_M", 0.137, 2), **EMBEDS
    ),
    _served(LMSTUDIO, "mistralai/magistral-small-2509", 14.3, "Q4_K_M", 24, 128, can="vision"),
    _served(LMSTUDIO, "qwen2.5-vl-7b-instruct", 6.0, "Q4_K_M", 7.6, 125, can="vision"),
)
ON_BOX = (
    _served(BOX, "Qwen/Qwen3-Next-80B-A3B-Instruct-FP8", 0, "FP8", 80, 256, **LOADED),
    _served(BOX, "BAAI/bge-m3", 0, "", 0, 8, **EMBEDS),
)
ON_SWAP = (_served(SWAP, "frontier", 0, "", 0, 0, runs_on=RunsOn.UNKNOWN, remote_host="a peer"),)
FILES = (
    _file("localrun", "SmolLM2-135M-Instruct.Q4_1", 0.098, "Q4_1", 0.135, 8),
    _file("lmstudio", "Qwen3-8B-Q8_0", 8.7, "Q8_0", 8.2, 40, can="tools thinking"),
    _file("hf", "qwen2.5-coder-32b-instruct-q4_k_m", 19.9, "Q4_K_M", 32.8, 32, can="tools"),
    _file("hf", "qwen2.5-coder-32b-instruct-q8_0", 34.8, "Q8_0", 32.8, 32, can="tools"),
    _file(
        *("hf", "Mistral-Small-3.2-24B-Instruct-2506-UD-Q4_K_XL", 14.5, "UD-Q4_K_XL", 24, 128),
        can="tools vision",
        projector="/home/ada/hf/mmproj-F16.gguf",
    ),
    _file("lmstudio", "Llama-3.3-70B-Instruct-Q4_K_M", 42.5, "Q4_K_M", 70.6, 128, can="tools"),
    _file("lmstudio", "Phi-4-mini-instruct-Q4_K_M", 2.5, "Q4_K_M", 3.8, 128, can="tools"),
    _file("llamacpp", "Qwen2.5-Omni-7B-Q4_K_M", 4.7, "Q4_K_M", 7.6, 32, can="vision audio"),
    _file("lmstudio", "DeepSeek-R1-Distill-Qwen-14B-Q4_K_M", 9.0, "Q4_K_M", 14.8, 128),
    _file("folders", "Meta-Llama-3.1-8B-Instruct-abliterated.IQ4_XS", 4.4, "IQ4_XS", 8.0, 128),
    _file("localrun", "nomic-embed-text-v1.5.Q8_0", 0.146, "Q8_0", 0.137, 2, **EMBEDS),
    _file("folders", "Kimi-K2-Instruct-0905-UD-IQ1_S", 244, "UD-IQ1_S", 1026, 256, can="tools"),
)
NO_MODEL = ScannedFile(
    path="/home/ada/lmstudio/broken.gguf",
    size=5 * 10**8,
    modified=1.0,
    model=None,
    reason="it is cut off in the middle of its header",
)


def _report(endpoint: Endpoint, version: str, models: tuple[LocalModel, ...]) -> EndpointReport:
    return EndpointReport(
        endpoint=endpoint, status=ServerStatus.ANSWERS, asked_at=1.0, version=version, models=models
    )


SNAPSHOT = Snapshot(
    endpoints=(
        _report(BOX, "0.11.0", ON_BOX),
        _report(OLLAMA, "0.32.15", ON_OLLAMA),
        _report(LMSTUDIO, "0.4.23", ON_LMSTUDIO),
        _report(SWAP, "", ON_SWAP),
        EndpointReport(endpoint=LLAMACPP, status=ServerStatus.OFFLINE, asked_at=1.0),
    ),
    files=(
        *(
            ScannedFile(
                path=str(file_route(file).path), size=file.size or 0, modified=1.0, model=file
            )
            for file in FILES
        ),
        NO_MODEL,
    ),
    stores=(
        ScannedStore(store="lmstudio", path="/home/ada/lmstudio", status="read", files=5),
        ScannedStore(store="hf", path="/home/ada/hf", status="read", files=3),
        ScannedStore(store="gpt4all", path="/home/ada/gpt4all", status="missing"),
    ),
)


def put(user: Path, snapshot: Snapshot = SNAPSHOT) -> None:
    """Makes `snapshot` what was found just now."""
    fresh = snapshot.model_copy(update={"taken_at": time.time(), "stamp": settings_stamp([])})
    write_snapshot(user / "localrun", fresh)
