"""Faults of servers: what may go wrong with a reply that was whole.

Each fault turns the bytes of a whole reply into the pieces that a `StandIn` sends instead.
"""

import gzip
import json
import random
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from tests.fakes.http_server import Request, Respond, chunk, head, whole

Pieces: TypeAlias = Iterator[bytes | float]
Fault: TypeAlias = Callable[[bytes, random.Random], Pieces]
MIB = 2**20
_SILENCE_S = 30.0
_DEEP = 100_000


def faulty(respond: Respond, fault: Fault, seed: int) -> Respond:
    """Answers as `respond` does, with a fault in each reply."""
    source = random.Random(seed)

    def answer(request: Request) -> Pieces:
        reply = b"".join(piece for piece in respond(request) if isinstance(piece, bytes))
        yield from fault(reply, source)

    return answer


def _parts(reply: bytes) -> tuple[bytes, bytes]:
    """The head and the body, which is no longer in chunks."""
    start, _, body = reply.partition(b"\r\n\r\n")
    if b"chunked" in start:
        pieces, at = [], 0
        while size := int(body[at : (end := body.index(b"\r\n", at))], 16):
            pieces.append(body[end + 2 : end + 2 + size])
            at = end + 4 + size
        body = b"".join(pieces)
    return start, body


def _type(start: bytes) -> str:
    found = re.search(rb"Content-Type: ([^\r]*)", start)
    return found[1].decode() if found else ""


def _status(start: bytes) -> int:
    return int(start.split()[1])


def _rebuilt(body: bytes, start: bytes, content_type: str | None = None) -> bytes:
    kind = _type(start) if content_type is None else content_type
    return whole(body, kind, _status(start))


# Faults of connections and of HTTP.


def _cut(reply: bytes, source: random.Random) -> Pieces:
    yield reply[: source.randrange(len(reply))]
    yield b""


def _cut_body(reply: bytes, source: random.Random) -> Pieces:
    at = reply.index(b"\r\n\r\n") + 4
    yield reply[: source.randrange(at, len(reply) + 1)]
    yield b""


def _silent(reply: bytes, source: random.Random) -> Pieces:
    yield reply[: source.randrange(len(reply))]
    yield _SILENCE_S


def _slow(reply: bytes, source: random.Random) -> Pieces:
    """The first bytes come one by one."""
    for at in range(min(60, len(reply))):
        yield reply[at : at + 1]
        yield 0.01
    yield reply[60:]


def _flipped(reply: bytes, source: random.Random) -> Pieces:
    data = bytearray(reply)
    for _ in range(source.randrange(1, 6)):
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    yield bytes(data)
    yield b""


def _inserted(reply: bytes, source: random.Random) -> Pieces:
    at = source.randrange(len(reply))
    yield reply[:at] + source.randbytes(source.randrange(1, 50)) + reply[at:]
    yield b""


def _repeated(reply: bytes, source: random.Random) -> Pieces:
    yield reply + reply
    yield b""


def _noise(reply: bytes, source: random.Random) -> Pieces:
    yield source.randbytes(5000)
    yield b""


def _chunk_sizes(reply: bytes, source: random.Random) -> Pieces:
    start, body = _parts(reply)
    size = source.choice((b"FFFFFFFFFFFFFFFF", b"-1", b"zz", b"", b"1" * 10_000, b"5;x=y"))
    yield head(_type(start), _status(start)) + size + b"\r\n" + body + b"\r\n0\r\n\r\n"
    yield b""


def _lengths(reply: bytes, source: random.Random) -> Pieces:
    start, body = _parts(reply)
    length = source.choice(("1", "99999999999999999999", "-5", "x", "5\r\nContent-Length: 7"))
    kind = _type(start)
    lines = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    yield lines.encode() + body
    yield b""


def _both_lengths(reply: bytes, source: random.Random) -> Pieces:
    start, body = _parts(reply)
    yield head(_type(start)).replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n") + chunk(body)
    yield b""


def _many_headers(reply: bytes, source: random.Random) -> Pieces:
    lines = b"".join(b"X-%d: y\r\n" % number for number in range(100_000))
    yield reply.replace(b"\r\n", b"\r\n" + lines, 1)
    yield b""


def _long_header(reply: bytes, source: random.Random) -> Pieces:
    yield reply.replace(b"\r\n", b"\r\nX: " + b"y" * 5 * MIB + b"\r\n", 1)
    yield b""


def _status_lines(reply: bytes, source: random.Random) -> Pieces:
    line = source.choice((b"HTTP/1.1 99999 X", b"HTTP/9.9 200 OK", b"HTTP/1.1", b"ICY 200", b""))
    yield line + reply[reply.index(b"\r\n") :]
    yield b""


def _other_status(status: int) -> Fault:
    def answer(reply: bytes, source: random.Random) -> Pieces:
        start, body = _parts(reply)
        yield whole(body, _type(start), status)
        yield b""

    return answer


def _other_type(content_type: str) -> Fault:
    def answer(reply: bytes, source: random.Random) -> Pieces:
        start, body = _parts(reply)
        yield _rebuilt(body, start, content_type)

    return answer


def _encoded(name: bytes, data: Callable[[bytes], bytes]) -> Fault:
    """A compressed reply, or one that only claims to be one."""

    def answer(reply: bytes, source: random.Random) -> Pieces:
        start, body = _parts(reply)
        packed = _rebuilt(data(body), start)
        yield packed.replace(b"\r\n", b"\r\nContent-Encoding: " + name + b"\r\n", 1)

    return answer


_ZEROS = gzip.compress(bytes(300 * MIB), 1)


def _spaces(_: bytes) -> bytes:
    return gzip.compress(b'{"a": "' + b" " * 60 * MIB + b'"}', 1)


# Faults of the content.


def _lines(body: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The body with each JSON text changed: a whole one, one a line, or one an event."""

    def line(text: bytes) -> bytes:
        prefix = b"data: " if text.startswith(b"data: ") else b""
        rest = text[len(prefix) :]
        return prefix + change(rest) if rest[:1] in b"{[" and rest else text

    try:
        json.loads(body)
    except ValueError:
        return b"\n".join(map(line, body.split(b"\n")))
    return change(body)


def _content(change: Callable[[bytes, random.Random], bytes]) -> Fault:
    def answer(reply: bytes, source: random.Random) -> Pieces:
        start, body = _parts(reply)
        yield _rebuilt(_lines(body, lambda text: change(text, source)), start)

    return answer


def _values(change: Callable[[Any, random.Random], Any], share: float = 0.2) -> Fault:
    """Some of the values in each JSON text are others."""

    def changed(value: Any, source: random.Random) -> Any:
        if source.random() < share:
            return change(value, source)
        if isinstance(value, dict):
            return {key: changed(each, source) for key, each in value.items()}
        if isinstance(value, list):
            return [changed(each, source) for each in value]
        return value

    def text(data: bytes, source: random.Random) -> bytes:
        return json.dumps(changed(json.loads(data), source)).encode()

    return _content(text)


def _odd(value: Any, source: random.Random) -> Any:
    """A value of another type."""
    odd: tuple[Any, ...] = (
        0,
        -1,
        2**70,
        1.5,
        True,
        "",
        "x",
        [],
        {},
        [[]],
        {"a": None},
        ["x"],
        "\ud800",
        "\0\x1b[2J",
    )
    return source.choice(odd)


def _without_keys(value: Any, source: random.Random) -> Any:
    return {} if isinstance(value, dict) else None


def _all_null(value: Any, source: random.Random) -> Any:
    if isinstance(value, dict):
        return dict.fromkeys(value)
    return [None] if isinstance(value, list) else None


def _raw(text: bytes) -> Fault:
    """Each JSON text is this one."""
    return _content(lambda _text, _source: text)


def _long_text(text: bytes, source: random.Random) -> bytes:
    return re.sub(rb'"(\w+)": ?"[^"]*"', rb'"\1": "' + b"x" * MIB + b'"', text, count=3)


def _body(make: Callable[[bytes], bytes]) -> Fault:
    def answer(reply: bytes, source: random.Random) -> Pieces:
        start, body = _parts(reply)
        yield _rebuilt(make(body), start)

    return answer


def _endless(piece: bytes, size: int, content_type: str) -> Fault:
    """Much of the same, in chunks that never end the answer."""

    def answer(reply: bytes, source: random.Random) -> Pieces:
        yield head(content_type)
        for _ in range(size // MIB):
            yield chunk(piece * (MIB // len(piece)))
        yield b""

    return answer


_SSE, _NDJSON, _JSON = "text/event-stream", "application/x-ndjson", "application/json"
_EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n'

FAULTS: dict[str, Fault] = {
    "cut anywhere": _cut,
    "cut in its body": _cut_body,
    "cut after its head": lambda reply, _: iter([reply[: reply.index(b"\r\n\r\n") + 4], b""]),
    "silent in the middle": _silent,
    "byte by byte": _slow,
    "some bits are others": _flipped,
    "noise within it": _inserted,
    "sent twice": _repeated,
    "only noise": _noise,
    "hangs up": lambda _reply, _: iter([]),
    "sizes of chunks": _chunk_sizes,
    "odd lengths": _lengths,
    "a length and chunks": _both_lengths,
    "100,000 headers": _many_headers,
    "a header of 5 MB": _long_header,
    "odd status lines": _status_lines,
    **{
        f"status {status}": _other_status(status)
        for status in (199, 204, 206, 304, 400, 401, 403, 404, 413, 429, 500, 503, 529)
    },
    **{
        f"type {name!r}": _other_type(name)
        for name in ("", "text/html", "text/plain", "image/png", _SSE, _NDJSON, _JSON)
    },
    "type with escape sequences": _other_type("\x1b[2Jtext/x\x07"),
    "type in UTF-16": _other_type("application/json; charset=utf-16"),
    "no gzip": _encoded(b"gzip", lambda body: body),
    "gzip, cut": _encoded(b"gzip", lambda body: gzip.compress(body)[:-9]),
    "gzip": _encoded(b"gzip", gzip.compress),
    "deflate": _encoded(b"deflate", zlib.compress),
    "br": _encoded(b"br", lambda body: body),
    "gzip of 300 MB of zeros": _encoded(b"gzip", lambda _: _ZEROS),
    "gzip of a text of 60 MB": _encoded(b"gzip", _spaces),
    "nulls": _values(_all_null),
    "nulls everywhere": _values(_all_null, 1.0),
    "odd values": _values(_odd),
    "odd values everywhere": _values(_odd, 0.7),
    "missing keys": _values(_without_keys),
    "deep lists": _raw(b"[" * _DEEP + b"]" * _DEEP),
    "deep objects": _raw(b'{"a":' * _DEEP + b"1" + b"}" * _DEEP),
    "deep, not closed": _raw(b"[" * _DEEP),
    "a long number": _raw(b'{"created": ' + b"9" * 100_000 + b"}"),
    "no numbers": _raw(b'{"choices": [{"index": NaN, "delta": {"content": Infinity}}]}'),
    "a list": _raw(b"[]"),
    "a text": _raw(b'"x"'),
    "half a character": _content(lambda text, _: text.replace(b'"', b'"\xe2\x98', 5)),
    "half a pair of surrogates": _content(lambda text, _: text.replace(b'": "', b'": "\\ud83d')),
    "control characters": _content(lambda text, _: text.replace(b'": "', b'": "\\u001b[2J\\u0000')),
    "texts of 1 MB": _content(_long_text),
    "a byte order mark": _body(lambda body: b"\xef\xbb\xbf" + body),
    "lines end with CR": _body(lambda body: body.replace(b"\n", b"\r")),
    "lines do not end": _body(lambda body: body.replace(b"\n", b"")),
    "NUL bytes": _body(lambda body: body.replace(b"\n", b"\0\n\0")),
    "empty": _body(lambda _: b""),
    "a line of 70 MB": _endless(b"x", 70 * MIB, _SSE),
    "a JSON line of 70 MB": _endless(b" ", 70 * MIB, _NDJSON),
    "a body of 70 MB": _endless(b" ", 70 * MIB, _JSON),
    "comments of 8 MB": _endless(b": ping\n\n\n", 8 * MIB, _SSE),
    "data lines without a blank line": _body(lambda _: _EVENT * 10_000),
    "empty data lines": _endless(b"data:\n\n\n", 8 * MIB, _SSE),
    "an event of many lines": _endless(b"data: a\n", 8 * MIB, _SSE),
}
"""By what they are. The same seed gives the same faults."""
