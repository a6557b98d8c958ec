"""`llm localrun pull` from a hub and from the web, over real sockets with the real client."""

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm_localrun.gguf.header import read_summary
from llm_localrun.memory.fit import MARGIN_BYTES
from llm_localrun.memory.footprint import Footprint, Setting
from llm_localrun.memory.geometry import geometry_of
from llm_localrun.pull import download
from tests.conftest import CONFIG, Llm, configure
from tests.fakes.http_server import StandIn, json_reply, whole
from tests.fakes.hub import COMMIT, TOO_MANY, Hub, model, sha256
from tests.support.memory import leave_for_a_model
from tests.support.pulling import Q4, Q8, REPO, World, done, failed, run


def ranges(server: StandIn) -> list[str | None]:
    """The ranges that were requested, without those for the header of a file."""
    asked = [request.headers.get("range") for request in server.requests]
    return [each for each in asked if each != "bytes=0-262143"]


# REFs


IN_REPO = f"{REPO}/Tiny-1B-"


@pytest.mark.parametrize(
    ("arguments", "file", "ref"),
    [
        ((REPO,), "Q4_K_M.gguf", f"hf:{REPO}:Q4_K_M"),
        ((f"{REPO}:Q8_0",), "Q8_0.gguf", f"hf:{REPO}:Q8_0"),
        ((f"hf:{REPO}:q8_0",), "Q8_0.gguf", f"hf:{REPO}:Q8_0"),
        ((f"hf:{REPO}@{COMMIT}", "-q", "q8_0"), "Q8_0.gguf", f"hf:{REPO}@{COMMIT}:Q8_0"),
        ((REPO, "-q", "q8_0", "--quiet"), "Q8_0.gguf", f"hf:{REPO}:Q8_0"),
        ((f"hf:{IN_REPO}Q8_0.gguf",), "Q8_0.gguf", f"hf:{IN_REPO}Q8_0.gguf"),
        (
            (f"https://huggingface.co/{REPO}/resolve/main/Tiny-1B-Q8_0.gguf",),
            "Q8_0.gguf",
            f"hf:{IN_REPO}Q8_0.gguf",
        ),
    ],
)
def test_ref_to_a_hub(world: World, arguments: tuple[str, ...], file: str, ref: str) -> None:
    said = done("pull", *arguments)
    path = world.models / f"{IN_REPO}{file}"
    assert said == f"Ready: {path}\nTry it: llm -m local-tiny-1b 'Name the primary colors'\n"
    assert world.there == {f"{IN_REPO}{file}": world.hub.files[f"Tiny-1B-{file}"]}
    assert world.unfinished == []
    (noted,) = world.records
    assert (noted["ref"], noted["commit"]) == (ref, COMMIT)
    assert noted["files"][0]["sha256"] == sha256(path.read_bytes())


def test_requests_to_the_hub(world: World) -> None:
    done("pull", REPO)
    resolve = f"/{REPO}/resolve/{COMMIT}/Tiny-1B-Q4_K_M.gguf"
    assert [request.path for request in world.at_hub.requests] == [
        f"/api/models/{REPO}/revision/main?blobs=true",
        resolve,
        resolve,
    ]
    assert ranges(world.at_files) == [f"bytes=0-{len(Q4) - 1}"]


def test_address(world: World) -> None:
    world.files.content = {"some where/x.gguf": Q4}
    url = f"{world.at_files.url}/some%20where/x.gguf?key=1"
    done("pull", url)
    assert world.there == {"127.0.0.1/x.gguf": Q4}
    assert world.records[0]["ref"] == url


def test_split_parts_and_projector(world: World) -> None:
    parts = {f"UD-Q4_K_XL/Big-UD-Q4_K_XL-0000{n}-of-00003.gguf": model(f"{n}") for n in (1, 2, 3)}
    projector = {"mmproj-F16.gguf": model("f16"), "mmproj-F32.gguf": model("f32")}
    others = {"UD-Q4_K_XL/Big-UD-Q2_K_XL-00001-of-00002.gguf": model("half"), "imatrix.gguf": Q8}
    world.offer(**parts, **projector, **others)
    said = json.loads(done("pull", f"{REPO}:Q4_K_XL", "--json", "--quiet"))
    folder = f"{REPO}/UD-Q4_K_XL"
    there = {**parts, "UD-Q4_K_XL/mmproj-F16.gguf": projector["mmproj-F16.gguf"]}
    assert world.there == {f"{REPO}/{path}": data for path, data in there.items()}
    assert [file["path"] for file in said["files"]] == [
        *(f"{folder}/Big-UD-Q4_K_XL-0000{n}-of-00003.gguf" for n in (1, 2, 3)),
        f"{folder}/mmproj-F16.gguf",
    ]
    assert said["id"] == "local/gguf/Big-UD-Q4_K_XL"


def test_complete_file_is_not_downloaded_again(world: World) -> None:
    done("pull", f"{REPO}:Q8_0")
    before = len(ranges(world.at_files))
    assert done("pull", f"{REPO}:Q8_0").startswith("Ready: ")
    assert len(ranges(world.at_files)) == before


def test_unchanged_address_is_not_downloaded_again(world: World) -> None:
    world.files.content = {"x.gguf": Q4}
    for _ in range(2):
        done("pull", f"{world.at_files.url}/x.gguf")
    assert ranges(world.at_files) == ["bytes=0-0", f"bytes=0-{len(Q4) - 1}", "bytes=0-0"]


def test_damaged_file_is_downloaded_again(world: World) -> None:
    done("pull", f"{REPO}:Q8_0")
    path = world.models / f"{IN_REPO}Q8_0.gguf"
    path.write_bytes(bytes(len(Q8)))
    done("pull", f"{REPO}:Q8_0")
    assert path.read_bytes() == Q8


def test_same_file_in_the_hub_cache_is_used(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub" / "models--tiny-org--Tiny-1B-GGUF"
    link = cached / "snapshots" / COMMIT / "Tiny-1B-Q4_K_M.gguf"
    blob = cached / "blobs" / sha256(Q4)
    for path in (link, blob):
        path.parent.mkdir(parents=True)
    blob.write_bytes(Q4)
    link.symlink_to(blob)
    assert done("pull", REPO).startswith(f"Ready: {link}\n")
    assert (world.there, ranges(world.at_files)) == ({}, [])


# Variants


@pytest.mark.parametrize(
    ("megabytes", "settings", "chosen"),
    [
        (2000, {}, "Q4_K_M"),
        (2000, {"quantization": "Q8_0"}, "Q8_0"),
        (325, {}, "Q2_K"),
        (None, {}, "Q4_K_M"),
    ],
)
def test_default_variant_fits(
    world: World,
    user_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    megabytes: float | None,
    settings: dict[str, str],
    chosen: str,
) -> None:
    """With 8,192 tokens of context, the model needs 322 MB besides its weights, 256 MiB of which
    stay free."""
    if megabytes is None:
        monkeypatch.setattr("llm_localrun.memory.machine.physical_memory", lambda: None)
    else:
        leave_for_a_model(monkeypatch, int(megabytes * 1e6))
    configure(user_path, **CONFIG, **settings)
    sizes = {"Q2_K": 1_000_000, "Q4_K_M": 9_000_000, "Q8_0": 12_000_000}
    world.offer(**{f"Tiny-1B-{name}.gguf": model(name, size) for name, size in sizes.items()})
    result = run("pull", REPO)
    assert list(world.there) == [f"{IN_REPO}{chosen}.gguf"], result.output


def test_variants_are_shown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 tokens of context need 320 KiB: 64 in the cache, 256 in the mask for a batch."""
    footprint = Footprint(geometry_of(read_summary(io.BytesIO(Q4))), len(Q4))
    enough = footprint.need(Setting(16_384)).total + MARGIN_BYTES
    leave_for_a_model(monkeypatch, enough)
    assert [line.split() for line in run("pull", REPO).stderr.splitlines()[:3]] == [
        ["quantization", "size", "fits", "max", "context"],
        ["Q4_K_M", "1", "MB", "yes", "16,384", "chosen"],
        ["Q8_0", "2", "MB", "yes", "15,360"],
    ]


def test_nothing_fits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_for_a_model(monkeypatch, 3 * 10**8)
    assert failed("pull", REPO) == (
        f"Error: No variant of {REPO} fits the memory of this machine: the smallest has 0.0 GB."
        f" To get it anyway: `llm localrun pull hf:{IN_REPO}Q4_K_M.gguf`."
    )
    assert world.there == {}
    path = world.models / f"{IN_REPO}Q4_K_M.gguf"
    assert done("pull", REPO, "-q", "Q4_K_M") == (
        f"Downloaded: {path}\n"
        "It does not fit into the 0.3 GB that a model may take on this machine."
        " See which models fit: `llm localrun recommend`.\n"
    )


def test_ready_is_said_of_what_can_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_localrun.engine.build_probe._xllamacpp", lambda: None)
    monkeypatch.setenv("PATH", "")
    path = world.models / f"{IN_REPO}Q4_K_M.gguf"
    for _ in range(2):
        assert done("pull", REPO) == (
            f"Downloaded: {path}\n"
            "GGUF files need the engine, which is not installed."
            " Install it with `llm install 'llm-localrun[gguf]'`.\n"
        )
    problem = json.loads(done("pull", REPO, "--json"))["problem"]
    assert problem == "GGUF files need the engine, which is not installed"


def test_projector_alone_is_not_ready(world: World) -> None:
    world.offer(**{"mmproj-F16.gguf": model("f16")})
    said = done("pull", f"hf:{REPO}/mmproj-F16.gguf")
    assert said == f"Downloaded: {world.models / REPO / 'mmproj-F16.gguf'}\n"


# Interruptions


@pytest.mark.parametrize("at", [1, 100, 4096, 65_535, 65_536, 65_537, 400_000, 800_001, -2, -1])
def test_interrupted_download_resumes(
    world: World, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(download, "_MAX_TRIES", 1)
    at %= len(Q8)
    world.files.cuts = [2**18, at]
    said = failed("pull", f"{REPO}:Q8_0")
    assert said.endswith("Interrupted downloads resume: run the same command again.")
    assert world.there == {}
    (half,) = world.unfinished
    assert half.read_bytes() == Q8[:at]
    done("pull", f"{REPO}:Q8_0")
    assert world.there == {f"{IN_REPO}Q8_0.gguf": Q8}
    end = len(Q8) - 1
    assert ranges(world.at_files) == [f"bytes=0-{end}", f"bytes={at}-{end}"]


def test_broken_connection_is_retried(world: World) -> None:
    world.files.cuts = [2**18, 10_000, 0, 700_000, 0, 0]
    done("pull", f"{REPO}:Q8_0")
    assert world.there == {f"{IN_REPO}Q8_0.gguf": Q8}
    starts = [0, 10_000, 10_000, 710_000, 710_000, 710_000]
    assert ranges(world.at_files) == [f"bytes={start}-{len(Q8) - 1}" for start in starts]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_process(
    world: World, user_path: Path, run_llm: Llm, number: signal.Signals
) -> None:
    world.files.pause = 0.02
    command = [sys.executable, "-m", "llm", "localrun", "pull", f"{REPO}:Q8_0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        partial = world.models / ".partial"
        while process.poll() is None and not any(p.stat().st_size for p in partial.glob("*.part")):
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate()
    assert world.there == {}
    if number == signal.SIGINT:
        assert said.endswith(
            b"Interrupted downloads resume: run the same command again.\n\nAborted!\n"
        )
    world.files.pause = 0.0
    again = run_llm("localrun", "pull", f"{REPO}:Q8_0")
    assert again.returncode == 0, again.stderr
    assert world.there == {f"{IN_REPO}Q8_0.gguf": Q8}
    begun = ranges(world.at_files)[-1]
    assert begun is not None
    assert not begun.startswith("bytes=0-")


def test_large_file_takes_several_requests(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_MAX_REQUEST_BYTES", 1_000_000)
    done("pull", f"{REPO}:Q8_0")
    assert world.there == {f"{IN_REPO}Q8_0.gguf": Q8}
    assert ranges(world.at_files) == [
        *("bytes=0-999999", "bytes=1000000-1999999", f"bytes=2000000-{len(Q8) - 1}")
    ]


@pytest.mark.parametrize(
    ("ranges_", "etags", "changes", "starts"),
    [
        (True, True, False, ["bytes=0-", "bytes=700000-"]),
        # The request is for the rest of the old file; the reply is the whole new one.
        (True, True, True, ["bytes=0-", "bytes=0-"]),
        (False, True, False, ["bytes=0-", "bytes=700000-"]),
        (True, False, False, ["bytes=0-", "bytes=0-"]),
    ],
)
def test_address_is_resumed_if_the_file_is_the_same(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    ranges_: bool,
    etags: bool,
    changes: bool,
    starts: list[str],
) -> None:
    monkeypatch.setattr(download, "_MAX_TRIES", 1)
    world.files.ranges, world.files.etags = ranges_, etags
    world.files.content = {"x.gguf": Q8}
    world.files.cuts = [1, 700_000]
    url = f"{world.at_files.url}/x.gguf"
    failed("pull", url)
    now = model("other", 2_400_000) if changes else Q8
    world.files.content = {"x.gguf": now}
    done("pull", url)
    assert world.there == {"127.0.0.1/x.gguf": now}
    asked = [each for each in ranges(world.at_files) if each != "bytes=0-0"]
    assert [str(each).rstrip("0123456789") for each in asked] == starts


def test_two_pulls_at_once_share_one_download(world: World) -> None:
    world.files.pause = 0.02
    command = [sys.executable, "-m", "llm", "localrun", "pull", f"{REPO}:Q8_0"]
    pulls = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    outcomes = [(pull.communicate(), pull.returncode) for pull in pulls]
    assert [code for _, code in outcomes] == [0, 0], outcomes
    assert ranges(world.at_files) == [f"bytes=0-{len(Q8) - 1}"]
    assert b"waiting" not in outcomes[0][0][1] + outcomes[1][0][1]
    assert world.there == {f"{IN_REPO}Q8_0.gguf": Q8}


# Refusals


def nothing_left(world: World) -> bool:
    return (
        world.there == {} and world.unfinished == [] and not (world.models / "pulled.json").exists()
    )


@pytest.mark.parametrize(
    ("data", "lie", "said"),
    [
        (Q4, "f" * 64, "The SHA-256 of Tiny-1B-Q4_K_M.gguf is wrong: it was damaged"),
        (
            b"PK\3\4" + bytes(1_000_000),
            "",
            "is not a usable GGUF file: it does not begin with GGUF",
        ),
        (Q4[:-1], "", "is not a usable GGUF file: it is cut off"),
    ],
)
def test_bad_content_is_deleted(world: World, data: bytes, lie: str, said: str) -> None:
    world.offer(q4=data)
    world.hub.lies = {"Tiny-1B-Q4_K_M.gguf": lie} if lie else {}
    assert said in failed("pull", f"{REPO}:Q4_K_M")
    assert nothing_left(world)


def test_expected_hash_of_an_address(world: World) -> None:
    world.files.content = {"x.gguf": Q4}
    url = f"{world.at_files.url}/x.gguf#sha256="
    assert "The SHA-256 of x.gguf is wrong" in failed("pull", url + "0" * 64)
    assert nothing_left(world)
    done("pull", url + sha256(Q4))
    assert world.there == {"127.0.0.1/x.gguf": Q4}


@pytest.mark.parametrize("size", [len(Q4) - 100, len(Q4) + 100])
def test_wrong_size(world: World, size: int) -> None:
    world.files.content[sha256(Q4)] = Q4.ljust(size, b"x")[:size]
    assert f"sends {size:,} bytes, but the file should have {len(Q4):,}" in failed("pull", REPO)
    assert nothing_left(world)


@pytest.mark.parametrize(
    "path",
    [
        "../../../evil-Q4_K_M.gguf",
        "/tmp/evil-Q4_K_M.gguf",
        "a/../../evil-Q4_K_M.gguf",
        "..\\evil-Q4_K_M.gguf",
        "C:\\evil-Q4_K_M.gguf",
        "CON/evil-Q4_K_M.gguf",
        "LPT1.evil-Q4_K_M.gguf",
        "\x1b[2Jevil-Q4_K_M.gguf",
    ],
)
def test_unsafe_names(world: World, tmp_path: Path, path: str) -> None:
    world.offer(**{path: Q4})
    before = set(tmp_path.rglob("*"))
    for ref in (REPO, f"{REPO}:Q4_K_M"):
        assert f"{REPO} holds no GGUF files" in failed("pull", ref)
    left = {p.name for p in set(tmp_path.rglob("*")) - before}
    assert left <= {"builds.json", "catalogue.json", "names.json"}


def test_link_out_of_the_models_folder(world: World, tmp_path: Path) -> None:
    world.models.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (world.models / "tiny-org").symlink_to(outside)
    assert "leads out of" in failed("pull", REPO)
    assert list(outside.iterdir()) == []


def test_models_folder_is_a_link(world: World, tmp_path: Path) -> None:
    (tmp_path / "large-disk").mkdir()
    world.models.symlink_to(tmp_path / "large-disk")
    done("pull", REPO)
    assert (tmp_path / "large-disk" / f"{IN_REPO}Q4_K_M.gguf").read_bytes() == Q4


def test_file_that_was_not_pulled_is_not_replaced(world: World) -> None:
    path = world.models / f"{IN_REPO}Q4_K_M.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(Q8)
    assert "exists and is a different file" in failed("pull", REPO)
    assert path.read_bytes() == Q8


def test_unsafe_redirect(world: World) -> None:
    world.hub.cdn = "http://cdn.example.org"
    assert "redirects to 'http://cdn.example.org/" in failed("pull", REPO)
    assert world.at_files.requests == []


def test_endless_redirects(world: World) -> None:
    world.hub.cdn = f"{world.at_hub.url}/{REPO}/resolve/main/Tiny-1B-Q4_K_M.gguf?"
    assert "sent more than 10 redirects" in failed("pull", REPO)


NEAREST = f"The nearest: `llm localrun pull hf:{IN_REPO}Q4_K_M.gguf`."


@pytest.mark.parametrize(
    ("files", "ref", "said"),
    [
        ({"model.safetensors": Q4}, REPO, f"{REPO} holds no GGUF files. Repositories that do"),
        ({"q4": Q4}, f"{REPO}:Q8_0", f"{REPO} has no Q8_0. There is Q4_K_M. {NEAREST}"),
        ({"q4": Q4}, f"{REPO}/x.gguf", f"{REPO} has no x.gguf. There is Q4_K_M. {NEAREST}"),
        (
            {"a-Q4_0.gguf": Q4, "b-Q4_0.gguf": Q4},
            f"{REPO}:Q4_0",
            f"matches several files. Name one: `llm localrun pull hf:{REPO}/a-Q4_0.gguf` or"
            f" `llm localrun pull hf:{REPO}/b-Q4_0.gguf`.",
        ),
    ],
)
def test_repository_without_the_file(
    world: World, files: dict[str, bytes], ref: str, said: str
) -> None:
    world.offer(**files)
    assert said in failed("pull", ref)


# The disk


def test_too_little_disk_space(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    nearly_full = shutil.disk_usage("/")._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: nearly_full)
    assert failed("pull", f"{REPO}:Q8_0") == (
        f"Error: The disk of {world.models / '.partial'} has 0.00 GB free, and 0.07 GB are needed."
        " Free space there, or choose a smaller quantization with -q."
    )
    assert ranges(world.at_files) == []


def test_disk_becomes_full(world: World) -> None:
    """The write fails as on a full disk, because the size of files is limited."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6));"
        "import llm.cli; llm.cli.cli()"
    )
    command = [sys.executable, "-c", code, "localrun", "pull", f"{REPO}:Q8_0", "--quiet"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "cannot be written: File too large. Free space on its disk. Interrupted" in result.stderr
    assert "Traceback" not in result.stderr
    assert [half.stat().st_size for half in world.unfinished] == [10**6]
    done("pull", f"{REPO}:Q8_0")
    assert ranges(world.at_files)[-1] == f"bytes=1000000-{len(Q8) - 1}"


def test_folder_is_not_writable(world: World) -> None:
    world.models.touch()
    assert ".partial cannot be written: Not a directory." in failed("pull", REPO)


# Errors of hubs


HTML = whole(b"<html>Sign in to the network</html>", "text/html")


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (TOO_MANY, "received too many requests from you (HTTP 429). Try again in 55 seconds."),
        (whole(b"", status=429), "(HTTP 429). Try again in a few minutes."),
        (whole(b"oops", "text/plain", 500), "answered with an error: oops. Try again later."),
        (whole(b"", "text/plain", 502), "answered with an error: HTTP 502. Try again later."),
        (HTML, "is not that of a Hugging Face hub. Check HF_ENDPOINT."),
        (json_reply([]), "is not that of a Hugging Face hub"),
        (json_reply({"siblings": [1]}), "is not that of a Hugging Face hub"),
        (b"nonsense\r\n\r\n", "cannot be reached"),
    ],
)
def test_errors_of_the_hub(world: World, refusal: bytes, said: str) -> None:
    world.hub.refusal = refusal
    assert said in failed("pull", REPO)


def test_too_many_requests_for_a_file(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hub, "_resolved", lambda *_: TOO_MANY)
    said = failed("pull", f"{REPO}:Q8_0")
    assert "Try again in 55 seconds. Interrupted downloads resume" in said


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("other/repo", "there is no repository other/repo at"),
        (f"{REPO}@v2:Q8_0", f"{REPO} has no revision v2."),
        ("a--b/c", "'a--b/c' is not a repository name"),
    ],
)
def test_unknown_repository_or_revision(world: World, ref: str, said: str) -> None:
    assert said.lower() in failed("pull", ref).lower()


def test_no_server_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached" in failed("pull", REPO)
    assert "127.0.0.1:9 did not send the file" in failed("pull", "http://127.0.0.1:9/x.gguf")


def test_offline_mode(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set, which forbids requests to the Hugging Face hub" in failed(
        "pull", REPO
    )
    assert world.at_hub.requests == []


def test_huggingface_hub_is_not_installed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", None)
    assert "llm install 'llm-localrun[gguf]'" in failed("pull", REPO)


# Tokens


@pytest.mark.parametrize("stored_in", ["llm", "environment"])
def test_token_is_sent_to_the_hub_only(
    world: World, user_path: Path, monkeypatch: pytest.MonkeyPatch, stored_in: str
) -> None:
    world.hub.gated = True
    if stored_in == "llm":
        keys = {"localrun-huggingface": "hf_secret", "openai": "sk-other"}
        (user_path / "keys.json").write_text(json.dumps(keys))
        monkeypatch.setenv("HF_TOKEN", "hf_older")
    else:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
    result = run("pull", f"{REPO}:Q8_0")
    assert result.exit_code == 0, result.output
    assert {r.headers.get("authorization") for r in world.at_hub.requests} == {"Bearer hf_secret"}
    assert {r.headers.get("authorization") for r in world.at_files.requests} == {None}
    kept = (world.models / "pulled.json").read_text()
    assert "hf_secret" not in kept + result.output


def test_gated_repository_without_a_token(world: World) -> None:
    world.hub.gated = True
    said = failed("pull", f"{REPO}:Q8_0")
    assert f"Access to model {REPO} is restricted. (HTTP 401)" in said
    assert f"Accept its terms at {world.at_hub.url}/{REPO}, and set a token:" in said
    assert "llm keys set localrun-huggingface" in said


# End to end


def test_pulled_model_answers(
    world: World,
    warm_user: Path,
    starter_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_llm: Llm,
) -> None:
    """With the real command, client, model and engine."""
    world.offer(**{"SmolLM2-135M-Instruct-Q4_1.gguf": starter_model.read_bytes()})
    pulled = run_llm("localrun", "pull", REPO)
    assert pulled.returncode == 0, pulled.stderr
    name = pulled.stdout.split("llm -m ")[1].split()[0]
    options = ("-o", "temperature", "0", "-o", "max_tokens", "8")
    answered = run_llm("-m", name, "Name the primary colors", *options)
    assert (answered.returncode, answered.stderr) == (0, "")
    assert answered.stdout.strip()
