"""What a model's own name says of it: its family, its size, its words.

Pure; servers and files name models in many ways, all of them made for people.
"""

import re
from dataclasses import dataclass

from llm_localrun.gguf.names import without_quantization

# Between digits a dot belongs to a version: llama3.2, v1.5.
_SEPARATOR = re.compile(r"[-_:@\s]+|\.(?!\d)|(?<!\d)\.")
_SIZE = re.compile(r"^(?:(?P<experts>\d{1,4})x|[ea])?(?P<number>\d{1,6}(?:\.\d+)?)(?P<unit>[bm])$")
_CONTEXT = re.compile(r"^\d+k$")
_TUNES = frozenset({"instruct", "it", "chat"})
_VERSION = re.compile(r"^v?\d+(?:\.\d+)*$")
_NOISE = frozenset({"gguf", "latest", "mlx", "hf"})
_THINKING = frozenset({"r1", "thinking", "think", "reasoning", "reasoner", "magistral", "z1"})
_UNITS = {"m": 1e6, "b": 1e9}


@dataclass(frozen=True, slots=True)
class ModelName:
    """What `Qwen3-8B-Instruct-Q4_K_M` says: words qwen3 8b instruct, base qwen3, family qwen."""

    words: tuple[str, ...]
    base: tuple[str, ...]
    family: str
    size: str

    @property
    def thinks(self) -> bool:
        """Whether the name is one of models that begin with their thinking."""
        return any(word in _THINKING or word.startswith("qwq") for word in self.words)

    @property
    def parameters(self) -> int | None:
        """The number of weights that the size promises."""
        match = _SIZE.match(self.size)
        if match is None:
            return None
        return int(float(match["number"]) * _UNITS[match["unit"]] * int(match["experts"] or 1))


def parse_name(name: str) -> ModelName:
    """Takes apart a server's or a file's name for a model."""
    stem = name.rstrip("/").rpartition("/")[2]
    stem = without_quantization(re.sub(r"\.gguf$", "", stem, flags=re.IGNORECASE))
    # Older llama.cpp keeps OWNER_REPOSITORY_FILE.
    stem = re.sub(r"^.+-GGUF_(?=.)", "", stem, flags=re.IGNORECASE)
    # "google_gemma-3-4b-it": some publishers put the owner of the original before a low line.
    owner, _, rest = stem.partition("_")
    if re.fullmatch(r"[A-Za-z]+(-[A-Za-z]+)*", owner) and "-" in rest and rest[0].isalpha():
        stem = rest
    words = [word for word in _SEPARATOR.split(stem.lower()) if word and word not in _NOISE]
    if words[:2] == ["text", "embedding"] and len(words) > 2:
        # LM Studio's mark on embedding models.
        words = words[2:]
    if words[:1] == ["meta"] and "".join(words[1:2]).startswith("llama"):
        words = words[1:]
    words = _join_version(words) or [re.sub(r"\W+", "-", name.lower()).strip("-") or "model"]
    size_at = next((i for i, word in enumerate(words) if i and _SIZE.match(word)), None)
    end = size_at if size_at is not None else _end_of_base(words)
    return ModelName(
        words=tuple(words),
        base=tuple(words[:end]),
        family=(re.match(r"[a-z]{2,}", words[0]) or [words[0]])[0],
        size="" if size_at is None else words[size_at],
    )


def projected_words(stem: str) -> tuple[str, ...]:
    """The words of the model that a projector's name bears; () for mmproj-model-f16."""
    rest = re.sub(r"[-_.]?mmproj[-_.]?", "-", without_quantization(stem), flags=re.IGNORECASE)
    rest = rest.strip("-_.")
    return parse_name(rest).words if rest.lower() not in ("", "model") else ()


def _join_version(words: list[str]) -> list[str]:
    """gemma 3 4b → gemma3 4b; llama 3.1 8b → llama3.1 8b."""
    if (
        len(words) > 1
        and words[0].isalpha()
        and re.fullmatch(r"\d+(\.\d+)?[a-z]?", words[1])
        and not _SIZE.match(words[1])
        and not _CONTEXT.match(words[1])
    ):
        return [words[0] + words[1], *words[2:]]
    return words


def _end_of_base(words: list[str]) -> int:
    """Where the words begin that tune or date a model whose size is not told."""
    end = len(words)
    while end > 1 and (
        words[end - 1] in _TUNES or _VERSION.match(words[end - 1]) or _CONTEXT.match(words[end - 1])
    ):
        end -= 1
    return end
