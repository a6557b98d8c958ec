"""The tables of docs/options.md: what each option takes, and how each backend calls it."""

from llm_localrun.chat.options import Options, choices_of
from llm_localrun.engine.serve import EngineServer
from llm_localrun.servers.base import server_class
from tests.support.generated.markdown import table

OPTION_COLUMNS = {
    "Ollama": "ollama",
    "LM Studio": "lmstudio",
    "llama-server": "llamacpp",
    "vLLM": "vllm",
    "other OpenAI-compatible servers": "openai",
    "GGUF files": EngineServer.kind,
}
"""The heads of the columns of options, and the kind that each column is about."""

_TYPES = {
    "number": "a number",
    "integer": "a whole number",
    "string": "a text",
    "array": "a text",
    "object": "a JSON object",
}
_LIMITS = {"exclusiveMinimum": "above", "minimum": "from", "maximum": "up to"}


def options_table() -> str:
    """Markdown: each option, what it takes, and what holds without it."""
    rows = [(f"`{option}`", *_facts(option)) for option in Options.model_fields]
    return table(("option", "what it is", "values", "default"), rows)


def option_names_table() -> str:
    """Markdown: each option, and the name under which each backend receives it."""
    rows = [
        (f"`{option}`", *(_cell(option, kind) for kind in OPTION_COLUMNS.values()))
        for option in Options.model_fields
    ]
    return table(("option", *OPTION_COLUMNS), rows)


def _facts(option: str) -> tuple[str, str, str]:
    """What an option is, what it takes, and its default, from its description and its schema."""
    description = (Options.model_fields[option].description or "").replace("|", "\\|")
    text, _, default = description.partition(". Default: ")
    what, _, choices = text.partition(". One of: ")
    return what, choices or ", ".join(choices_of(option)) or _values(option), default


def _values(option: str) -> str:
    """What an option takes that has no choices: "a number from 0 to 1"."""
    schema = Options.model_json_schema()["properties"][option]["anyOf"][0]
    if option == "keep_alive":
        return "a duration"
    limits = [f"{word} {schema[key]:g}" for key, word in _LIMITS.items() if key in schema]
    return " ".join([_TYPES[schema["type"]], *limits])


def _cell(option: str, kind: str) -> str:
    wire = server_class(kind).options.get(option)
    if wire is None:
        return ""
    return f"`{wire.path}`" if wire.path else "✓"
