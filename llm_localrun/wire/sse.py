"""Bytes to JSON payloads, for the three framings of a response: events, lines, one body.

Pure and incremental: bytes may be split anywhere, also inside a character or a line ending. What a
payload means is left to `wire.openai` and `wire.ollama`.
"""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

from llm_localrun.system.text import printable

Payload: TypeAlias = dict[str, Any]

# A line that never ends must not fill the memory.
MAX_PAYLOAD_BYTES = 64 * 2**20

_EXCERPT_SHARE = 16
"""Bytes that are read for a character of an excerpt: most may be blank."""

_LINE_END = re.compile(rb"\r\n|\n|\r")
_read_json = json.JSONDecoder().raw_decode


class Malformed(ValueError):
    """The bytes do not follow the framing; the message says how, in half a sentence."""


class Framing(Protocol):
    """Turns the bytes of one body into payloads."""

    def feed(self, data: bytes) -> Iterator[Payload]:
        """The payloads that `data` completes. Raises `Malformed`."""

    def close(self) -> Iterator[Payload]:
        """The payloads that the end of the body completes. Raises `Malformed`."""


def framing_for(content_type: str) -> Framing | None:
    """The framing for a Content-Type header; None if it is not supported."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "text/event-stream":
        return EventStream()
    if media_type in ("application/x-ndjson", "application/jsonl"):
        return JsonLines()
    if media_type == "application/json" or media_type.endswith("+json"):
        return WholeBody()
    return None


class _LineSplitter:
    """Bytes to complete lines, without the byte order mark that some servers begin with.

    Lines end with CR LF, LF or CR, as in the standard of server-sent events; JSON writes none of
    them unescaped into a string. `str.splitlines` and httpx's `iter_lines` also split at U+2028,
    U+2029 and U+0085, which a JSON string may contain unescaped.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._is_first = True
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if len(self._pending) + len(data) > MAX_PAYLOAD_BYTES:
            raise Malformed(f"a line of more than {MAX_PAYLOAD_BYTES // 2**20} MiB")
        has_cr = b"\r" in data
        if not has_cr and b"\n" not in data:
            self._pending += data
            return []
        self._after_cr = data.endswith(b"\r")
        # Splitting by an expression takes ten times as long.
        *lines, rest = _LINE_END.split(data) if has_cr else data.split(b"\n")
        lines[0] = bytes(self._pending) + lines[0]
        if self._is_first:
            lines[0] = lines[0].removeprefix(BOM_UTF8)
            self._is_first = False
        self._pending = bytearray(rest)
        return lines

    def rest(self) -> bytes:
        return bytes(self._pending.removeprefix(BOM_UTF8) if self._is_first else self._pending)


class JsonLines:
    """One JSON object a line (Ollama's streams)."""

    def __init__(self) -> None:
        self._lines = _LineSplitter()

    def feed(self, data: bytes) -> Iterator[Payload]:
        for line in self._lines.feed(data):
            if line.strip():
                yield _payload(line)

    def close(self) -> Iterator[Payload]:
        if self._lines.rest().strip():
            yield _payload(self._lines.rest())


class EventStream:
    """Server-sent events with JSON data, as servers with OpenAI's API write them.

    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    def __init__(self) -> None:
        self._lines = _LineSplitter()
        self._data = bytearray()
        """The lines of data of an event, each with its end: a list of short ones takes far more."""

    def feed(self, data: bytes) -> Iterator[Payload]:
        for line in self._lines.feed(data):
            if line:
                self._field(line)
            elif (payload := self._dispatch()) is not None:
                yield payload

    def close(self) -> Iterator[Payload]:
        # The standard drops an event without its blank line, but servers do end like that.
        if self._lines.rest():
            self._field(self._lines.rest())
        if (payload := self._dispatch()) is not None:
            yield payload

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"error":
            # llama-server before 2026 wrote failures as `error: {…}`.
            value = b'{"error":' + value + b"}"
        elif name != b"data":
            return
        self._data += value + b"\n"
        if len(self._data) > MAX_PAYLOAD_BYTES:
            raise Malformed(f"an event of more than {MAX_PAYLOAD_BYTES // 2**20} MiB")

    def _dispatch(self) -> Payload | None:
        data, self._data = bytes(self._data).strip(), bytearray()
        return _payload(data) if data and data != b"[DONE]" else None


class WholeBody:
    """A response that was not streamed: the whole body is one payload."""

    def __init__(self) -> None:
        self._body = bytearray()

    def feed(self, data: bytes) -> Iterator[Payload]:
        self._body += data
        if len(self._body) > MAX_PAYLOAD_BYTES:
            raise Malformed(f"a body of more than {MAX_PAYLOAD_BYTES // 2**20} MiB")
        return iter(())

    def close(self) -> Iterator[Payload]:
        if self._body.strip():
            yield _payload(bytes(self._body), json.detect_encoding(self._body))


def _payload(data: bytes, encoding: str = "utf-8") -> Payload:
    try:
        text = data.decode(encoding, "surrogatepass").removeprefix("\ufeff").strip(" \t\r\n")
        # `json.loads` takes half as long again.
        value, end = _read_json(text)
        if end < len(text):
            raise ValueError
    except ValueError:
        raise Malformed(f"JSON that is incomplete or damaged: {excerpt(data)}") from None
    except RecursionError:
        raise Malformed("JSON that is nested too deeply") from None
    if not isinstance(value, dict):
        raise Malformed(f"JSON that is not an object: {excerpt(data)}")
    return value


def excerpt(data: bytes, limit: int = 80) -> str:
    """The first `limit` characters of `data` as one printable line, for messages."""
    start = data.lstrip()[: _EXCERPT_SHARE * limit]
    text = start.decode("utf-8", "replace") + "…" * (len(start) < len(data.strip()))
    line = printable(" ".join(text.split()))
    return line if len(line) <= limit else f"{line[:limit]}…"
