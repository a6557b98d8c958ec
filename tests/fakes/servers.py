"""All fakes of servers, by name.

Each kind of server has a module of its own, and a fake here under its `title`.
"""

from collections.abc import Callable

from tests.fakes.broken import airplay, jupyter
from tests.fakes.docker import docker
from tests.fakes.gpt4all import gpt4all
from tests.fakes.http_server import Respond
from tests.fakes.jan import jan
from tests.fakes.koboldcpp import koboldcpp
from tests.fakes.lemonade import lemonade, lemonade_without_models
from tests.fakes.llama_server import (
    OPEN,
    llama_decider,
    llama_router,
    llama_router_of_folder,
    llama_server,
    llama_server_loading,
)
from tests.fakes.llamafile import llamafile
from tests.fakes.llamaswap import llamaswap, llamaswap_of_old
from tests.fakes.lmstudio import LMStudio
from tests.fakes.localai import localai
from tests.fakes.mistralrs import mistralrs
from tests.fakes.mlx import mlx, mlx_of_a_folder, mlx_without_cache
from tests.fakes.nexus import nexus
from tests.fakes.ollama import recorded
from tests.fakes.omlx import omlx
from tests.fakes.openai_compatible import litellm
from tests.fakes.sglang import sglang
from tests.fakes.textgen import textgen
from tests.fakes.transformers import (
    transformers,
    transformers_without_cache,
    transformers_without_models,
)
from tests.fakes.unsloth import unsloth
from tests.fakes.vllm import vllm, vllm_with_a_file

SERVERS: dict[str, Callable[[], Respond]] = {
    "llama-server": llama_server,
    "llama-server, loading": llama_server_loading,
    "llama-server, locked": lambda: llama_server("secret"),
    "llama-server with an open list": lambda: llama_server("secret", public=OPEN),
    "llama-server, decision model": llama_decider,
    "llama-server, router": llama_router,
    "llama-server, router with an open list": lambda: llama_router_of_folder(
        "/m/tiny-Q8_0.gguf", key="secret"
    ),
    "llamafile": llamafile,
    "llamafile with an open list": lambda: llamafile("secret"),
    "vLLM": vllm,
    "vLLM, locked": lambda: vllm("secret"),
    "vLLM, a file": vllm_with_a_file,
    "SGLang": sglang,
    "KoboldCpp": koboldcpp,
    "KoboldCpp with an open list": lambda: koboldcpp("secret"),
    "text-generation-webui": textgen,
    "mistral.rs": mistralrs,
    "mlx_lm.server": mlx,
    "mlx_lm.server of a folder": mlx_of_a_folder,
    "mlx_lm.server without a cache": mlx_without_cache,
    "transformers serve": transformers,
    "transformers serve without models": transformers_without_models,
    "transformers serve without a cache": transformers_without_cache,
    "oMLX": omlx,
    "oMLX, locked": lambda: omlx("secret"),
    "Jan": lambda: jan(key=None),
    "Jan, locked": jan,
    "LocalAI": localai,
    "LocalAI, locked": lambda: localai("secret"),
    "GPT4All": gpt4all,
    "Docker Model Runner": docker,
    "Docker Model Runner of old": lambda: docker(has_alias=False),
    "Lemonade": lemonade,
    "Lemonade without models": lemonade_without_models,
    "llama-swap": llamaswap,
    "llama-swap of old": llamaswap_of_old,
    "Unsloth Studio": lambda: unsloth(key=None),
    "Unsloth Studio, locked": unsloth,
    "Ollama": lambda: recorded("openai", "tags", "version", "show", "ps"),
    "LM Studio": LMStudio,
    "LM Studio 0.3.30": lambda: LMStudio(api="v0"),
    "LM Studio 0.3.5": lambda: LMStudio(api="old"),
    "LM Studio, locked": lambda: LMStudio(token="secret"),
    "LM Studio without models": lambda: LMStudio(models=()),
    "LM Studio that loads nothing by itself": lambda: LMStudio(jit=False),
    "LiteLLM": litellm,
    "Msty Nexus": nexus,
    "AirPlay": airplay,
    "Jupyter": jupyter,
}
"""By what they are; each call makes a new one."""
