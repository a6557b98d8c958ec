"""A file that cannot be loaded gives its names to one that can be loaded."""

import json
import shutil
from pathlib import Path

import pytest

from llm_localrun.engine.build_logs import blames_model
from llm_localrun.files.failed_loads import FailedLoads
from llm_localrun.models import OnDisk
from tests.conftest import CONFIG, Llm, configure
from tests.support.drive import ask, failure
from tests.support.engines import ENDLESS_TEMPLATE, in_file, number_value, patched, text_value
from tests.support.hostile_files import source, string

REASON = "unknown model architecture: 'lamma'"
PROBLEM = f"llama.cpp cannot load it: {REASON}"
FIRST = "SmolLM2-135M-Instruct-Q4_K_M"
"""A name that comes first for its quantization."""


def problem_of(path: Path) -> str:
    return FailedLoads().problem_of(OnDisk(path=str(path)))


def of_unknown_architecture(source: Path, target: Path) -> Path:
    return patched(source, target, "general.architecture", text_value(b"lamma"))


def folder_with_a_whole_file(user_path: Path, starter_model: Path, tmp_path: Path) -> Path:
    """A configured folder, in which another file would come first."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "SmolLM2-135M-Instruct-Q4_1.gguf").hardlink_to(starter_model)
    configure(user_path, **CONFIG, folders=[str(folder)])
    return folder


def test_names_after_a_failed_load(
    user_path: Path, starter_model: Path, tmp_path: Path, run_llm: Llm
) -> None:
    """With the real command: for each of its routes, and until the file has changed."""
    folder = folder_with_a_whole_file(user_path, starter_model, tmp_path)
    bad = of_unknown_architecture(starter_model, folder / f"{FIRST}.gguf")
    prompt = ("hi", "-o", "max_tokens", "1")
    error = f"Error: llama.cpp cannot load {bad}: {REASON}. "

    assert run_llm("-m", "local", *prompt).stderr.startswith(error)
    assert run_llm("-m", "local", *prompt).returncode == 0
    assert run_llm("-m", f"local/gguf/{FIRST}", *prompt).stderr.startswith(error)
    assert run_llm("-m", str(bad), *prompt).stderr.startswith(error)

    which = run_llm("localrun", "which", "local")
    assert "can run now (the next: llama.cpp cannot load it)" in which.stdout
    last = which.stdout.splitlines()[-1]
    assert last.startswith(f"local/gguf/{FIRST}  last, but llama.cpp cannot load it  ")
    assert which.stderr == f"{bad}: {PROBLEM}\n"
    assert PROBLEM in run_llm("localrun", "show", f"local/gguf/{FIRST}").stdout
    doctor = json.loads(run_llm("localrun", "doctor", "--json").stdout)
    (finding,) = [each for each in doctor["findings"] if each.get("problem") == PROBLEM]
    assert finding["path"] == str(bad)
    assert finding["advice"].endswith(f"llm -m local/gguf/{FIRST}")
    (models,) = [each["can_run"] for each in doctor["findings"] if each["section"] == "models"]
    assert models == ["local/gguf/SmolLM2-135M-Instruct-Q4_1"]

    bad.write_bytes(starter_model.read_bytes())
    assert run_llm("localrun", "refresh").returncode == 0
    first, *_ = json.loads(run_llm("localrun", "which", "local", "--json").stdout)
    assert (first["id"], first["obstacle"]) == (f"local/gguf/{FIRST}", "")


def test_names_beside_a_file_that_is_cut_off(
    user_path: Path, starter_model: Path, tmp_path: Path, run_llm: Llm
) -> None:
    """With the real command: a download that broke off under its final name."""
    folder = folder_with_a_whole_file(user_path, starter_model, tmp_path)
    bad = folder / f"{FIRST}.gguf"
    bad.write_bytes(starter_model.read_bytes()[:60_000_000])
    prompt = ("hi", "-o", "max_tokens", "1")
    problem = "it is cut off: 60,000,000 bytes of at least 98,362,432"

    assert run_llm("-m", "local", *prompt).returncode == 0
    for name in (f"local/gguf/{FIRST}", str(bad)):
        said = run_llm("-m", name, *prompt).stderr
        assert said.startswith(f"Error: {bad} ")
        assert f": {problem}. Download it again, or choose another file." in said
    alias = "local-smollm2-135m-instruct-q4-k-m"
    would_be = f"Error: {alias} would be local/gguf/{FIRST}, whose file cannot be loaded: {problem}"
    assert run_llm("-m", alias, *prompt).stderr.startswith(f"{would_be}. Download it again, ")
    which = run_llm("localrun", "which", "local")
    assert FIRST not in which.stdout
    assert which.stderr == ""
    assert problem in run_llm("localrun", "show", f"local/gguf/{FIRST}").stdout
    assert f"! {bad}: {problem}\n" in run_llm("localrun", "doctor").stdout


def test_load_that_succeeds_after_all(user_path: Path, starter_model: Path) -> None:
    """For example because llama.cpp is newer now."""
    FailedLoads().add(str(starter_model), PROBLEM)
    assert problem_of(starter_model) == PROBLEM
    assert ask(in_file(starter_model), "Hi", max_tokens=1).output == 1
    assert problem_of(starter_model) == ""


@pytest.mark.parametrize(
    ("key", "value", "folder", "problem"),
    [
        ("llama.block_count", number_value(0), "m", "llama.cpp cannot load it: "),
        ("tokenizer.chat_template", ENDLESS_TEMPLATE, "m", "llama.cpp did not finish: it ran the "),
        # A word that stands for another cause in llama.cpp's errors.
        ("general.architecture", text_value(b"lamma"), "metal", "llama.cpp cannot load it: "),
    ],
)
def test_failures_of_which_the_file_is_the_cause(
    user_path: Path,
    starter_model: Path,
    tmp_path: Path,
    key: str,
    value: bytes,
    folder: str,
    problem: str,
) -> None:
    (tmp_path / folder).mkdir()
    file = patched(starter_model, tmp_path / folder / "hostile.gguf", key, value)
    assert failure(lambda: ask(in_file(file), "Hi", max_tokens=1, timeout=1))
    assert problem_of(file).startswith(problem)


def test_header_that_is_damaged_is_remembered(
    user_path: Path, starter_model: Path, tmp_path: Path
) -> None:
    """The scan reads only the beginning of a header; loading a file reads all of it."""
    file = tmp_path / "damaged.gguf"
    content = bytearray(starter_model.read_bytes())
    at = content.index(b"tokenizer.ggml.tokens") + 200
    content[at : at + 100_000] = b"\xff" * 100_000
    file.write_bytes(content)
    assert "is not a GGUF model" in failure(lambda: ask(in_file(file), "Hi", max_tokens=1))
    assert problem_of(file).startswith("it is not a GGUF model: ")


def test_file_that_is_gone_leaves_its_name_to_the_next(
    user_path: Path, starter_model: Path, tmp_path: Path, run_llm: Llm
) -> None:
    for name in ("SmolLM2-135M-Instruct-Q4_1.gguf", f"{FIRST}.gguf"):
        shutil.copy(starter_model, tmp_path / name)
    configure(user_path, **CONFIG, folders=[str(tmp_path)])
    prompt = ("-m", "local", "hi", "-o", "max_tokens", "1")
    assert run_llm(*prompt).returncode == 0
    (tmp_path / f"{FIRST}.gguf").unlink()
    assert f"{FIRST}.gguf" in run_llm(*prompt).stderr
    assert run_llm(*prompt).returncode == 0


@pytest.mark.parametrize(
    ("option", "what"), [("lora", "the adapter"), ("draft_model", "the draft model")]
)
def test_failure_of_an_adapter_is_not_that_of_the_model(
    user_path: Path, starter_model: Path, tmp_path: Path, option: str, what: str
) -> None:
    other = source(starter_model).having({"general.architecture": string("none")})
    path = other.write(tmp_path / "other.gguf")
    message = failure(
        lambda: ask(in_file(starter_model), "Hi", max_tokens=1, **{option: str(path)})
    )
    assert message.startswith(f"llama.cpp cannot load {starter_model} with {what} {path}: ")
    assert problem_of(starter_model) == ""


@pytest.mark.parametrize(
    ("error", "is_blamed"),
    [
        ("0.1 E llama_model_load: error loading model: missing tensor 'x'\n", True),
        ("0.1 E llama_model_load: error loading model: unknown model architecture: 'x'\n", True),
        ("/src/llama-model.cpp:12: GGML_ASSERT(hparams.n_layer > 0) failed\n", True),
        ("0.1 E llama_model_load: error loading model: unable to allocate CPU buffer\n", False),
        ("0.1 E llama_model_load: error loading model: std::bad_alloc\n", False),
        ("0.1 E ggml_cuda: error loading model: CUDA error: out of memory\n", False),
        ("/src/ggml.c:12: GGML_ASSERT(buffer) failed\n", True),
    ],
)
def test_logs_that_blame_the_file(error: str, is_blamed: bool) -> None:
    assert blames_model(f"0.0 I srv    load_model: loading model '/m.gguf'\n{error}") == is_blamed
    # It had not begun to load.
    assert not blames_model(error)
