"""What is wrong with a file that lacks a part of its tensors, found without its vocabulary."""

import io
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_localrun.gguf import header
from llm_localrun.gguf.header import Header, Tensor, damage_of, read_header, read_summary
from llm_localrun.gguf.tensor_types import TensorType
from tests.support.gguf_files import Value, write

F32 = TensorType.F32
WORDS = [f"word{number}" for number in range(5000)]
"""A vocabulary that is long enough to be skipped."""
# In a vocabulary, each is followed by the length of the next word, like a name of a tensor by the
# number of its dimensions.
LIKE_TENSORS = [".weight", "ab", "weight.weight", "abc", "\0.weight", "a"]


@pytest.fixture
def whole_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sizes of the files of which the whole header was read."""
    sizes: list[int] = []

    def counting(file: io.BufferedReader, size: int) -> Header:
        sizes.append(size)
        return read_header(file, size)

    monkeypatch.setattr(header, "read_header", counting)
    yield sizes


def tensors(*names: str) -> list[Tensor]:
    return [Tensor(name, (64, 4), F32, 0) for name in names]


def model(path: Path, words: list[str], *names: str, **keys: Value) -> Path:
    vocabulary: dict[str, Value] = {"tokenizer.ggml.tokens": words} if words else {}
    write(
        path,
        {"general.architecture": "llama", **vocabulary, **keys},
        tensors(*(names or ("token_embd.weight", "blk.0.attn_q.bias", "output.weight"))),
        {},
    )
    return path


def damage(path: Path) -> str:
    with path.open("rb") as file:
        return damage_of(file, read_summary(file))


def cut(path: Path, size: int) -> Path:
    with path.open("r+b") as file:
        file.truncate(size)
    return path


MODELS: dict[str, Callable[[Path], Path]] = {
    "without a vocabulary": lambda path: model(path, []),
    "with one": lambda path: model(path, WORDS),
    "keys after it": lambda path: model(path, WORDS, **{"tokenizer.chat_template": "{{ x }}"}),
    "first tensor of another name": lambda path: model(path, WORDS, "rope_freqs.weight", "a.scale"),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_whole_file_and_the_same_without_its_last_byte(
    make: Callable[[Path], Path], tmp_path: Path, whole_reads: list[int]
) -> None:
    path = make(tmp_path / "m.gguf")
    size = path.stat().st_size
    assert damage(path) == ""
    assert whole_reads == []
    cut(path, size - 1)
    assert damage(path) == f"it is cut off: {size - 1:,} bytes of at least {size:,}"
    assert whole_reads == ([] if make is MODELS["without a vocabulary"] else [size - 1])


@pytest.mark.parametrize("words", [[*WORDS, *LIKE_TENSORS], [*LIKE_TENSORS, *WORDS]])
def test_words_that_look_like_tensors(words: list[str], tmp_path: Path) -> None:
    path = model(tmp_path / "m.gguf", words)
    assert damage(path) == ""
    assert damage(cut(path, path.stat().st_size - 1)).startswith("it is cut off: ")


@pytest.mark.parametrize("names", [("ssm_a", "token_embd.weight"), ("a.bias", "b.scale")])
def test_table_that_is_not_recognized(
    names: tuple[str, ...], tmp_path: Path, whole_reads: list[int]
) -> None:
    path = model(tmp_path / "m.gguf", WORDS, *names)
    size = path.stat().st_size
    assert damage(path) == ""
    assert whole_reads == [size]
    assert damage(cut(path, size - 1)).startswith("it is cut off: ")


def test_file_cut_off_anywhere(tmp_path: Path) -> None:
    path = model(tmp_path / "m.gguf", WORDS)
    for size in range(path.stat().st_size - 1, 10_000, -997):
        assert damage(cut(path, size)).startswith("it is cut off")


def test_file_of_the_other_byte_order(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    table = struct.pack(">Q1sIQIQ", 1, b"t", 1, 8, F32, 0)
    path.write_bytes((struct.pack(">4sIQQ", b"GGUF", 3, 1, 0) + table).ljust(64) + bytes(32))
    assert damage(path) == ""
    assert damage(cut(path, 95)) == "it is cut off: 95 bytes of at least 96"


def test_number_of_strings_is_limited_for_all_lists_together(tmp_path: Path) -> None:
    """A scan must not read a sparse file for hours."""
    count = 2**20 + 1
    lists = (struct.pack("<Q1sIIQ", 1, key, 9, 8, count) for key in (b"a", b"b"))
    path = tmp_path / "m.gguf"
    with path.open("wb") as file:
        file.write(struct.pack("<4sIQQ", b"GGUF", 3, 0, 2))
        for beginning in lists:
            file.write(beginning)
            file.seek(8 * count, os.SEEK_CUR)
        file.truncate()
    assert damage(path) == f"its header declares {count:,} strings in a list"


def test_starter_model_cut_off(starter_model: Path, tmp_path: Path, whole_reads: list[int]) -> None:
    assert damage(starter_model) == ""
    assert whole_reads == []
    path = tmp_path / "m.gguf"
    path.write_bytes(starter_model.read_bytes()[:60_000_000])
    assert damage(path) == "it is cut off: 60,000,000 bytes of at least 98,362,432"
