"""Reads llm's attachments: files, and URLs that the user gave.

Which types a model accepts is decided in `wire.request`.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from llm_localrun.errors import BadAttachment
from llm_localrun.system.atomic import open_regular
from llm_localrun.wire.request import ALIASES, Media

if TYPE_CHECKING:
    import llm


def load_attachment(
    attachment: "llm.Attachment", accepted: Collection[str], *, may_fetch: bool = True
) -> Media:
    """The content of `attachment`. `accepted` are MIME types: {"image/png", "image/jpeg"}.

    A URL is fetched only if `may_fetch`. Raises `BadAttachment`.
    """
    import httpx2

    name = attachment.path or attachment.url or "The attachment"
    if attachment.url and not attachment.content and not may_fetch:
        raise BadAttachment(
            f"{name} comes from a tool, and only addresses that you give are fetched",
            "Let the tool return the content instead",
        )
    try:
        if attachment.path and not attachment.content:
            # Otherwise resolve_type would report an unknown type for a file that is missing.
            open_regular(attachment.path).close()
        kind = attachment.resolve_type() or ""  # type: ignore[no-untyped-call]
        kind = kind.partition(";")[0].strip().lower()
        kind = ALIASES.get(kind, kind)
        if kind not in accepted:
            raise _wrong_type(name, kind, accepted)
        data: bytes | None = attachment.content_bytes()  # type: ignore[no-untyped-call]
    except OSError as error:
        raise BadAttachment.from_os_error("read", name, error) from None
    except httpx2.HTTPStatusError as error:
        raise _fetch_failed(name, f"HTTP {error.response.status_code}") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise _fetch_failed(name, str(error)) from None
    except ValueError as error:
        raise BadAttachment(f"{name} is of no known type: {error}", "Use --at PATH TYPE") from None
    if not data:
        raise BadAttachment(f"{name} is empty", "Attach another file")
    return Media(kind, data)


def _fetch_failed(name: str, reason: str) -> BadAttachment:
    return BadAttachment(f"{name} cannot be fetched: {reason}", "Download it, and attach the file")


def _wrong_type(name: str, kind: str, accepted: Collection[str]) -> BadAttachment:
    types = sorted(set(accepted) - set(ALIASES))
    takes = f"It takes {', '.join(types)}" if types else "It takes text only"
    return BadAttachment(
        f"{name} is {kind or 'of an unknown type'}, which the model cannot take",
        f"{takes}: choose another model, or begin a conversation without the attachment",
    )
