"""Headers that are damaged at random, and sparse files whose headers cost much to read.

Models for the engine are in `hostile_files`.
"""

import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.hostile_files import (
    ARRAY,
    FLOAT32,
    STRING,
    UINT8,
    UINT32,
    Content,
    Part,
    array,
    string,
    strings,
    text,
    uint32,
)

MIB = 2**20
_EXTREMES = (0, 1, 2**7, 2**16, 2**20, 2**24, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
_PARTS = (
    Part("token_embd.weight", (64, 4), 0),
    Part("blk.0.attn_q.weight", (64, 64), 1),
    Part("output.weight", (64, 4), 8),
)


def _keys(architecture: str, **more: bytes) -> dict[str, bytes]:
    numbers = ("context_length", "embedding_length", "block_count", "attention.head_count")
    return {
        "general.architecture": string(architecture),
        "general.name": string("A model"),
        "general.size_label": string("1B"),
        "general.file_type": uint32(15),
        **{f"{architecture}.{name}": uint32(8) for name in numbers},
        f"{architecture}.attention.head_count_kv": array(UINT32, 8, bytes([2, 0, 0, 0] * 8)),
        f"{architecture}.rope.freq_base": struct.pack("<If", FLOAT32, 1e4),
        "tokenizer.ggml.model": string("gpt2"),
        **{name.replace("__", "."): value for name, value in more.items()},
        "tokenizer.ggml.tokens": strings(["a", "bc", "def"] * 10),
        "tokenizer.chat_template": string("{% for m in messages %}{{ m.content }}{% endfor %}"),
    }


_BASES = [
    Content(_keys("llama"), _PARTS),
    Content(_keys("gemma3", gemma3__attention__sliding_window=uint32(512)), _PARTS),
    Content(_keys("qwen3moe", qwen3moe__expert_count=uint32(8)), _PARTS),
    Content(_keys("deepseek2", deepseek2__attention__kv_lora_rank=uint32(512)), _PARTS),
    Content(_keys("mamba2", mamba2__ssm__state_size=uint32(128)), _PARTS),
    Content(_keys("lfm2", lfm2__shortconv__l_cache=uint32(3)), _PARTS),
    Content({"general.architecture": string("clip"), "general.type": string("mmproj")}, _PARTS),
    Content({"general.type": string("adapter"), "adapter.type": string("lora")}, _PARTS),
    Content({"general.type": string("imatrix"), "imatrix.datasets": strings(["x"])}, _PARTS),
    Content({"split.no": struct.pack("<IH", 2, 0), "split.count": struct.pack("<IH", 2, 2)}),
]


def mutated(seed: int) -> tuple[bytes, int]:
    """A damaged header, and the size of its file; the same for the same seed."""
    source = random.Random(seed)
    data = bytearray(source.choice(_BASES).head()[0])
    for _ in range(source.choice((1, 1, 2, 4, 8))):
        source.choice(_CHANGES)(data, source)
    return bytes(data), source.choice((len(data), len(data) + 50_000, 2 * MIB))


def _at(data: bytearray, source: random.Random) -> int:
    return source.randrange(len(data)) if data else 0


def _set_byte(data: bytearray, source: random.Random) -> None:
    if data:
        data[_at(data, source)] = source.randrange(256)


def _set_number(data: bytearray, source: random.Random) -> None:
    """Anywhere, so sometimes a length, a count, a type or an offset."""
    at, form = _at(data, source), source.choice(("<Q", "<I", ">Q"))
    number = source.choice(_EXTREMES) % 2 ** (8 * struct.calcsize(form))
    data[at : at + struct.calcsize(form)] = struct.pack(form, number)


def _set_length(data: bytearray, source: random.Random) -> None:
    """The length before a text that is in the header."""
    words = (b"general.", b"tokenizer.", b"blk.", b"llama", b"token_embd")
    at = data.find(source.choice(words), _at(data, source))
    if at >= 8:
        data[at - 8 : at] = struct.pack("<Q", source.choice(_EXTREMES))


def _remove(data: bytearray, source: random.Random) -> None:
    at = _at(data, source)
    del data[at : at + source.randrange(64)]


def _repeat(data: bytearray, source: random.Random) -> None:
    at = _at(data, source)
    part = data[at : at + source.randrange(200)]
    data[at:at] = part * source.choice((1, 2, 20))


def _insert(data: bytearray, source: random.Random) -> None:
    data[_at(data, source) : 0] = source.randbytes(source.randrange(40))


def _cut(data: bytearray, source: random.Random) -> None:
    del data[_at(data, source) :]


def _splice(data: bytearray, source: random.Random) -> None:
    other = source.choice(_BASES).head()[0]
    data[_at(data, source) :] = other[source.randrange(len(other)) :]


def _count(data: bytearray, source: random.Random) -> None:
    """The number of tensors or of keys."""
    at = source.choice((8, 16))
    data[at : at + 8] = struct.pack("<Q", source.choice(_EXTREMES))


def _version(data: bytearray, source: random.Random) -> None:
    data[4:8] = source.choice((b"\0\0\0\3", b"\2\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff"))


_CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _set_byte,
    _set_number,
    _set_number,
    _set_length,
    _remove,
    _repeat,
    _insert,
    _cut,
    _splice,
    _count,
    _version,
)


# Sparse files.


def sparse_files() -> dict[str, Callable[[Path], None]]:
    """What writes each file, by what is costly in it. All are small on the disk."""
    return {
        "long texts": lambda path: _write_texts(path, 400, 16 * MIB),
        "many texts of 1 MB": lambda path: _write_texts(path, 4000, MIB),
        "many texts of 64 KB": lambda path: _write_texts(path, 60_000, 2**16),
        "empty words": lambda path: _write_key(path, array(STRING, 2**21 - 1), 2**25),
        "long words": lambda path: _write_words(path, 1000, 16 * MIB),
        "words of 4 KB": lambda path: _write_words(path, 100_000, 4096),
        "empty keys": lambda path: _write_counts(path, 0, 2**16),
        "long keys": _write_long_keys,
        "kept arrays": _write_arrays,
        "a long array": lambda path: _write_key(path, array(UINT8, 2**40), 2**40 + MIB),
        "nested arrays": lambda path: _write_key(path, array(ARRAY, 2**20), 2**25),
        "empty tensors": lambda path: _write_counts(path, 2**17, 0),
        "tensors with long names": _write_tensors,
        "almost tensors": _write_almost_tensors,
        "a template of 16 MB": lambda path: _write_text_key(path, "tokenizer.chat_template"),
        "a template of tags": lambda path: _write_text_key(
            path, "tokenizer.chat_template", b"<think></think>[" * MIB
        ),
        "a template of braces": lambda path: _write_text_key(
            path, "tokenizer.chat_template", b"{{% if <think>" * MIB
        ),
        "a name of 16 MB": lambda path: _write_text_key(path, "general.name", b"7B-" * 5 * MIB),
        "a size of 16 MB": lambda path: _write_text_key(
            path, "general.size_label", b"7" * 16 * MIB
        ),
        "an architecture of 16 MB": lambda path: _write_text_key(
            path, "general.architecture", b"llama" * 3 * MIB
        ),
        "two billion layers": lambda path: _write_layers(path, "gemma3"),
        "two billion layers of experts": lambda path: _write_layers(path, "qwen3moe"),
        "two billion layers with states": lambda path: _write_layers(path, "lfm2"),
        "one part of 99,999": _write_part,
        "zeros": lambda path: _sparse(path, b"GGUF" + struct.pack("<IQQ", 3, 1, 1), 100 * MIB),
    }


def _head(tensors: int, keys: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, keys)


_LLAMA = text("general.architecture") + string("llama")


def _sparse(path: Path, data: bytes, size: int) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.truncate(max(size, len(data)))


def _write_key(path: Path, value: bytes, size: int, key: str = "x.y") -> None:
    _sparse(path, _head(0, 2) + _LLAMA + text(key) + value, size)


def _write_text_key(path: Path, key: str, value: bytes = b"x" * 16 * MIB) -> None:
    value = value[: 16 * MIB]
    others = b"" if key == "general.architecture" else _LLAMA
    keys = 2 if others else 1
    _sparse(path, _head(0, keys) + others + text(key) + string(value), 2 * MIB)


def _write_counts(path: Path, tensors: int, keys: int) -> None:
    """Zeros are keys without a name, and tensors without a name and dimensions."""
    _sparse(path, _head(tensors, keys + 1) + _LLAMA, 2**24)


def _write_texts(path: Path, count: int, size: int) -> None:
    """Many keys, each with a long text, which is a hole in the file."""
    keys = (text(f"k{number}") + struct.pack("<IQ", STRING, size) for number in range(count))
    _write_with_holes(path, _head(0, count + 1) + _LLAMA, keys, size)


def _write_words(path: Path, count: int, size: int) -> None:
    """A vocabulary of long words."""
    start = _head(0, 2) + _LLAMA + text("x.words") + array(STRING, count)
    _write_with_holes(path, start, (struct.pack("<Q", size) for _ in range(count)), size)


def _write_long_keys(path: Path) -> None:
    keys = (struct.pack("<Q", 2**16) for _ in range(20_000))
    # Behind each key, the type and the value are zeros too: a number of one byte.
    _write_with_holes(path, _head(0, 20_001) + _LLAMA, keys, 2**16 + 5)


def _write_arrays(path: Path) -> None:
    """Arrays that are just short enough to be kept."""
    count = 20_000
    keys = (text(f"k{number}") + array(UINT32, 4096) for number in range(count))
    _write_with_holes(path, _head(0, count + 1) + _LLAMA, keys, 4 * 4096)


def _write_tensors(path: Path) -> None:
    """Behind each name, what describes the tensor is zeros."""
    names = (struct.pack("<Q", 2**16) for _ in range(20_000))
    _write_with_holes(path, _head(20_000, 1) + _LLAMA, names, 2**16 + 16)


def _write_almost_tensors(path: Path) -> None:
    """After a vocabulary, what looks like the end of a tensor's name, again and again."""
    start = _head(1, 2) + _LLAMA + text("tokenizer.ggml.tokens") + array(STRING, 2000)
    _sparse(path, start + b".weight\1\0\0\0" * MIB, 64 * MIB)


def _write_layers(path: Path, architecture: str) -> None:
    keys = {**_keys(architecture), f"{architecture}.block_count": uint32(2**31 - 1)}
    Content(keys, _PARTS).write(path, 2 * MIB)


def _write_part(path: Path) -> None:
    Content(_keys("llama"), _PARTS).write(path.with_name("part-00001-of-99999.gguf"), 2 * MIB)


def _write_with_holes(path: Path, start: bytes, pieces: Iterator[bytes], hole: int) -> None:
    with path.open("wb") as file:
        file.write(start)
        for piece in pieces:
            file.write(piece)
            file.seek(hole, 1)
        file.truncate(file.tell() + MIB)
