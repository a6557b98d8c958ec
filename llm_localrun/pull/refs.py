"""Parses a REF, the text that names a model to pull, into one of four values.

Pure, but for the list of recommended models. The `text` property of a value is a REF that parses to
the same value; records keep it. Finding the files that a REF means is left to `plan`, and finding
models by words to `hub_search`.
"""

import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias
from urllib.parse import quote, unquote, urlsplit

from llm_localrun.errors import PullFailed
from llm_localrun.names.quantizations import quantization_in
from llm_localrun.pull.http_files import is_safe_url
from llm_localrun.recommended.models import RecommendedModel, recommended_named
from llm_localrun.servers.base import Server, server_kinds
from llm_localrun.system.logins import shown_address

STARTER = "starter"
MAIN = "main"
_FORMS = (
    "A REF is `starter`, the name of a recommended model, OWNER/REPO[:QUANT], OWNER/REPO/FILE.gguf,"
    " an https:// address of a GGUF file, ollama:NAME or lmstudio:NAME"
)
_MAX_REPOSITORY = 200
"""Characters; the hub allows 96 for each part."""
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
# As huggingface_hub writes them: OWNER/REPO@REVISION/FILE.
_HUB_NAME = re.compile(
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
# NAME:TAG too, as Ollama has it.
_WORDS = re.compile(r"\w[\w.+-]*(?:[ :]\w[\w.+-]*)*")
_SHA256 = re.compile(r"sha256=([0-9a-f]{64})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HubRef:
    """A model in a repository of a Hugging Face hub; `quantization` or `file` may narrow it."""

    repo: str
    revision: str = MAIN
    quantization: str = ""
    file: str = ""

    @property
    def text(self) -> str:
        """`hf:unsloth/Qwen3-8B-GGUF:Q8_0`, `hf:OWNER/REPO@REVISION/FILE.gguf`."""
        revision = "" if self.revision == MAIN else f"@{quote(self.revision, safe='')}"
        file = f"/{self.file}" if self.file else ""
        quantization = f":{self.quantization}" if self.quantization else ""
        return f"hf:{self.repo}{revision}{file}{quantization}"


@dataclass(frozen=True, slots=True)
class UrlRef:
    """A GGUF file on the web. `sha256` is the one that the user expects, "" for none."""

    url: str
    sha256: str = ""

    @property
    def text(self) -> str:
        """`https://HOST/FILE.gguf#sha256=0f0f…`."""
        return f"{self.url}#sha256={self.sha256}" if self.sha256 else self.url

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def file_name(self) -> str:
        return unquote(urlsplit(self.url).path).rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class ServerRef:
    """A model that a server of `kind` pulls into its own store.

    `name` is the server's name for it or, with `is_repository`, that of a Hugging Face repository,
    of which the server takes `quantization`, "" for its own choice.
    """

    kind: str
    name: str
    is_repository: bool = False
    quantization: str = ""

    @property
    def text(self) -> str:
        """`ollama:qwen3:8b`, `lmstudio:hf:OWNER/REPO:Q8_0`."""
        quantization = f":{self.quantization}" if self.quantization else ""
        return f"{self.kind}:{'hf:' if self.is_repository else ''}{self.name}{quantization}"


class StarterKind(str, Enum):
    """Which starter model: the best that can be had, the smallest, or one that embeds texts."""

    BEST = ""
    TINY = "tiny"
    EMBED = "embed"


@dataclass(frozen=True, slots=True)
class StarterRef:
    """A starter model."""

    kind: StarterKind = StarterKind.BEST

    @property
    def text(self) -> str:
        """`starter`, `starter:tiny`, `starter:embed`."""
        return f"{STARTER}:{self.kind.value}" if self.kind.value else STARTER


Ref: TypeAlias = HubRef | UrlRef | ServerRef | StarterRef


def parse_ref(text: str, quantization: str | None = None) -> Ref:
    """The value of `text`, in the `quantization` of -q if that is given. Raises `PullFailed`."""
    scheme, _, rest = text.partition(":")
    server = server_kinds().get(scheme)
    if scheme == STARTER and rest in [kind.value for kind in StarterKind]:
        ref: Ref = StarterRef(StarterKind(rest))
    elif _WORDS.fullmatch(text) and (model := recommended_named(text)):
        return _recommended_ref(model, quantization)
    elif server and server.pull_names:
        ref = _parse_server_ref(server, server.pull_names, rest)
    elif scheme in ("http", "https") and not _HUB_PAGE.fullmatch(text):
        ref = _parse_url_ref(text)
    else:
        ref = _parse_hub_ref(text)
    return ref if quantization is None else _with_quantization(ref, quantization)


def search_words(text: str) -> str:
    """The words to search for, if `text` is no REF and plain words; "" otherwise."""
    scheme, _, rest = text.partition(":")
    is_scheme = scheme in (STARTER, "hf", "http", "https") or scheme in server_kinds()
    if not _WORDS.fullmatch(text) or text == STARTER or (rest and is_scheme):
        return ""
    return "" if recommended_named(text) else text.replace(":", " ")


def is_repository(name: str) -> bool:
    """Whether `name` is OWNER/REPO, and a REF by itself."""
    return len(name) <= _MAX_REPOSITORY and bool(re.fullmatch(f"{_PART}/{_PART}", name))


def _recommended_ref(model: RecommendedModel, quantization: str | None) -> HubRef:
    """The file of `model`, or that of another `quantization` beside it."""
    ref = HubRef(model.repository, model.revision, file=model.files[0].path)
    other = parse_quantization(quantization) if quantization is not None else ""
    if other in ("", model.quantization):
        return ref
    return replace(ref, file="", quantization=other)


def _parse_hub_ref(text: str) -> HubRef:
    page = _HUB_PAGE.fullmatch(text)
    match = page or _HUB_NAME.fullmatch(re.sub(r"^hf:(?://)?", "", text))
    if match is None:
        raise _invalid_ref(text)
    groups = match.groupdict(default="")
    return HubRef(
        repo=groups["repo"],
        revision=unquote(groups["revision"]) or MAIN,
        quantization=parse_quantization(groups["quantization"]) if groups["quantization"] else "",
        file=unquote(groups["file"]) if page else groups["file"],
    )


def _parse_server_ref(server: type[Server], names: "re.Pattern[str]", name: str) -> ServerRef:
    """`names` are the names of models that servers of the class `server` pull."""
    kind, title = server.kind, server.title
    if names.fullmatch(name):
        return ServerRef(kind, name)
    if not server.pulls_repositories or not name.startswith(("hf:", "https:")):
        raise _invalid_ref(f"{kind}:{name}")
    hub_ref = _parse_hub_ref(name)
    if hub_ref.file or hub_ref.revision != MAIN:
        raise PullFailed(
            f"{title} pulls whole repositories, not single files or revisions",
            f"Pull the repository, `{kind}:hf:{hub_ref.repo}`, or the file without {title}:"
            f" `{hub_ref.text}`",
        )
    return ServerRef(kind, hub_ref.repo, is_repository=True, quantization=hub_ref.quantization)


def _parse_url_ref(text: str) -> UrlRef:
    url, _, fragment = text.partition("#")
    if not is_safe_url(url):
        raise PullFailed(
            f"{shown_address(text)} is not safe to download from", "Use an https:// address"
        )
    sha256 = _SHA256.fullmatch(fragment)
    ref = UrlRef(url, sha256[1].lower() if sha256 else "")
    if not ref.file_name.lower().endswith(".gguf") or (fragment and not sha256):
        raise PullFailed(
            f"{text} is not the address of a GGUF file",
            "The address must end in .gguf; #sha256=HASH may follow, the SHA-256 of the file",
        )
    return ref


def _with_quantization(ref: Ref, quantization: str) -> Ref:
    if isinstance(ref, HubRef) and not ref.file:
        parsed = parse_quantization(quantization)
        if ref.quantization in ("", parsed):
            return replace(ref, quantization=parsed)
        raise PullFailed(f"{ref.text} and -q {quantization} contradict each other", "Use one")
    if isinstance(ref, ServerRef) and ref.is_repository and not ref.quantization:
        return replace(ref, quantization=parse_quantization(quantization))
    raise PullFailed(
        f"-q {quantization} does not apply to {ref.text}",
        "It chooses a file of a repository, OWNER/REPO. Ollama's variants are tags, NAME:TAG",
    )


def parse_quantization(text: str) -> str:
    """The quantization in llama.cpp's spelling: q8_0 is Q8_0."""
    if not (name := quantization_in(text)):
        raise PullFailed(
            f"'{text}' is not a quantization of GGUF files", "Examples are Q4_K_M, Q8_0 and F16"
        )
    return name


def _invalid_ref(text: str) -> PullFailed:
    return PullFailed(f"'{shown_address(text)}' is not a valid REF", _FORMS)
