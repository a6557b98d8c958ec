"""Lists and searches the repositories of a Hugging Face hub, with huggingface_hub.

The hub is the one that HF_ENDPOINT names. The token is the one stored with `llm keys`, or that of
`hf auth login`. Downloading files is left to `download`, which repositories to show to
`hub_search`.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter

from llm_localrun import __version__
from llm_localrun.errors import PullFailed
from llm_localrun.models import default_key_alias
from llm_localrun.pull.http_files import FileSource, TooSlow, result_within, too_many_requests
from llm_localrun.pull.records import is_safe_name
from llm_localrun.pull.variants import HubFile
from llm_localrun.servers.base import stored_keys
from llm_localrun.system.logins import shown_address
from llm_localrun.wire.shapes import Count, Entries, Maybe, Name, Rate, Text, WireModel

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import ModelInfo

_TIMEOUT_S = 30.0
_LIST_TIMEOUT_S = 10.0
"""The longest wait for the next bytes of a list of repositories."""
_LIST_WAIT_S = 30.0
_LIST_BYTES = 16 * 2**20
_LICENSE_TAG = "license:"
_KEY_ALIAS = default_key_alias("huggingface")


class HubUnreachable(PullFailed):
    """The hub does not answer."""


class NoRepository(PullFailed):
    """The hub has no such repository that the user may read."""


class NoRevision(PullFailed):
    """The repository has no such revision."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit. `token` is sent with the requests for its files."""

    name: str
    commit: str
    files: tuple[HubFile, ...]
    token: str | None = field(default=None, repr=False)

    def source(self, file: HubFile) -> FileSource:
        """The address of `file` at this commit."""
        _turn_off_telemetry()
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(self.name, file.path, revision=self.commit, endpoint=_endpoint())
        advice = f"Accept its terms at {_shown_hub()}/{self.name}, and {token_advice(self.token)}"
        return FileSource(url, self.token, advice)


class FoundRepository(WireModel):
    """A repository with GGUF files, as a list of the hub has it."""

    id: Name
    downloads: Maybe[Count] = None
    """In the last 30 days."""
    tags: Maybe[Entries[Text]] = None

    @property
    def license(self) -> str:
        """The hub's name for it: `apache-2.0`; "" if it is not known."""
        found = (tag for tag in self.tags or () if tag.startswith(_LICENSE_TAG))
        return next(found, "").removeprefix(_LICENSE_TAG)


_SEARCH_REPLY: TypeAdapter[tuple[FoundRepository, ...]] = TypeAdapter(Entries[FoundRepository])


def search_repositories(words: str, limit: int) -> tuple[FoundRepository, ...]:
    """At most `limit` repositories with GGUF files that match `words`, the most downloaded first.

    Raises `PullFailed`.
    """
    with _translate_errors():
        expand = ["downloads", "tags"]
        reply = _list_models(limit, search=words, sort="downloads", expand=expand)
        return _SEARCH_REPLY.validate_json(reply)[:limit]


def list_repository(name: str, revision: str) -> Repository:
    """The hub's listing of the repository `name` (OWNER/REPO). Raises `PullFailed`."""
    with _translate_errors(name, revision):
        from huggingface_hub import HfApi

        token = _token()
        api = HfApi(
            endpoint=_endpoint(),
            token=token or False,
            library_name="llm-localrun",
            library_version=__version__,
        )
        info = api.model_info(name, revision=revision, timeout=_TIMEOUT_S, files_metadata=True)
        return Repository(name, info.sha or revision, tuple(_safe_files(info)), token)


def _token() -> str | None:
    from huggingface_hub import get_token

    return stored_keys().get(_KEY_ALIAS) or get_token() or None


class HubGGUF(WireModel):
    """What a hub reads from a repository's GGUF files."""

    total: Maybe[Count] = None
    """The number of weights."""
    architecture: Maybe[Text] = None
    chat_template: Maybe[Text] = None


class TrendingRepository(FoundRepository):
    """A repository in a hub's list of trending ones."""

    sha: Maybe[Name] = None
    gated: Maybe[bool | Text] = None
    pipeline_tag: Maybe[Text] = None
    gguf: Maybe[HubGGUF] = None
    trending: Annotated[Maybe[Rate], Field(alias="trendingScore")] = None


_TRENDING_REPLY = TypeAdapter[tuple[TrendingRepository, ...]](Entries[TrendingRepository])


def trending_repositories(owner: str, limit: int) -> tuple[TrendingRepository, ...]:
    """At most `limit` repositories of `owner` with GGUF files, those that trend most first.

    Raises `PullFailed`.
    """
    with _translate_errors():
        expand = ["sha", "gated", "pipeline_tag", "tags", "gguf", "trendingScore"]
        reply = _list_models(limit, author=owner, sort="trendingScore", expand=expand)
        return _TRENDING_REPLY.validate_json(reply)[:limit]


def _list_models(limit: int, **parameters: Any) -> bytes:
    """The hub's list of repositories with GGUF files, if it arrives within `_LIST_WAIT_S`."""
    given_up = Event()
    asked = {**parameters, "filter": "gguf", "limit": limit}
    with suppress(TooSlow):
        return result_within(_LIST_WAIT_S, lambda: _read_list(asked, given_up))
    given_up.set()
    raise HubUnreachable(
        f"{_shown_hub()} did not send its list of repositories within {_LIST_WAIT_S:.0f} s",
        "Try again later, or check the network and HF_ENDPOINT",
    )


def _read_list(parameters: Mapping[str, Any], given_up: Event) -> bytes:
    import httpx2
    from huggingface_hub import get_session, hf_raise_for_status

    token = _token()
    # HfApi.list_models (2.4) waits without a limit, and one bad entry ends its list.
    with get_session().stream(
        "GET",
        f"{_endpoint()}/api/models",
        params=parameters,
        headers={
            "User-Agent": f"llm-localrun/{__version__}",
            **({"Authorization": f"Bearer {token}"} if token else {}),
        },
        timeout=_LIST_TIMEOUT_S,
    ) as response:
        content = bytearray()
        for chunk in response.iter_bytes():
            content += chunk
            if given_up.is_set():
                return b""
            if len(content) > _LIST_BYTES:
                raise PullFailed(
                    f"The list of repositories of {_shown_hub()} has more than"
                    f" {_LIST_BYTES // 2**20} MiB",
                    "Check HF_ENDPOINT",
                )
    # The errors quote the content, which a response that was streamed does not keep.
    headers = {key: value for key, value in response.headers.items() if key != "content-encoding"}
    status, request = response.status_code, response.request
    hf_raise_for_status(
        httpx2.Response(status, headers=headers, content=bytes(content), request=request)
    )
    return bytes(content)


def _turn_off_telemetry() -> None:
    """Has an effect only before huggingface_hub is imported for the first time.

    Otherwise it asks the hub for a list of AI agents, to report which one it runs under (2.4).
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _shown_hub() -> str:
    return shown_address(_endpoint())


def _safe_files(info: "ModelInfo") -> Iterator[HubFile]:
    """The files that can be downloaded. Those with unsafe names are left out."""
    for file in info.siblings or ():
        if isinstance(file.size, int) and file.size >= 0 and is_safe_name(file.rfilename):
            yield HubFile(file.rfilename, file.size, file.lfs.sha256 if file.lfs else "")


@contextmanager
def _translate_errors(name: str = "", revision: str = "") -> Iterator[None]:
    """Turns the errors of huggingface_hub into a `PullFailed`. A list of models has no `name`."""
    _turn_off_telemetry()
    try:
        import httpx2
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            OfflineModeIsEnabled,
            OIDCError,
        )
    except ImportError:
        raise PullFailed(
            "Pulling from the Hugging Face hub needs huggingface_hub, which is not installed",
            "Install it with `llm install 'llm-localrun[gguf]'`",
        ) from None
    try:
        yield
    except HfHubHTTPError as error:
        raise _hub_error(error, name, revision) from None
    except HFValidationError:
        raise PullFailed(
            f"'{name}' is not a repository name", "A repository is OWNER/REPO"
        ) from None
    except OfflineModeIsEnabled:
        raise PullFailed(
            "HF_HUB_OFFLINE is set, which forbids requests to the Hugging Face hub",
            "Unset it to pull",
        ) from None
    except OIDCError as error:
        raise PullFailed(
            f"The token for the hub could not be obtained: {error}",
            "Fix or unset HF_OIDC_RESOURCE",
        ) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ImportError) as error:
        # httpx quotes the part of an address that it cannot read, and that may be a password.
        why = "the address is not valid" if isinstance(error, httpx2.InvalidURL) else error
        raise HubUnreachable(
            f"{_shown_hub()} cannot be reached: {why}", "Check the network and HF_ENDPOINT"
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise PullFailed(
            f"The reply of {_shown_hub()} is not that of a Hugging Face hub", "Check HF_ENDPOINT"
        ) from None


def _hub_error(error: "HfHubHTTPError", name: str, revision: str) -> PullFailed:
    status, headers = error.response.status_code, error.response.headers
    code = headers.get("x-error-code", "")
    if status == 429:
        return too_many_requests(_shown_hub(), headers, resumes=bool(name))
    if code == "RevisionNotFound":
        return NoRevision(
            f"{name} has no revision {revision}", f"See {_shown_hub()}/{name}/commits"
        )
    if status in (401, 403) and not name:
        return PullFailed(
            f"{_shown_hub()} refuses to list repositories (HTTP {status})",
            "Check your token, or remove it: a list needs none",
        )
    if status in (401, 403, 404) and name:
        # The hub answers alike for a private repository and for one that does not exist.
        return NoRepository(
            f"There is no repository {name} at {_shown_hub()} that you may read (HTTP {status})",
            f"Check its name; if it is private or gated, {token_advice(None)}",
        )
    message = error.server_message or f"HTTP {status}"
    return PullFailed(f"{_shown_hub()} answered with an error: {message}", "Try again later")


def token_advice(token: str | None) -> str:
    """What to do about a repository that may not be read with `token`."""
    if token:
        return "check that your token may read it"
    return f"set a token: `llm keys set {_KEY_ALIAS}`, or log in with `hf auth login`"
