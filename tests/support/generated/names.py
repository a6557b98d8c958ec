"""The table of aliases in docs/names.md: names of models, and what becomes of them."""

from llm_localrun.models import Endpoint, LocalModel, Served
from llm_localrun.names.aliases import aliases_of
from llm_localrun.names.quantizations import quantization_in
from tests.support.generated.markdown import table

NAMED = (
    ("qwen3:8b", "ollama"),
    ("qwen/qwen3-8b", "lmstudio"),
    ("Qwen3-8B-Q8_0", "gguf"),
    ("Qwen2.5-Coder-7B-Instruct-Q4_K_M", "gguf"),
    ("deepseek-r1:8b", "ollama"),
    ("hermes3:8b", "ollama"),
    ("gemma-3-4b-it-Q4_K_M", "gguf"),
    ("Mistral-Small-3.2-24B-Instruct-2506-Q4_K_M", "gguf"),
)
"""Names of models, and their sources."""


def aliases_table() -> str:
    """Markdown: names of models, their ids and their aliases without quantization and source."""
    heads = ("name", "id", "aliases, from specific to general")
    rows = []
    for name, source in NAMED:
        endpoint = Endpoint(name=source, kind=source, url="http://127.0.0.1")
        quantization = quantization_in(name)
        model = LocalModel(
            id=f"local/{source}/{name}",
            name=name,
            quantization=quantization,
            routes=(Served(endpoint=endpoint),),
        )
        endings = (source, quantization.lower().replace("_", "-") or source)
        aliases = [each for each in aliases_of(model)[:-1] if not each.endswith(endings)]
        rows.append((f"`{name}`", f"`{model.id}`", ", ".join(f"`{each}`" for each in aliases)))
    return table(heads, rows)
