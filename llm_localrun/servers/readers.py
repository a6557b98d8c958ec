"""What each kind of server says of its models: one pure module a kind.

To teach llm-localrun another kind: a row in `kinds`, and if its /v1/models says more than names, a
reader here.
"""

from collections.abc import Callable

from llm_localrun.servers.docker import read_docker
from llm_localrun.servers.koboldcpp import read_koboldcpp
from llm_localrun.servers.lemonade import read_lemonade
from llm_localrun.servers.llamacpp import read_llamacpp
from llm_localrun.servers.llamaswap import read_llamaswap
from llm_localrun.servers.lmstudio import read_lmstudio
from llm_localrun.servers.localai import read_localai
from llm_localrun.servers.ollama import read_ollama
from llm_localrun.servers.omlx import read_omlx
from llm_localrun.servers.openai_compatible import ENTRIES, Entry, Listing, entries_in, listed
from llm_localrun.servers.reading import Asked, Found, Reading
from llm_localrun.servers.textgen import read_textgen
from llm_localrun.servers.unsloth import read_unsloth
from llm_localrun.servers.vllm import read_sglang, read_vllm
from llm_localrun.wire.response import Answer, read

_READERS: dict[str, Callable[[Asked, Answer], Reading]] = {
    "docker": read_docker,
    "koboldcpp": read_koboldcpp,
    "lemonade": read_lemonade,
    "llamacpp": read_llamacpp,
    "llamaswap": read_llamaswap,
    "lmstudio": read_lmstudio,
    "localai": read_localai,
    "ollama": read_ollama,
    "omlx": read_omlx,
    "sglang": read_sglang,
    "textgen": read_textgen,
    "unsloth": read_unsloth,
    "vllm": read_vllm,
}

_LIST_ELSEWHERE = ("docker", "lmstudio", "ollama")
"""Kinds that have their models in another place than /v1/models."""


def read_models(asked: Asked, answer: Answer) -> Reading:
    """What a server tells that has answered /v1/models so, and is of the kind in `asked`.

    None if it does not speak as one.
    """
    kind = asked.endpoint.kind
    if read(Listing, answer) is None and kind not in _LIST_ELSEWHERE:
        return None
    if kind in _READERS:
        return (yield from _READERS[kind](asked, answer))
    return Found(listed(asked.endpoint, entries_in(answer, ENTRIES.get(kind, Entry))))
