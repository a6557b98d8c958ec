"""Model files that a hostile or careless author could have made, each a small change of a model
that runs.

`Source` is a model of one layer with the vocabulary of a real one and weights of zeros: a sparse
file of a few megabytes that llama.cpp loads in a moment. Every hostile file is that model with
other keys, other tensors or other bytes. Running the files and judging what happens is left to
`tests.support.trials`, damage to headers alone to `tests.support.hostile_headers`.
"""

import math
import random
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from llm_localrun.gguf.header import read_header
from tests.support.vision_model import build_projector

UINT8, INT8, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 0, 1, 4, 5, 6, 7, 8, 9, 10
F32, F16 = 0, 1
_ALIGNMENT = 32
_WIDTH, _HIDDEN, _HEADS = 64, 64, 2
_TEMPLATE = "tokenizer.chat_template"
_MODEL, _PRE = "tokenizer.ggml.model", "tokenizer.ggml.pre"
_TOKENS, _TYPES, _MERGES = (f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "merges"))
GB = 10**9


# Values, as they stand in a header: the number of the type, then the value.


def text(value: str | bytes) -> bytes:
    """A text with its length."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def string(value: str | bytes) -> bytes:
    return struct.pack("<I", STRING) + text(value)


def uint32(value: int) -> bytes:
    return struct.pack("<II", UINT32, value)


def uint64(value: int) -> bytes:
    return struct.pack("<IQ", UINT64, value)


def float32(value: float) -> bytes:
    return struct.pack("<If", FLOAT32, value)


def array(kind: int, count: int, data: bytes = b"") -> bytes:
    """A list of `count` values of a kind, of which `data` are the bytes."""
    return struct.pack("<IIQ", ARRAY, kind, count) + data


def strings(values: Sequence[str | bytes]) -> bytes:
    return array(STRING, len(values), b"".join(map(text, values)))


@dataclass(frozen=True)
class Part:
    """A tensor in the table. Without an `offset` it follows the one before it."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape) * (2 if self.type == F16 else 4)


@dataclass(frozen=True)
class Content:
    """What a file holds: raw values by key, and the table of tensors, whose weights are zeros."""

    keys: Mapping[str, bytes]
    tensors: tuple[Part, ...] = ()

    def having(self, changed: Mapping[str, bytes | None]) -> "Content":
        """With other values; None removes a key."""
        merged = {**self.keys, **changed}
        return replace(self, keys={key: value for key, value in merged.items() if value})

    def with_template(self, template: str) -> "Content":
        return self.having({_TEMPLATE: string(template)})

    def with_shape(self, name: str, shape: tuple[int, ...]) -> "Content":
        """With another shape of the tensors whose names contain `name`."""
        return self.with_parts(name, lambda each: replace(each, shape=shape))

    def with_parts(self, name: str, change: Callable[[Part], Part]) -> "Content":
        """With changed tensors, of those whose names contain `name`."""
        parts = (change(each) if name in each.name else each for each in self.tensors)
        return replace(self, tensors=tuple(parts))

    def words(self) -> list[bytes]:
        """The vocabulary."""
        value = self.keys[_TOKENS]
        (count,) = struct.unpack_from("<Q", value, 8)
        found, at = [], 16
        for _ in range(count):
            (size,) = struct.unpack_from("<Q", value, at)
            found.append(value[at + 8 : at + 8 + size])
            at += 8 + size
        return found

    def head(self) -> tuple[bytes, int]:
        """The header, padded, and the bytes of the tensors' data."""
        head = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.keys))
        head += b"".join(text(key) + value for key, value in self.keys.items())
        at = 0
        for each in self.tensors:
            offset = at if each.offset is None else each.offset
            head += text(each.name) + struct.pack("<I", len(each.shape))
            head += struct.pack(f"<{len(each.shape)}Q", *each.shape)
            head += struct.pack("<IQ", each.type, offset % 2**64)
            at = max(at, _aligned(at + each.size))
        return head.ljust(_aligned(len(head)), b"\0"), at

    def write(self, path: Path, size: int | None = None) -> Path:
        """Writes the file, with room for the tensors or of `size` bytes; it is sparse."""
        head, data_size = self.head()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(head)
            file.truncate(len(head) + min(data_size, 2**30) if size is None else size)
        return path


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def source(model: Path) -> Content:
    """One layer with the vocabulary of `model`, a file of the architecture llama."""
    data = model.read_bytes()
    with model.open("rb") as file:
        header = read_header(file, len(data))
    keys = {
        key: data[begin + 8 + len(key.encode()) : end] for key, (begin, end) in header.spans.items()
    }
    words = header.number("llama.vocab_size") or 0
    numbers = {
        "block_count": 1,
        "context_length": 2048,
        "embedding_length": _WIDTH,
        "feed_forward_length": _HIDDEN,
        "attention.head_count": _HEADS,
        "attention.head_count_kv": _HEADS,
        "rope.dimension_count": _WIDTH // _HEADS,
    }
    changed = {f"llama.{name}": uint32(value) for name, value in numbers.items()}
    return Content(keys, tuple(_tensors(words))).having(changed)


def _tensors(words: int) -> Iterator[Part]:
    yield Part("token_embd.weight", (_WIDTH, words), F16)
    yield Part("output_norm.weight", (_WIDTH,), F32)
    for name in ("attn_norm", "ffn_norm"):
        yield Part(f"blk.0.{name}.weight", (_WIDTH,), F32)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        yield Part(f"blk.0.{name}.weight", (_WIDTH, _WIDTH), F16)
    for name in ("ffn_gate", "ffn_up", "ffn_down"):
        yield Part(f"blk.0.{name}.weight", (_WIDTH, _HIDDEN), F16)


# The hostile files.

Build: TypeAlias = Callable[[Content, Path], Path]
"""Writes the files of a trial into a folder; returns the path of the model."""


@dataclass(frozen=True)
class Hostile:
    """A hostile file and how it is run; in `options`, {folder} stands for the folder."""

    kind: str
    note: str
    build: Build = field(repr=False)
    options: tuple[str, ...] = ()
    prompt: str = "hi"


def _model(change: Callable[[Content], Content]) -> Build:
    return lambda base, folder: change(base).write(folder / "hostile.gguf")


def _with_template(template: str) -> Build:
    return _model(lambda base: base.with_template(template))


def _with_key(key: str, value: bytes | None) -> Build:
    return _model(lambda base: base.having({key: value}))


# Templates.

_PLAIN = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def _repeated(first: str, step: str, rounds: int, end: str = "{{ ns.x }}") -> str:
    """A template that makes `ns.x` larger in each of its rounds."""
    start = f"{{% set ns = namespace(x={first}) %}}"
    loop = f"{{% for i in range({rounds}) %}}{{% set ns.x = {step} %}}{{% endfor %}}"
    return f"{start}{loop}{end}"


def _doubled_texts() -> Iterator[str]:
    for step in ("ns.x + ns.x", "ns.x ~ ns.x", "ns.x ~ 'y' ~ ns.x", "ns.x + 'yy' + ns.x"):
        yield _repeated("'abcdefgh'", step, 60)
    yield _repeated("'a'", "ns.x + ns.x + ns.x + ns.x", 40)
    yield _repeated("'a'", "ns.x + ns.x", 31, "{{ ns.x | length }}")
    yield _repeated("'a'", "ns.x + ns.x", 30)
    yield _repeated("'\u2603'", "ns.x ~ ns.x", 40, "")
    yield _repeated("messages[0]['content']", "ns.x + ns.x", 60, "")
    yield _repeated("messages | tojson", "ns.x ~ ns.x", 60, "")


def _multiplied() -> Iterator[str]:
    yield "{{ 'x' * 1000000000 }}"
    yield "{{ 'x' * 2147483647 }}"
    yield "{{ ('x' * 100000) * 100000 }}"
    yield "{% set a = 'xy' * 900000000 %}{{ a | length }}"
    yield "{{ range(1000000000) }}"
    yield "{% set a = range(100000000) | list %}{{ a | length }}"
    yield "{% for i in range(2000000000) %}{% endfor %}"
    yield "{{ 'x' | indent(2000000000, true) }}"
    yield "{{ [1, [2, [3]]] | tojson(indent=1000000000) }}"
    yield "{% for i in range(100000000) %}xxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}"


def _doubled_lists() -> Iterator[str]:
    count = "{{ ns.x | length }}"
    for first in ("[1]", "['abc']", "[{}]", "messages", "[[]]"):
        yield _repeated(first, "ns.x + ns.x", 60, count)
    yield _repeated("[1]", "ns.x + ns.x + ns.x + ns.x", 30)
    yield _repeated("[1]", "[ns.x, ns.x]", 40, "{{ ns.x | tojson }}")
    yield _repeated("[1]", "[ns.x, ns.x]", 40)
    yield _repeated("[1]", "{'a': ns.x, 'b': ns.x}", 40, "{{ ns.x | tojson }}")
    yield _repeated("'a'", "ns.x ~ (ns.x | list | string)", 40, "")


def _loops(body: str, *counts: int) -> str:
    begin = "".join(f"{{% for i{n} in range({count}) %}}" for n, count in enumerate(counts))
    return begin + body + "{% endfor %}" * len(counts)


def _nested_loops() -> Iterator[str]:
    yield _loops("", 10_000, 100_000)
    yield _loops("", *[1000] * 4)
    yield _loops("", *[10] * 12)
    yield _loops("", *[2] * 40)
    yield _loops("{% set x = i0 %}", 100_000, 100_000)
    yield _loops("{% if i1 == 7 %}a{% endif %}", 100_000, 100_000)
    yield _loops("{% set x = 'abc' | upper | lower | trim %}", 100_000, 10_000)
    yield _loops("{% set x = messages | tojson %}", 100_000, 10_000)
    yield _loops("{% set x = range(1000) | list | length %}", 100_000, 1000)
    yield "{% macro f() %}" + _loops("", *[1000] * 3) + "{% endmacro %}" + "{{ f() }}" * 9


def _recursions() -> Iterator[str]:
    yield "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}"
    yield "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(1) }}"
    both = ("{% macro f(n) %}{{ g(n) }}{% endmacro %}", "{% macro g(n) %}{{ f(n) }}{% endmacro %}")
    yield f"{''.join(both)}{{{{ f(1) }}}}"
    yield "{% macro f(x) %}{{ f(x ~ x) }}{% endmacro %}{{ f('abc') }}"
    yield "{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
    yield f"{{{{ {'(' * 20_000}1{')' * 20_000} }}}}"
    yield f"{{{{ {'[' * 20_000}{']' * 20_000} }}}}"
    yield "{% if 1 %}" * 20_000 + "{% endif %}" * 20_000
    yield f"{{{{ {'not ' * 50_000}1 }}}}"
    yield _repeated("[]", "[ns.x]", 200_000)


def _grown() -> Iterator[str]:
    eight = "'aaaaaaaa'"
    yield _repeated(eight, f"ns.x | replace('a', {eight})", 60)
    yield _repeated(eight, f"ns.x.replace('a', {eight})", 60)
    yield _repeated(eight, "[ns.x, ns.x, ns.x] | join(ns.x)", 60)
    yield _repeated(eight, "ns.x.split('a') | join('aaa')", 60)
    yield _repeated("'\"'", "ns.x | tojson", 60)
    yield _repeated("'<'", "ns.x | e", 60)
    yield _repeated(eight, "ns.x | list | join(ns.x)", 60)
    yield _repeated(eight, "ns.x | replace('', 'bb')", 60)
    yield _repeated(eight, "ns.x | map('string') | list | tojson", 60)
    yield _repeated("messages", "ns.x | tojson", 60)


def _at_message(bomb: str, condition: str = "messages[-1]['content'] == 'hi'") -> str:
    """A template that harms only when it is given the message `hi`, not while it is loaded."""
    return f"{{% if {condition} %}}{bomb}{{% else %}}{_PLAIN}{{% endif %}}"


def _mixed() -> list[str]:
    """Ten bombs, of each of the sorts that work."""
    texts, lists, many = [*_doubled_texts()], [*_doubled_lists()], [*_multiplied()]
    loops, recursions, grown = [*_nested_loops()], [*_recursions()], [*_grown()]
    memory = [texts[0], texts[1], lists[0], many[0], many[4], grown[2]]
    return [*memory, loops[0], loops[3], grown[0], recursions[0]]


def _template_files() -> Iterator[Hostile]:
    sorts: dict[str, Iterable[str]] = {
        "template doubles a text": _doubled_texts(),
        "template multiplies": _multiplied(),
        "template doubles a list": _doubled_lists(),
        "template loops": _nested_loops(),
        "template recurses": _recursions(),
        "template replaces and joins": _grown(),
        "template harms at a message": map(_at_message, _mixed()),
    }
    for kind, templates in sorts.items():
        for template in templates:
            yield Hostile(kind, template[:200], _with_template(template))
    for bomb in _mixed():
        template = _at_message(bomb, "tools and messages[-1]['content'] == 'hi'")
        yield Hostile(
            "template harms with tools",
            template[:200],
            _with_template(template),
            ("-T", "llm_version"),
        )


# Tokenizers.


def _endless(base: Content, model: str, prompt: str) -> Content:
    """A vocabulary in which no word is a beginning of another: RWKV's tokenizer never advances."""
    alone = {prompt[:size].encode() for size in range(1, len(prompt) + 1)}
    words = (
        b"\xc2\x80\xc2" + word if len(word) == 1 or word in alone else word for word in base.words()
    )
    return base.having({_TOKENS: strings([*words]), _MODEL: string(model)})


def _tokenizer_files() -> Iterator[Hostile]:
    for name in (
        "llama",
        "bert",
        "t5",
        "rwkv",
        "plamo2",
        "none",
        "no_vocab",
        "gemma4",
        "",
        "x" * 9,
    ):
        yield Hostile("tokenizer's model name", name, _with_key(_MODEL, string(name)))
    names = ("default", "llama-bpe", "falcon", "bloom", "gpt-4o", "tekken", "kimi-k2", "nope", "")
    for name in (*names, "\x1b[2J"):
        yield Hostile("tokenizer's pre name", name, _with_key(_PRE, string(name)))
    for prompt in ("hi", "zq9", "h", "ah", "hi " * 9, "hello", "a b c", "A", "1 2", "qq"):
        yield Hostile(
            "tokenizer that does not end",
            prompt,
            _model(lambda base, prompt=prompt: _endless(base, "rwkv", prompt)),  # type: ignore[misc]
            prompt=prompt,
        )
    for note, change in _LISTS.items():
        yield Hostile("lists of tokens", note, _model(change))


def _words(change: Callable[[list[bytes]], Sequence[bytes]]) -> Callable[[Content], Content]:
    return lambda base: base.having({_TOKENS: strings(change(base.words()))})


def _list(key: str, kind: int, count: int, item: bytes) -> Callable[[Content], Content]:
    return lambda base: base.having({key: array(kind, count, item * count)})


_LISTS: dict[str, Callable[[Content], Content]] = {
    "all words alike": _words(lambda words: [b"a"] * len(words)),
    "no words": _words(lambda _: []),
    "empty words": _words(lambda words: [b""] * len(words)),
    "more words than types": _words(lambda words: [*words, *words]),
    "a word of 10 MB": _words(lambda words: [*words[:-1], b"x" * 10**7]),
    "words that are no UTF-8": _words(lambda words: [b"\xff\xfe" + word for word in words]),
    "few types": _list(_TYPES, INT32, 10, b"\1\0\0\0"),
    "all words are bytes": lambda base: base.having(
        {_TYPES: array(INT32, len(base.words()), b"\6\0\0\0" * len(base.words()))}
    ),
    "merges of nothing": lambda base: base.having({_MERGES: strings([b""] * 1000)}),
    "two million merges": lambda base: base.having({_MERGES: strings([b"a a"] * 2_000_000)}),
}


# Declared numbers.


def _number_files() -> Iterator[Hostile]:
    huge, layers = 2**31 - 1, "llama.block_count"
    numbers: dict[str, dict[str, bytes | None]] = {
        "layers": {layers: uint32(2**31)},
        "layers, many": {layers: uint32(100_000)},
        "layers, none": {layers: uint32(0)},
        "layers of 64 bits": {layers: uint64(2**63)},
        "context": {"llama.context_length": uint32(huge)},
        "context, none": {"llama.context_length": uint32(0)},
        "context, one token": {"llama.context_length": uint32(1)},
        "width": {"llama.embedding_length": uint32(2**30)},
        "width, none": {"llama.embedding_length": uint32(0)},
        "width, one": {"llama.embedding_length": uint32(1)},
        "width, no key": {"llama.embedding_length": None},
        "heads": {"llama.attention.head_count": uint32(huge)},
        "heads, none": {"llama.attention.head_count": uint32(0)},
        "heads of keys": {"llama.attention.head_count_kv": uint32(2**30)},
        "heads of keys, none": {"llama.attention.head_count_kv": uint32(0)},
        "heads by layer": {"llama.attention.head_count": array(UINT32, 2**20, bytes(2**22))},
        "length of keys": {"llama.attention.key_length": uint32(2**30)},
        "feed forward": {"llama.feed_forward_length": uint32(2**31)},
        "rope": {"llama.rope.dimension_count": uint32(huge)},
        "rope, none": {"llama.rope.dimension_count": uint32(0)},
        "rope's base": {"llama.rope.freq_base": float32(math.nan)},
        "rope's scale": {"llama.rope.scaling.factor": float32(0.0)},
        "experts": {"llama.expert_count": uint32(2**31), "llama.expert_used_count": uint32(2**30)},
        "experts, some": {
            "llama.expert_count": uint32(300),
            "llama.expert_used_count": uint32(400),
        },
        "words": {"llama.vocab_size": uint32(huge)},
        "epsilon": {"llama.attention.layer_norm_rms_epsilon": float32(-1.0)},
        "end of answers": {"tokenizer.ggml.eos_token_id": uint32(2**32 - 1)},
        "begin of answers": {
            "tokenizer.ggml.bos_token_id": uint32(huge),
            "tokenizer.ggml.add_bos_token": struct.pack("<I?", BOOL, True),
        },
        "alignment": {"general.alignment": uint32(2**31)},
        "architecture": {"general.architecture": string("llama" * 1000)},
    }
    for note, values in numbers.items():
        kind = note.split(",")[0] in ("layers", "layers of 64 bits", "context", "width")
        yield Hostile(
            "layers, contexts and widths" if kind else "heads, experts and other numbers",
            note,
            _model(lambda base, values=values: base.having(values)),  # type: ignore[misc]
        )


# Tensors.


def _tensor_files() -> Iterator[Hostile]:
    shapes: tuple[tuple[int, ...], ...] = ((), (0,), (2**40,), (2**32, 2**32), (1, 1, 1, 1), (3, 5))
    for shape in shapes:
        yield _of_tensors(f"shape {shape}", "attn_q", lambda part, s=shape: replace(part, shape=s))
    for offset in (0, 7, 2**40, 2**63):
        yield _of_tensors(
            f"offset {offset}", "attn_q", lambda part, at=offset: replace(part, offset=at)
        )
    for kind in (2, 8, 99):
        yield _of_tensors(f"type {kind}", "ffn_up", lambda part, k=kind: replace(part, type=k))
    yield _of_tensors("same names", "attn_", lambda part: replace(part, name="blk.0.x"))
    for size in (10 * GB, 100 * GB, 2**40):
        for shape in ((2**20, 2**10), (2**25, 2**9), (2**33,)):
            yield Hostile(
                "sparse files",
                f"{size:,} bytes, shape {shape}",
                _padded(size, shape),
            )
    yield Hostile(
        "sparse files", "padded", lambda base, folder: base.write(folder / "hostile.gguf", 100 * GB)
    )


def _of_tensors(note: str, name: str, change: Callable[..., Part]) -> Hostile:
    return Hostile("tensors", note, _model(lambda base: base.with_parts(name, change)))


def _padded(size: int, shape: tuple[int, ...]) -> Build:
    def build(base: Content, folder: Path) -> Path:
        return base.with_shape("ffn_up", shape).write(folder / "hostile.gguf", size)

    return build


# Cut files, parts, and what is loaded beside a model.


def _cut(share: float) -> Build:
    def build(base: Content, folder: Path) -> Path:
        path = base.write(folder / "hostile.gguf")
        with path.open("r+b") as file:
            file.truncate(int(path.stat().st_size * share))
        return path

    return build


def _overwritten(seed: int) -> Build:
    """Bytes anywhere in the header are others."""

    def build(base: Content, folder: Path) -> Path:
        path, source_of = base.write(folder / "hostile.gguf"), random.Random(seed)
        data = bytearray(path.read_bytes())
        head, _ = base.head()
        for _ in range(source_of.randrange(1, 9)):
            at = source_of.randrange(min(2000, len(head)))
            data[at] = source_of.randrange(256)
        path.write_bytes(data)
        return path

    return build


def _split(note: str) -> Build:
    """A model in three parts, of which the second is bad or missing."""

    def build(base: Content, folder: Path) -> Path:
        thirds = [base.tensors[at::3] for at in range(3)]
        for number, tensors in enumerate(thirds):
            keys = {
                **(base.keys if number == 0 else {}),
                "split.no": struct.pack("<IH", 2, number),
                "split.count": struct.pack("<IH", 2, 3),
                "split.tensors.count": struct.pack("<Ii", INT32, len(base.tensors)),
            }
            path = folder / f"hostile-{number + 1:05}-of-00003.gguf"
            Content(keys, tensors).write(path)
        _PARTS[note](folder / "hostile-00002-of-00003.gguf", folder)
        return folder / "hostile-00001-of-00003.gguf"

    return build


def _make_folder(part: Path, _: Path) -> None:
    part.unlink()
    part.mkdir()


def _other_keys(**keys: bytes) -> Callable[[Path, Path], object]:
    changed = {name.replace("__", "."): value for name, value in keys.items()}
    return lambda part, _: Content(changed, ()).write(part)


_PARTS: dict[str, Callable[[Path, Path], object]] = {
    "missing": lambda part, _: part.unlink(),
    "empty": lambda part, _: part.write_bytes(b""),
    "cut": lambda part, _: part.write_bytes(part.read_bytes()[:200]),
    "no GGUF": lambda part, _: part.write_bytes(b"\0" * 10_000),
    "of another number": _other_keys(split__no=struct.pack("<IH", 2, 9)),
    "of a number that is too large": _other_keys(split__no=struct.pack("<IH", 2, 65_535)),
    "without keys": _other_keys(),
    "the first one again": lambda part, folder: part.write_bytes(
        (folder / "hostile-00001-of-00003.gguf").read_bytes()
    ),
    "a folder": _make_folder,
    "sparse": lambda part, _: part.open("r+b").truncate(100 * GB),
}


def _beside(name: str, make: Callable[[Content, Path], object]) -> Build:
    """A whole model, and another file that is loaded with it."""

    def build(base: Content, folder: Path) -> Path:
        make(base, folder / name)
        return base.write(folder / "hostile.gguf")

    return build


def _others(base: Content) -> dict[str, Callable[[Path], object]]:
    """Files that are no adapter, projector or draft model, or bad ones."""
    few = Content({"general.architecture": string("llama")})
    adapter = few.having({"general.type": string("adapter"), "adapter.type": string("lora")})
    bomb = base.with_template(_repeated("'abc'", "ns.x + ns.x", 60))
    return {
        "empty": lambda path: path.write_bytes(b""),
        "no GGUF": lambda path: path.write_bytes(b"\0" * 10_000),
        "cut": lambda path: path.write_bytes(base.head()[0][:1000]),
        "few keys": few.write,
        "an adapter without tensors": adapter.write,
        "an adapter of odd tensors": lambda path: replace(
            adapter.having({"adapter.lora.alpha": float32(math.inf)}),
            tensors=(
                Part("blk.0.attn_q.weight.lora_a", (2**20, 2), F32),
                Part("blk.0.attn_q.weight.lora_b", (2, 64), F32),
            ),
        ).write(path),
        "layers": lambda path: base.having({"llama.block_count": uint32(2**31)}).write(path),
        "a template": bomb.write,
        "a vocabulary": lambda path: _endless(base, "rwkv", "hi").write(path),
        "sparse": lambda path: base.write(path, 100 * GB),
    }


def _other(base: Content, path: Path, note: str) -> object:
    return _others(base)[note](path)


_IMAGE = ("-a", "{folder}/image.png")


def _files_beside() -> Iterator[Hostile]:
    notes = [*_others(Content({_TOKENS: strings([])}))]
    ways = {
        "adapters": ("other.gguf", ("-o", "lora", "{folder}/other.gguf")),
        "draft models": ("other.gguf", ("-o", "draft_model", "{folder}/other.gguf")),
        "projectors": ("mmproj-other.gguf", _IMAGE),
    }
    for kind, (name, options) in ways.items():
        for note in notes:
            make = lambda base, path, note=note: _other(base, path, note)  # noqa: E731
            yield Hostile(kind, note, _beside(name, make), options)


def _bad_projector(seed: int) -> Build:
    """A projector of which some bytes of the header are others."""

    def make(_base: Content, path: Path) -> None:
        build_projector(path, _WIDTH)
        data, source_of = bytearray(path.read_bytes()), random.Random(seed)
        for _ in range(source_of.randrange(1, 5)):
            data[source_of.randrange(1500)] = source_of.randrange(256)
        path.write_bytes(data)

    return _beside("mmproj-other.gguf", make)


def hostile_files() -> list[Hostile]:
    """All of them: ten of each kind."""
    shares = (0.0, 0.001, 0.01, 0.1, 0.15, 0.2, 0.3, 0.5, 0.9, 0.999)
    return [
        *_template_files(),
        *_tokenizer_files(),
        *_number_files(),
        *_tensor_files(),
        *(Hostile("cut files", f"{share:.1%} of it", _cut(share)) for share in shares),
        *(Hostile("overwritten bytes", f"seed {n}", _overwritten(n)) for n in range(10)),
        *(Hostile("split files", note, _split(note)) for note in _PARTS),
        *_files_beside(),
        *(
            Hostile("overwritten projectors", f"seed {n}", _bad_projector(n), _IMAGE)
            for n in range(10)
        ),
    ]
