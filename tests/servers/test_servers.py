"""Every kind of server, by a stand-in that answers as it does: which it is, and what it serves."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.models import Endpoint, EndpointReport, LocalModel, RunsOn, ServerStatus, Snapshot
from llm_localrun.name_cache import CachePolicy
from llm_localrun.servers.base import ModelListing, server_kinds
from llm_localrun.servers.discover import Discovery
from llm_localrun.servers.recognize import Recognition, ServerCandidate, recognize
from llm_localrun.wire.response import Ask, ProbeReply
from llm_localrun.wire.sse import Payload
from tests.fakes.docker import docker
from tests.fakes.gpt4all import gpt4all
from tests.fakes.http_server import Request, Respond, StandIn, get, json_reply, parsed
from tests.fakes.llama_server import llama_router, llama_router_of_folder, llama_server, props
from tests.fakes.lmstudio import LMStudio
from tests.fakes.mlx import mlx
from tests.fakes.ollama import Ollama, recorded
from tests.fakes.openai_compatible import listing
from tests.fakes.servers import SERVERS
from tests.support.drive import WAYS, failure, served
from tests.support.drive import ask as prompt
from tests.support.trees import MIB, gguf

Facts = Mapping[str, Any]

HERE = "http://127.0.0.1:9"


def asker(respond: Respond, paths: list[str], key: str | None = None) -> Ask:
    """Asks a fake without a socket, and notes the paths."""

    def ask(path: str, json: Payload | None = None) -> ProbeReply:
        paths.append(path)
        return ProbeReply(*parsed(get(respond, path, key, json)))

    return ask


def driven(
    respond: Respond,
    usual: str = "openai",
    key: str | None = None,
    url: str = HERE,
    dialect: str | None = None,
    known: Recognition | None = None,
) -> tuple[Recognition, list[str]]:
    """What the server that answers so turns out to be, and the paths that it was asked for.

    `usual` is the kind of server that usually has its port.
    """
    endpoint = Endpoint(name="box", kind=usual, url=url)
    before = ModelListing(known.models, known.version) if known else ModelListing()
    paths: list[str] = []
    found = recognize(asker(respond, paths, key), endpoint, before, dialect)
    assert found is not None
    return found, paths


GEMMA = {
    "quantization": "Q4_K_M",
    "parameters": 3880099328,
    "size": 2484000000,
    "context_max": 131072,
    "context_loaded": 8192,
    "loaded": True,
    "runs_on": RunsOn.THIS_MACHINE,
}
LM_STUDIO: dict[str, Facts] = {
    "google/gemma-4-26b-a4b": {
        "architecture": "gemma4",
        "quantization": "Q4_K_M",
        "parameters": 26_000_000_000,
        "size": 17990911801,
        "context_max": 262144,
        "context_loaded": None,
        "loaded": False,
        "capabilities": ("tools", "vision", "thinking"),
        "think_levels": ("off", "on"),
        "runs_on": RunsOn.UNKNOWN,
        "fingerprints": ("size:17990911801:Q4_K_M",),
    },
    "google/gemma-4-26b-a4b@q8_0": {"quantization": "Q8_0", "size": None, "fingerprints": ()},
    "openai/gpt-oss-20b": {"capabilities": ("tools", "thinking"), "quantization": "MXFP4"},
    "qwen2-vl-7b-instruct": {"capabilities": ("tools", "vision"), "quantization": "4bit"},
    "granite-3.0-2b-instruct": {"capabilities": ("tools",), "think_levels": None},
    "llama-3.1-8b@q4_k_m": {"quantization": "Q4_K_M", "size": 4920739232},
    "llama-3.1-8b@q8_0": {"quantization": "Q8_0", "size": 8540775840},
    "text-embedding-nomic-embed-text-v1.5": {"purpose": "embedding", "context_max": 2048},
}
LM_STUDIO_OLD: dict[str, Facts] = {
    name: {"runs_on": RunsOn.THIS_MACHINE, "size": None, "loaded": False}
    for name in LM_STUDIO
    if name != "google/gemma-4-26b-a4b@q8_0"
}
DOCKER: dict[str, Facts] = {
    "ai/gemma3:4B-Q4_K_M": {
        "architecture": "gemma3",
        "quantization": "Q4_K_M",
        "parameters": 3_880_000_000,
        "size": round(2.31 * 2**30),
        "context_max": 131072,
        "context_loaded": None,
        "loaded": True,
        "fingerprints": ("docker:ai/gemma3:4B-Q4_K_M",),
    },
    "ai/smollm2:latest": {"quantization": "Q4_K_M", "parameters": 361_820_000, "loaded": False},
    "ai/mxbai-embed-large:latest": {"purpose": "embedding", "size": None},
}

# What must come out of each stand-in: the kind, its version, and of its models at least this.
ANSWERING: dict[str, tuple[str, str, dict[str, Facts]]] = {
    "llama-server": (
        "llamacpp",
        "b11434-0a1b2c3d",
        {
            "gemma-3-4b-it-Q4_K_M.gguf": {
                **GEMMA,
                "capabilities": ("tools", "vision", "thinking"),
                "fingerprints": ("path:/models/gemma-3-4b-it-Q4_K_M.gguf",),
            }
        },
    ),
    "llama-server, decision model": (
        "llamacpp",
        "b11549-c1c4f1a",
        {"/models/nimble.gguf": {"purpose": "decision", "loaded": True, "context_loaded": 512}},
    ),
    "llama-server, router": (
        "llamacpp",
        "b11434-0a1b2c3d",
        {
            "ggml-org/gemma-3-4b-it-GGUF:Q4_K_M": {
                **GEMMA,
                "capabilities": ("tools", "vision"),
                "fingerprints": (
                    "hf:ggml-org/gemma-3-4b-it-gguf:Q4_K_M",
                    "path:/cache/gemma-3-4b-it-Q4_K_M.gguf",
                ),
            },
            "ggml-org/tiny-GGUF:Q8_0": {"loaded": False, "quantization": "Q8_0"},
            "unsloth/Qwen3-8B-GGUF:UD-Q4_K_XL": {
                "loaded": False,
                "context_loaded": None,
                "quantization": "UD-Q4_K_XL",
                "fingerprints": ("hf:unsloth/qwen3-8b-gguf:UD-Q4_K_XL",),
            },
            "mine": {"loaded": False, "fingerprints": ("path:/models/mine-Q6_K.gguf",)},
        },
    ),
    "llamafile": (
        "llamafile",
        "",
        {"Llama-3.2-3B-Instruct.Q6_K.gguf": {"quantization": "Q6_K", "loaded": True}},
    ),
    "vLLM": (
        "vllm",
        "0.33.0",
        {
            "Qwen/Qwen3-8B": {"context_loaded": 40960, "context_max": 40960, "loaded": True},
            # A LoRA has its base's context.
            "sql-lora": {"context_loaded": 40960, "loaded": True},
        },
    ),
    "vLLM, a file": (
        "vllm",
        "",
        {"qwen3": {"fingerprints": ("path:/models/qwen3-8b-Q8_0.gguf",), "context_loaded": 4096}},
    ),
    "SGLang": (
        "sglang",
        "0.5.23",
        # It was started without a parser for calls.
        {"Qwen/Qwen3-8B": {"context_loaded": 40960, "capabilities": ("vision", "thinking")}},
    ),
    "KoboldCpp": (
        "koboldcpp",
        "1.103",
        {
            "koboldcpp/mistral-7b.Q4_K_S": {
                "quantization": "Q4_K_S",
                "context_loaded": 16384,
                "loaded": True,
                "capabilities": ("tools", "vision"),
            }
        },
    ),
    "text-generation-webui": ("textgen", "", {"Qwen3-8B-Q4_K_M.gguf": {"loaded": True}}),
    "mistral.rs": (
        "mistralrs",
        "",
        {"Qwen/Qwen3-4B": {"loaded": True}, "google/gemma-3-4b-it": {"loaded": False}},
    ),
    "mlx_lm.server": (
        "mlx",
        "",
        {
            "mlx-community/Qwen3-8B-4bit": {
                "quantization": "4bit",
                "loaded": None,
                "context_loaded": None,
                "context_max": None,
            },
            "mlx-community/bge-small-en-v1.5-bf16": {"purpose": "embedding"},
            "mlx-community/whisper-large-v3-mlx": {"purpose": "other"},
        },
    ),
    "mlx_lm.server of a folder": ("mlx", "", {"/models/SmolLM2-135M-Instruct": {"loaded": None}}),
    "mlx_lm.server without a cache": ("mlx", "", {}),
    "transformers serve": (
        "transformers",
        "",
        {
            # Whoever made it, it runs here.
            "openai/gpt-oss-20b": {"loaded": True, "runs_on": RunsOn.THIS_MACHINE},
            "unsloth/Qwen3-8B-GGUF:Qwen3-8B-Q4_K_M.gguf": {
                "quantization": "Q4_K_M",
                "loaded": None,
                "runs_on": RunsOn.THIS_MACHINE,
            },
            "BAAI/bge-m3": {"purpose": "embedding"},
        },
    ),
    "transformers serve without models": ("transformers", "", {}),
    "transformers serve without a cache": ("transformers", "", {}),
    "oMLX": (
        "omlx",
        "0.7.0",
        {
            "Qwen3-8B-4bit": {
                "quantization": "4bit",
                "loaded": True,
                "size": 4620000000,
                "context_max": 32768,
            },
            "my-vlm": {"capabilities": ("tools", "vision"), "loaded": None},
            "bge-m3": {"purpose": "embedding", "loaded": False},
            "MarkItDown": {"purpose": "other", "loaded": True},
            "Kimi-K2-4bit": {"runs_on": RunsOn.UNKNOWN},
        },
    ),
    "LocalAI": (
        "localai",
        "v4.9.0",
        {
            # What it is called does not make it OpenAI's.
            "gpt-4": {
                "capabilities": ("tools", "vision"),
                "context_loaded": 8192,
                "runs_on": RunsOn.THIS_MACHINE,
            },
            "bge-m3": {"purpose": "embedding"},
            "whisper-1": {"purpose": "other"},
        },
    ),
    "GPT4All": (
        "gpt4all",
        "",
        {
            "Llama 3 8B Instruct": {"capabilities": (), "runs_on": RunsOn.THIS_MACHINE},
            "Qwen3-4B-Q4_0": {
                "quantization": "Q4_0",
                "fingerprints": ("name:gpt4all:Qwen3-4B-Q4_0",),
            },
            "ChatGPT-4": {"runs_on": RunsOn.UNKNOWN, "fingerprints": ()},
        },
    ),
    "Docker Model Runner": ("docker", "", DOCKER),
    "Docker Model Runner of old": ("docker", "", DOCKER),
    "Lemonade": (
        "lemonade",
        "10.3.0",
        {
            "Qwen3-4B-GGUF": {
                "quantization": "Q4_0",
                "size": 2_400_000_000,
                "context_max": 40960,
                "context_loaded": 8192,
                "loaded": True,
                "capabilities": ("tools", "thinking"),
                "fingerprints": ("hf:unsloth/qwen3-4b-gguf:Q4_0",),
            },
            "Gemma-3-4b-it-GGUF": {"capabilities": ("vision",), "loaded": False},
            "nomic-embed-text-v2-GGUF": {"purpose": "embedding"},
            "bge-reranker-v2-m3-GGUF": {"purpose": "rerank"},
            "Whisper-Tiny": {"purpose": "other"},
            "SD-Turbo": {"purpose": "other"},
            "fireworks.glm-5p3": {"runs_on": RunsOn.CLOUD, "remote_host": "fireworks"},
            "Halo": {"runs_on": RunsOn.UNKNOWN},
        },
    ),
    "Lemonade without models": ("lemonade", "10.3.0", {}),
    "llama-swap": (
        "llamaswap",
        "180",
        {
            "qwen3-8b": {
                "loaded": True,
                "context_loaded": 32768,
                "capabilities": ("tools",),
                "runs_on": RunsOn.THIS_MACHINE,
            },
            "gemma-3": {"loaded": False, "capabilities": ("tools", "vision")},
            "unsloth/Qwen3-8B-GGUF:Q4_K_M": {
                "runs_on": RunsOn.UNKNOWN,
                "remote_host": "nas",
                # The file of that name on this disk is another copy.
                "fingerprints": (),
            },
            "best": {"runs_on": RunsOn.UNKNOWN},
        },
    ),
    "llama-swap of old": (
        "llamaswap",
        "",
        {
            "qwen3-8b": {"loaded": True, "runs_on": RunsOn.THIS_MACHINE},
            "glm-5": {"runs_on": RunsOn.UNKNOWN, "remote_host": "nas"},
        },
    ),
    "Unsloth Studio": (
        "unsloth",
        "2026.10.9",
        {
            "unsloth/Qwen3-8B-GGUF": {
                "quantization": "UD-Q4_K_XL",
                "context_loaded": 32768,
                "context_max": 40960,
                "loaded": True,
                "runs_on": RunsOn.THIS_MACHINE,
                "fingerprints": ("hf:unsloth/qwen3-8b-gguf:UD-Q4_K_XL",),
            },
            "openai/gpt-5": {"runs_on": RunsOn.UNKNOWN, "remote_host": "openai"},
        },
    ),
    "Ollama": (
        "ollama",
        "0.32.15",
        {
            "smollm2:135m": {
                "architecture": "llama",
                "quantization": "Q4_1",
                "parameters": 134_520_000,
                "size": 98362745,
                "context_max": 8192,
                "context_loaded": 4096,
                "loaded": True,
                "capabilities": ("completion",),
                "fingerprints": (
                    "ollama:fd5f44c0b5aff6453726119fc560d73a8a995a55b4a49804bc24b1969ecf1794",
                    "blob:sha256-941f309b54caaad6747569ba43712bcde44a2be3bae16c3282ff499c37c54af5",
                ),
            }
        },
    ),
    "LM Studio": ("lmstudio", "", LM_STUDIO),
    "LM Studio 0.3.30": ("lmstudio", "", LM_STUDIO_OLD),
    "LM Studio 0.3.5": ("lmstudio", "", {name: {} for name in LM_STUDIO_OLD}),
    "LM Studio without models": ("lmstudio", "", {}),
    "LM Studio that loads nothing by itself": ("lmstudio", "", LM_STUDIO),
    "LiteLLM": (
        "openai",
        "",
        {
            "gpt-4o": {"runs_on": RunsOn.UNKNOWN, "remote_host": "openai"},
            "my-claude": {"runs_on": RunsOn.UNKNOWN, "remote_host": "openai"},
        },
    ),
}

NOT_ANSWERING = {
    "llama-server, loading": ("llamacpp", ServerStatus.LOADING),
    "llama-server, locked": ("llamacpp", ServerStatus.NEEDS_KEY),
    "vLLM, locked": ("vllm", ServerStatus.NEEDS_KEY),
    "oMLX, locked": ("omlx", ServerStatus.NEEDS_KEY),
    "Jan, locked": ("openai", ServerStatus.NEEDS_KEY),
    "LocalAI, locked": ("localai", ServerStatus.NEEDS_KEY),
    "Unsloth Studio, locked": ("unsloth", ServerStatus.NEEDS_KEY),
    "LM Studio, locked": ("lmstudio", ServerStatus.NEEDS_KEY),
    "AirPlay": ("openai", ServerStatus.UNRECOGNIZED),
    "Jupyter": ("openai", ServerStatus.UNRECOGNIZED),
}

# They list their models to everybody, and answer prompts only with a key: kind and models.
OPEN_LISTS = {
    "llama-server with an open list": ("llamacpp", ["gemma-3-4b-it-Q4_K_M.gguf"]),
    "llama-server, router with an open list": ("llamacpp", ["tiny-Q8_0"]),
    "llamafile with an open list": ("llamafile", ["Llama-3.2-3B-Instruct.Q6_K.gguf"]),
    "KoboldCpp with an open list": ("koboldcpp", ["koboldcpp/mistral-7b.Q4_K_S"]),
}

# Servers that show nothing of their own: they are what their port says.
BY_PORT = {
    ("Jan", "jan"): ("jan", {"Qwen3-8B-Q4_K_M": RunsOn.UNKNOWN, "claude-opus-4-1": RunsOn.UNKNOWN}),
    ("Jan", "openai"): (
        "openai",
        {"Qwen3-8B-Q4_K_M": RunsOn.THIS_MACHINE, "claude-opus-4-1": RunsOn.UNKNOWN},
    ),
    ("Jan, locked", "jan"): ("jan", {}),
    ("Msty Nexus", "ollama"): ("gateway", {"qwen3:8b": RunsOn.UNKNOWN, "grok-4": RunsOn.UNKNOWN}),
    ("Msty Nexus", "llamacpp"): (
        "openai",
        {"qwen3:8b": RunsOn.THIS_MACHINE, "grok-4": RunsOn.UNKNOWN},
    ),
    # Those that show what they are are that on any port.
    ("mlx_lm.server", "jan"): ("jan", None),
    ("mlx_lm.server", "llamacpp"): ("mlx", None),
    ("Ollama", "vllm"): ("ollama", None),
    ("LM Studio", "ollama"): ("lmstudio", None),
    ("mistral.rs", "lmstudio"): ("mistralrs", None),
    ("oMLX", "vllm"): ("omlx", None),
    ("LocalAI", "ollama"): ("localai", None),
}


@pytest.mark.parametrize("title", [cls.title for cls in server_kinds().values() if cls.is_product])
def test_every_kind_of_server_has_a_fake_under_its_title(title: str) -> None:
    assert title in SERVERS


def test_every_stand_in_is_tested() -> None:
    tested = {*ANSWERING, *NOT_ANSWERING, *OPEN_LISTS, *(name for name, _ in BY_PORT)}
    assert tested == {*SERVERS}


def assert_models(models: tuple[LocalModel, ...], facts: Mapping[str, Facts]) -> None:
    """The models are exactly those in `facts`, and of each at least this is known."""
    by_name = {model.name: model for model in models}
    assert [*by_name] == [*facts]
    for name, expected in facts.items():
        assert {field: getattr(by_name[name], field) for field in expected} == expected, name


@pytest.mark.parametrize("name", ANSWERING)
def test_what_a_server_is_and_serves(name: str) -> None:
    kind, version, facts = ANSWERING[name]
    identity, _ = driven(SERVERS[name]())
    assert (identity.kind, identity.status, identity.version) == (
        kind,
        ServerStatus.ANSWERS,
        version,
    )
    assert_models(identity.models, facts)


@pytest.mark.parametrize("name", NOT_ANSWERING)
def test_server_that_does_not_say_what_it_serves(name: str) -> None:
    identity, _ = driven(SERVERS[name]())
    assert (identity.kind, identity.status) == NOT_ANSWERING[name]
    assert identity.models == ()


@pytest.mark.parametrize(
    ("key", "status"),
    [
        (None, ServerStatus.NEEDS_KEY),
        ("wrong", ServerStatus.NEEDS_KEY),
        ("secret", ServerStatus.ANSWERS),
    ],
)
@pytest.mark.parametrize("name", OPEN_LISTS)
def test_open_list_does_not_mean_that_no_key_is_needed(
    name: str, key: str | None, status: ServerStatus
) -> None:
    identity, _ = driven(SERVERS[name](), key=key)
    models = [model.name for model in identity.models]
    assert (identity.kind, identity.status, models) == (
        OPEN_LISTS[name][0],
        status,
        OPEN_LISTS[name][1],
    )


@pytest.mark.parametrize(("name", "usual"), BY_PORT)
def test_server_by_its_port(name: str, usual: str) -> None:
    kind, runs_on = BY_PORT[name, usual]
    identity, _ = driven(SERVERS[name](), usual)
    assert identity.kind == kind
    if runs_on is not None:
        assert {model.name: model.runs_on for model in identity.models} == runs_on


KEYS = {"llama-server": "secret", "Jan": "jan-key", "Unsloth Studio": "sk-unsloth-key"}


@pytest.mark.parametrize("name", ["llama-server", "vLLM", "oMLX", "LocalAI", "Unsloth Studio"])
def test_key_opens_a_server(name: str) -> None:
    identity, _ = driven(SERVERS[f"{name}, locked"](), key=KEYS.get(name, "secret"))
    assert identity == driven(SERVERS[name]())[0]


# What is known from the last time is not asked again.
QUESTIONS = {
    "llama-server": ["/v1/models", "/props"],
    "vLLM": ["/v1/models"],
    "SGLang": ["/v1/models", "/model_info"],
    "KoboldCpp": [
        "/v1/models",
        "/api/extra/version",
        "/api/extra/true_max_context_length",
        "/api/extra/generate/check",
    ],
    "llamafile": ["/v1/models", "/", "/.well-known/localai.json", "/health", "/props"],
    "transformers serve": ["/v1/models", "/", "/openapi.json"],
    "text-generation-webui": ["/v1/models", "/v1/internal/model/info"],
    "mistral.rs": ["/v1/models"],
    "oMLX": ["/v1/models", "/v1/models/status"],
    "GPT4All": ["/v1/models"],
    "Docker Model Runner": ["/v1/models", "/engines/ps"],
    "Lemonade": ["/v1/models", "/v1/health"],
    "llama-swap": ["/v1/models"],
    "Unsloth Studio": ["/v1/models"],
    "Ollama": ["/v1/models", "/", "/api/tags", "/api/ps"],
    "LM Studio": ["/v1/models", "/api/v1/models"],
    "LiteLLM": ["/v1/models", "/"],
    "Jupyter": ["/v1/models", "/"],
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_needless_question(name: str) -> None:
    respond = SERVERS[name]()
    first, _ = driven(respond)
    again, asked = driven(respond, known=first)
    assert asked == QUESTIONS[name]
    assert again == first


@pytest.mark.parametrize("name", SERVERS)
def test_nothing_is_asked_that_could_change_something(name: str) -> None:
    """Only GETs, and none that unloads; but /api/show, which Ollama answers to a POST."""
    sent: list[Request] = []
    respond = SERVERS[name]()

    def watched(request: Request) -> Iterator[bytes | float]:
        sent.append(request)
        yield from respond(request)

    driven(watched)
    assert {request.path for request in sent if request.method != "GET"} <= {"/api/show"}
    paths = {request.path.partition("?")[0] for request in sent}
    assert not any(path.endswith("load") for path in paths)


@pytest.mark.parametrize(
    ("name", "dialect", "kind", "status"),
    [
        # As that it is asked, whatever it shows.
        ("Jan", "jan", "jan", ServerStatus.ANSWERS),
        ("vLLM", "openai", "openai", ServerStatus.ANSWERS),
        ("KoboldCpp", "llamacpp", "llamacpp", ServerStatus.ANSWERS),
        ("LM Studio", "openai", "openai", ServerStatus.ANSWERS),
        ("LM Studio", "lmstudio", "lmstudio", ServerStatus.ANSWERS),
        ("Docker Model Runner of old", "docker", "docker", ServerStatus.ANSWERS),
        ("llama-server, locked", "vllm", "vllm", ServerStatus.NEEDS_KEY),
        ("vLLM", "ollama", "ollama", ServerStatus.UNRECOGNIZED),
        ("vLLM", "something-new", "something-new", ServerStatus.ANSWERS),
        ("Jupyter", "vllm", "vllm", ServerStatus.UNRECOGNIZED),
        ("Ollama", "ollama", "ollama", ServerStatus.ANSWERS),
    ],
)
def test_server_of_which_the_user_says_what_it_is(
    name: str, dialect: str, kind: str, status: str
) -> None:
    identity, asked = driven(SERVERS[name](), dialect=dialect)
    assert (identity.kind, identity.status) == (kind, status)
    assert "/" not in asked
    if status == ServerStatus.ANSWERS:
        assert identity.models != ()


def test_all_kinds_at_once() -> None:
    """Over real sockets, each on a port of its own."""
    names = [*ANSWERING, *NOT_ANSWERING]
    with ExitStack() as stack:
        boxes = [stack.enter_context(StandIn(SERVERS[name]())) for name in names]
        probes = [
            ServerCandidate(Endpoint(name=f"box{n}", kind="openai", url=box.url), is_named=True)
            for n, box in enumerate(boxes)
        ]
        reports = Discovery(probes, [], CachePolicy.REFRESH).run()
    found = dict(zip(names, reports, strict=True))
    for name, (kind, version, facts) in ANSWERING.items():
        report = found[name]
        assert (report.endpoint.kind, report.status) == (kind, ServerStatus.ANSWERS), name
        assert report.version == version, name
        assert [model.name for model in report.models] == [*facts], name
    for name, (kind, status) in NOT_ANSWERING.items():
        assert found[name].status == status, name
        assert found[name].endpoint.kind == kind or status == ServerStatus.UNRECOGNIZED, name


# What is out of order


def leaves(value: Any) -> Iterator[tuple[str | int, ...]]:
    """The way to every value in a JSON value, itself included."""
    yield ()
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield from ((key, *way) for way in leaves(inner))
    for index, inner in enumerate(value[:2]) if isinstance(value, list) else ():
        yield from ((index, *way) for way in leaves(inner))


def replaced(value: Any, way: tuple[str | int, ...], new: Any) -> Any:
    if not way:
        return new
    copy = value.copy()
    copy[way[0]] = replaced(value[way[0]], way[1:], new)
    return copy


ODD: list[Any] = [None, -1, 10**400, float("inf"), "\ud800 \x00", [], {"a": [1]}]


@pytest.mark.parametrize("name", [*ANSWERING, *NOT_ANSWERING, *OPEN_LISTS])
def test_odd_answers_are_no_error(name: str) -> None:
    """Every value in every answer, one at a time, is something unexpected."""
    respond = SERVERS[name]()
    _, asked = driven(respond)
    for path in dict.fromkeys(asked):
        whole = parsed(get(respond, path, body={"model": "m"} if path == "/api/show" else None))[1]
        for way, odd in itertools.product(leaves(whole), ODD):
            identity = spoilt(respond, path, replaced(whole, way, odd))
            assert identity.status in (
                ServerStatus.ANSWERS,
                ServerStatus.LOADING,
                ServerStatus.NEEDS_KEY,
                ServerStatus.UNRECOGNIZED,
            )
            kept(identity)


def spoilt(respond: Respond, spoilt_path: str, odd: Any, usual: str = "openai") -> Recognition:
    """What becomes of a server that answers `path` with something odd."""
    whole = asker(respond, [])

    def ask(path: str, json: Payload | None = None) -> ProbeReply | None:
        reply = whole(path, json)
        if path != spoilt_path or reply is None:
            return reply
        return ProbeReply(reply.status, odd, reply.text)

    found = recognize(ask, Endpoint(name="box", kind=usual, url=HERE), ModelListing())
    assert found is not None
    return found


# One bad entry of a list costs itself, never its neighbors.

LOADED = "LM Studio with a model in memory"


def fake_of(name: str) -> Respond:
    if name != LOADED:
        return SERVERS[name]()
    studio = LMStudio()
    studio.load(studio.models[0].key)
    return studio


LISTING = [
    (LOADED, "openai"),
    *((name, "openai") for name, (_, _, facts) in ANSWERING.items() if facts),
    *((name, usual) for name, usual in BY_PORT if "locked" not in name),
]
"""Servers that list models, and the kind that usually has their port."""

NO_NAME = dict.fromkeys(("id", "name", "model", "model_name", "key"), "")
BAD_ENTRIES: list[Any] = [None, 7, [], {}, NO_NAME, dict.fromkeys(NO_NAME)]
"""Of any list; in a list of objects a text is one, too."""

ORDERED = ("args",)
"""Lists that mean something as a whole only."""


def lists(respond: Respond, usual: str) -> Iterator[tuple[str, Any, tuple[str | int, ...]]]:
    """Every list that has entries in what a server answers: its path, the answer, the way to it."""
    paths: list[str] = []
    recognize(asker(respond, paths), Endpoint(name="box", kind=usual, url=HERE), ModelListing())
    for path in dict.fromkeys(paths):
        whole = parsed(get(respond, path, body={"model": "m"} if path == "/api/show" else None))[1]
        for way in leaves(whole):
            if isinstance(inside(whole, way), list) and inside(whole, way):
                yield path, whole, way


def inside(value: Any, way: tuple[str | int, ...]) -> Any:
    for step in way:
        value = value[step]
    return value


def with_entry(whole: Any, way: tuple[str | int, ...], at: int, entry: Any) -> Any:
    """`whole` with `entry` put into one of its lists."""
    entries = inside(whole, way)
    return replaced(whole, way, [*entries[:at], entry, *entries[at:]])


@pytest.mark.parametrize(("name", "usual"), LISTING)
def test_bad_entry_of_a_list_costs_only_itself(name: str, usual: str) -> None:
    respond = fake_of(name)
    first, _ = driven(respond, usual)
    count = 0
    for path, whole, way in lists(respond, usual):
        entries = inside(whole, way)
        if way and way[-1] in ORDERED:
            continue
        bad = [*BAD_ENTRIES, "a text"] if isinstance(entries[0], dict) else BAD_ENTRIES
        for at, entry in itertools.product({0, 1, len(entries)}, bad):
            odd = with_entry(whole, way, at, entry)
            assert spoilt(respond, path, odd, usual) == first, (path, way, at, entry)
            count += 1
    assert count > len(BAD_ENTRIES)


@pytest.mark.parametrize(("name", "usual"), LISTING)
@pytest.mark.parametrize("at", [0, 1, 99])
def test_entry_with_only_a_name_leaves_its_neighbors_alone(at: int, name: str, usual: str) -> None:
    """KoboldCpp reports about its model only if that is the only one."""
    bare = dict.fromkeys(NO_NAME, "bare/bare")
    respond = fake_of(name)
    first, _ = driven(respond, usual)
    fields = {"context_loaded", "loaded", "capabilities"} if name == "KoboldCpp" else set()
    for path, whole, way in lists(respond, usual):
        if len(way) > 1 or not isinstance(inside(whole, way)[0], dict):
            continue
        found = spoilt(respond, path, with_entry(whole, way, at, bare), usual)
        assert (found.kind, found.status) == (first.kind, first.status)
        models = [model for model in found.models if model.name != "bare/bare"]
        assert [comparable(model, fields) for model in models] == [
            comparable(model, fields) for model in first.models
        ]


def comparable(model: LocalModel, without: set[str]) -> dict[str, Any]:
    known: dict[str, Any] = model.model_dump(exclude=without)
    for route in known["routes"]:
        for field in without:
            route.pop(field, None)
    return known


@pytest.mark.parametrize("digest", [None, "", 7, {"sha256": "0a"}])
def test_ollama_model_without_a_digest(digest: Any) -> None:
    """It matches no file, and its details are asked each time."""
    ollama = Ollama(has=["small:latest", "plain:latest"], num_ctx={"small:latest": 512})
    whole = parsed(get(ollama, "/api/tags"))[1]

    def without(request: Request) -> Iterator[bytes | float]:
        entries = [
            {**entry, "digest": digest} if entry["name"] == "small:latest" else entry
            for entry in whole["models"]
        ]
        yield from (
            [json_reply({"models": entries})] if request.path == "/api/tags" else ollama(request)
        )

    first, _ = driven(without)
    again, asked = driven(without, known=first)
    for found in (first, again):
        small, plain = found.models
        assert (small.name, small.fingerprints, small.context_max) == ("small:latest", (), 8192)
        assert small.served is not None
        assert (small.served.digest, small.served.context_default) == ("", 512)
        assert plain.fingerprints != ()
    assert asked.count("/api/show") == 1


def kept(identity: Recognition) -> None:
    """The catalogue can be written and read with what was found."""
    endpoint = Endpoint(name="box", kind=identity.kind, url=HERE)
    report = EndpointReport(
        endpoint=endpoint, status=identity.status, asked_at=0.0, models=identity.models
    )
    text = Snapshot(endpoints=(report,)).model_dump_json()
    assert Snapshot.model_validate_json(text).endpoints == (report,)


@pytest.mark.parametrize(
    "name", ["llama-server", "llama-server, router", "vLLM", "SGLang", "KoboldCpp", "Lemonade"]
)
def test_server_that_lists_its_models_and_says_no_more(name: str) -> None:
    """They are offered all the same; where they run is in the list."""
    respond = SERVERS[name]()
    whole, _ = driven(respond)
    identity = lists_only(respond)
    assert identity is not None
    assert (identity.kind, identity.status) == (whole.kind, ServerStatus.ANSWERS)
    runs_on = {model.name: model.runs_on for model in whole.models}
    assert {model.name: model.runs_on for model in identity.models} == runs_on


@pytest.mark.parametrize("name", ["LM Studio", "Ollama"])
def test_server_whose_own_list_comes_too_late_is_not_recognized(name: str) -> None:
    identity = lists_only(SERVERS[name]())
    assert identity is not None
    assert identity.status is ServerStatus.UNRECOGNIZED


def lists_only(respond: Respond) -> Recognition | None:
    """What a server turns out to be that has no time to answer more than /v1/models and /."""
    whole = asker(respond, [])

    def ask(path: str, json: Payload | None = None) -> ProbeReply | None:
        return whole(path, json) if path in ("/v1/models", "/") else None

    return recognize(ask, Endpoint(name="box", kind="openai", url=HERE), ModelListing())


# Running a model of theirs


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("url_ends", ["", "/engines"])
def test_docker_is_asked_below_its_root(url_ends: str, way: str) -> None:
    server = docker()
    with StandIn(server) as box:
        outcome = prompt(served(box.url + url_ends, "docker", "ai/gemma3"), "Hi", way)
    assert outcome.text == "Hello."
    assert [request.path for request in server.asked] == ["/engines/v1/chat/completions"]


@pytest.mark.parametrize("way", WAYS)
def test_gpt4all_is_not_asked_to_stream(way: str) -> None:
    server = gpt4all()
    with StandIn(server) as box:
        outcome = prompt(served(box.url, "gpt4all", "m", capabilities=()), "Hi", way)
    assert outcome.text == "Hello."
    assert [request.body["stream"] for request in server.asked] == [False]


@pytest.mark.parametrize(
    ("options", "most"), [({}, 131072), ({"max_tokens": 7}, 7)], ids=["unset", "set"]
)
def test_mlx_is_always_told_how_much_it_may_answer(options: dict[str, Any], most: int) -> None:
    server = mlx()
    with StandIn(server) as box:
        prompt(served(box.url, "mlx", "mlx-community/Qwen3-8B-4bit"), "Hi", **options)
    assert [request.body["max_tokens"] for request in server.asked] == [most]


@pytest.mark.parametrize("kind", ["mlx", "gpt4all", "transformers"])
def test_schema_is_refused_where_it_would_be_ignored(kind: str) -> None:
    server = mlx()
    with StandIn(server) as box:
        model = served(box.url, kind, "m")
        said = failure(lambda: prompt(model, "Hi", schema={"type": "object", "properties": {}}))
    assert "cannot make answers follow a schema" in said
    assert server.asked == []


def test_llama_server_that_sleeps_holds_no_model() -> None:
    server = llama_server()
    server.answers = {**server.answers, "/props": {**props("/m.gguf"), "is_sleeping": True}}
    assert [model.loaded for model in driven(server)[0].models] == [False]


@pytest.mark.parametrize(
    ("context", "url", "known"),
    [
        ("1024", HERE, {"context_default": 1024, "context_max": 4096, "size": 2 * MIB}),
        ("0", HERE, {"context_default": 4096, "context_max": 4096, "architecture": "llama"}),
        ("auto", HERE, {"context_default": None, "context_max": 4096}),
        # The file of another machine is not the one here.
        ("1024", "http://box:8080", {"context_default": 1024, "context_max": None, "size": None}),
        ("0", "http://box:8080", {"context_default": None, "context_max": None}),
    ],
)
def test_unloaded_model_of_a_router_is_known_by_its_file_and_its_flags(
    context: str, url: str, known: Facts, tmp_path: Path
) -> None:
    path = gguf(tmp_path / "tiny-Q8_0.gguf", {"llama.context_length": 4096})
    (model,) = driven(llama_router_of_folder(str(path), context=context), url=url)[0].models
    assert {name: getattr(model, name) for name in known} == known
    assert (model.loaded, model.context_loaded) == (False, None)


HEADERS: list[tuple[str, Facts, str]] = [
    ("foo", {"bert.pooling_type": 1}, "embedding"),
    ("foo", {"bert.pooling_type": 4}, "rerank"),
    ("some-cross-encoder", {"bert.pooling_type": 1}, "rerank"),
    ("foo", {"bert.decision.type": "nimble"}, "decision"),
]


@pytest.mark.parametrize(("stem", "keys", "purpose"), HEADERS)
@pytest.mark.parametrize("url", [HERE, "http://box:8080"])
def test_model_is_for_what_its_file_says_if_that_is_here(
    url: str, stem: str, keys: Facts, purpose: str, tmp_path: Path
) -> None:
    """The only one, loaded by a router, and not loaded: their entries all look like chat models."""
    path = str(gguf(tmp_path / f"{stem}.gguf", keys, architecture="bert"))
    loaded = llama_router_of_folder(path, loaded=path)
    loaded.answers = {**loaded.answers, f"/props?model={stem}&autoload=false": props(path)}
    for server in (llama_server(path=path), loaded, llama_router_of_folder(path)):
        (model,) = driven(server, url=url)[0].models
        named = "rerank" if "cross-encoder" in model.name else "chat"
        assert model.purpose == (purpose if url == HERE else named)


@pytest.mark.parametrize("path", ["/nowhere/tiny.gguf", "models/tiny.gguf", "\0", "/dev/zero"])
def test_file_of_a_server_that_cannot_be_read_is_no_error(path: str) -> None:
    assert [model.purpose for model in driven(llama_server(path=path))[0].models] == ["chat"]
    (model,) = driven(llama_router_of_folder(path))[0].models
    assert (model.context_default, model.context_max, model.size) == (1024, None, None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_loaded", [False, True])
def test_context_of_a_routers_model_is_known_from_its_first_prompt_on(
    is_loaded: bool, way: str
) -> None:
    """Before it is loaded, from its flags; then from what the router has loaded."""
    router = llama_router_of_folder("/m/tiny.gguf")
    if is_loaded:
        router.answers = {
            **router.answers,
            "/props?model=tiny&autoload=false": props("/m/tiny.gguf"),
        }
    with StandIn(router) as box:
        model = served(box.url, "llamacpp", "tiny", loaded=False, context_default=1024)
        outcome = prompt(model, "Hi", way)
    assert outcome.json is not None
    assert outcome.json["context_size"] == (8192 if is_loaded else 1024)


def test_router_that_has_loaded_nothing_tells_its_version() -> None:
    router = llama_router()
    entries = [e for e in router.answers["/v1/models"]["data"] if "meta" not in e]
    router.answers = {**router.answers, "/v1/models": listing(*entries)}
    identity, asked = driven(router)
    assert (identity.version, asked) == ("b11434-0a1b2c3d", ["/v1/models", "/props"])


def test_ollama_before_its_tags_told_the_context() -> None:
    """Before 0.30 /api/show is where the trained context is."""
    ollama = recorded("openai", "tags", "version", "show", "ps")

    def older(request: Request) -> Iterator[bytes | float]:
        for piece in ollama(request):
            yield (
                piece.replace(b',"context_length":8192,"embedding_length":576', b"")
                if (isinstance(piece, bytes) and request.path == "/api/tags")
                else piece
            )

    (model,) = driven(older)[0].models
    assert (model.context_max, model.capabilities) == (8192, ("completion",))


def test_context_that_a_modelfile_sets() -> None:
    ollama = Ollama(has=["small:latest", "plain:latest"], num_ctx={"small:latest": 512})
    first, asked = driven(ollama)
    again, asked_again = driven(ollama, known=first)
    for identity in (first, again):
        contexts = {
            each.name: each.served and each.served.context_default for each in identity.models
        }
        assert contexts == {"small:latest": 512, "plain:latest": None}
    assert (asked.count("/api/show"), asked_again.count("/api/show")) == (2, 0)


def test_ollama_that_is_older_than_its_processes() -> None:
    ollama = recorded("openai", "tags", "version", "show")
    (model,) = driven(ollama)[0].models
    assert (model.loaded, model.context_loaded) == (None, None)


def test_model_that_ollama_replaced_is_shown_anew() -> None:
    first, _ = driven(SERVERS["Ollama"]())
    old = Recognition(
        "ollama",
        ServerStatus.ANSWERS,
        tuple(m.with_served(digest="0a") for m in first.models),
    )
    assert "/api/show" in driven(SERVERS["Ollama"](), known=old)[1]
