"""Quantizing: the same bytes as llama-quantize, complete or not at all, from a source only read."""

import hashlib
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from llm_localrun.catalogue import get_catalogue
from llm_localrun.gguf.header import Header, Tensor, read_header
from llm_localrun.gguf.tensor_types import TensorType
from llm_localrun.memory import machine
from llm_localrun.models import LocalModel
from llm_localrun.name_cache import CachePolicy
from llm_localrun.names.parse import parse_name
from llm_localrun.quantize import tools
from llm_localrun.quantize.plan import check, target_for
from llm_localrun.quantize.recipes import MIXES
from llm_localrun.quantize.run import run
from llm_localrun.resolve import resolve_variant
from llm_localrun.system import locks
from llm_localrun.system.paths import models_folder, partial_folder
from llm_localrun.system.progress import Progress
from tests.conftest import Llm
from tests.fakes.llama_quantize import put_on_path
from tests.support import environment, little_model
from tests.support.drive import failure
from tests.support.gguf_files import write
from tests.support.hostile_files import F32, Content, Part, string
from tests.support.models import local_model
from tests.support.outward import Guard
from tests.support.pulling import done as done_by
from tests.support.pulling import failed
from tests.support.pulling import run as run_command
from tests.support.quantizing import ENGINE, make, plan_for
from tests.support.trees import projector

# Digests of the files that llama-quantize made on x86-64 (llama.cpp 0c1e570 of October 1st, 2026);
# on other processors, the last digits may differ. The starter was converted to F16 first.
STARTER = {
    "F16": "7d0480aa4dc02130d5f3f7f28453e55779a7e19fc6045a6bf2ae7d7a93bea05d",
    "Q8_0": "aebb60fe91d2a3a1a6fd565b8edb9633e476c0d19bb76f81a8bcd084fc94082a",
    "Q4_K_M": "903c4e1a6d1bde9cd52897152313a512f58f3fd7a0d54ed2eb488b41f705f285",
}
LITTLE = {
    ("Q8_0", False): "3187279dda96bf833d8a88a457261abbc4b143a5ced29d3822331603ad5f565e",
    ("BF16", False): "3214b5ad2eb5e3321410598f8d1ee47ce040a811c60392e20fd6d73eac04e521",
    ("Q4_K_M", False): "2673ddebe6827db2f7150f7fd3da8123a46f3999fe33b492d459211d66172875",
    ("Q4_K_M", True): "3083c796400d7dd4ff96a6eaf44fe9d58976c8ce716e5031bc13cab8fe035161",
    ("Q4_0", False): "9d58e1cdc27e2c3be3bda72c50c514e676ee40cef24d96a2278014f9d6ea39f9",
    ("Q4_0", True): "9dd7e5267de4863715e96927d6a596f119d8e41996a046fd77e9eca5036a71d8",
    ("IQ4_XS", False): "eeb86b257371bde8151d1e9a37548e4c65e4d604292555ced4d46119a8e3f23b",
    ("IQ4_XS", True): "6647ed032da95b8e9e9db2daa864aaf2318959237e47231fe4f3ef92e16e1661",
}

MEASURED = Path(__file__).parents[2] / "docs" / "quantization.md"
"""`benchmarks/quantize.py --write` writes its table."""

as_recorded = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="recorded on x86-64"
)


def header_of(path: Path) -> Header:
    with path.open("rb") as file:
        return read_header(file, path.stat().st_size)


def digest(path: Path) -> str:
    """The SHA-256 of the names, shapes, types and data of all tensors."""
    header = header_of(path)
    made = hashlib.sha256()
    with path.open("rb") as file:
        for tensor in header.tensors:
            file.seek(header.data_start + tensor.offset)
            made.update(f"{tensor.name} {tensor.shape} {tensor.type}\n".encode())
            made.update(file.read(tensor.size or 0))
    return made.hexdigest()


def models_by_path(policy: CachePolicy) -> dict[str, LocalModel]:
    models = get_catalogue(policy).models
    return {model.on_disk.path: model for model in models if model.on_disk is not None}


@pytest.fixture(scope="session")
def f16_model(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter model, converted to F16."""
    target = tmp_path_factory.mktemp("f16") / "SmolLM2-135M-Instruct.F16.gguf"
    command = [*ENGINE.command, str(starter_model), str(target), "F16", "2"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return target


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder for the files of one test."""
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


@pytest.fixture(scope="session")
def little_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return little_model.build(tmp_path_factory.mktemp("little") / "Little-F16.gguf")


@pytest.fixture
def little(files: Path, little_once: Path) -> Path:
    """A copy of the little model for one test."""
    return Path(shutil.copy(little_once, files))


# Results


@as_recorded
@pytest.mark.parametrize("quantization", STARTER)
def test_starter_is_quantized_as_by_llama_quantize(f16_model: Path, quantization: str) -> None:
    before = f16_model.stat()
    is_source = quantization == "F16"
    made = f16_model if is_source else make(plan_for(f16_model, quantization))
    assert digest(made) == STARTER[quantization]
    assert f"| {quantization} | {made.stat().st_size:,} |" in MEASURED.read_text("utf-8")
    after = f16_model.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@as_recorded
@pytest.mark.parametrize(("quantization", "informed"), LITTLE)
def test_little_model_is_quantized_as_by_llama_quantize(
    little: Path, files: Path, quantization: str, informed: bool
) -> None:
    importance = little_model.build_importance(files / "imatrix.gguf") if informed else None
    made = make(plan_for(little, quantization, importance=importance))
    assert digest(made) == LITTLE[quantization, informed]


def test_other_keys_are_copied(little: Path) -> None:
    before, after = header_of(little), header_of(make(plan_for(little, "Q4_0")))
    assert after.number("general.file_type") == MIXES["Q4_0"].file_type
    assert after.number("general.quantization_version") == 2
    changed = {"general.file_type", "general.quantization_version"}
    assert after.spans.keys() - changed == before.spans.keys() - changed
    same = before.spans.keys() - changed
    assert {key: after.metadata[key] for key in same} == {key: before.metadata[key] for key in same}
    assert all(tensor.offset % 32 == 0 for tensor in after.tensors)


def test_split_source_makes_one_file(little: Path, files: Path) -> None:
    whole = digest(make(plan_for(little, "Q4_K_M")))
    split = make(plan_for(little_model.build_split(files / "split"), "Q4_K_M"))
    assert digest(split) == whole
    assert not [key for key in header_of(split).metadata if key.startswith("split.")]


def test_alignment_of_the_source_is_kept(files: Path) -> None:
    keys = {**little_model.KEYS, "general.alignment": 64}
    tensors = list(little_model.tensors())
    source = files / "aligned.gguf"
    write(source, keys, tensors, {}, alignment=64)
    header = header_of(make(plan_for(source, "Q4_0")))
    assert header.data_start % 64 == 0
    assert {tensor.offset % 64 for tensor in header.tensors} == {0}


# Refusals


@pytest.mark.parametrize(
    ("quantization", "changed", "said"),
    [
        (
            "Q9",
            {},
            "The quantizer on this machine (ggml from xllamacpp) cannot make Q9. It can make F32",
        ),
        ("IQ2_XXS", {}, "The quantizer on this machine (ggml from xllamacpp) cannot make IQ2_XXS"),
        (
            "Q4_0",
            {"general.architecture": "falcon"},
            "The rules for models of the architecture falcon are",
        ),
    ],
)
def test_unsupported_quantizations(
    files: Path, quantization: str, changed: dict[str, str], said: str
) -> None:
    source = files / "source.gguf"
    write(source, {**little_model.KEYS, **changed}, little_model.tensors(), {})
    plan = plan_for(source, quantization)
    assert failure(lambda: check(plan, requantize=False)).startswith(said)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            TensorType.Q4_1,
            "is quantized already (Q4_1) and would lose quality a second time. Use the",
        ),
        (TensorType.MXFP4, "is quantized already (MXFP4) and would lose quality a second time."),
        (99, "has tensors of a type or byte order that is not supported."),
    ],
)
def test_unsupported_sources(files: Path, kind: int, said: str) -> None:
    tensors = [Tensor("blk.0.attn_q.weight", (256, 64), TensorType.F16, 0)]
    layout = write(files / "x.gguf", little_model.KEYS, tensors, {})
    entry = layout.head.index(b"attn_q.weight") + len("attn_q.weight") + 4 + 16
    data = bytearray((files / "x.gguf").read_bytes())
    data[entry : entry + 4] = kind.to_bytes(4, "little")
    (files / "x.gguf").write_bytes(data)
    plan = plan_for(files / "x.gguf", "Q4_0")
    assert said in failure(lambda: check(plan, requantize=False))


def test_unusable_sources(little: Path, files: Path) -> None:
    norm = Tensor("output_norm.weight", (256,), TensorType.F32, 0)
    write(files / "norm.gguf", little_model.KEYS, [norm], {})
    (files / "cut.gguf").write_bytes(little.read_bytes()[:-100])
    said = {
        plan.source.name: failure(partial(check, plan, requantize=False))
        for plan in (
            plan_for(files / "norm.gguf", "Q4_0"),
            plan_for(files / "cut.gguf", "Q4_0"),
            plan_for(files / "none.gguf", "Q4_0"),
            plan_for(little, "F16", target=little),
        )
    }
    assert "has no weights to quantize" in said["norm.gguf"]
    assert "is not a GGUF model: it is cut off" in said["cut.gguf"]
    assert "does not exist" in said["none.gguf"]
    assert "is F16 already" in said[little.name]


def test_projector_and_unknown_name(files: Path) -> None:
    said = failed("quantize", str(projector(files / "mmproj-model-f16.gguf")), "Q8_0")
    assert "holds no model that can be run by itself" in said
    assert failed("quantize", "local-nothing", "Q8_0").startswith("Error: No local model")


def test_too_little_disk_space(little: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(little.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**26 + 10**6))
    check(plan_for(little, "Q2_K"), requantize=False)
    said = failure(lambda: check(plan_for(little, "Q8_0"), requantize=False))
    assert "has 0.06 GB free, and 0.07 GB are needed. Free space there." in said


@pytest.mark.parametrize(
    ("importance", "said"),
    [
        (b"an old one", "is not an importance matrix in a GGUF file: it does not begin with GGUF."),
        (
            None,
            "the importance matrix is for another model: blk.0.attn_k.weight has a different size.",
        ),
    ],
)
def test_unusable_importance_matrix(
    little: Path, files: Path, importance: bytes | None, said: str
) -> None:
    path = files / "imatrix.gguf"
    if importance is None:
        name = "blk.0.attn_k.weight"
        tensors = [
            Tensor(f"{name}.in_sum2", (64, 1), TensorType.F32, 0),
            Tensor(f"{name}.counts", (1, 1), TensorType.F32, 0),
        ]
        write(path, {}, tensors, {})
    else:
        path.write_bytes(importance)
    assert said in failure(lambda: make(plan_for(little, "Q4_0", importance=path)))
    assert left_in(models_folder()) == {".partial"}


@pytest.mark.parametrize("name", ["blk.0.attn_k.weight", "blk.7.other.weight"])
def test_sparse_importance_matrix_takes_no_memory(little: Path, files: Path, name: str) -> None:
    """Numbers that belong to no tensor of the source, or to one of another size, are not read."""
    sums, counts = (Part(f"{name}.{end}", (10**9,), F32) for end in ("in_sum2", "counts"))
    content = Content({"general.type": string("imatrix")}, (sums, counts))
    path = content.write(files / "imatrix.gguf", 8 * 10**9 + 2**20)
    command = ("/bin/sh", "-c", 'ulimit -d 2000000; exec "$@"', "sh", *ENGINE.command)
    plan = plan_for(
        little, "Q4_0", importance=path, quantizer=replace(ENGINE, title="it", command=command)
    )
    if "attn_k" in name:
        assert f"for another model: {name} has a different size" in failure(lambda: make(plan))
    else:
        assert make(plan).exists()


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (os.mkfifo, "is not a regular file. Give the path"),
        (Path.touch, "is not an importance matrix in a GGUF file: it is empty. Nothing"),
    ],
)
def test_odd_file_as_importance_matrix(
    little: Path, files: Path, put: Callable[[Path], None], said: str
) -> None:
    put(path := files / os.fsdecode(b"odd\xff"))
    shown = failure(lambda: make(plan_for(little, "Q4_0", importance=path)))
    assert f"odd\\udcff {said}" in shown


def test_row_that_is_longer_than_any(files: Path) -> None:
    shapes = {"attn_q": (256, 64), "attn_norm": (10**9,)}
    tensors = tuple(Part(f"blk.0.{name}.weight", shape, F32) for name, shape in shapes.items())
    content = Content({"general.architecture": string("llama")}, tensors)
    path = content.write(files / "wide.gguf", 4 * 10**9 + 2**20)
    said = failure(lambda: make(plan_for(path, "Q4_0")))
    assert "a row of its weights has more than 16,777,216 numbers" in said


def test_weights_that_are_not_finite(files: Path) -> None:
    name = "blk.0.attn_q.weight"
    tensors = [Tensor(name, (256, 64), TensorType.F32, 0)]
    source = files / "x.gguf"
    write(source, little_model.KEYS, tensors, {name: b"\0\0\xc0\x7f" * 256 * 64})
    said = failure(lambda: make(plan_for(source, "Q8_0")))
    assert said == (
        "The model could not be quantized: some of its weights are not finite numbers."
        " Nothing was changed."
    )
    assert left_in(models_folder()) == {".partial"}


# Complete or not at all


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_two_commands_for_one_file(little: Path) -> None:
    plan = plan_for(little, "Q4_0")
    partial_folder().mkdir(parents=True)
    with locks.exclusive(partial_folder() / f"{plan.target.name}.lock", timeout=0):
        assert failure(lambda: make(plan)).startswith("Another command is making")
    assert make(plan).exists()


def test_stopped_quantization_leaves_nothing(f16_model: Path) -> None:
    steps = run(plan_for(f16_model, "Q5_K_M"))
    assert next(steps) == Progress("Quantizing", 576 * 4, 269_100_288)
    assert left_in(partial_folder()) == {"made.Q5_K_M.gguf.part", "made.Q5_K_M.gguf.lock"}
    steps.close()
    assert left_in(partial_folder()) == set()
    assert left_in(models_folder()) == {".partial"}


def test_incomplete_result_and_killed_quantizer(little: Path, files: Path) -> None:
    short = files / "short.gguf"
    write(short, little_model.KEYS, list(little_model.tensors())[:-1], {})
    command = ("/bin/sh", "-c", f'cp {short} "$2"', "sh")
    forgetful = replace(ENGINE, title="it", command=command)
    said = failure(lambda: make(plan_for(little, "Q4_0", quantizer=forgetful)))
    assert said == "The file that it made lacks tensors of the model. Try again."
    assert left_in(models_folder()) == {".partial"}


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("kill -9 $$", "signal 9 (Killed), perhaps for lack of memory. Nothing"),
        ("kill -11 $$", "signal 11 (Segmentation fault). Nothing"),
        (
            'truncate -s 10000 "$1"; kill -7 $$',
            "signal 7 (Bus error); meanwhile {source} has changed. Nothing",
        ),
    ],
)
def test_killed_quantizer(little: Path, files: Path, does: str, said: str) -> None:
    source = files / "source.gguf"
    shutil.copy(little, source)
    dead = replace(ENGINE, title="it", command=("/bin/sh", "-c", does, "sh"))
    message = failure(lambda: make(plan_for(source, "Q4_0", quantizer=dead)))
    assert f"the quantizer was killed by {said.format(source=source)}" in message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_command(user_path: Path, f16_model: Path, number: signal.Signals) -> None:
    models = user_path / "localrun" / "models"
    models.mkdir()
    (models / f16_model.name).hardlink_to(f16_model)
    arguments = ("quantize", "local-smollm2", "Q5_K_M", "--no-measure")
    command = [sys.executable, "-m", "llm", "localrun", *arguments]
    partial = models / ".partial" / "SmolLM2-135M-Instruct.Q5_K_M.gguf.part"
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        while process.poll() is None and not partial.exists():
            time.sleep(0.01)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        process.communicate()
    assert process.returncode != 0
    assert left_in(models) == {f16_model.name, ".partial"}
    if number == signal.SIGINT:
        assert left_in(partial.parent) == set()


def test_full_disk(user_path: Path, little: Path, run_llm: Llm) -> None:
    done = run_llm(
        *("localrun", "quantize", str(little), "Q8_0", "--no-measure"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6)),
    )
    assert done.returncode == 1
    assert "Error: The model could not be quantized: [Errno 27] File too large" in done.stderr
    assert left_in(user_path / "localrun" / "models") == {".partial"}
    assert left_in(partial_folder()) == set()


# Targets


@pytest.mark.parametrize(
    ("name", "file_name"),
    [
        ("SmolLM2-135M-Instruct.F16", "SmolLM2-135M-Instruct.Q4_K_M.gguf"),
        ("Qwen3-8B-BF16", "Qwen3-8B-Q4_K_M.gguf"),
        ("Qwen3-8B", "Qwen3-8B-Q4_K_M.gguf"),
        ("Qwen3-8B.i1-Q8_0", "Qwen3-8B.Q4_K_M.gguf"),
        ("gemma-3-4b-it-UD-Q8_0", "gemma-3-4b-it-Q4_K_M.gguf"),
        ("qwen3:8b-fp16", "qwen3-8b-Q4_K_M.gguf"),
        ("hf.co/bartowski/Llama-3.2-1B-GGUF:F16", "Llama-3.2-1B-GGUF-Q4_K_M.gguf"),
        ("qwen/qwen3-8b@f16", "qwen3-8b@Q4_K_M.gguf"),
        ("nomic-embed-text-v1.5.f32", "nomic-embed-text-v1.5.Q4_K_M.gguf"),
    ],
)
def test_target_has_the_name_of_the_model(user_path: Path, name: str, file_name: str) -> None:
    target = target_for(local_model(id=name, name=name), "Q4_K_M")
    assert target == user_path / "localrun" / "models" / file_name
    assert parse_name(target.stem).words == parse_name(name).words


def test_projector_is_linked_into_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    source = little_model.build(folder / "Little-Vision-2B-F16.gguf")
    original = projector(folder / "mmproj-model-f16.gguf")
    for _ in range(2):
        done_by("quantize", str(source), "Q8_0", "--no-measure", "--replace")
    placed = models_folder() / "mmproj-Little-Vision-2B-F16.gguf"
    made = models_folder() / "Little-Vision-2B-Q8_0.gguf"
    assert left_in(models_folder()) == {made.name, placed.name, ".partial", "pulled.json"}
    assert placed.read_bytes() == original.read_bytes()
    model = models_by_path(CachePolicy.REFRESH)[str(made)]
    assert model.on_disk is not None
    assert (model.on_disk.projector, model.capabilities) == (str(placed), ("vision",))


def test_result_is_a_variant(f16_model: Path, reported: list[str]) -> None:
    models_folder().mkdir()
    (models_folder() / f16_model.name).hardlink_to(f16_model)
    command = ("quantize", "local-smollm2", "q8_0", "--no-measure")
    result = run_command(*command)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert reported[0].startswith("quantizing SmolLM2-135M-Instruct.Q8_0: ")
    assert "quantizing SmolLM2-135M-Instruct.Q8_0: 269 of 269 MB" in reported
    assert reported[-1] == "SmolLM2-135M-Instruct.Q8_0: checking the file: 145 of 145 MB"
    made = models_folder() / "SmolLM2-135M-Instruct.Q8_0.gguf"
    assert result.stdout.splitlines() == [
        f"Wrote {made} with ggml from xllamacpp",
        "                 before    after",
        "size             271 MB    145 MB",
        "bits per weight  16.00     8.51",
        "stored as        F16 100%  Q8_0 100%",
    ]
    # The name means both files; the F16 is the source again.
    assert done_by(*command).startswith(f"It exists already: {made}\n")
    by_path = models_by_path(CachePolicy.CACHED)
    source = by_path[str(models_folder() / f16_model.name)]
    assert resolve_variant(source, {"quantization": "Q8_0"}) == by_path[str(made)]


@pytest.mark.usefixtures("short")
def test_report_of_the_loss(starter_model: Path) -> None:
    said = done_by("quantize", str(starter_model), "Q2_K", "--requantize").splitlines()
    rows = [line.split("  ")[0] for line in said[2:-1]]
    assert rows == ["size", "bits per weight", "stored as", "perplexity", "same most likely token"]
    assert said[-1] == (
        "80% of the weights are in rows whose length is not a multiple of the block size of Q2_K."
        " Like llama.cpp, this gives them larger types."
    )
    kept = failed("quantize", str(starter_model), "Q8_0")
    assert "is quantized already (Q4_1) and would lose quality a second time." in kept


def test_loss_is_not_measured_without_enough_memory(
    little: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "free_ram", lambda: 10**8)
    done = run_command("quantize", str(little), "Q8_0")
    assert done.exit_code == 0, done.output
    rows = [line.split("  ")[0] for line in done.stdout.splitlines()[2:]]
    assert rows == ["size", "bits per weight", "stored as"]
    assert done.stderr.splitlines()[-1].startswith(
        f"The loss of quality was not measured: {little.stem} does not fit into the free memory"
    )


def test_result_can_be_verified_and_deleted(user_path: Path, little: Path) -> None:
    done_by("quantize", str(little), "Q8_0", "--no-measure")
    name = "local/gguf/Little-Q8_0"
    (ok, *_) = json.loads(run_command("verify", name, "--json").stdout)
    assert (ok["what"], ok["state"]) == ("SHA-256 of Little-Q8_0.gguf", "ok")
    # There are no updates for a file that was made here.
    assert done_by("outdated", "--json") == "[]\n"
    assert failed("update", name).startswith("Error: 'local/gguf/Little-Q8_0' was not pulled")
    assert done_by("rm", name).startswith(f"Deleted {name}: 1 MB freed")
    assert left_in(models_folder()) == {".partial", "pulled.json"}
    assert little.exists()


# Quantizers


@pytest.fixture(scope="session")
def ggml_index(pytestconfig: pytest.Config, guard: Guard) -> Path:
    """A folder that pip can use as an index, with ggml's package; kept in pytest's cache."""
    folder = pytestconfig.cache.mkdir("localrun") / tools.GGML_PACKAGE
    if not list(folder.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        with guard.lifted(), environment.original():
            subprocess.run([*command, "--dest", folder, tools.GGML_PACKAGE], check=True)
    return folder


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides every quantizer."""
    monkeypatch.setattr(tools, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "/nowhere")


def test_llama_quantize_is_preferred(
    little: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", put_on_path(files / "bin"))
    found = tools.find_quantizer()
    assert found is not None
    assert found.title == str(files / "bin" / "llama-quantize")
    assert {"IQ2_XXS", "TQ1_0", "MXFP4_MOE", *MIXES} - set(found.quantizations) == set()
    assert "COPY" not in found.quantizations
    plan = plan_for(little, "Q4_0", quantizer=found)
    # The last step is the record; the one before it is from the output of llama-quantize.
    assert list(run(plan))[-3] == Progress("Quantizing", 2_444_288, 2_444_288)
    assert digest(plan.target) == digest(make(plan_for(little, "Q4_0")))
    said = failure(lambda: make(plan_for(little, "IQ2_XXS", quantizer=found)))
    assert "could not be quantized: this quantization requires an imatrix!" in said
    frozen = replace(found, command=found.command[:1])
    said = failure(lambda: make(plan_for(little, "Q4_0", quantizer=frozen)))
    assert "could not be quantized: requantizing from type q4_1 is disabled." in said


def test_another_program_named_llama_quantize(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = files / "llama-quantize"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{files}:/bin")
    assert failure(tools.find_quantizer).startswith(
        f"{program} does not list the types that it can make"
    )


def test_llama_quantize_that_does_not_run(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = files / "llama-quantize"
    program.write_text("#!/nowhere/at/all\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(files))
    assert failure(tools.find_quantizer).startswith(f"{program} does not run: ")


@as_recorded
def test_install_ggml(
    user_path: Path,
    no_engine: None,
    ggml_index: Path,
    little: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert tools.find_quantizer() is None
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(ggml_index))
    installed = tools.install_quantizer()
    assert tools.find_quantizer() == installed
    assert left_in(user_path / "localrun" / "tools") == {"libggml-python-0.20.2.post1"}
    made = make(plan_for(little, "Q4_K_M", quantizer=installed))
    assert digest(made) == LITTLE["Q4_K_M", False]


def test_index_without_the_package(
    user_path: Path, no_engine: None, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(files))
    said = failure(tools.install_quantizer)
    assert said.startswith("pip could not install libggml-python==0.20.2.post1: No matching")
    assert left_in(user_path / "localrun" / "tools") == set()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            (),
            "Error: No quantizer is installed. Give --yes to install libggml-python==0.20.2.post1",
        ),
        (("--yes",), "Error: pip could not install libggml-python==0.20.2.post1: No matching"),
    ],
)
def test_installation_needs_consent(
    user_path: Path,
    no_engine: None,
    little: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert failed("quantize", str(little), "Q8_0", *arguments).startswith(said)
    assert not (user_path / "localrun" / "models").exists()
