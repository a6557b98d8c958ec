"""Headers of GGUF files: complete, truncated, and malicious."""

import io
import struct
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pytest

from llm_localrun.gguf.header import (
    Header,
    NotGGUF,
    Tensor,
    Value,
    find_text,
    find_values,
    read_header,
    read_summary,
)
from llm_localrun.gguf.tensor_types import BLOCKS

STRING, ARRAY = 8, 9
CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
F32, Q8_0 = 0, 8


@dataclass(frozen=True)
class Writer:
    """Writes GGUF in one byte order."""

    order: str = "<"

    def pack(self, code: str, *values: object) -> bytes:
        return struct.pack(self.order + code, *values)

    def text(self, text: str) -> bytes:
        return self.pack("Q", len(text.encode())) + text.encode()

    def scalar(self, key: str, kind: int, value: object) -> bytes:
        return self.text(key) + self.pack("I", kind) + self.pack(CODES[kind], value)

    def string(self, key: str, value: str) -> bytes:
        return self.text(key) + self.pack("I", STRING) + self.text(value)

    def array(self, key: str, kind: int, values: Sequence[object]) -> bytes:
        head = self.text(key) + self.pack("IIQ", ARRAY, kind, len(values))
        return head + self.pack(f"{len(values)}{CODES[kind]}", *values)

    def strings(self, key: str, values: Sequence[str]) -> bytes:
        head = self.text(key) + self.pack("IIQ", ARRAY, STRING, len(values))
        return head + b"".join(map(self.text, values))

    def tensor(self, name: str, shape: Sequence[int], kind: int, offset: int) -> bytes:
        dimensions = self.pack(f"I{len(shape)}Q", len(shape), *shape)
        return self.text(name) + dimensions + self.pack("IQ", kind, offset)

    def file(
        self,
        entries: Sequence[bytes] = (),
        tensors: Sequence[bytes] = (),
        data: int = 0,
        version: int = 3,
        alignment: int = 32,
    ) -> bytes:
        """A file whose tensors' data are `data` bytes."""
        counts = self.pack("IQQ", version, len(tensors), len(entries))
        header = b"GGUF" + counts + b"".join(entries) + b"".join(tensors)
        return header + bytes(-len(header) % alignment + data)


LITTLE, BIG = Writer("<"), Writer(">")

SCALARS: dict[int, tuple[object, ...]] = {
    0: (0, 255),
    1: (-128, 127),
    2: (0, 65535),
    3: (-32768, 32767),
    4: (0, 2**32 - 1),
    5: (-(2**31), 2**31 - 1),
    6: (0.5, -1.0),
    7: (True, False),
    10: (0, 2**64 - 1),
    11: (-(2**63), 2**63 - 1),
    12: (0.1, -1e300),
}


def read_whole(data: bytes) -> Header:
    return read_header(io.BytesIO(data), len(data))


def model(writer: Writer = LITTLE, version: int = 3) -> bytes:
    """A file with every type of value and two tensors; the last tensor ends at its last byte."""
    entries = [
        writer.string("general.architecture", "llama"),
        *(
            writer.scalar(f"s{kind}.{value}", kind, value)
            for kind in CODES
            for value in SCALARS[kind]
        ),
        *(writer.array(f"a{kind}", kind, SCALARS[kind]) for kind in CODES),
        writer.array("empty", 4, []),
        writer.strings("strings", ["a", "", "né"]),
        writer.scalar("llama.context_length", 4, 8192),
        writer.string("tokenizer.ggml.model", "gpt2"),
        writer.scalar("general.file_type", 4, 7),
    ]
    tensors = [writer.tensor("a", [64, 2], Q8_0, 0), writer.tensor("b", [3], F32, 160)]
    return writer.file(entries, tensors, data=160 + 12, version=version)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("writer", [LITTLE, BIG], ids=["little", "big"])
def test_everything_in_a_file(writer: Writer, version: int) -> None:
    header = read_whole(model(writer, version))
    scalars = {f"s{kind}.{value}": value for kind in CODES for value in SCALARS[kind]}
    arrays = {f"a{kind}": SCALARS[kind] for kind in CODES}
    assert header.metadata == {
        "general.architecture": "llama",
        **scalars,
        **arrays,
        "empty": (),
        "strings": None,
        "llama.context_length": 8192,
        "tokenizer.ggml.model": "gpt2",
        "general.file_type": 7,
    }
    assert [type(header.metadata[key]) for key in scalars] == [type(v) for v in scalars.values()]
    assert header.tensors == (Tensor("a", (64, 2), Q8_0, 0), Tensor("b", (3,), F32, 160))


VOCABULARY = [str(number) for number in range(4097)]


@pytest.mark.parametrize("writer", [LITTLE, BIG], ids=["little", "big"])
@pytest.mark.parametrize("count", [4096, 4097])
def test_summary_ends_before_the_vocabulary(count: int, writer: Writer) -> None:
    tokens = writer.strings("tokenizer.ggml.tokens", VOCABULARY[:count])
    entries = [writer.string("general.architecture", "llama"), tokens, writer.scalar("z", 4, 1)]
    data = writer.file(entries, [writer.tensor("a", [64, 2], Q8_0, 0)], data=136)
    summary = read_summary(io.BytesIO(data))
    assert (summary.architecture, summary.tensors) == ("llama", ())
    assert ("z" in summary.metadata) == (count == 4096)
    behind_key = data.index(tokens) + 8 + len("tokenizer.ggml.tokens") + 4
    assert summary.rest_at == (None if count == 4096 else behind_key)


def test_file_without_keys_or_tensors() -> None:
    data = LITTLE.file()
    assert read_whole(data) == Header({}, data_start=32)
    assert read_summary(io.BytesIO(data)) == Header({}, tensors_at=24)


@pytest.mark.parametrize(("count", "kept"), [(4096, True), (4097, False)])
def test_long_arrays_are_skipped(count: int, kept: bool) -> None:
    entries = [LITTLE.array("a", 2, [7] * count), LITTLE.scalar("b", 4, 1)]
    data = LITTLE.file(entries)
    assert read_whole(data).metadata == {"a": (7,) * count if kept else None, "b": 1}
    for size in range(0, 2 * count, 1001):
        with pytest.raises(NotGGUF):
            read_whole(data[:size])


def test_invalid_utf8_is_replaced() -> None:
    key = LITTLE.pack("Q", 2) + b"k\xff"
    value = LITTLE.pack("IQ", STRING, 3) + b"v\xc3("
    metadata = read_whole(LITTLE.file([key + value])).metadata
    assert metadata == {"k\ufffd": "v\ufffd("}


@pytest.mark.parametrize(
    ("value", "text", "number"),
    [
        ("7", "7", None),
        (7, "", 7),
        (-1, "", -1),
        (True, "", None),
        (7.0, "", None),
        ((7,), "", None),
        (None, "", None),
    ],
)
def test_values_of_the_wrong_type_count_as_absent(
    value: Value, text: str, number: int | None
) -> None:
    header = Header({"general.architecture": "llama", "key": value, "llama.key": value})
    assert (header.text("key"), header.number("key")) == (text, number)
    assert header.of_architecture("key") == number
    assert (header.text("absent"), header.number("absent")) == ("", None)
    assert Header({"general.architecture": value}).architecture == text


@pytest.mark.parametrize(
    ("kind", "shape", "weights", "size"),
    [
        (F32, (), 1, 4),
        (F32, (3,), 3, 12),
        (1, (4, 5), 20, 40),
        (Q8_0, (64, 2), 128, 136),
        (12, (256, 10), 2560, 1440),
        (39, (32, 2, 2), 128, 68),
        (99, (10, 10), 100, None),
        (2, (32, 0), 0, 0),
    ],
)
def test_tensor_sizes(kind: int, shape: tuple[int, ...], weights: int, size: int | None) -> None:
    tensor = Tensor("t", shape, kind, 0)
    assert (tensor.weights, tensor.size) == (weights, size)


@pytest.mark.parametrize(
    ("kind", "bits"),
    [
        *[(0, 32), (1, 16), (2, 4.5), (3, 5), (6, 5.5), (7, 6), (8, 8.5)],
        *[(10, 2.625), (11, 3.4375), (12, 4.5), (13, 5.5), (14, 6.5625)],
        *[(16, 2.0625), (17, 2.3125), (18, 3.0625), (19, 1.5625), (20, 4.5), (21, 3.4375)],
        *[(22, 2.5625), (23, 4.25), (24, 8), (25, 16), (26, 32), (27, 64), (28, 64)],
        *[(29, 1.75), (30, 16), (34, 1.6875), (35, 2.0625), (39, 4.25), (40, 4.5)],
        *[(41, 1.125), (42, 2.25)],
    ],
)
def test_bits_per_weight(kind: int, bits: float) -> None:
    weights, size = BLOCKS[kind]
    assert 8 * size / weights == bits


# Truncated files.


@pytest.mark.parametrize("writer", [LITTLE, BIG], ids=["little", "big"])
def test_file_truncated_at_any_byte(writer: Writer) -> None:
    data = model(writer)
    for size in range(len(data)):
        with pytest.raises(NotGGUF):
            read_whole(data[:size])


@pytest.mark.parametrize("writer", [LITTLE, BIG], ids=["little", "big"])
def test_summary_of_a_file_truncated_at_any_byte(writer: Writer) -> None:
    entries = [writer.string("general.architecture", "llama"), writer.strings("t", VOCABULARY)]
    data = writer.file(entries)
    enough = data.index(writer.pack("Q", len(VOCABULARY))) + 8
    for size in range(enough):
        with pytest.raises(NotGGUF):
            read_summary(io.BytesIO(data[:size]))
    assert read_summary(io.BytesIO(data[:enough])) == read_summary(io.BytesIO(data))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (b"GG", "it does not begin with GGUF"),
        (b"<!doctype html>", "it does not begin with GGUF"),
        (b"lmggxxxxxxxxxxxxxxxxxxxxxxxx", "it does not begin with GGUF"),
        (b"GGUF", "it is cut off in the middle of its header"),
        (b"GGUF\x03\0\0\0\x01", "it is cut off in the middle of its header"),
        (LITTLE.file(version=1), "its version is 1; 2 and 3 are known"),
        (LITTLE.file(version=4), "its version is 4; 2 and 3 are known"),
        (LITTLE.file(version=0), "its version is 0; 2 and 3 are known"),
        (model()[:-1], "it is cut off: 1,483 bytes of at least 1,484"),
        (
            LITTLE.file(tensors=[LITTLE.tensor("t", [10**6], F32, 0)]),
            "it is cut off: 64 bytes of at least 4,000,064",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_reasons_why_a_file_is_not_usable(data: bytes, said: str) -> None:
    with pytest.raises(NotGGUF) as refused:
        read_whole(data)
    assert str(refused.value) == said


@pytest.mark.parametrize("alignment", [1, 8, 32, 64, 4096])
def test_alignment_counts(alignment: int) -> None:
    entries = [LITTLE.scalar("general.alignment", 4, alignment)]
    tensors = [LITTLE.tensor("t", [3], F32, 0)]
    data = LITTLE.file(entries, tensors, data=12, alignment=alignment)
    assert len(read_whole(data).tensors) == 1
    with pytest.raises(NotGGUF, match="it is cut off"):
        read_whole(data[:-1])


def test_tensor_of_an_unknown_type_must_begin_in_the_file() -> None:
    data = LITTLE.file(tensors=[LITTLE.tensor("t", [3], 99, 64)], data=64)
    assert read_whole(data).tensors[0].size is None
    with pytest.raises(NotGGUF, match="it is cut off"):
        read_whole(data[:-1])


# Malicious files.


def claiming(tensors: int, keys: int, rest: bytes = b"") -> bytes:
    return b"GGUF" + LITTLE.pack("IQQ", 3, tensors, keys) + rest


def value(kind: int, rest: bytes = b"") -> bytes:
    return claiming(0, 1, LITTLE.text("k") + LITTLE.pack("I", kind) + rest)


def array(kind: int, count: int, rest: bytes = b"") -> bytes:
    return value(ARRAY, LITTLE.pack("IQ", kind, count) + rest)


def aligned(entry: bytes) -> bytes:
    return LITTLE.file([entry], [LITTLE.tensor("t", [1], F32, 0)], data=64)


MAX = 2**64 - 1

MALICIOUS = {
    "keys without end": claiming(0, MAX),
    "tensors without end": claiming(MAX, 0),
    "a key of 2**60 bytes": claiming(0, 1, LITTLE.pack("Q", 2**60)),
    "a key of 100 kB": claiming(0, 1, LITTLE.text("k" * 100_000) + bytes(100)),
    "a string of 2**60 bytes": value(STRING, LITTLE.pack("Q", 2**60)),
    "a string of 2**64 bytes": value(STRING, LITTLE.pack("Q", MAX)),
    "a string of 17 MiB": value(STRING, LITTLE.pack("Q", 17 * 2**20)),
    "a string of 16 MiB that is not there": value(STRING, LITTLE.pack("Q", 16 * 2**20)),
    "a value of an unknown type": value(13, bytes(100)),
    "a value of a type beyond all": value(2**32 - 1, bytes(100)),
    "an array of arrays": array(ARRAY, 1, LITTLE.pack("IQ", 0, 0)),
    "an array of an unknown type": array(13, 1, bytes(100)),
    "strings without end": array(STRING, MAX),
    "more strings than any vocabulary has": array(STRING, 2**21 + 1, bytes(100)),
    "more keys than any model has": claiming(0, 2**16 + 1, bytes(100)),
    "more tensors than any model has": claiming(2**17 + 1, 0, bytes(100)),
    "a string of 2**60 bytes among many": array(STRING, 2, LITTLE.pack("Q", 2**60)),
    "a string of 16 MiB among many": array(STRING, 2, LITTLE.pack("Q", 16 * 2**20)),
    **{
        f"{count:,} values of type {kind}": array(kind, count, bytes(100))
        for kind in (0, 10)
        for count in (4096, 2**33, 2**60, MAX)
    },
    "a tensor's name of 2**60 bytes": claiming(1, 0, LITTLE.pack("Q", 2**60)),
    "a tensor of nine dimensions": LITTLE.file(tensors=[LITTLE.tensor("t", [1] * 9, F32, 0)]),
    "a tensor of 2**32 dimensions": claiming(1, 0, LITTLE.text("t") + LITTLE.pack("I", 2**32 - 1)),
    "a tensor beyond the file": LITTLE.file(tensors=[LITTLE.tensor("t", [1], F32, 2**63)]),
    "a tensor of 2**512 weights": LITTLE.file(tensors=[LITTLE.tensor("t", [MAX] * 8, F32, MAX)]),
    "an alignment of 0": aligned(LITTLE.scalar("general.alignment", 4, 0)),
    "an alignment below 0": aligned(LITTLE.scalar("general.alignment", 5, -32)),
    "an alignment of 2**63": aligned(LITTLE.scalar("general.alignment", 10, 2**63)),
    "an alignment that is a text": aligned(LITTLE.string("general.alignment", "32")),
    "an alignment that is a fraction": aligned(LITTLE.scalar("general.alignment", 6, 0.5)),
}


@dataclass
class Opened:
    """The same bytes as a file on disk and as a file in memory."""

    path: Path
    data: bytes
    files: list[BinaryIO] = field(default_factory=list)

    def __enter__(self) -> list[BinaryIO]:
        self.path.write_bytes(self.data)
        self.files = [io.BytesIO(self.data), self.path.open("rb")]
        return self.files

    def __exit__(self, *_: object) -> None:
        for file in self.files:
            file.close()


@pytest.mark.parametrize("data", MALICIOUS.values(), ids=MALICIOUS)
def test_malicious_file_is_refused_without_much_memory(data: bytes, tmp_path: Path) -> None:
    with Opened(tmp_path / "malicious.gguf", data) as files:
        for file in files:
            tracemalloc.start()
            try:
                with pytest.raises(NotGGUF):
                    read_header(file, len(data))
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 20 * 2**20


@pytest.mark.parametrize(
    "data",
    [data for name, data in MALICIOUS.items() if "tensor" not in name and "alignment" not in name],
    ids=[name for name in MALICIOUS if "tensor" not in name and "alignment" not in name],
)
def test_malicious_file_has_no_summary(data: bytes, tmp_path: Path) -> None:
    with Opened(tmp_path / "malicious.gguf", data) as files:
        for file in files:
            with pytest.raises(NotGGUF):
                read_summary(file)


# A text after long arrays.

KEY = "tokenizer.chat_template"
TEMPLATE = "{% if tools %}…{% endif %}"
TOKENS = LITTLE.strings("tokenizer.ggml.tokens", ["a", KEY, "b", TEMPLATE])
FOUND = LITTLE.file([TOKENS, LITTLE.string(KEY, TEMPLATE), LITTLE.scalar("z", 4, 1)])
START = FOUND.index(LITTLE.text(KEY) + LITTLE.pack("I", STRING))
END = START + len(LITTLE.string(KEY, TEMPLATE))


def texts(data: bytes, tmp_path: Path, end: int | None = None) -> set[str]:
    """The texts found in `data` up to `end`, in memory and on disk; a test expects one."""
    size = len(data) if end is None else end
    with Opened(tmp_path / "text.gguf", data) as files:
        return {find_text(file, KEY, 0, size) for file in files}


def claiming_text(length: int, rest: bytes = b"") -> bytes:
    head = LITTLE.text(KEY) + LITTLE.pack("I", STRING) + LITTLE.pack("Q", length)
    return claiming(0, 1, head + rest)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(FOUND, TEMPLATE, id="behind an array"),
        pytest.param(LITTLE.file([LITTLE.string(KEY, TEMPLATE), TOKENS]), TEMPLATE, id="before it"),
        pytest.param(LITTLE.file([LITTLE.string(KEY, "")]), "", id="empty"),
        pytest.param(LITTLE.file([TOKENS]), "", id="nowhere but in an array"),
        pytest.param(
            LITTLE.file([LITTLE.string(KEY, "one"), LITTLE.string(KEY, "two")]), "one", id="twice"
        ),
        pytest.param(
            LITTLE.file(
                [
                    LITTLE.string(f"{KEY}.tool_use", "no"),
                    LITTLE.string(f"x.{KEY}", "no"),
                    LITTLE.string(KEY, "yes"),
                ]
            ),
            "yes",
            id="among keys that contain it",
        ),
        pytest.param(LITTLE.file([LITTLE.scalar(KEY, 4, 1)]), "", id="a number"),
        pytest.param(LITTLE.file([LITTLE.strings(KEY, ["a"])]), "", id="an array"),
        pytest.param(BIG.file([BIG.string(KEY, TEMPLATE)]), "", id="in the other byte order"),
        pytest.param(claiming_text(2, b"\xff\xfe"), "\ufffd\ufffd", id="broken characters"),
        pytest.param(b"x", "", id="nothing"),
        pytest.param(claiming_text(5, b"abc"), "abc", id="cut off"),
        pytest.param(claiming_text(2 * 2**20, b"abc"), "abc", id="cut off by much"),
        pytest.param(claiming_text(2 * 2**20 + 1, b"abc"), "", id="more than 2 MiB"),
        pytest.param(claiming_text(2**60, b"abc"), "", id="2**60 bytes"),
        pytest.param(claiming_text(2**63, b"abc"), "", id="2**63 bytes"),
        pytest.param(claiming_text(MAX, b"abc"), "", id="2**64 bytes"),
    ],
)
def test_text_after_long_arrays(data: bytes, expected: str, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        assert texts(data, tmp_path) == {expected}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (0, ""),
        (4, ""),
        (START + 1, ""),
        (END - len(TEMPLATE.encode()) - 1, ""),
        # What stands before the end is read whole.
        (END - len(TEMPLATE.encode()), TEMPLATE),
        (END - 1, TEMPLATE),
        (END, TEMPLATE),
        (len(FOUND), TEMPLATE),
        (2 * len(FOUND), TEMPLATE),
    ],
)
def test_text_is_searched_for_up_to_an_end(end: int, expected: str, tmp_path: Path) -> None:
    assert texts(FOUND, tmp_path, end) == {expected}


def test_text_is_searched_for_between_a_start_and_the_tensors(tmp_path: Path) -> None:
    file = io.BytesIO(FOUND)
    assert find_text(file, KEY, START) == TEMPLATE
    assert find_text(file, KEY, START + 1) == ""
    weights = LITTLE.tensor("token_embd.weight", [1], F32, 0)
    assert find_text(io.BytesIO(weights + FOUND), KEY, 0) == ""


@pytest.mark.parametrize("before", [0, 2**18 - 300, 2**18 - 100, 2**18 - 20, 2**18, 2**20 + 1])
@pytest.mark.parametrize("end", [b"", b"token_embd.weight"])
def test_text_and_tensors_are_found_wherever_the_parts_that_are_read_end(
    before: int, end: bytes, tmp_path: Path
) -> None:
    for more in range(0, 70, 7):
        assert texts(bytes(before + more) + FOUND + end, tmp_path) == {TEMPLATE}
        hidden = bytes(before + more) + b"token_embd.weight" + FOUND
        assert texts(hidden, tmp_path) == {""}


def test_text_in_a_file_truncated_at_any_byte(tmp_path: Path) -> None:
    whole = TEMPLATE.encode()
    for size in range(1, len(FOUND)):
        there = whole[: max(0, size - END + len(whole))]
        assert texts(FOUND[:size], tmp_path) == {there.decode("utf-8", "replace")}


SAMPLING: dict[str, Value] = {"s.temp": 0.5, "s.top_k": 7, "s.sequence": "top_k;temp", "s.on": True}
VALUES = b"".join(
    (
        LITTLE.scalar("s.temp", 6, 0.5),
        LITTLE.scalar("s.top_k", 10, 7),
        LITTLE.string("s.sequence", "top_k;temp"),
        LITTLE.strings("s.list", ["a", "b"]),
        LITTLE.scalar("s.on", 7, True),
        LITTLE.scalar("other", 4, 1),
    )
)


@pytest.mark.parametrize("before", [0, 2**18 - 300, 2**18 - 100, 2**18 - 20, 2**18, 2**20 + 1])
def test_values_are_found_wherever_the_parts_that_are_read_end(before: int) -> None:
    for more in range(8, 200, 7):
        data = bytes(before + more) + VALUES + b"token_embd.weight" + VALUES.replace(b"7", b"8")
        assert find_values(io.BytesIO(data), "s.", 0) == SAMPLING


def test_values_in_a_file_truncated_at_any_byte() -> None:
    for size in range(len(VALUES)):
        found = find_values(io.BytesIO(bytes(8) + VALUES[:size]), "s.", 0)
        assert found.keys() <= SAMPLING.keys()


# A real file.


def test_text_in_the_starter_model(starter_model: Path) -> None:
    with starter_model.open("rb") as file:
        header = read_header(file, starter_model.stat().st_size)
        assert find_text(file, KEY, 0) == header.text(KEY) != ""


def test_starter_model(starter_model: Path) -> None:
    with starter_model.open("rb") as file:
        header = read_header(file, starter_model.stat().st_size)
    assert header.architecture == "llama"
    assert header.of_architecture("context_length") == 8192
    assert header.text("general.size_label") == "135M"
    assert header.text("tokenizer.chat_template").startswith("{%")
    assert header.number("tokenizer.ggml.eos_token_id") == 2
    assert len(header.tensors) == 272
    assert sum(tensor.weights for tensor in header.tensors) == 134_515_008
    assert all(tensor.size for tensor in header.tensors)


def test_starter_model_to_its_last_byte(starter_model: Path) -> None:
    size = starter_model.stat().st_size
    with starter_model.open("rb") as file, pytest.raises(NotGGUF) as refused:
        read_header(file, size - 1)
    assert str(refused.value) == f"it is cut off: {size - 1:,} bytes of at least {size:,}"


def test_starter_model_truncated_after_its_header(starter_model: Path) -> None:
    with starter_model.open("rb") as file:
        beginning = file.read(8 * 2**20)
    with pytest.raises(NotGGUF, match="it is cut off: 8,388,608 bytes of at least 98,362,432"):
        read_whole(beginning)
    assert read_summary(io.BytesIO(beginning)).architecture == "llama"


def test_summary_of_the_starter_model_reads_little(starter_model: Path) -> None:
    with starter_model.open("rb") as file:
        summary = read_summary(file)
        assert file.tell() == 8192
        assert summary.rest_at is not None
        assert find_text(file, KEY, summary.rest_at).startswith("{%")
    assert summary.of_architecture("context_length") == 8192
    assert summary.number("general.file_type") == 3


def test_huge_file_of_zeros_is_refused_quickly(tmp_path: Path) -> None:
    """Zeros are empty strings and empty keys, each with a limit, and tensors without a name."""
    padded = r"it is padded: .* bytes follow its last tensor"
    for name, beginning, said in (
        ("strings", array(STRING, 2**21), padded),
        ("keys", claiming(0, 2**16), padded),
        ("tensors", claiming(2**16, 0), "its header declares a tensor without a name"),
    ):
        path = tmp_path / name
        with path.open("wb") as file:
            file.write(beginning)
            file.truncate(2**40)
        with path.open("rb") as file:
            with pytest.raises(NotGGUF, match=said):
                read_header(file, 2**40)
            assert file.tell() < 2**25
