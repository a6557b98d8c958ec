"""Attachments from files, bytes and addresses, and those that cannot be read."""

import base64
import socket
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import llm
import pytest

from llm_localrun.chat.attachments import load_attachment
from llm_localrun.errors import BadAttachment
from llm_localrun.system.text import printable
from llm_localrun.wire.request import AUDIO, IMAGES, Media
from tests.fakes.http_server import Request, StandIn, head, whole

ALL = IMAGES | AUDIO


def png() -> bytes:
    """A black pixel."""

    def block(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = block(b"IHDR", head) + block(b"IDAT", zlib.compress(b"\0\0")) + block(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + pixels


# The first bytes of each type of file, by which it is recognized.
CONTENTS = {
    "image/png": png(),
    "image/jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xd9",
    "image/gif": b"GIF89a\1\0\1\0\0\0\0;",
    "image/webp": b"RIFF\x1a\0\0\0WEBPVP8L\r\0\0\0/\0\0\0\x10\x07\x10\x11\x11\x88\x88\xfe\x07\0",
    "audio/wav": b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0",
    "audio/mpeg": b"ID3\4\0\0\0\0\0\0\xff\xfb\x90\x00",
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_types_are_recognized_by_content(kind: str, tmp_path: Path) -> None:
    content = CONTENTS[kind]
    # The name has no extension.
    path = tmp_path / "attached"
    path.write_bytes(content)
    for attachment in (llm.Attachment(content=content), llm.Attachment(path=str(path))):
        assert load_attachment(attachment, ALL) == Media(kind, content)


@pytest.mark.parametrize(
    ("given", "kind", "is_image"),
    [
        ("image/png", "image/png", True),
        ("image/jpeg", "image/jpeg", True),
        ("image/gif", "image/gif", True),
        ("image/webp", "image/webp", True),
        ("audio/wav", "audio/wav", False),
        ("audio/mpeg", "audio/mpeg", False),
        # Other names for the same.
        ("image/jpg", "image/jpeg", True),
        ("audio/x-wav", "audio/wav", False),
        ("audio/mp3", "audio/mpeg", False),
    ],
)
def test_types_that_are_given(given: str, kind: str, is_image: bool) -> None:
    media = load_attachment(llm.Attachment(type=given, content=b"whatever"), ALL)
    assert media == Media(kind, b"whatever")
    assert media.is_image is is_image
    assert base64.b64decode(media.base64) == b"whatever"


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("image/png", "image/png"),
        ("image/jpg", "image/jpeg"),
        # Servers say more than the type.
        ("image/png; charset=binary", "image/png"),
        ("Image/PNG", "image/png"),
        ("audio/x-wav;codecs=1", "audio/wav"),
    ],
)
def test_addresses(given: str, kind: str) -> None:
    with StandIn(lambda request: [whole(b"bytes", given)]) as server:
        assert load_attachment(llm.Attachment(url=f"{server.url}/cat"), ALL) == Media(
            kind, b"bytes"
        )
        assert [request.path for request in server.requests] == ["/cat", "/cat"]


def test_address_with_a_given_type_is_fetched_once() -> None:
    with StandIn(lambda request: [whole(b"bytes", "text/plain")]) as server:
        attachment = llm.Attachment(type="image/png", url=f"{server.url}/cat")
        assert load_attachment(attachment, ALL) == Media("image/png", b"bytes")
        assert [request.method for request in server.requests] == ["GET"]


def test_redirected_address() -> None:
    def respond(request: Request) -> list[bytes]:
        if request.path == "/cat":
            return [b"HTTP/1.1 302 Found\r\nLocation: /tom\r\nContent-Length: 0\r\n\r\n"]
        return [whole(b"Tom", "image/gif")]

    with StandIn(respond) as server:
        assert load_attachment(llm.Attachment(url=f"{server.url}/cat"), ALL) == Media(
            "image/gif", b"Tom"
        )


def refusal(
    attachment: llm.Attachment, accepted: Iterable[str] = ALL, *, may_fetch: bool = True
) -> str:
    with pytest.raises(BadAttachment) as refused:
        load_attachment(attachment, frozenset(accepted), may_fetch=may_fetch)
    return str(refused.value)


IMAGES_ONLY = "It takes image/gif, image/jpeg, image/png, image/webp"
OTHERWISE = "begin a conversation without the attachment."
TEXT_ONLY = "It takes text only."
SEES = "Choose a model that can see: `llm localrun recommend --for vision`."
HEARS = "Choose a model that can hear: `llm localrun search voxtral`."
GUESS = "Use --at PATH TYPE."
DOWNLOAD = "Download it, and attach the file."


@pytest.mark.parametrize(
    ("attachment", "accepted", "message"),
    [
        (
            llm.Attachment(type="application/pdf", content=b"%PDF"),
            IMAGES,
            f"The attachment is application/pdf, which the model cannot take."
            f" {IMAGES_ONLY}: {OTHERWISE}",
        ),
        (
            llm.Attachment(type="audio/x-wav", content=b"RIFF"),
            IMAGES,
            f"The attachment is audio/wav, which the model cannot take. {IMAGES_ONLY}. {HEARS}",
        ),
        (
            llm.Attachment(type="image/jpg", content=b"\xff"),
            (),
            f"The attachment is image/jpeg, which the model cannot take. {TEXT_ONLY} {SEES}",
        ),
        (
            llm.Attachment(type="image/png", content=b"\x89PNG"),
            AUDIO,
            "The attachment is image/png, which the model cannot take."
            f" It takes audio/mpeg, audio/wav. {SEES}",
        ),
        (
            llm.Attachment(content=b"\x01\x02 nothing that anybody knows"),
            IMAGES,
            f"The attachment is of an unknown type, which the model cannot take."
            f" {IMAGES_ONLY}: {OTHERWISE}",
        ),
    ],
)
def test_types_that_the_model_cannot_take(
    attachment: llm.Attachment, accepted: Iterable[str], message: str
) -> None:
    assert refusal(attachment, accepted) == message


@pytest.mark.parametrize("given", [None, "image/png"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone.png", "No such file or directory. Check the path."),
        ("folder", "Is a directory. Give the path of a file, not of a directory."),
    ],
)
def test_files_that_cannot_be_read(
    given: str | None, name: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    attachment = llm.Attachment(type=given, path=str(path))
    assert refusal(attachment) == f"{path} cannot be read: {reason}"


def test_empty_file_of_no_known_type(tmp_path: Path) -> None:
    path = tmp_path / "empty.png"
    path.touch()
    assert refusal(llm.Attachment(path=str(path))) == (
        f"{path} is of no known type: Input was empty. {GUESS}"
    )


def test_empty_attachment_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "empty.png"
    path.touch()
    for attachment, name in (
        (llm.Attachment(type="image/png", path=str(path)), str(path)),
        (llm.Attachment(type="image/png", content=b""), "The attachment"),
        (llm.Attachment(type="image/png"), "The attachment"),
    ):
        assert refusal(attachment) == f"{name} is empty. Attach another file."


def test_attachment_without_type_and_content() -> None:
    assert refusal(llm.Attachment()) == (
        "The attachment is of no known type: Attachment has no type and no content to derive it"
        f" from. {GUESS}"
    )


@pytest.mark.parametrize("given", [None, "image/png"])
@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([whole(b"<p>Not found</p>", "text/html", 404)], "HTTP 404"),
        ([whole(b"", "text/html", 500)], "HTTP 500"),
        ([b""], "Server disconnected without sending a response"),
        (
            [b"HTTP/1.1 302 Found\r\nLocation: /cat\r\nContent-Length: 0\r\n\r\n"],
            "Exceeded maximum allowed redirects",
        ),
    ],
)
def test_addresses_that_fail(given: str | None, pieces: list[bytes], reason: str) -> None:
    with StandIn(lambda request: pieces) as server:
        url = f"{server.url}/cat"
        assert refusal(llm.Attachment(type=given, url=url)) == (
            f"{url} cannot be fetched: {reason}. {DOWNLOAD}"
        )


def test_address_whose_answer_is_incomplete() -> None:
    with StandIn(lambda request: [head("image/png"), b"5\r\nhal"]) as server:
        url = f"{server.url}/cat"
        message = refusal(llm.Attachment(type="image/png", url=url))
    assert message.startswith(f"{url} cannot be fetched: peer closed connection")
    assert message.endswith(f". {DOWNLOAD}")


def test_address_where_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/cat.png"
    assert refusal(llm.Attachment(url=url)) == (
        f"{url} cannot be fetched: [Errno 111] Connection refused. {DOWNLOAD}"
    )


@pytest.mark.parametrize("given", [None, "image/png"])
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://box/cat.png", "Request URL has an unsupported protocol 'ftp://'"),
        ("http://127.0.0.1:port/", "Invalid port: 'port'"),
        (
            "http://127.0.0.1/\n",
            "Invalid non-printable ASCII character in URL, '\\n' at position 17",
        ),
    ],
)
def test_invalid_addresses(given: str | None, url: str, reason: str) -> None:
    assert refusal(llm.Attachment(type=given, url=url)) == (
        f"{printable(url)} cannot be fetched: {reason}. {DOWNLOAD}"
    )


UNASKED = (
    "comes from a tool, and only addresses that you give are fetched."
    " Let the tool return the content instead."
)


@pytest.mark.parametrize("given", [None, "image/png", "video/mp4"])
def test_address_from_a_tool_is_not_fetched(given: str | None) -> None:
    with StandIn(lambda request: [whole(b"bytes", "image/png")]) as server:
        url = f"{server.url}/cat"
        message = refusal(llm.Attachment(type=given, url=url), may_fetch=False)
        assert server.requests == []
    assert message == f"{url} {UNASKED}"


def test_content_from_a_tool_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(png())
    for attachment in (
        llm.Attachment(content=png()),
        llm.Attachment(path=str(path)),
        llm.Attachment(content=png(), url="http://127.0.0.1:9/cat.png"),
    ):
        attachment.type = "image/png"
        assert load_attachment(attachment, ALL, may_fetch=False) == Media("image/png", png())
