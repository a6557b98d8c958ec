"""A build that does not run here, or whose GPU fails, hands the model on in the same command."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_localrun.chat.embed import embed
from llm_localrun.engine import failed_builds
from llm_localrun.engine.libraries import NO_INSTRUCTION
from llm_localrun.engine.state import EnginePaths, EngineState, list_running
from llm_localrun.engine.stop import stop_all
from tests.conftest import CONFIG, Invoke, configure
from tests.support.drive import WAYS, ask, failure
from tests.support.engines import (
    GPU,
    hosts,
    in_file,
    plant_build,
    stand_in,
    wait_until,
    with_gpu,
    xllamacpp_with_gpu,
)
from tests.support.models import file_route

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake llama-server is a script")


@pytest.fixture
def folder(user_path: Path) -> Iterator[Path]:
    folder = user_path / "localrun" / "engine"
    yield folder
    stop_all(folder)
    wait_until(lambda: hosts(user_path) == [])


def up(folder: Path) -> EngineState:
    (engine,) = list_running(folder)
    return engine


def lacking_an_instruction(path: Path) -> Path:
    """A build that runs until it computes."""
    counts = f"'--model' in sys.argv and open({str(path) + '.loads'!r}, 'a').write('x')"
    return stand_in(path, f"os.environ['STAND_IN_LOAD'] = 'lacks an instruction'; {counts}")


@pytest.mark.parametrize("is_named", [True, False])
def test_missing_instruction(
    is_named: bool,
    user_path: Path,
    folder: Path,
    starter_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = tmp_path / "llama-server"
    if is_named:
        configure(user_path, **CONFIG, llama_server=str(lacking_an_instruction(program)))
    else:
        program = plant_build("b11391-cpu", lacking_an_instruction).server
    assert ask(in_file(starter_model), "Hi", max_tokens=2).output == 2
    assert up(folder).build.startswith("xllamacpp ")
    (said,) = capsys.readouterr().err.splitlines()
    name = f"{starter_model.stem} runs with {up(folder).build}"
    assert said.endswith(f"uses instructions that this CPU lacks, so {name}.")
    stop_all(folder)
    # Never again, and without a word.
    ask(in_file(starter_model), "Hi", max_tokens=1)
    assert Path(f"{program}.loads").read_text() == "x"
    assert capsys.readouterr().err == ""


def test_missing_instruction_of_the_only_build(
    user_path: Path,
    folder: Path,
    starter_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llm_localrun.engine.build_probe._xllamacpp", lambda: None)
    program = lacking_an_instruction(tmp_path / "llama-server")
    configure(user_path, **CONFIG, llama_server=str(program))
    for _ in range(2):
        said = failure(lambda: ask(in_file(starter_model), "Hi"))
        assert "(signal 4: Illegal instruction) while it loaded" in said


@pytest.mark.parametrize(
    ("load", "what"),
    [
        ("lost device", "The GPU failed with {} (device lost)"),
        (
            "no memory of a GPU",
            "The GPU's memory failed with {} (out of memory)",
        ),
        ("crashes", "The GPU failed with {} (Segmentation fault)"),
        (
            "loses device later",
            "The GPU failed with {} (device lost)",
        ),
    ],
)
@pytest.mark.parametrize("way", [WAYS[0], WAYS[1]])
def test_gpu_that_fails(
    load: str,
    what: str,
    way: str,
    folder: Path,
    starter_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plant_build("b11391-cuda", lambda path: with_gpu(path, load))
    outcome = ask(in_file(starter_model), "Hi", way, max_tokens=2)
    assert outcome.output == 2
    assert not up(folder).has_gpu
    assert up(folder).build == "llama-server b11391-cuda"
    assert capsys.readouterr().err == (
        f"{what.format(up(folder).build)}, so {starter_model.stem} runs on the CPU.\n"
    )
    stop_all(folder)
    ask(in_file(starter_model), "Hi", way, max_tokens=1)
    assert capsys.readouterr().err == ""


def test_embedding_on_a_gpu_that_fails(
    folder: Path, embedding_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant_build("b11391-cuda", lambda path: with_gpu(path, "loses device later"))
    model = in_file(embedding_model, 512).model_copy(update={"purpose": "embedding"})
    assert len([*embed(model, file_route(model), ["a", "b"], None)]) == 2
    assert capsys.readouterr().err.endswith("runs on the CPU.\n")


@pytest.mark.parametrize("load", ["lost device", "crashes"])
def test_layers_that_the_user_wants_on_the_gpu(
    load: str, folder: Path, starter_model: Path
) -> None:
    plant_build("b11391-cuda", lambda path: with_gpu(path, load))
    for _ in range(2):
        said = failure(lambda: ask(in_file(starter_model), "Hi", gpu_layers=99))
        assert "device lost" in said or "Segmentation fault" in said
    assert not (folder.parent / "failed-builds.json").exists()


def test_another_gpu_build_is_next(
    folder: Path, starter_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant_build("b11391-cuda", lambda path: with_gpu(path, "lost device"))
    plant_build("b11390-vulkan", with_gpu)
    ask(in_file(starter_model), "Hi", max_tokens=1)
    assert up(folder).build == "llama-server b11390-vulkan"
    assert up(folder).has_gpu
    assert "runs with llama-server b11390-vulkan.\n" in capsys.readouterr().err


def test_file_that_crashes_everywhere(
    user_path: Path, folder: Path, starter_model: Path, tmp_path: Path
) -> None:
    """The GPU is not to blame, and stays in use."""
    program = stand_in(
        tmp_path / "llama-server",
        "os.environ['STAND_IN_DEVICES'] = '  CUDA0: A GPU (9 MiB, 9 MiB free)';"
        "os.environ['STAND_IN_LOAD'] = 'crashes'",
    )
    configure(user_path, **CONFIG, llama_server=str(program))
    assert "Segmentation fault" in failure(lambda: ask(in_file(starter_model), "Hi"))
    assert failed_builds._read() == []


def test_split_and_build_are_shown(
    user_path: Path, folder: Path, starter_model: Path, invoke: Invoke
) -> None:
    build = plant_build("b11391-cuda", lambda path: with_gpu(path, "offloads"))
    (user_path / "localrun" / "models").mkdir()
    file = user_path / "localrun" / "models" / starter_model.name
    file.symlink_to(starter_model)
    assert invoke("-m", str(file), "-o", "max_tokens", "1", "Hi").exit_code == 0
    engine = up(folder)
    assert (engine.offloaded, engine.layers) == (20, 31)
    assert engine.build_path == str(build.server)
    log = EnginePaths(folder, engine.id).log.read_text()
    assert log.startswith(f"llm-localrun runs llama-server b11391-cuda: {build.server}\n")
    shown = invoke("localrun", "ps").stdout
    assert "b11391-cuda" in shown.split()
    assert "llama-server" not in shown
    shown = invoke("localrun", "show", f"local/gguf/{starter_model.stem}").stdout
    assert "holds 20 of 31 layers now; the CPU computes the others" in shown


@pytest.mark.parametrize(
    ("load", "what"),
    [
        ("metal error", "The GPU failed with {} (metal error)"),
        ("no memory", "The GPU's memory failed with {} (failed to allocate buffer"),
    ],
)
def test_xllamacpp_whose_gpu_fails(
    load: str,
    what: str,
    folder: Path,
    starter_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    xllamacpp_with_gpu(tmp_path / "site-packages", load, monkeypatch)
    ask(in_file(starter_model), "Hi", max_tokens=1)
    assert not up(folder).has_gpu
    said = capsys.readouterr().err
    assert what.format(up(folder).build) in said
    assert said.endswith(f"so {starter_model.stem} runs on the CPU.\n")
    stop_all(folder)
    ask(in_file(starter_model), "Hi", max_tokens=1)
    assert capsys.readouterr().err == ""


def test_xllamacpp_with_a_gpu(
    folder: Path, starter_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not probed for that."""
    xllamacpp_with_gpu(tmp_path / "site-packages", "offloads", monkeypatch)
    ask(in_file(starter_model), "Hi", max_tokens=1)
    assert (up(folder).has_gpu, up(folder).layers) == (True, 31)
    assert not (folder.parent / "builds.json").exists()
    stop_all(folder)
    ask(in_file(starter_model), "Hi", max_tokens=1, gpu_layers=0)
    assert (up(folder).has_gpu, up(folder).layers) == (False, 0)


def test_record_that_cannot_be_written(
    folder: Path, starter_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is not loaded again and again."""
    xllamacpp_with_gpu(tmp_path / "site-packages", "metal error", monkeypatch)
    monkeypatch.setattr(failed_builds, "_write", lambda _failures: None)
    assert "metal error" in failure(lambda: ask(in_file(starter_model), "Hi"))


def test_no_layers_on_the_gpu(folder: Path, starter_model: Path, tmp_path: Path) -> None:
    """The device does not compute anything then, so its failures do not matter."""
    plant_build("b11391-cuda", lambda path: with_gpu(path, "lost device"))
    ask(in_file(starter_model), "Hi", max_tokens=1, gpu_layers=0)
    assert not up(folder).has_gpu
    assert not (folder.parent / "failed-builds.json").exists()


def test_gpu_that_hangs(
    folder: Path, starter_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant_build("b11391-cuda", lambda path: with_gpu(path, "silent"))
    ask(in_file(starter_model), "Hi", max_tokens=1, timeout=1)
    assert not up(folder).has_gpu
    assert "(it made no progress for 1 s), so" in capsys.readouterr().err


def test_gpu_that_is_lost_after_the_first_word(folder: Path, starter_model: Path) -> None:
    plant_build("b11391-cuda", lambda path: with_gpu(path, "loses device while it answers"))
    said = failure(lambda: ask(in_file(starter_model), "Hi"))
    assert said == (
        f"The engine ended while it ran {starter_model}: the GPU failed (device lost)."
        f" Try again: {starter_model.stem} will run on the CPU."
    )
    ask(in_file(starter_model), "Hi", max_tokens=1)
    assert not up(folder).has_gpu


def test_file_that_crashes_all_builds(folder: Path, starter_model: Path) -> None:
    """None of them is to blame."""
    crashes = f"os.environ['STAND_IN_DEVICES'] = {GPU!r}; os.environ['STAND_IN_LOAD'] = 'crashes'"
    for name in ("b11391-cuda", "b11390-vulkan"):
        plant_build(name, lambda path: stand_in(path, crashes))
    assert "Segmentation fault" in failure(lambda: ask(in_file(starter_model), "Hi"))
    assert failed_builds._read() == []


@pytest.mark.parametrize(("load", "is_kept"), [("killed", True), ("bad tensor", False)])
def test_missing_instruction_and_another_failure(
    load: str, is_kept: bool, user_path: Path, folder: Path, starter_model: Path
) -> None:
    """Only a failure of the file refutes that the first build lacks an instruction."""
    plant_build("b11391-cpu", lacking_an_instruction)
    plant_build(
        "b11390-cpu", lambda path: stand_in(path, f"os.environ['STAND_IN_LOAD'] = {load!r}")
    )
    failure(lambda: ask(in_file(starter_model), "Hi"))
    assert bool(failed_builds._read()) is is_kept


def test_adapter_in_a_folder_with_the_name_of_an_interface(
    folder: Path, starter_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = tmp_path / "cuda-loras" / "adapter.gguf"
    adapter.parent.mkdir()
    shutil.copy(starter_model, adapter)
    plant_build("b11391-cuda", lambda path: with_gpu(path, "bad adapter, named"))
    said = failure(lambda: ask(in_file(starter_model), "Hi", lora=str(adapter)))
    assert "failed to load lora adapter" in said
    assert capsys.readouterr().err == ""


def test_failed_gpu_is_shown(
    user_path: Path, folder: Path, starter_model: Path, invoke: Invoke
) -> None:
    plant_build("b11391-cuda", lambda path: with_gpu(path, "lost device"))
    (user_path / "localrun" / "models").mkdir()
    file = user_path / "localrun" / "models" / starter_model.name
    file.symlink_to(starter_model)
    assert invoke("-m", str(file), "-o", "max_tokens", "1", "Hi").exit_code == 0
    problem = "its GPU failed: device lost"
    shown = invoke("localrun", "show", f"local/gguf/{starter_model.stem}").stdout
    assert f"not used now: {problem}" in shown
    (engine,) = json.loads(invoke("localrun", "ps", "--json").stdout)
    assert engine["gpu_problem"] == problem
    assert problem in invoke("localrun", "ps").stdout
    assert problem in invoke("localrun", "engine", "list").stdout
    doctor = " ".join(invoke("localrun", "doctor").stdout.split())
    assert f"{problem} Update its driver. To try it again: llm localrun engine use auto" in doctor
    invoke("localrun", "engine", "use", "auto")
    assert problem not in invoke("localrun", "engine", "list").stdout


def test_reason_is_not_the_name_of_the_folder(
    folder: Path, starter_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path of a build can hold the word cuda."""
    ended: Callable[[Path], Path] = lambda path: with_gpu(path, "exits")  # noqa: E731
    plant_build("b11391-cuda", ended)
    assert "the engine exited with status 3" in failure(lambda: ask(in_file(starter_model), "Hi"))
    assert capsys.readouterr().err == ""
    assert NO_INSTRUCTION not in str(failed_builds._read())
