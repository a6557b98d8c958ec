"""What a REF means: `parse_ref` turns what a user types for `pull` into one of five values.

Pure. The `text` of a value is a REF that means it: records keep that.
"""

import re
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote, unquote, urlsplit

from llm_localrun.errors import PullFailed
from llm_localrun.names.quantizations import quantization_in
from llm_localrun.pull.safety import is_safe_url

STARTER = "starter"
MAIN = "main"
_FORMS = (
    "A REF is `starter`, OWNER/REPO[:QUANT], OWNER/REPO/FILE.gguf, an https:// address of a GGUF"
    " file, ollama:NAME or lmstudio:NAME"
)
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
# As huggingface_hub writes them: OWNER/REPO@REVISION/FILE.
_IN_HUB = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[\w.%-]+))?"
    r"(?:/(?P<file>.+\.gguf)|:(?P<quantization>[\w.-]+))?",
    re.IGNORECASE,
)
# As a browser shows them.
_HUB_PAGE = re.compile(
    rf"https://(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repo>{_PART}/{_PART})"
    r"(?:/(?:resolve|blob)/(?P<revision>[^/]+)/(?P<file>[^?#]+\.gguf)|/tree/main)?/?(?:[?#].*)?"
    r"(?::(?P<quantization>[\w.-]+))?",
    re.IGNORECASE,
)
_OLLAMA_NAME = re.compile(r"(?:[\w.-]+(?::\d+)?/)?(?:[\w.-]+/)?[\w.-]+(?::[\w.-]+)?", re.ASCII)
_LMSTUDIO_NAME = re.compile(rf"{_PART}/{_PART}(?:@[\w.-]+)?")
_SHA256 = re.compile(r"sha256=([0-9a-f]{64})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HubRef:
    """A model in a repository of a Hugging Face hub; `quantization` and `file` exclude another."""

    repo: str
    revision: str = MAIN
    quantization: str = ""
    file: str = ""

    @property
    def text(self) -> str:
        revision = "" if self.revision == MAIN else f"@{quote(self.revision, safe='')}"
        file = f"/{self.file}" if self.file else ""
        quantization = f":{self.quantization}" if self.quantization else ""
        return f"hf:{self.repo}{revision}{file}{quantization}"


@dataclass(frozen=True, slots=True)
class UrlRef:
    """A GGUF file anywhere; `sha256` is what the user says it has to be, "" for nothing."""

    url: str
    sha256: str = ""

    @property
    def text(self) -> str:
        return f"{self.url}#sha256={self.sha256}" if self.sha256 else self.url

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def file_name(self) -> str:
        return unquote(urlsplit(self.url).path).rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class OllamaRef:
    """A model that Ollama is to pull."""

    name: str

    @property
    def text(self) -> str:
        return f"ollama:{self.name}"


@dataclass(frozen=True, slots=True)
class LMStudioRef:
    """A model that LM Studio is to download: `name` is one of its catalogue or a repository's."""

    name: str
    is_repository: bool = False
    quantization: str = ""

    @property
    def text(self) -> str:
        quantization = f":{self.quantization}" if self.quantization else ""
        return f"lmstudio:{'hf:' if self.is_repository else ''}{self.name}{quantization}"


@dataclass(frozen=True, slots=True)
class StarterRef:
    """The starter model."""

    text: str = STARTER


Ref: TypeAlias = HubRef | UrlRef | OllamaRef | LMStudioRef | StarterRef


def parse_ref(text: str, quantization: str | None = None) -> Ref:
    """What `text` means, in the `quantization` of -q if that is given. Raises `PullFailed`."""
    scheme, _, rest = text.partition(":")
    if text == STARTER:
        ref: Ref = StarterRef()
    elif scheme == "ollama":
        ref = OllamaRef(_checked(rest, _OLLAMA_NAME, text))
    elif scheme == "lmstudio":
        ref = _in_lmstudio(rest, text)
    elif scheme in ("http", "https") and not _HUB_PAGE.fullmatch(text):
        ref = _at_url(text)
    else:
        ref = _in_hub(text)
    return ref if quantization is None else _in_quantization(ref, quantization)


def _in_hub(text: str) -> HubRef:
    page = _HUB_PAGE.fullmatch(text)
    match = page or _IN_HUB.fullmatch(re.sub(r"^hf:(?://)?", "", text))
    if match is None:
        raise _no_ref(text)
    found = match.groupdict(default="")
    return HubRef(
        repo=found["repo"],
        revision=unquote(found["revision"]) or MAIN,
        quantization=_quantization(found["quantization"]) if found["quantization"] else "",
        file=unquote(found["file"]) if page else found["file"],
    )


def _in_lmstudio(name: str, text: str) -> LMStudioRef:
    if not name.startswith(("hf:", "https:")):
        return LMStudioRef(_checked(name, _LMSTUDIO_NAME, text))
    inner = _in_hub(name)
    if inner.file or inner.revision != MAIN:
        raise PullFailed(
            "LM Studio downloads repositories, not single files or revisions of them",
            f"Use `lmstudio:hf:{inner.repo}:QUANT`, or pull `{inner.text}` itself",
        )
    return LMStudioRef(inner.repo, is_repository=True, quantization=inner.quantization)


def _at_url(text: str) -> UrlRef:
    url, _, fragment = text.partition("#")
    if not is_safe_url(url):
        raise PullFailed(f"{text} is not safe to fetch", "Use an https:// address")
    sha256 = _SHA256.fullmatch(fragment)
    ref = UrlRef(url, sha256[1].lower() if sha256 else "")
    if not ref.file_name.lower().endswith(".gguf") or (fragment and not sha256):
        raise PullFailed(
            f"{text} is no address of a GGUF file",
            "It has to end in .gguf, and #sha256=… may follow with what the file has to be",
        )
    return ref


def _in_quantization(ref: Ref, quantization: str) -> Ref:
    if isinstance(ref, HubRef) and not ref.file:
        asked = _quantization(quantization)
        if ref.quantization in ("", asked):
            return HubRef(ref.repo, ref.revision, asked)
        raise PullFailed(f"{ref.text} and -q {quantization} do not agree", "Give one of them")
    if isinstance(ref, LMStudioRef) and ref.is_repository and not ref.quantization:
        return LMStudioRef(ref.name, is_repository=True, quantization=_quantization(quantization))
    raise PullFailed(
        f"-q {quantization} says nothing about {ref.text}",
        "It chooses a file of a repository, OWNER/REPO; Ollama's variants are tags, NAME:TAG",
    )


def _quantization(text: str) -> str:
    """As llama.cpp spells it."""
    if not (name := quantization_in(text)):
        raise PullFailed(
            f"'{text}' is no quantization of GGUF files", "Q4_K_M, Q8_0 and F16 are, for example"
        )
    return name


def _checked(name: str, pattern: "re.Pattern[str]", text: str) -> str:
    if not pattern.fullmatch(name):
        raise _no_ref(text)
    return name


def _no_ref(text: str) -> PullFailed:
    return PullFailed(f"'{text}' cannot be pulled", _FORMS)
