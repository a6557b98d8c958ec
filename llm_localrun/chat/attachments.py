"""Reads llm's attachments: files, and URLs that the user gave.

Which types a model accepts is decided in `wire.request`.
"""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from llm_localrun.errors import BadAttachment
from llm_localrun.system.atomic import open_regular
from llm_localrun.wire.request import ALIASES, AUDIO, IMAGES, Media

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
        kind = _accepted_type(attachment, accepted)
        data: bytes | None = attachment.content_bytes()  # type: ignore[no-untyped-call]
    except BadAttachment:
        raise
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


def check_types(attachments: "Iterable[llm.Attachment]", accepted: Collection[str]) -> None:
    """Raises `BadAttachment` if one has another type, or `ValueError` if one has no known type."""
    for attachment in attachments:
        _accepted_type(attachment, accepted)


def _accepted_type(attachment: "llm.Attachment", accepted: Collection[str]) -> str:
    kind = attachment.resolve_type() or ""  # type: ignore[no-untyped-call]
    kind = kind.partition(";")[0].strip().lower()
    kind = ALIASES.get(kind, kind)
    if kind not in accepted:
        raise _wrong_type(attachment.path or attachment.url or "", kind, accepted)
    return kind


def _fetch_failed(name: str, reason: str) -> BadAttachment:
    return BadAttachment(f"{name} cannot be fetched: {reason}", "Download it, and attach the file")


def _wrong_type(address: str, kind: str, accepted: Collection[str]) -> BadAttachment:
    """The error for an attachment, whose path or URL is `address`, "" if it has none."""
    from llm_localrun.resolve import how_to_use

    types = sorted(set(accepted) - set(ALIASES))
    takes = f"It takes {', '.join(types)}" if types else "It takes text only"
    remedy = f"{takes}: begin a conversation without the attachment"
    if kind in IMAGES | AUDIO:
        arguments = ("-a", address) if address else ()
        remedy = f"{takes}. {how_to_use('vision' if kind in IMAGES else 'audio', *arguments)}"
    return BadAttachment(
        f"{address or 'The attachment'} is {kind or 'of an unknown type'}, which the model cannot"
        " take",
        remedy,
    )
