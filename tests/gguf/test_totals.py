"""Headers whose parts are each within the limits, and which are too much together.

The files are sparse: they take little disk space. What a reader does is counted in bytes, so that
no test depends on the speed of the machine.
"""

import contextlib
import io
import os
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.gguf.files import chat_template_in
from llm_localrun.gguf.header import MAX_HEADER, NotGGUF, damage_of, read_header, read_summary
from llm_localrun.memory.geometry import geometry_of
from tests.support.gguf_files import Value, write
from tests.support.tiny_models import deepseek2, gemma3, lfm2, llama, mamba2, qwen3moe

MIB = 2**20
STRING, ARRAY, UINT8, FLOAT64 = 8, 9, 0, 12


def number(value: int) -> bytes:
    return struct.pack("<Q", value)


def kind(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def text(data: bytes) -> bytes:
    return number(len(data)) + data


def head(tensors: int, keys: int) -> bytes:
    return (
        struct.pack("<4sIQQ", b"GGUF", 3, tensors, keys)
        + text(b"general.architecture")
        + (kind(STRING) + text(b"llama"))
    )


Parts = Iterable[bytes | int]
"""What is in a file: bytes, or the length of a hole."""


def long_texts(size: int) -> Iterator[bytes | int]:
    yield head(1, 2**16)
    for each in range(2**8):
        yield text(b"llama.k%d" % each) + kind(STRING) + number(size)
        yield size


def long_keys() -> Iterator[bytes | int]:
    yield head(1, 2**16)
    for _ in range(2**10):
        yield number(2**16)
        yield 2**16
        yield kind(UINT8) + b"\1"


def arrays(count: int) -> Iterator[bytes | int]:
    yield head(1, 2**16)
    for each in range(2**8):
        yield text(b"llama.k%d" % each) + kind(ARRAY, FLOAT64) + number(count)
        yield 8 * count


def long_words(count: int) -> Iterator[bytes | int]:
    yield head(1, 2) + VOCABULARY
    for _ in range(count):
        yield number(MIB)
        yield MIB


def tensors_with_long_names() -> Iterator[bytes | int]:
    yield head(2**16, 1)
    for _ in range(2**10):
        yield number(2**16)
        yield 2**16
        yield kind(1) + number(1) + kind(UINT8) + number(0)


VOCABULARY = text(b"tokenizer.ggml.tokens") + kind(ARRAY, STRING) + number(2**21)


def many_tensors(shape: list[int], offset: int) -> Iterator[bytes | int]:
    yield head(2**16, 2) + VOCABULARY
    yield 8 * 2**21
    sizes = b"".join(map(number, shape))
    yield (text(b"a.weight") + kind(len(shape)) + sizes + kind(0) + number(offset)) * 2**16


TOO_MUCH: dict[str, tuple[Parts, str]] = {
    "texts of 16 MiB": (long_texts(16 * MIB), f"its header is longer than {MAX_HEADER:,} bytes"),
    "texts of 1 MiB": (long_texts(MIB), "its header has more than 8,388,608 bytes of texts"),
    "keys of 64 KiB": (long_keys(), "its header has more than 8,388,608 bytes of texts"),
    "arrays that are kept": (arrays(4096), "its header declares a tensor without a name"),
    "arrays that are skipped": (arrays(MIB), f"its header is longer than {MAX_HEADER:,} bytes"),
    "arrays of a gigabyte": (arrays(2**27), f"its header is longer than {MAX_HEADER:,} bytes"),
    "words of 1 MiB": (long_words(100), f"its header is longer than {MAX_HEADER:,} bytes"),
    "names of tensors": (tensors_with_long_names(), "its header has more than 8,388,608 bytes"),
    "zeros after it": ([head(2**13, 1)], "its header declares a tensor without a name"),
    "zeros": ([head(2**16, 2) + VOCABULARY], "its header declares a tensor without a name"),
    "tensors without a dimension": (many_tensors([], 0), "its header declares a tensor of 0 dim"),
    "tensors that begin late": (many_tensors([1], 32), "it is padded: "),
    "huge tensors": (many_tensors([2**60] * 4, 0), "its header declares a tensor that is larger"),
    "a tensor that is far away": (many_tensors([1], 2**64 - 1), "its header declares a tensor th"),
    "words that look like tensors": (
        [
            *[head(1, 2), text(b"tokenizer.ggml.tokens"), kind(ARRAY, STRING), number(5000)],
            b"a.weight\1\0\0\0" * 10**5,
        ],
        "its header declares ",
    ),
}
"""Each with what is said of it."""


def sparse(path: Path, parts: Parts) -> Path:
    with path.open("wb") as file:
        for part in parts:
            if isinstance(part, int):
                file.seek(part, io.SEEK_CUR)
            else:
                file.write(part)
        file.truncate(file.tell() + 2**30)
    return path


class Counting(io.FileIO):
    """A file that counts the bytes that are read, and the number of reads."""

    bytes_read = reads = 0
    cut_at = -1
    """The number of reads after which another program empties the file."""

    def read(self, size: int | None = -1, /) -> Any:
        if self.reads == self.cut_at:
            os.truncate(self.name, 0)
        data = super().read(size)
        self.bytes_read += len(data or b"")
        self.reads += 1
        return data


def look_into(file: Counting) -> str:
    """What a scan does with a file: why it is not usable."""
    try:
        summary = read_summary(file)
        chat_template_in(file, summary)
        geometry_of(summary)
        return damage_of(file, summary)
    except NotGGUF as error:
        return str(error)


def scanned_alone(path: Path) -> tuple[str, Counting, int]:
    """Why a file is not usable, what was read, and the peak of the memory that it took."""
    with Counting(path) as file:
        tracemalloc.start()
        try:
            said = look_into(file)
            return said, file, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("what", TOO_MUCH)
def test_header_that_is_too_much_in_total(what: str, tmp_path: Path) -> None:
    parts, expected = TOO_MUCH[what]
    said, file, peak = scanned_alone(sparse(tmp_path / "m.gguf", parts))
    assert said.startswith(expected)
    # The search for a template, the search for tensors, and reading it.
    assert file.bytes_read <= 3.1 * MAX_HEADER
    assert file.reads < 1500
    assert peak < 64 * MIB


def test_places_that_look_like_tensors_are_looked_at_a_limited_number_of_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = []
    real = struct.pack
    parts = TOO_MUCH["words that look like tensors"][0]
    path = sparse(tmp_path / "m.gguf", parts)

    def counting(*arguments: Any) -> bytes:
        packed.append(arguments)
        return real(*arguments)

    monkeypatch.setattr("llm_localrun.gguf.header.struct.pack", counting)
    scanned_alone(path)
    assert len(packed) < 10**5


def test_file_that_becomes_empty_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    parts = [head(0, 2) + text(b"w") + kind(ARRAY, STRING) + number(9000), text(b"word") * 9000]
    for reads in range(1, 8):
        sparse(path, parts)
        with Counting(path) as file:
            file.cut_at = reads
            said = look_into(file)
        assert said in ("", "it is empty") or said.startswith("it is cut off")


# What real files have, and more.


def words(count: int, length: int) -> list[str]:
    return [f"{each:0{length}}" for each in range(count)]


REAL: dict[str, dict[str, Value]] = {
    "262,144 tokens and 514,906 merges": {
        "tokenizer.ggml.tokens": words(262_144, 8),
        "tokenizer.ggml.merges": words(514_906, 16),
    },
    "a list of 128,000 added tokens beside a vocabulary": {
        "tokenizer.ggml.tokens": words(200_000, 8),
        "tokenizer.ggml.added_tokens": words(128_000, 12),
    },
    "a template of 1 MB": {"tokenizer.ggml.tokens": words(5000, 4), "template": "x" * 10**6},
    "a tokenizer.json of 16 MiB": {"tokenizer.huggingface.json": "x" * 16 * MIB},
    "a tokenizer.json of 20 MiB": {"tokenizer.huggingface.json": "x" * 20 * MIB},
    "300 keys": {f"llama.key{each}": each for each in range(300)},
}


@pytest.mark.parametrize("what", REAL)
def test_real_headers_are_not_too_much(what: str, tmp_path: Path) -> None:
    keys = {"general.architecture": "llama", **REAL[what], "tokenizer.chat_template": "{{ x }}"}
    write(tmp_path / "m.gguf", keys, [], {})
    with (tmp_path / "m.gguf").open("rb") as file:
        summary = read_summary(file)
        assert (summary.architecture, chat_template_in(file, summary)) == ("llama", "{{ x }}")
        assert damage_of(file, summary) == ""
        file.seek(0)
        assert (
            read_header(file, (tmp_path / "m.gguf").stat().st_size).metadata.keys() == keys.keys()
        )


@pytest.mark.parametrize("make", [llama, gemma3, qwen3moe, deepseek2, lfm2, mamba2])
def test_small_models_of_many_architectures(make: Callable[[], Any], tmp_path: Path) -> None:
    said, _, _ = scanned_alone(make().build(tmp_path / "m.gguf"))
    assert said == ""


def test_as_many_tensors_as_the_largest_models_have(tmp_path: Path) -> None:
    """13,500: those of 61 layers with 72 experts, if these are not joined."""
    with Counting(llama(layers=1500).build(tmp_path / "m.gguf")) as file:
        assert look_into(file) == ""
        assert file.reads < 100


# Headers with accidental changes.


def mutated(data: bytes, source: random.Random) -> bytes:
    """`data` with a few bytes changed, a number made large, a part cut out or doubled."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(changed))
        match source.randrange(5):
            case 0:
                changed[at] = source.randrange(256)
            case 1:
                changed[at : at + 8] = number(source.choice([0, 1, 2**16, 2**24, 2**63, 2**64 - 1]))
            case 2:
                del changed[at : at + source.randint(1, 64)]
            case 3:
                changed[at:at] = changed[at : at + source.randint(1, 64)]
            case _:
                changed[at : at + 4] = kind(source.choice([0, 4, 8, 9, 12, 13, 2**31]))
    return bytes(changed)


def test_mutated_headers_are_read_or_refused(tmp_path: Path) -> None:
    """No other exception, and no byte is read again and again."""
    path, source = tmp_path / "m.gguf", random.Random(14)
    whole = [make().build(path).read_bytes()[:16_384] for make in (gemma3, qwen3moe)]
    for _ in range(1000):
        path.write_bytes(mutated(source.choice(whole), source).ljust(2**16, b"\0"))
        with Counting(path) as file:
            look_into(file)
            file.seek(0)
            with contextlib.suppress(NotGGUF):
                read_header(file, 2**16)
            # Each of the bytes at most four times.
            assert file.bytes_read <= 2**18
