"""The kinds of model server: their names for people, where they usually are, how to start them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of server.

    `owned_by` is how its /v1/models signs its entries, if always alike; `key_variables` are the
    environment variables that its own clients take a key from; `context_flag` is what sets its
    context when it is started, `{}` standing for the tokens, "" if that is not known or not how.
    """

    name: str
    title: str
    advice: str
    ports: tuple[int, ...] = ()
    owned_by: str = ""
    key_variables: tuple[str, ...] = ()
    context_flag: str = ""


_START = "Start it, or choose another model: `llm localrun models` lists them"

KINDS = (
    Kind("ollama", "Ollama", "Start it with `ollama serve`", (11434,), "library"),
    Kind(
        "lmstudio",
        "LM Studio",
        "Start its server with `lms server start`, or in the app under Developer",
        (1234,),
        "organization_owner",
        ("LM_API_TOKEN", "LMSTUDIO_API_KEY"),
    ),
    Kind(
        "llamacpp",
        "llama-server",
        "Start it with `llama-server -m FILE`",
        # 9931 is the default of builds since autumn 2026.
        (8080, 9931),
        "llamacpp",
        ("LLAMA_API_KEY",),
        "-c {}",
    ),
    Kind(
        "vllm",
        "vLLM",
        "Start it with `vllm serve MODEL`",
        (8000,),
        "vllm",
        ("VLLM_API_KEY",),
        "--max-model-len {}",
    ),
    Kind("sglang", "SGLang", _START, owned_by="sglang", context_flag="--context-length {}"),
    Kind("koboldcpp", "KoboldCpp", _START, owned_by="koboldcpp", context_flag="--contextsize {}"),
    Kind("llamaswap", "llama-swap", _START, owned_by="llama-swap"),
    Kind("lemonade", "Lemonade", _START, owned_by="lemonade"),
    Kind("docker", "Docker Model Runner", _START, owned_by="docker"),
    Kind("unsloth", "Unsloth Studio", _START, owned_by="unsloth-studio"),
    Kind("mistralrs", "mistral.rs", _START, owned_by="local", context_flag="--max-seq-len {}"),
    Kind("gpt4all", "GPT4All", _START, owned_by="humanity"),
    Kind("textgen", "text-generation-webui", _START, owned_by="user"),
    Kind("engine", "the engine", "It ended just then: try again, and it is started anew"),
    Kind("openai", "the server", _START),
)

_BY_NAME = {kind.name: kind for kind in KINDS}


def kind_of(name: str) -> Kind:
    """The kind called `name`; a name that we do not know is some OpenAI-compatible server's."""
    return _BY_NAME.get(name, _BY_NAME["openai"])


def kind_by_owner(owned_by: str) -> Kind | None:
    """The kind whose models say that they are `owned_by`; None if that tells nothing."""
    return next((kind for kind in KINDS if owned_by and kind.owned_by == owned_by), None)
