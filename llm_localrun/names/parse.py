"""Parses the name of a model: what people call it, its size, and what it was made for.

Publishers, servers and files spell names in many ways. What no rule covers is in the tables below;
`tests/names/test_parse.py` has an example for every entry. The quantization in a name is left to
`quantizations`.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from llm_localrun.gguf.files import shard_of
from llm_localrun.names.quantizations import without_quantization

MadeFor = Literal["anything", "code", "pictures", "mathematics", "completion", "moderation"]
"""What a model was made for; "completion" is a base model, which was not taught to answer."""

# A dot between digits belongs to a version: llama3.2, v1.5.
_SEPARATOR = re.compile(r"[^a-z0-9.]+|\.(?!\d)|(?<!\d)\.")
# An underscore instead of the dot: internlm2_5, llama-3_2, stablelm-2-1_6b.
_DECIMAL = re.compile(r"(?<=-)\d_\d(?=b?(?:[-_.:]|$))|(?<=[a-z])\d_\d(?=[-_.:]|$)")
# An owner, such as 01-ai or ai21labs, but nothing that may be a version or a size.
_OWNER = re.compile(r"(?:\d+-)?[A-Za-z]+(?:\d+[A-Za-z]{2,})?(?:-[A-Za-z]+)*")
# "vl" written without a separator: Ollama's qwen2.5vl.
_GLUED = re.compile(r"(?<=\d)vl(?![a-z])")
_SIZE = re.compile(r"(?:(?P<experts>\d{1,4})x|e)?(?P<number>\d{1,6}(?:\.\d+)?)(?P<unit>[mbt])")
# Of a mixture of experts: the active parameters, a3b, or the number of experts, 16e.
_MIXTURE = re.compile(r"a\d+(?:\.\d+)?[mb]|\d+e")
# A context length or a date: 128k, 2507, 0528, 2024.
_CONTEXT_OR_DATE = re.compile(
    r"\d+k|202\d|(?:20)?2\d(?:0[1-9]|1[0-2])(?:[0-3]\d)?|(?:0[1-9]|1[0-2])[0-3]\d"
)
_VERSION = re.compile(r"[1-9]\d?(?:\.\d+)*[a-z]?")
_VERSIONED = re.compile(r"(?P<name>[a-z]{2,})\d[\d.]*[a-z]?")
_NOISE = frozenset(
    {"gguf", "gguf2", "gguf4", "latest", "mlx", "hf", "ud", "imat", "imatrix", "q4", "q8"}
)
_CHAT = frozenset({"instruct", "it", "chat"})
_BASE = frozenset({"base", "pretrain", "pretrained"})
# Publishers that write their own name before the model's.
_PUBLISHERS = frozenset({"ai21", "amd", "c4ai", "huihui", "meta", "nous", "nvidia", "openai"})
# Words that are a name only with the next word: gpt-oss, command-r, all-minilm, neural-chat.
_PREFIXES = frozenset({"all", "command", "gpt", "multilingual", "neural", "open", "stable"})
# The model that another was made from: hermes3-llama3.1, deepseek-r1-distill-qwen.
_ORIGINS = frozenset({"distill", "llama", "mistral", "mixtral", "qwen", "gemma", "phi", "yi"})
# Meta's license requires "llama" at the beginning of the names of derived models.
_MADE_FROM_LLAMA = frozenset({"nemotron", "tulu"})
# Sizes and grades of one model: a phi4-mini is a phi4, but a qwen3-coder is not a qwen3.
_GRADES = frozenset(
    {
        *("air", "dense", "flash", "h", "large", "maverick", "medium", "micro", "mini", "moe"),
        *("nano", "next", "pro", "scout", "small", "super", "tiny"),
    }
)
# Base models if the publisher's name, with capitals, says nothing else. In lower case they are chat
# models: Ollama, LM Studio and people omit "instruct".
_BARE_BASE = frozenset(
    {
        *("llama2", "llama3", "llama3.1", "llama3.2", "codellama", "mistral", "mixtral", "qwen"),
        *("qwen1.5", "qwen2", "qwen2.5", "qwen2.5-coder", "qwen2.5-math", "codeqwen1.5", "smollm"),
        *("smollm2", "olmo2", "yi", "yi1.5"),
    }
)
# The ends of words that tell what a model was made for.
_SPECIALTIES: Mapping[MadeFor, tuple[str, ...]] = {
    "moderation": ("guard", "guardian", "shieldgemma"),
    "code": ("code", "coder", "codellama", "codegemma", "codestral", "codeqwen"),
    "pictures": ("vl", "vlm", "vision", "ocr", "llava", "moondream"),
    "mathematics": ("math", "mathstral"),
}
_THINKING = frozenset({"r1", "thinking", "think", "reasoning", "reasoner", "magistral", "z1"})
_UNITS = {"m": 1e6, "b": 1e9, "t": 1e12}


# Of a file or folder, on any system. A reference such as OWNER/REPO:FILE.gguf is none.
_PATH = re.compile(
    r"(?:[/~]|\.{1,2}[/\\]|[A-Za-z]:[/\\]).*|[^\\\n]*\\.*|[^:/]*/[^:]*\.gguf", re.IGNORECASE
)
_PATH_SEPARATOR = re.compile(r"[/\\]")
# The folder of a repository in the Hugging Face cache.
_REPOSITORY = re.compile(r"(?:.*\b)?models--(?:(.+?)--)?(.+)", re.DOTALL)
_MAX_PARTS = 32
"""Parts at the end of a path that are enough to call it by."""


def path_parts(name: str) -> list[str]:
    """The parts of a name that is a path; [] for any other name.

    Of a folder in the Hugging Face cache, these are the owner and the name of its repository.
    """
    if not _PATH.fullmatch(name):
        return []
    parts = _PATH_SEPARATOR.split(name)
    *_, folder, snapshots, version = ("", "", "", *(parts if parts[-1] else parts[:-1]))
    repository = _REPOSITORY.fullmatch(folder) if snapshots == "snapshots" and version else None
    return [*filter(None, repository.groups() if repository else parts)]


def without_folders(name: str) -> str:
    """The last part of a name that is a path; any other name as it is."""
    return next(reversed(path_parts(name)), name)


def short_names(names: Iterable[str], kept: Mapping[str, str]) -> dict[str, str]:
    """What to call each of the `names`: of a path, the shortest end that no other one has.

    One of them keeps the name that it has in `kept`, unless another one is called just that.
    """
    ends = {
        name: ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)] or [name]
        for name in names
        for parts in [path_parts(name)[-_MAX_PARTS:]]
    }
    counts = Counter(end for each in ends.values() for end in each)

    def short(name: str) -> str:
        before = kept.get(name, "")
        if before and (before == name or before not in ends):
            return before
        return next((end for end in ends[name] if counts[end] == 1), name)

    return {name: short(name) for name in ends}


@dataclass(frozen=True, slots=True)
class ModelName:
    """The parts of a name. The examples are for `Qwen3-8B-Instruct-Q4_K_M`."""

    names: tuple[str, ...]
    """What people call it, from specific to general: qwen3-8b-instruct, qwen3-8b, qwen3, qwen."""
    words: frozenset[str]
    """The words that distinguish it from other models, whoever wrote the name: qwen3, 8b."""
    base: str
    """`qwen3`."""
    family: str
    """`qwen`."""
    size: str
    """`8b`; "" if the name has none."""
    made_for: MadeFor
    thinks: bool
    """Whether it always writes its reasoning before the answer."""

    @property
    def parameters(self) -> int | None:
        """The number of weights by the size: 8_000_000_000; None if the name has no size."""
        match = _SIZE.fullmatch(self.size)
        if match is None:
            return None
        return int(float(match["number"]) * _UNITS[match["unit"]] * int(match["experts"] or 1))


@functools.cache
def parse_name(name: str) -> ModelName:
    """Parses the name that a server or a file gives to a model."""
    return _parse_title(_without_owner(without_folders(name)))


@functools.cache
def _parse_title(name: str) -> ModelName:
    """Parses a name without owner and quantization, so that all variants of a model share it."""
    parts = _parts(name)
    called = [*parts.stem, *(word for word in parts.rest if _specialty(word))]
    head = 2 if called[0] in _PREFIXES and len(called) > 1 else 1
    origins = (i for i in range(head, len(called)) if _unversioned(called[i]) in _ORIGINS)
    base = called[: next(origins, None)]
    family = _family(base, head)
    made_for = _made_for(parts)
    return ModelName(
        names=tuple(dict.fromkeys(_names(parts, called, base, family))),
        words=frozenset(_distinctive_words(parts, made_for)),
        base="-".join(base),
        family=family,
        size=next(filter(_SIZE.fullmatch, parts.after), ""),
        made_for=made_for,
        thinks=family == "qwq" or not _THINKING.isdisjoint(parts.words),
    )


class _Parts(NamedTuple):
    """The words of a name in their order, in three sections.

    `llama3.2-vision:11b-instruct` has the stem llama3.2 vision, no rest, and the tag 11b instruct;
    `Qwen3-8B-Instruct` has the stem qwen3, the rest 8b instruct, and no tag.
    """

    stem: Sequence[str]
    """Up to a size, a date, or a word for chat or base models."""
    rest: Sequence[str]
    tag: Sequence[str]
    """What follows a colon."""
    has_capitals: bool

    @property
    def after(self) -> list[str]:
        return [*self.rest, *self.tag]

    @property
    def words(self) -> list[str]:
        return [*self.stem, *self.rest, *self.tag]


def _parts(name: str) -> _Parts:
    title, _, tag = name.partition(":")
    words = _join_versions(_without_publisher(_split_words(title))) or ["model"]
    shortest = 2 if words[0] in _PREFIXES else 1
    ends = (i for i in range(1, len(words)) if _ends_stem(words, i, may_chat=i >= shortest))
    end = next(ends, len(words))
    return _Parts(words[:end], words[end:], _split_words(tag), title != title.lower())


def _without_owner(name: str) -> str:
    """`name` without folders, owner, file extension and quantization."""
    # The Hugging Face cache and MLX servers write "--" for a slash.
    stem = name.rstrip("/-").rpartition("/")[2].rpartition("--")[2]
    if stem.lower().endswith(".gguf"):
        stem = stem[: -len(".gguf")]
    stem = without_quantization(shard[0] if (shard := shard_of(stem)) else stem)
    # Older versions of llama.cpp name a file OWNER_REPOSITORY-GGUF_FILE.
    file = stem.lower().rfind("-gguf_") + len("-gguf_")
    if len("-gguf_") <= file < len(stem):
        return stem[file:]
    # Some publishers write the owner of the original first: google_gemma-3-4b-it.
    owner, _, rest = stem.partition("_")
    is_owned = "-" in rest and rest[0].isalpha() and _OWNER.fullmatch(owner)
    return rest if is_owned else stem


def _split_words(text: str) -> list[str]:
    text = _DECIMAL.sub(lambda match: match[0].replace("_", "."), text.lower())
    words = _SEPARATOR.split(_GLUED.sub("-vl", text))
    return [word for word in words if word and word not in _NOISE]


def _without_publisher(words: list[str]) -> list[str]:
    if words[:2] == ["text", "embedding"] and len(words) > 2:
        # LM Studio's prefix for embedding models.
        return words[2:]
    is_named = len(words) > 1 and not _SIZE.fullmatch(words[1])
    return words[1:] if is_named and words[0] in _PUBLISHERS else words


def _join_versions(words: Sequence[str]) -> list[str]:
    """gemma 3 4b → gemma3 4b; mistral small 3.2 24b → mistral small3.2 24b."""
    joined: list[str] = []
    for word in words:
        is_version = _VERSION.fullmatch(word) and not _is_measure(word)
        if is_version and joined and len(joined[-1]) > 1 and joined[-1].isalpha():
            joined[-1] += word
        else:
            joined.append(word)
    return joined


@functools.cache
def _is_measure(word: str) -> bool:
    return any(form.fullmatch(word) for form in (_SIZE, _MIXTURE, _CONTEXT_OR_DATE))


def _ends_stem(words: Sequence[str], at: int, *, may_chat: bool) -> bool:
    """Whether the word at `at` ends the stem: a size, a date, or a word for chat or base models."""
    word = words[at]
    if word in _CHAT:
        return may_chat
    if word in _BASE:
        # In bge-base-en it is a size.
        return len(words) == at + 1 or _is_measure(words[at + 1])
    # A month before its year: c4ai-command-r-08-2024.
    return _is_measure(word) or (word.isdigit() and _is_measure("".join(words[at + 1 : at + 2])))


@functools.cache
def _specialty(word: str) -> MadeFor | None:
    # Of starcoder2, the 2 is a version; of glm4.5v, the v is not part of the version.
    is_v = word == "v" or (word.endswith("v") and word[-2].isdigit())
    name = _unversioned(word)
    ends = (made_for for made_for, endings in _SPECIALTIES.items() if name.endswith(endings))
    return "pictures" if is_v else next(ends, None)


def _made_for(parts: _Parts) -> MadeFor:
    if _is_base(parts):
        return "completion"
    return next(filter(None, map(_specialty, parts.words)), "anything")


def _is_base(parts: _Parts) -> bool:
    if not _BASE.isdisjoint(parts.after) or not {"text", "code"}.isdisjoint(parts.tag):
        # Tags of Ollama: llama3:8b-text, codellama:7b-code.
        return True
    if "pt" in parts.after and "gemma" in parts.stem[0]:
        # "Pretrained" in names of Gemma, but PyTorch in those of ERNIE.
        return True
    is_bare = all(_is_measure(word) or _is_version(word) for word in parts.rest)
    return parts.has_capitals and not parts.tag and is_bare and "-".join(parts.stem) in _BARE_BASE


def _distinctive_words(parts: _Parts, made_for: MadeFor) -> Iterator[str]:
    """The words that a model has under each of its names.

    Some names omit that a model was taught to chat, the active parameters of a mixture, or ".0".
    """
    is_base = made_for == "completion"
    omitted = _CHAT | _BASE | {"pt", "text", "code"} if is_base else _CHAT
    words = [*parts.stem, *(word for word in parts.after if word not in omitted)]
    yield from (word.removesuffix(".0") for word in words if not _MIXTURE.fullmatch(word))
    if is_base:
        yield "base"


def _family(base: Sequence[str], head: int) -> str:
    first, *others = map(_unversioned, base)
    if head > 1:
        # command-r7b belongs to command-r.
        return f"{first}-{re.sub(r'[0-9]+b$', '', base[1])}"
    derived = (word for word in others if word in _MADE_FROM_LLAMA)
    return next(derived, first) if first == "llama" else first


@functools.cache
def _unversioned(word: str) -> str:
    match = _VERSIONED.fullmatch(word)
    return match["name"] if match else word


def _is_version(word: str) -> bool:
    return word.removeprefix("v").replace(".", "").isdigit()


def _names(parts: _Parts, called: Sequence[str], base: Sequence[str], family: str) -> Iterator[str]:
    yield "-".join(parts.words)
    sizes = _sizes(parts.after)
    for known in (called, base):
        yield from ("-".join([*known, *size]) for size in sizes)
        yield "-".join(known)
    if _VERSIONED.fullmatch(base[0]) and _GRADES.issuperset(base[1:]):
        yield base[0]
        yield base[0].removesuffix(".0")
    version = next((i for i, word in enumerate(base) if i and _is_version(word)), None)
    yield "-".join(map(_unversioned, base[:version]))
    yield family


def _sizes(words: Sequence[str]) -> list[Sequence[str]]:
    """The sizes in `words`: [["30b", "a3b"], ["30b"]]."""
    at = next((i for i, word in enumerate(words) if _SIZE.fullmatch(word)), None)
    if at is None:
        return []
    is_mixture = len(words) > at + 1 and _MIXTURE.fullmatch(words[at + 1])
    return [words[at : at + 2], words[at : at + 1]] if is_mixture else [words[at : at + 1]]
