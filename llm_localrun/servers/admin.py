"""The servers on this machine that get models themselves: which of a kind answers, and its key."""

from dataclasses import dataclass, field
from typing import Any

from llm_localrun.catalogue import get_catalogue
from llm_localrun.errors import ServerUnreachable
from llm_localrun.models import Endpoint, ServerStatus, default_key_alias
from llm_localrun.name_cache import CachePolicy
from llm_localrun.privacy import is_loopback
from llm_localrun.servers.keys import key_in_environment, stored_keys
from llm_localrun.servers.kinds import kind_of
from llm_localrun.wire.http import Call


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers."""

    endpoint: Endpoint
    key: str | None = field(default=None, repr=False)

    @property
    def title(self) -> str:
        return f"{kind_of(self.endpoint.kind).title} at {self.endpoint.url}"

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Call:
        """A request to it."""
        return Call(
            url=self.endpoint.url + path,
            body=body or {},
            server=self.title,
            advice=kind_of(self.endpoint.kind).advice,
            key=self.key,
            method=method,
        )


def server_at(endpoint: Endpoint) -> Server:
    """The server at `endpoint`, with the key that is stored for it."""
    stored = stored_keys().get(endpoint.key_alias or default_key_alias(endpoint.name))
    return Server(endpoint, stored or key_in_environment(endpoint.kind))


def server_of(kind: str) -> Server:
    """The first of `kind` that answers, on this machine if there is one.

    Raises `ServerUnreachable`.
    """
    for refresh in (CachePolicy.IF_STALE, CachePolicy.RETRY):
        found = [
            report.endpoint
            for report in get_catalogue(refresh).endpoints
            if report.endpoint.kind == kind
            and report.status in (ServerStatus.ANSWERS, ServerStatus.NEEDS_KEY)
        ]
        if found:
            return server_at(min(found, key=lambda endpoint: not is_loopback(endpoint.url)))
    raise ServerUnreachable(
        f"No {kind_of(kind).title} answers on this machine", kind_of(kind).advice
    )
