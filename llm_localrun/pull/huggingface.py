"""A Hugging Face hub: what a repository holds, by huggingface_hub, and where its files lie.

huggingface_hub speaks to the hub that HF_ENDPOINT names, with the token that the user has stored
with llm or logged in with. The files themselves are `download`'s business.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llm_localrun import __version__
from llm_localrun.errors import PullFailed
from llm_localrun.models import default_key_alias
from llm_localrun.pull.http_files import Source, too_many_requests
from llm_localrun.pull.safety import is_plain
from llm_localrun.pull.variants import HubFile
from llm_localrun.servers.keys import stored_keys

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import ModelInfo

_TIMEOUT = 30.0
_KEY_ALIAS = default_key_alias("huggingface")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository as it is at one commit.

    `context_max` is the context, in tokens, that the hub has read from its files.
    """

    name: str
    commit: str
    files: tuple[HubFile, ...]
    context_max: int | None = None
    token: str | None = field(default=None, repr=False)

    def source(self, file: HubFile) -> Source:
        """Where the bytes of `file` are, at this commit and no other."""
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(self.name, file.path, revision=self.commit, endpoint=_endpoint())
        advice = f"Accept its terms at {_endpoint()}/{self.name}, and {_token_advice(self.token)}"
        return Source(url, self.token, advice)


def repository(name: str, revision: str) -> Repository:
    """What the hub lists. Raises `PullFailed`."""
    with _translated(name, revision):
        from huggingface_hub import HfApi, get_token

        token = stored_keys().get(_KEY_ALIAS) or get_token()
        api = HfApi(
            endpoint=_endpoint(),
            token=token or False,
            library_name="llm-localrun",
            library_version=__version__,
        )
        info = api.model_info(name, revision=revision, timeout=_TIMEOUT, files_metadata=True)
        return Repository(
            name, info.sha or revision, tuple(_files(info)), _context(info), token or None
        )


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _files(info: "ModelInfo") -> Iterator[HubFile]:
    """Those that could be fetched; one with a name that is not safe does not exist for us."""
    for file in info.siblings or ():
        if isinstance(file.size, int) and file.size >= 0 and is_plain(file.rfilename):
            yield HubFile(file.rfilename, file.size, file.lfs.sha256 if file.lfs else "")


def _context(info: "ModelInfo") -> int | None:
    facts = info.gguf or {}
    context = facts.get("context_length")
    return context if isinstance(context, int) else None


@contextmanager
def _translated(name: str, revision: str) -> Iterator[None]:
    """Turns what huggingface_hub raises into a `PullFailed`."""
    # Else it asks the hub for a list of programs, to report which of them it runs under (2.4).
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
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
        raise _refusal(error, name, revision) from None
    except HFValidationError:
        raise PullFailed(f"'{name}' is no name of a repository", "It is OWNER/REPO") from None
    except OfflineModeIsEnabled:
        raise PullFailed(
            "HF_HUB_OFFLINE is set, so the Hugging Face hub is not asked", "Unset it to pull"
        ) from None
    except OIDCError as error:
        raise PullFailed(
            f"No token for the hub was given out: {error}", "Unset HF_OIDC_RESOURCE, or mend it"
        ) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        raise PullFailed(
            f"{_endpoint()} cannot be reached: {error}", "Check the network, and HF_ENDPOINT"
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise PullFailed(
            f"{_endpoint()} does not answer as a Hugging Face hub does", "Check HF_ENDPOINT"
        ) from None


def _refusal(error: "HfHubHTTPError", name: str, revision: str) -> PullFailed:
    status, headers = error.response.status_code, error.response.headers
    code = headers.get("x-error-code", "")
    if status == 429:
        return too_many_requests(_endpoint(), headers)
    if code == "RevisionNotFound":
        return PullFailed(f"{name} has no revision {revision}", f"See {_endpoint()}/{name}/commits")
    if status in (401, 403, 404):
        # The hub does not tell a private repository from one that does not exist.
        return PullFailed(
            f"There is no repository {name} at {_endpoint()} for you (HTTP {status})",
            f"Check its name; if it is private or gated, {_token_advice(None)}",
        )
    said = error.server_message or f"HTTP {status}"
    return PullFailed(f"{_endpoint()} says: {said}", "Try again later")


def _token_advice(token: str | None) -> str:
    if token:
        return "look whether your token may read it"
    return f"give a token: `llm keys set {_KEY_ALIAS}`, or log in with `hf auth login`"
