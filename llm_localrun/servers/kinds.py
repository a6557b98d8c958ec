"""The kinds of model server: what they are called, where they usually are, what sets them apart.

RamaLama and Msty have no rows: they run one of the servers below, and answer as that.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of server.

    `owned_by` is how its /v1/models signs its entries, "" if it does not. `key_variables` are the
    environment variables that its own clients take a key from. `root` is the path below its address
    where /v1 begins. `relays` if it may hand prompts on to other machines without saying of which
    models. `streams` and `takes_schemas` say what it can do whatever the model. `context_flag` is
    what sets its context when it is started, `{}` standing for the tokens; "" if nothing is known.
    """

    name: str
    title: str
    advice: str = "Start it, or choose another model: `llm localrun models` lists them"
    ports: tuple[int, ...] = ()
    owned_by: str = ""
    key_variables: tuple[str, ...] = ()
    root: str = ""
    relays: bool = False
    streams: bool = True
    takes_schemas: bool = True
    context_flag: str = ""


KINDS = (
    # 10000 is Msty 1.x, 11964 Msty Studio.
    Kind("ollama", "Ollama", "Start it with `ollama serve`", (11434, 10000, 11964), "library"),
    Kind(
        "lmstudio",
        "LM Studio",
        "Start its server with `lms server start`, or in the app under Developer",
        (1234,),
        "organization_owner",
        ("LM_API_TOKEN", "LMSTUDIO_API_KEY"),
        relays=True,  # LM Link, since 0.4.5
    ),
    Kind(
        "llamacpp",
        "llama-server",
        "Start it with `llama-server -m FILE`",
        # 9931 is the default of builds since autumn 2026; 11454 is Msty Studio.
        (8080, 9931, 11454),
        "llamacpp",
        ("LLAMA_API_KEY",),
        context_flag="-c {}",
    ),
    Kind("llamafile", "llamafile", "Start it with `--server`", context_flag="-c {}"),
    Kind(
        "vllm",
        "vLLM",
        "Start it with `vllm serve MODEL`",
        (8000,),
        "vllm",
        ("VLLM_API_KEY",),
        context_flag="--max-model-len {}",
    ),
    Kind(
        "sglang",
        "SGLang",
        "Start it with `python -m sglang.launch_server --model-path MODEL`",
        (30000,),
        "sglang",
        context_flag="--context-length {}",
    ),
    Kind(
        "mlx",
        "mlx_lm.server",
        "Start it with `mlx_lm.server`",
        (11973,),  # Msty Studio; its own default is llama-server's 8080
        takes_schemas=False,
    ),
    Kind(
        "omlx",
        "oMLX",
        "Start it with `omlx serve`, or start its app",
        owned_by="omlx",
        key_variables=("OMLX_API_KEY",),
    ),
    Kind(
        "jan",
        "Jan",
        "Start its server in the app under Settings, Local API Server, or with `jan serve`",
        (1337, 6767),
        relays=True,  # remote providers share its API
    ),
    Kind(
        "koboldcpp",
        "KoboldCpp",
        "Start it with `koboldcpp --model FILE`",
        (5001,),
        "koboldcpp",
        context_flag="--contextsize {}",
    ),
    Kind(
        "localai",
        "LocalAI",
        "Start it with `local-ai run`",
        key_variables=("LOCALAI_API_KEY",),
    ),
    Kind("textgen", "text-generation-webui", "Start it with `--api`", (5000,), "user"),
    Kind(
        "gpt4all",
        "GPT4All",
        "Start the app, and switch on its local API server in the settings",
        (4891,),
        "humanity",
        streams=False,
        takes_schemas=False,
    ),
    Kind(
        "docker",
        "Docker Model Runner",
        "Start it with `docker desktop enable model-runner --tcp 12434`",
        (12434,),
        "docker",
        root="/engines",
    ),
    Kind(
        "lemonade",
        "Lemonade",
        "Start it with `lemonade-server serve`, or start its service",
        (13305,),
        "lemonade",
        ("LEMONADE_API_KEY", "LEMONADE_ADMIN_API_KEY"),
    ),
    Kind(
        "llamaswap",
        "llama-swap",
        "Start it with `llama-swap --config FILE`",
        (9292,),  # of its Docker image; by itself it takes 8080
        "llama-swap",
    ),
    Kind("unsloth", "Unsloth Studio", "Start it with `unsloth studio`", (8888,), "unsloth-studio"),
    Kind("mistralrs", "mistral.rs", "Start it with `mistralrs serve -m MODEL`", owned_by="local"),
    Kind("gateway", "Gateway", relays=True),
    Kind("engine", "llama.cpp", "Try again: it will restart"),
    Kind("openai", "OpenAI-compatible server"),
)

_BY_NAME = {kind.name: kind for kind in KINDS}


def kind_of(name: str) -> Kind:
    """The kind called `name`; a name that we do not know is some OpenAI-compatible server's."""
    return _BY_NAME.get(name, _BY_NAME["openai"])


def kind_by_owner(owned_by: str) -> Kind | None:
    """The kind whose models say that they are `owned_by`; None if that tells nothing."""
    return next((kind for kind in KINDS if owned_by and kind.owned_by == owned_by), None)


def api_root(url: str, kind: str) -> str:
    """Where below a server's address its /v1 is; the user may have given the one or the other."""
    root = kind_of(kind).root
    return url if url.endswith(root) else url + root
