"""The README's table of options is what the code says; `python -m tests.test_readme` writes it."""

import re
from collections.abc import Iterator
from pathlib import Path

from llm_localrun.chat.options import Options
from llm_localrun.servers.kinds import KINDS
from llm_localrun.servers.options import LAUNCH, TABLE, wire_for

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- options -->", "<!-- /options -->"
BETWEEN = re.compile(f"(?<={BEGIN}\n\n).*(?=\n{END})", re.DOTALL)

# A column each, and the kind of backend that it stands for.
COLUMNS = {
    "Ollama": "ollama",
    "LM Studio": "lmstudio",
    "llama-server": "llamacpp",
    "vLLM": "vllm",
    "other OpenAI-compatible servers": "openai",
    "GGUF files": "engine",
}


LEGEND = """\
A name is the one under which a backend is sent the option; ✓: it is honoured in another way.
"""


def table() -> str:
    """Which option is what, and which backend is sent it under what name."""
    rows = [("option", "what it is", *COLUMNS), ("---",) * (2 + len(COLUMNS)), *_rows()]
    return f"{LEGEND}\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _rows() -> Iterator[tuple[str, ...]]:
    for option in TABLE:
        description = (Options.model_fields[option].description or "").replace("|", "\\|")
        cells = (_cell(option, kind) for kind in COLUMNS.values())
        yield (f"`{option}`", description, *cells)


def _cell(option: str, kind: str) -> str:
    """The name under which a backend is sent an option; a tick where it has none."""
    wire = wire_for(option, kind)
    if wire is None:
        return ""
    return "✓" if wire is LAUNCH else f"`{wire.path}`"


def test_table_of_options() -> None:
    assert BETWEEN.findall(README.read_text("utf-8")) == [table()]


def test_table_stands_in_its_section() -> None:
    _, _, section = README.read_text("utf-8").partition("\n### Options\n")
    assert table() in re.split(r"^##", section, flags=re.MULTILINE)[0]


def test_every_kind_of_server_stands_with_its_ports() -> None:
    """Kinds that have no name of their own are "whatever else"."""
    _, _, section = README.read_text("utf-8").partition("\n## Where models are looked for\n")
    rows = [row for row in section.splitlines() if row.startswith("  | ")]
    for kind in KINDS:
        if kind.name not in ("engine", "openai", "gateway"):
            of_kind = " ".join(row for row in rows if kind.title in row)
            assert of_kind, kind.title
            assert {*map(str, kind.ports)} <= {*re.findall(r"\d{4,5}", of_kind)}, kind.title


if __name__ == "__main__":
    README.write_text(BETWEEN.sub(lambda _: table(), README.read_text("utf-8")), "utf-8")
