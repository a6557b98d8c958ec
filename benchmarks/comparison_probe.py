"""Reads streamed answers with one plugin, in an environment that may lack all of ours.

`benchmarks/comparison.py` runs this text with the Python of each environment:

    python -c TEXT PLUGIN cpu URL CHUNKS     the CPU seconds that an answer of CHUNKS chunks takes
    python -c TEXT PLUGIN many URL COUNT     how many of COUNT answers at once are whole, in seconds

URL is that of the stand-in of `benchmarks/stream.py`, without CHUNKS and PAUSE. PLUGIN is one of
`_MODELS`.
"""

import asyncio
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

_END = "Yes."
_CHUNKS_OF_MANY, _PAUSE_S = 40, 1


def _openai(prefix: str, url: str) -> Any:
    models = importlib.import_module("llm.default_plugins.openai_models")
    made = {"": models.Chat, "Async": models.AsyncChat}[prefix]
    return made("m", key="key", model_name="m", api_base=f"{url}/v1")


def _ours(kind: str) -> Callable[[str, str], Any]:
    def make(prefix: str, url: str) -> Any:
        chat, models = (importlib.import_module(f"llm_localrun.{each}") for each in _OURS)
        served = models.Served(endpoint=models.Endpoint(name=kind, kind=kind, url=url))
        model = models.LocalModel(id=f"local/{kind}/m", name="m", routes=(served,))
        return {"": chat.LocalChat, "Async": chat.AsyncLocalChat}[prefix](model)

    return make


def _ollama(prefix: str, url: str) -> Any:
    os.environ["OLLAMA_HOST"] = url
    chat = importlib.import_module("llm_ollama.models.chat")
    made = {"": chat.OllamaChatModel, "Async": chat.AsyncOllamaChatModel}[prefix]
    return made(model_id="m", ollama_name="m", capabilities=["completion"])


def _lmstudio(prefix: str, url: str) -> Any:
    plugin = importlib.import_module("llm_lmstudio")
    made = {"": plugin.LMStudioModel, "Async": plugin.LMStudioAsyncModel}[prefix]
    return made("m", url, "m", "/api/v0")


_OURS = ("chat.models", "models")
_MODELS: dict[str, Callable[[str, str], Any]] = {
    "llm": _openai,
    "llm-localrun": _ours("llamacpp"),
    "llm-localrun, Ollama": _ours("ollama"),
    "llm-ollama": _ollama,
    "llm-lmstudio": _lmstudio,
}


def _cpu(make: Callable[[str, str], Any], url: str, chunks: int) -> float:
    model = make("", f"{url}/{chunks}/0")
    begun = time.process_time()
    text = model.prompt("Hello", stream=True).text()
    took = time.process_time() - begun
    assert text.endswith(_END), text[-80:]
    return took


async def _many(make: Callable[[str, str], Any], url: str, count: int) -> tuple[float, int]:
    model = make("Async", f"{url}/{_CHUNKS_OF_MANY}/{_PAUSE_S}")
    begun = time.monotonic()
    texts = await asyncio.gather(
        *(_text(model, number) for number in range(count)), return_exceptions=True
    )
    took = time.monotonic() - begun
    for text in texts:
        if isinstance(text, BaseException):
            print(f"{type(text).__name__}: {text}"[:200], file=sys.stderr)
    return took, sum(isinstance(text, str) and text.endswith(_END) for text in texts)


async def _text(model: Any, number: int) -> str:
    return str(await model.prompt(f"Hello {number}").text())


def main() -> None:
    name, mode, url, number = sys.argv[1:]
    make, count = _MODELS[name], int(number)
    # What is imported with the first answer does not count.
    _cpu(make, url, 10)
    if mode == "cpu":
        print(json.dumps(_cpu(make, url, count) - _cpu(make, url, 10)))
        return
    asyncio.run(_many(make, url, 1))
    print(json.dumps(asyncio.run(_many(make, url, count))))


if __name__ == "__main__":
    main()
