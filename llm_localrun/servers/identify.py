"""Who is it? Tells a server's kind from the JSON that it answers, and has the kind's reader go on.

Pure: a generator yields the `Question` that it has and is sent the `Answer`; when time is up it
is thrown `OutOfTime`. An HTTP status alone proves nothing: LM Studio answers 200 to every path, and
half a dozen servers imitate Ollama. Nothing is asked that could load, unload or fetch a model.
"""

from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from llm_localrun.models import LocalModel, ServerStatus
from llm_localrun.servers.kinds import kind_by_owner, kind_of
from llm_localrun.servers.openai_compatible import Listing
from llm_localrun.servers.readers import read_models
from llm_localrun.servers.reading import Asked
from llm_localrun.wire.response import Answer, Question, read


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server turned out to be."""

    kind: str
    status: ServerStatus
    models: tuple[LocalModel, ...] = ()
    version: str = ""


Questions: TypeAlias = Generator[Question, Answer, Identity]


@dataclass(frozen=True, slots=True)
class _Sign:
    """A server of `kind` answers `path` with an object that has `key`, with this `value` if any.

    `is_open` if it does so without the key that it may want.
    """

    kind: str
    path: str
    key: str
    value: Any = None
    is_open: bool = False

    def is_in(self, answer: Answer) -> bool:
        said = answer.payload if isinstance(answer.payload, dict) else {}
        return self.key in said and self.value in (None, said[self.key])


_SIGNS = (
    _Sign("lmstudio", "/lmstudio-greeting", "lmstudio", True),
    _Sign("lmstudio", "/api/v1/models", "models"),
    _Sign("omlx", "/health", "engine_pool", is_open=True),
    _Sign("unsloth", "/api/health", "service", "Unsloth UI Backend", is_open=True),
    _Sign("localai", "/.well-known/localai.json", "endpoints", is_open=True),
    _Sign("koboldcpp", "/api/extra/version", "result", "KoboldCpp", is_open=True),
    _Sign("lemonade", "/v1/health", "all_models_loaded"),
    _Sign("llamacpp", "/props", "default_generation_settings"),
    # Half the world says so, but not all of it leaves its models unsigned.
    _Sign("mlx", "/health", "status", "ok"),
)
"""What tells a server whose list does not, the surest first."""

_GREETINGS = {"Ollama is running": "ollama", "Docker Model Runner is running": "docker"}
"""What `GET /` says at servers that have imitators."""


def identify(asked: Asked, dialect: str | None = None) -> Questions:
    """Finds out what serves at `asked`, and what it serves.

    `dialect` is the kind that the user says it is, and then it is asked as that.
    """
    answer = yield Question("/v1/models")
    if _is_locked(answer):
        return Identity(dialect or (yield from _behind_lock(answer, asked)), ServerStatus.NEEDS_KEY)
    if _is_loading(answer):
        return Identity(dialect or "llamacpp", ServerStatus.LOADING)
    kind = dialect or (yield from _kind(answer, asked))
    asked = replace(asked, endpoint=asked.endpoint.model_copy(update={"kind": kind}))
    found = yield from read_models(asked, answer)
    if found is None:
        return Identity(kind, ServerStatus.UNRECOGNIZED)
    return Identity(kind, ServerStatus.ANSWERS, found.models, found.version)


def _is_locked(answer: Answer) -> bool:
    """A 403 without a word is macOS's AirPlay receiver, on text-generation-webui's port."""
    return answer.status == 401 or (answer.status == 403 and isinstance(answer.payload, dict))


def _is_loading(answer: Answer) -> bool:
    """llama-server answers so to everything while it loads its model."""
    return answer.status == 503 and _error_in(answer).get("message") == "Loading model"


def _error_in(answer: Answer) -> dict[str, Any]:
    error = answer.payload.get("error") if isinstance(answer.payload, dict) else None
    return error if isinstance(error, dict) else {}


def _behind_lock(answer: Answer, asked: Asked) -> Generator[Question, Answer, str]:
    """The kind of a server that wants a key."""
    error = _error_in(answer)
    if error.get("code") == "invalid_api_key" and error.get("type") == "invalid_request":
        return "lmstudio"
    if error.get("code") == 401 and error.get("type") == "authentication_error":
        return "llamacpp"
    kind = yield from _kind_by_sign(sign for sign in _SIGNS if sign.is_open)
    if kind:
        return kind
    vllm = _Sign("vllm", "/version", "version")
    return (yield from _kind_by_sign([vllm])) or _kind_by_place(asked)


def _kind(answer: Answer, asked: Asked) -> Generator[Question, Answer, str]:
    """The kind of a server, by how its models are signed, else by signs of its own."""
    listing = read(Listing, answer)
    models = listing.data if listing else ()
    owner = (models[0].owned_by or "") if models else ""
    signed = kind_by_owner(owner)
    if signed is not None and signed.name != "ollama":
        return signed.name
    greeting = (yield Question("/")).text.strip()
    if greeting in _GREETINGS:
        return _GREETINGS[greeting]
    if listing is None or owner or asked.endpoint.kind == "jan":
        return _kind_by_place(asked)
    # Of a list with models in it, those that sign theirs have not written it.
    kind = yield from _kind_by_sign(
        sign for sign in _SIGNS if not models or not kind_of(sign.kind).owned_by
    )
    if kind == "mlx" and not all("/" in model.id for model in models):
        # mlx_lm.server lists repositories, an old llamafile what file it is made of.
        return "llamafile"
    return kind or _kind_by_place(asked)


def _kind_by_sign(signs: Iterable[_Sign]) -> Generator[Question, Answer, str]:
    """The kind whose sign the server shows; "" if it shows none of them."""
    answers: dict[str, Answer] = {}
    for sign in signs:
        if sign.path not in answers:
            answers[sign.path] = yield Question(sign.path)
        if sign.is_in(answers[sign.path]):
            return sign.kind
    return ""


def _kind_by_place(asked: Asked) -> str:
    """The kind of a server that shows nothing, by whose usual port it has.

    That is good enough for kinds that never show anything; and what is at Ollama's and is not
    Ollama is some gateway, Msty's say.
    """
    usual = kind_of(asked.endpoint.kind)
    if usual.name == "ollama":
        return "gateway"
    return "openai" if usual.owned_by else usual.name
