"""Bytes to JSON payloads: server-sent events, JSON lines and whole bodies, cut anywhere."""

import json
import tracemalloc
from collections.abc import Callable, Iterable

import pytest

from llm_localrun.wire import sse
from llm_localrun.wire.sse import (
    EventStream,
    Framing,
    JsonLines,
    Malformed,
    Payload,
    WholeBody,
    excerpt,
    framing_for,
)

Make = Callable[[], Framing]

EVENT_STREAMS: dict[str, tuple[bytes, list[Payload]]] = {
    "one event": (b'data: {"a":1}\n\n', [{"a": 1}]),
    "two events": (b'data: {"a":1}\n\ndata: {"a":2}\n\n', [{"a": 1}, {"a": 2}]),
    "carriage returns": (b'data: {"a":1}\r\n\r\ndata: {"a":2}\r\n\r\n', [{"a": 1}, {"a": 2}]),
    "both line endings": (b'data: {"a":1}\r\n\ndata: {"a":2}\n\r\n', [{"a": 1}, {"a": 2}]),
    "carriage returns alone": (b'data: {"a":1}\r\rdata: {"a":2}\r\r', [{"a": 1}, {"a": 2}]),
    "carriage returns alone, unfinished": (b'data: {"a":\rdata: 1}\r', [{"a": 1}]),
    "all line endings": (
        b'data: {"a":1}\r\n\rdata: {"a":2}\n\r\n\rdata: {"a":3}\r\n\ndata: {"a":4}\r\r\n',
        [{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}],
    ),
    "a byte order mark": (b'\xef\xbb\xbfdata: {"a":1}\n\ndata: {"a":2}', [{"a": 1}, {"a": 2}]),
    "a byte order mark, unfinished": (b'\xef\xbb\xbfdata: {"a":1}', [{"a": 1}]),
    "a byte order mark alone": (b"\xef\xbb\xbf", []),
    "a byte order mark within": ('data: {"a":"\ufeff"}\r\r'.encode(), [{"a": "\ufeff"}]),
    "no space after the colon": (b'data:{"a":1}\n\n', [{"a": 1}]),
    "comments": (b': keep-alive\n\n:\ndata: {"a":1}\n: within\n\n:end\n', [{"a": 1}]),
    "several data lines": (b'data: {"a":\ndata: [1,\ndata:2]}\n\n', [{"a": [1, 2]}]),
    "other fields": (
        b'id: 7\nretry: 10\nevent: chat.start\ndata: {"a":1}\nunknown: x\nnothing\n\n',
        [{"a": 1}],
    ),
    "an event without data": (b"event: ping\n\ndata\n\ndata:\n\n", []),
    "an error event": (
        b'event: error\ndata: {"error":{"message":"x"}}\n\n',
        [{"error": {"message": "x"}}],
    ),
    "an error line": (
        b'data: {"a":1}\n\nerror: {"code":500,"message":"x"}\n\n',
        [{"a": 1}, {"error": {"code": 500, "message": "x"}}],
    ),
    "the end mark": (b'data: {"a":1}\n\ndata: [DONE]\n\n', [{"a": 1}]),
    "the end mark unspaced": (b'data:{"a":1}\n\ndata:[DONE]\n\n', [{"a": 1}]),
    "the end mark unfinished": (b'data: {"a":1}\n\ndata: [DONE]', [{"a": 1}]),
    "no last blank line": (b'data: {"a":1}\n\ndata: {"a":2}\n', [{"a": 1}, {"a": 2}]),
    "no last line ending": (b'data: {"a":1}\n\ndata: {"a":2}', [{"a": 1}, {"a": 2}]),
    "an error line at the end": (b'error: {"message":"x"}', [{"error": {"message": "x"}}]),
    "many blank lines": (b'\n\n\ndata: {"a":1}\n\n\n\n', [{"a": 1}]),
    "characters of all lengths": (
        'data: {"a":"aé€😀"}\n\ndata: {"é":"\\u00e9\\n"}\n\n'.encode(),
        [{"a": "aé€😀"}, {"é": "é\n"}],
    ),
    "nothing": (b"", []),
}

JSON_LINES: dict[str, tuple[bytes, list[Payload]]] = {
    "two lines": (b'{"a":1}\n{"a":2}\n', [{"a": 1}, {"a": 2}]),
    "carriage returns": (b'{"a":1}\r\n{"a":2}\r\n', [{"a": 1}, {"a": 2}]),
    "carriage returns alone": (b'{"a":1}\r{"a":2}\r\r', [{"a": 1}, {"a": 2}]),
    "all line endings": (
        b'{"a":1}\r{"a":2}\r\n\n\r{"a":3}\n\r{"a":4}',
        [{"a": n} for n in (1, 2, 3, 4)],
    ),
    "a byte order mark": (b'\xef\xbb\xbf{"a":1}\r{"a":2}', [{"a": 1}, {"a": 2}]),
    "a byte order mark, unfinished": (b'\xef\xbb\xbf{"a":1}', [{"a": 1}]),
    "a byte order mark alone": (b"\xef\xbb\xbf", []),
    "blank lines": (b'\n{"a":1}\n\r\n  \n{"a":2}\n\n', [{"a": 1}, {"a": 2}]),
    "no last line ending": (b'{"a":1}\n{"a":2}', [{"a": 1}, {"a": 2}]),
    "characters of all lengths": ('{"a":"aé€😀"}\n'.encode(), [{"a": "aé€😀"}]),
    "nothing": (b"", []),
}

WHOLE_BODIES: dict[str, tuple[bytes, list[Payload]]] = {
    "one line": (b'{"a":1}', [{"a": 1}]),
    "a byte order mark": (b'\xef\xbb\xbf {"a":1}', [{"a": 1}]),
    "carriage returns alone": (b'{\r  "a": 1,\r\r  "b": [2]\r}\r', [{"a": 1, "b": [2]}]),
    "several lines": (b'{\r\n  "a": 1,\n\n  "b": [2]\n}\n', [{"a": 1, "b": [2]}]),
    "characters of all lengths": ('{"a":"aé€😀"}'.encode(), [{"a": "aé€😀"}]),
    "nothing": (b"", []),
    "blanks": (b" \r\n", []),
}

BODIES = [
    pytest.param(make, body, expected, id=f"{make.__name__}: {name}")
    for make, table in (
        (EventStream, EVENT_STREAMS),
        (JsonLines, JSON_LINES),
        (WholeBody, WHOLE_BODIES),
    )
    for name, (body, expected) in table.items()
]


def payloads(reader: Framing, pieces: Iterable[bytes]) -> list[Payload]:
    """What a body comes to that arrives in `pieces`."""
    found = [payload for piece in pieces for payload in reader.feed(piece)]
    return [*found, *reader.close()]


def single_bytes(body: bytes) -> list[bytes]:
    return [body[at : at + 1] for at in range(len(body))]


@pytest.mark.parametrize(("make", "body", "expected"), BODIES)
def test_payloads(make: Make, body: bytes, expected: list[Payload]) -> None:
    assert payloads(make(), [body]) == expected


@pytest.mark.parametrize(("make", "body", "expected"), BODIES)
def test_bytes_may_be_cut_anywhere(make: Make, body: bytes, expected: list[Payload]) -> None:
    for at in range(len(body) + 1):
        assert payloads(make(), [body[:at], b"", body[at:]]) == expected, at
    assert payloads(make(), single_bytes(body)) == expected


@pytest.mark.parametrize(
    ("make", "first", "second"),
    [
        (EventStream, b'data: {"a":1}\n\n', b'data: {"a":2}\n\n'),
        (EventStream, b'data: {"a":1}\r\r', b'data: {"a":2}\r\r'),
        (JsonLines, b'{"a":1}\n', b'{"a":2}\n'),
        (JsonLines, b'{"a":1}\r', b'{"a":2}\r'),
    ],
)
def test_payloads_come_as_soon_as_they_are_complete(
    make: Make, first: bytes, second: bytes
) -> None:
    reader = make()
    assert list(reader.feed(first[:-1])) == []
    assert list(reader.feed(first[-1:] + second[:-1])) == [{"a": 1}]
    assert list(reader.feed(second[-1:])) == [{"a": 2}]
    assert list(reader.close()) == []


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
@pytest.mark.parametrize(
    ("make", "template"),
    [(EventStream, "data: %s\n\n"), (JsonLines, "%s\n"), (WholeBody, "%s")],
)
def test_what_only_looks_like_a_line_ending_stays(
    make: Make, template: str, separator: str
) -> None:
    body = (template % json.dumps({"a": f"x{separator}y"}, ensure_ascii=False)).encode()
    assert separator.encode() in body
    assert payloads(make(), [body]) == [{"a": f"x{separator}y"}]
    assert payloads(make(), single_bytes(body)) == [{"a": f"x{separator}y"}]


MALFORMED = [
    (EventStream, b'data: {"a":\n\n', 'JSON that is incomplete or damaged: {"a":'),
    (EventStream, b'data: {"a":1}\ndata: {"a":2}\n\n', "JSON that is incomplete or damaged: "),
    (EventStream, b"data: hello\n\n", "JSON that is incomplete or damaged: hello"),
    (EventStream, b"data: [1]\n\n", "JSON that is not an object: [1]"),
    (EventStream, b'data: "x"\n\n', 'JSON that is not an object: "x"'),
    (EventStream, b"data: null", "JSON that is not an object: null"),
    (EventStream, b"error: boom\n\n", 'JSON that is incomplete or damaged: {"error":boom}'),
    (JsonLines, b'{"a":1\n', 'JSON that is incomplete or damaged: {"a":1'),
    (JsonLines, b'{"a":1}{"a":2}\n', "JSON that is incomplete or damaged: "),
    (JsonLines, b'{"a":"x\xff"}\n', 'JSON that is incomplete or damaged: {"a":"x\ufffd"}'),
    (JsonLines, b"[]", "JSON that is not an object: []"),
    (JsonLines, b"1\n", "JSON that is not an object: 1"),
    (WholeBody, b'{"a":', 'JSON that is incomplete or damaged: {"a":'),
    (WholeBody, b'\x00\xff{"a":1}', 'JSON that is incomplete or damaged: \\x00\ufffd{"a":1}'),
    (WholeBody, b"<html>", "JSON that is incomplete or damaged: <html>"),
    (WholeBody, b"true", "JSON that is not an object: true"),
    (WholeBody, b"[" * 10**5, "JSON that is nested too deeply"),
    (WholeBody, b'{"a":' + b"9" * 5000 + b"}", "JSON that is incomplete or damaged: "),
]


@pytest.mark.parametrize(
    ("make", "body", "said"), MALFORMED, ids=[case[2][:60] for case in MALFORMED]
)
def test_malformed(make: Make, body: bytes, said: str) -> None:
    with pytest.raises(Malformed) as whole:
        payloads(make(), [body])
    with pytest.raises(Malformed) as piecemeal:
        payloads(make(), single_bytes(body))
    assert str(whole.value).startswith(said)
    assert str(piecemeal.value) == str(whole.value)


@pytest.mark.parametrize(
    ("make", "body"),
    [(EventStream, b'data: {"a":1}\n\ndata: {"a"\n\n'), (JsonLines, b'{"a":1}\n{"a"\n')],
)
def test_what_came_before_the_damage_is_not_lost(make: Make, body: bytes) -> None:
    fed = make().feed(body)
    assert next(fed) == {"a": 1}
    with pytest.raises(Malformed):
        next(fed)


@pytest.mark.parametrize(
    ("make", "piece"),
    [
        pytest.param(EventStream, b"data: " + b"x" * 4090, id="a line of an event"),
        pytest.param(EventStream, b"data: " + b"x" * 4089 + b"\n", id="an event of many lines"),
        pytest.param(JsonLines, b"x" * 4096, id="a line"),
        pytest.param(WholeBody, b"x" * 4096, id="a body"),
    ],
)
def test_what_never_ends_is_given_up(
    make: Make, piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "MAX_PAYLOAD_BYTES", 2**20)
    reader = make()
    with pytest.raises(Malformed, match="of more than 1 MiB"):
        for _ in range(2**20 // len(piece) + 2):
            list(reader.feed(piece))


def test_event_of_very_many_lines() -> None:
    """Its size is not added up again with each line: that would take minutes."""
    body = b"data: {\n" + b"data:\n" * 200_000 + b"data: }\n\n"
    assert payloads(EventStream(), [body]) == [{}]


@pytest.mark.parametrize("line", [b"data\n", b"data:\n", b"data: \n", b"error:\n"])
def test_lines_without_data_count(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_PAYLOAD_BYTES", 1000)
    stream = EventStream()
    with pytest.raises(Malformed, match="an event of more than"):
        for _ in range(1001):
            list(stream.feed(line))


def test_an_event_of_short_lines_takes_little_memory() -> None:
    body = b"data: 1\n" * 2**17
    tracemalloc.start()
    stream = EventStream()
    for at in range(0, len(body), 2**12):
        list(stream.feed(body[at : at + 2**12]))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < len(body)


def test_many_short_lines_may_be_longer_than_one_line_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse, "MAX_PAYLOAD_BYTES", 100)
    assert payloads(JsonLines(), [b'{"a":1}\n'] * 100) == [{"a": 1}] * 100
    assert payloads(EventStream(), [b'data: {"a":1}\n\n'] * 100) == [{"a": 1}] * 100


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/event-stream", EventStream),
        ("text/event-stream; charset=utf-8", EventStream),
        ("Text/Event-Stream;charset=UTF-8", EventStream),
        ("application/x-ndjson", JsonLines),
        ("application/x-ndjson; charset=utf-8", JsonLines),
        ("application/jsonl", JsonLines),
        ("application/json", WholeBody),
        ("application/json; charset=utf-8", WholeBody),
        (" APPLICATION/JSON ;charset=utf-8", WholeBody),
        ("application/problem+json", WholeBody),
        ("text/html; charset=utf-8", None),
        ("text/plain", None),
        ("application/octet-stream", None),
        ("application/jsonp", None),
        ("json", None),
        ("; application/json", None),
        ("", None),
    ],
)
def test_framing_for(content_type: str, expected: type[Framing] | None) -> None:
    found = framing_for(content_type)
    assert (found and type(found)) is expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ""),
        (b"plain", "plain"),
        (b"<html>\r\n\t<body>  Hi\x00\x1b[31m</body>", "<html> <body> Hi\\x00\\x1b[31m</body>"),
        (b"caf\xc3\xa9 \xff", "café \ufffd"),
        ("a\u2028b\u0085c".encode(), "a b c"),
        (b"x" * 80, "x" * 80),
        (b"x" * 81, "x" * 80 + "…"),
        (b" " * 5000 + b"x", "x"),
        (b"x" + b" " * 5000, "x"),
        (b"x" + b" " * 5000 + b"y", "x …"),
    ],
)
def test_excerpt(data: bytes, expected: str) -> None:
    assert excerpt(data) == expected
