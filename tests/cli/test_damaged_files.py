"""Files that are not whole: no name means them, `doctor` says why, and `models` marks them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.gguf.header import Tensor
from llm_localrun.gguf.tensor_types import TensorType
from tests.conftest import Invoke, configure
from tests.support.gguf_files import Value, write
from tests.support.trees import projector

MIB = 2**20
NAME = "Tiny-1B-Instruct-Q4_K_M"
ID = f"local/gguf/{NAME}"
KEYS: dict[str, Value] = {
    "general.architecture": "llama",
    "llama.context_length": 2048,
    "tokenizer.ggml.tokens": [f"word{number}" for number in range(5000)],
    "tokenizer.chat_template": "{{ messages }}",
}
SIZE = 4 * MIB
ALIASES = ("local", "local-tiny", "local-tiny-1b", "local-tiny-1b-instruct-q4-k-m")


@pytest.fixture
def folder(user_path: Path, tmp_path: Path) -> Path:
    """A folder of models; nothing else is looked for."""
    made = tmp_path / "disk"
    made.mkdir()
    configure(user_path, default_endpoints=False, folders=[str(made)])
    return made


def whole(path: Path, keys: dict[str, Value] = KEYS) -> Path:
    """A model of 4 MiB of weights and a header of some 100 KB."""
    tensors = [Tensor("token_embd.weight", (MIB // 2,), TensorType.F32, 0)]
    write(path, keys, [*tensors, Tensor("output.weight", (MIB // 2,), TensorType.F32, 0)], {})
    return path


def shortened(path: Path, size: int) -> Path:
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    return path


def json_of(invoke: Invoke, *arguments: str) -> Any:
    return json.loads(invoke("localrun", *arguments, "--json").stdout)


def said_by_doctor(invoke: Invoke) -> str:
    return " ".join(str(invoke("localrun", "doctor").stdout).split())


def models(invoke: Invoke) -> dict[str, Any]:
    return {each["id"]: each for each in json_of(invoke, "models")}


BROKEN = {
    "in its numbers": (1200, "it is smaller than a megabyte"),
    "in its vocabulary": (MIB, "it is cut off"),
    "in its tensors": (SIZE // 2, "it is cut off"),
    "one byte": (-1, "it is cut off"),
}
"""Where a file ends, or how much it lacks, and what is said of it."""


@pytest.mark.parametrize("where", BROKEN)
def test_truncated_file_beside_a_whole_one(where: str, folder: Path, invoke: Invoke) -> None:
    size, problem = BROKEN[where]
    whole(folder / "Tiny-1B-Instruct-Q8_0.gguf")
    broken = shortened(whole(folder / f"{NAME}.gguf"), size)
    found = models(invoke)
    assert found["local/gguf/Tiny-1B-Instruct-Q8_0"]["problem"] == ""
    assert {*ALIASES[:3]} <= {*found["local/gguf/Tiny-1B-Instruct-Q8_0"]["aliases"]}
    if ID in found:
        assert (found[ID]["aliases"], found[ID]["problem"][:13]) == ([], problem)
    for alias in ALIASES[:3]:
        assert [each["id"] for each in json_of(invoke, "which", alias)] == [
            "local/gguf/Tiny-1B-Instruct-Q8_0"
        ]
    assert invoke("localrun", "which", ALIASES[3]).exit_code == 1
    assert f"{broken.name}: {problem}" in said_by_doctor(invoke)


def test_truncated_file_alone(folder: Path, invoke: Invoke) -> None:
    path = shortened(whole(folder / f"{NAME}.gguf"), -1)
    size = path.stat().st_size
    problem = f"it is cut off: {size:,} bytes of at least {size + 1:,}"
    row = next(line for line in str(invoke("localrun", "models").stdout).splitlines() if ID in line)
    assert " damaged " in row
    for command, name in (("which", "local"), ("show", "local-tiny"), ("rm", "local-tiny-1b")):
        done = invoke("localrun", command, name)
        assert (done.exit_code, done.stdout) == (1, "")
        assert f"{name} would be {ID}, whose file cannot be loaded: {problem}" in done.stderr
    assert path.exists()
    assert [each["id"] for each in json_of(invoke, "which", ID)] == [ID]
    done = invoke("-m", ID, "hi")
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"{path} cannot be run: {problem}" in done.stderr


def test_truncated_variant_is_no_quantization(folder: Path, invoke: Invoke) -> None:
    whole(folder / "Tiny-1B-Instruct-Q8_0.gguf")
    shortened(whole(folder / f"{NAME}.gguf"), -1)
    done = invoke("-m", "local", "-o", "quantization", "Q4_K_M", "hi")
    assert "There is no Q4_K_M of Tiny-1B-Instruct-Q8_0 here" in done.stderr
    shown = json_of(invoke, "show", "local")
    assert ID not in json.dumps(shown)


def parts(folder: Path) -> list[Path]:
    paths = [folder / f"{NAME}-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for number, path in enumerate(paths):
        whole(path, {**KEYS, "split.no": number})
    return paths


@pytest.mark.parametrize("number", [1, 2, 3])
def test_split_file_that_lacks_a_byte(number: int, folder: Path, invoke: Invoke) -> None:
    shortened(parts(folder)[number - 1], -1)
    (model,) = models(invoke).values()
    assert model["aliases"] == []
    assert "it is cut off" in model["problem"]
    assert f"{NAME}-0000{number}-of-00003.gguf: " in said_by_doctor(invoke)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_split_file_that_lacks_a_part(number: int, folder: Path, invoke: Invoke) -> None:
    parts(folder)[number - 1].unlink()
    assert models(invoke) == {}
    assert f"part {number} of 3 is missing" in said_by_doctor(invoke)


def test_truncated_projector(folder: Path, invoke: Invoke) -> None:
    whole(folder / f"{NAME}.gguf")
    seeing = shortened(projector(folder / "mmproj-Tiny-1B-Instruct.gguf"), 60)
    (model,) = models(invoke).values()
    assert model["aliases"] == []
    cut = f"its projector is damaged: {seeing.name}: it is cut off in the middle of its header"
    assert model["problem"] == cut
    assert cut in said_by_doctor(invoke)
    projector(seeing)
    (model,) = models(invoke).values()
    assert (model["problem"], model["aliases"][-1]) == ("", "local")
    assert "vision" in model["capabilities"]


def test_padded_file(folder: Path, invoke: Invoke) -> None:
    """llama.cpp would read 100 GB of zeros, and fill the memory with them."""
    path = whole(folder / f"{NAME}.gguf")
    end = path.stat().st_size
    os.truncate(path, 10**11)
    problem = f"it is padded: {10**11 - end:,} bytes follow its last tensor"
    assert models(invoke)[ID]["problem"] == problem
    assert f"{path}: {problem}" in said_by_doctor(invoke)
    done = invoke("-m", str(path), "hi")
    assert f"{path} cannot be run: {problem}" in done.stderr
    (fact,) = json_of(invoke, "du")
    assert fact["size"] <= end
    os.truncate(path, end + MIB)
    assert models(invoke)[ID]["problem"] == ""


def growing(path: Path, steps: int) -> Iterator[int]:
    """Writes a file as a download does, step by step; yields the bytes that are still missing."""
    data = whole(path).read_bytes()
    for step in range(1, steps + 1):
        path.write_bytes(data[: len(data) * step // steps])
        yield len(data) - path.stat().st_size


def test_file_that_another_program_downloads(folder: Path, invoke: Invoke) -> None:
    for missing in growing(folder / f"{NAME}.gguf", 4):
        named = [each["id"] for each in models(invoke).values() if "local" in each["aliases"]]
        assert named == ([] if missing else [ID])


def test_file_that_is_replaced_in_the_same_second(folder: Path, invoke: Invoke) -> None:
    """By one of the same size, with the same time, under the same name."""
    path = whole(folder / f"{NAME}.gguf")
    assert models(invoke)[ID]["context_max"] == 2048
    before = path.stat()
    other = whole(folder / "other.part", {**KEYS, "llama.context_length": 4096})
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_size == before.st_size
    assert models(invoke)[ID]["context_max"] == 4096
    with path.open("r+b") as file:
        data = file.read(4096).replace(b"\0\x10\0\0", b"\0\x20\0\0", 1)
        file.seek(0)
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert models(invoke)[ID]["context_max"] == 8192
