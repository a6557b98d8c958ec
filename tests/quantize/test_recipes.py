"""The type of each tensor: compared with the choices of the real llama-quantize.

`data/recipes.json` was recorded from llama.cpp's llama-quantize of October 1st, 2026 (0c1e570):
`python -m tests.quantize.test_recipes PATH_OF_LLAMA_QUANTIZE` records it again.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest

from llm_localrun.gguf.header import Header, Tensor
from llm_localrun.gguf.tensor_types import TensorType, type_name
from llm_localrun.quantize.recipes import (
    MIXES,
    bits_per_weight,
    is_quantizable,
    shape_of,
    share_too_narrow,
    shares,
    types_for,
)
from tests.support.gguf_files import Value, write

pytestmark = pytest.mark.pure

RECORDED = Path(__file__).parents[1] / "data" / "recipes.json"

# With an importance matrix, llama.cpp chooses other types for these.
INFORMED = ("Q4_0", "Q5_0", "IQ4_NL", "IQ4_XS")
QUANTIZATIONS = [name for name in MIXES if name != "F32"]


@dataclass(frozen=True)
class Sample:
    """The facts about a model that the rules need. `width` is the length of its rows."""

    architecture: str
    layers: int
    width: int
    heads: tuple[int, int]
    hidden: int
    experts: int = 0
    is_tied: bool = False

    @property
    def keys(self) -> dict[str, Value]:
        own = {
            "context_length": 512,
            "embedding_length": self.width,
            "block_count": self.layers,
            "feed_forward_length": self.hidden,
            "attention.head_count": self.heads[0],
            "attention.head_count_kv": self.heads[1],
            "attention.layer_norm_rms_epsilon": 1e-6,
            "attention.layer_norm_epsilon": 1e-6,
            "rope.dimension_count": self.width // self.heads[0],
            **({"expert_count": self.experts, "expert_used_count": 2} if self.experts else {}),
        }
        prefixed = {f"{self.architecture}.{key}": value for key, value in own.items()}
        return {"general.architecture": self.architecture, **prefixed}

    @property
    def tensors(self) -> list[Tensor]:
        return [Tensor(name, shape, _stored(name, shape), 0) for name, shape in self._shapes()]

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield "token_embd.weight", (self.width, 300)
        yield "output_norm.weight", (self.width,)
        if not self.is_tied:
            yield "output.weight", (self.width, 300)
        if self.architecture == "gpt2":
            yield "position_embd.weight", (self.width, 512)
        for layer in range(self.layers):
            yield from self._of_layer(f"blk.{layer}")

    def _of_layer(self, block: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        width, hidden = self.width, self.hidden
        shared = width // self.heads[0] * self.heads[1]
        yield f"{block}.attn_norm.weight", (width,)
        if self.architecture == "gpt2":
            yield f"{block}.attn_qkv.weight", (width, 3 * width)
        else:
            yield f"{block}.attn_q.weight", (width, width)
            yield f"{block}.attn_k.weight", (width, shared)
            yield f"{block}.attn_v.weight", (width, shared)
        yield f"{block}.attn_output.weight", (width, width)
        if not self.experts:
            yield f"{block}.ffn_up.weight", (width, hidden)
            yield f"{block}.ffn_down.weight", (hidden, width)
            return
        yield f"{block}.ffn_gate_inp.weight", (width, self.experts)
        yield f"{block}.ffn_up_exps.weight", (width, hidden, self.experts)
        yield f"{block}.ffn_down_exps.weight", (hidden, width, self.experts)


def _stored(name: str, shape: tuple[int, ...]) -> TensorType:
    is_small = len(shape) == 1 or "_inp" in name or "position" in name
    return TensorType.F32 if is_small else TensorType.F16


SAMPLES = {
    "shared heads": Sample("llama", 33, 256, (8, 2), 512),
    "heads of their own": Sample("llama", 12, 256, (8, 8), 512),
    "70B": Sample("llama", 80, 256, (8, 1), 256),
    "eight experts": Sample("llama", 16, 256, (8, 2), 256, experts=8),
    "many experts": Sample("llama", 16, 256, (8, 2), 256, experts=16, is_tied=True),
    "narrow rows": Sample("llama", 16, 288, (9, 3), 768, is_tied=True),
    "very narrow rows": Sample("llama", 8, 144, (9, 3), 256),
    "joint attention": Sample("gpt2", 12, 256, (8, 8), 1024),
}


def summary(types: Mapping[str, str]) -> dict[str, str]:
    """The types of each kind of tensor by layer, run-length encoded: `Q6_K*4 Q4_K`."""
    kinds: dict[str, list[str]] = {}
    for name in sorted(types, key=lambda name: [int(n) for n in re.findall(r"\d+", name)]):
        kinds.setdefault(re.sub(r"\d+", "*", name), []).append(types[name])
    return {kind: " ".join(_counted(found)) for kind, found in sorted(kinds.items())}


def _counted(types: list[str]) -> Iterator[str]:
    for name, group in groupby(types):
        count = len(list(group))
        yield name if count == 1 else f"{name}*{count}"


def cases() -> list[tuple[str, str, bool]]:
    return [
        (sample, quantization, informed)
        for sample in SAMPLES
        for quantization in QUANTIZATIONS
        for informed in ((False, True) if quantization in INFORMED else (False,))
    ]


def _key(quantization: str, informed: bool) -> str:
    return f"{quantization} informed" if informed else quantization


@pytest.mark.parametrize(("sample", "quantization", "informed"), cases())
def test_types_are_those_of_llama_quantize(
    recorded: dict[str, dict[str, dict[str, str]]], sample: str, quantization: str, informed: bool
) -> None:
    model = SAMPLES[sample]
    shape = shape_of(Header({k: v for k, v in model.keys.items() if not isinstance(v, list)}))
    types = types_for(quantization, model.tensors, shape, has_importance=informed)
    chosen = summary({name: type_name(kind) for name, kind in types.items()})
    assert chosen == recorded[sample][_key(quantization, informed)]


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("blk.0.attn_q.weight", (64, 64), True),
        ("blk.0.ffn_up_exps.weight", (64, 64, 4), True),
        ("token_embd.weight", (64, 300), True),
        ("v.blk.0.attn_q.weight", (64, 64), True),
        ("blk.0.attn_norm.weight", (64,), False),
        ("blk.0.attn_q.bias", (64, 64), False),
        ("blk.0.attn_q_norm.weight", (64, 4), False),
        ("blk.0.ffn_gate_inp.weight", (64, 8), False),
        ("blk.0.ssm_conv1d.weight", (4, 64), False),
        ("blk.0.shortconv.conv.weight", (3, 64), False),
        ("position_embd.weight", (64, 512), False),
        ("token_types.weight", (64, 2), False),
        ("v.position_embd.weight", (64, 512), False),
        ("blk.0.one.weight", (64, 1, 1), False),
        ("number.weight", (), False),
    ],
)
def test_quantizable_tensors(name: str, shape: tuple[int, ...], expected: bool) -> None:
    assert is_quantizable(Tensor(name, shape, TensorType.F16, 0)) is expected


def test_shares_and_bits_per_weight() -> None:
    tensors = [
        Tensor("output.weight", (256, 3), TensorType.Q6_K, 0),
        Tensor("token_embd.weight", (32, 6), TensorType.Q8_0, 0),
        Tensor("output_norm.weight", (64,), TensorType.F32, 0),
        Tensor("later.weight", (), 99, 0),
    ]
    assert shares(tensors[:3]) == {"Q6_K": 0.75, "Q8_0": 192 / 1024, "F32": 64 / 1024}
    assert "type 99" in shares(tensors)
    assert bits_per_weight(tensors[:1]) == 210 * 8 / 256
    assert bits_per_weight([]) == 0
    assert share_too_narrow("Q4_K_M", tensors) == 192 / 960
    assert share_too_narrow("Q4_0", tensors) == share_too_narrow("IQ1_S", tensors) == 0


@pytest.fixture(scope="module")
def recorded() -> dict[str, dict[str, dict[str, str]]]:
    found: dict[str, dict[str, dict[str, str]]] = json.loads(RECORDED.read_text())
    return found


def _record(program: str) -> None:
    recorded: dict[str, dict[str, dict[str, str]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        importance = _importance(folder / "importance.gguf")
        for sample, quantization, informed in cases():
            model = SAMPLES[sample]
            source = folder / "source.gguf"
            write(source, model.keys, model.tensors, {})
            options = ["--dry-run", *(["--imatrix", str(importance)] if informed else [])]
            command = [program, *options, str(source), "none.gguf", quantization]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            by_name = dict(_chosen(done.stdout + done.stderr))
            recorded.setdefault(sample, {})[_key(quantization, informed)] = summary(by_name)
    lines = [
        f"{json.dumps(sample)}: {{\n"
        + ",\n".join(f"{json.dumps(key)}: {json.dumps(types)}" for key, types in chosen.items())
        + "\n}"
        for sample, chosen in recorded.items()
    ]
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _chosen(log: str) -> Iterator[tuple[str, str]]:
    """The tensors and their new types in the output of --dry-run."""
    for line in re.findall(r"^\[ *\d+/ *\d+\] .*$", log, re.MULTILINE):
        match = re.search(r"\] (\S+) .*type = +(\w+).*?(?:\((\w+)\))?$", line)
        assert match is not None
        yield match[1], (match[3] or match[2]).upper()


def _importance(path: Path) -> Path:
    """An importance matrix. Its values do not matter here."""
    name = "blk.0.ffn_up.weight"
    tensors = [
        Tensor(f"{name}.in_sum2", (256, 1), TensorType.F32, 0),
        Tensor(f"{name}.counts", (1, 1), TensorType.F32, 0),
    ]
    keys: dict[str, Value] = {
        "general.type": "imatrix",
        "imatrix.datasets": ["text"],
        "imatrix.chunk_count": 1,
        "imatrix.chunk_size": 512,
    }
    write(path, keys, tensors, {})
    return path


if __name__ == "__main__":
    _record(sys.argv[1])
