"""Images: byte for byte at the servers, and on the real engine with a projector that sees nothing.

The projector's weights are random (see vision_model.py), so nothing is to be learned from what the
model says of an image. What it proves is the way: the engine is started with the projector, an
image reaches the model as the tokens that it should become, and what it shows makes a difference.
"""

import base64
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llm
import pytest

from llm_localrun import catalogue
from llm_localrun.engine.state import list_running
from llm_localrun.models import LocalModel, ScannedFile, Snapshot
from llm_localrun.name_cache import settings_stamp
from llm_localrun.system.paths import home
from tests.conftest import CONFIG, Llm, configure, put_starter, stop_engines
from tests.fakes.http_server import Request, StandIn, json_reply, whole
from tests.fakes.says import Says
from tests.support.contract import SERVERS, found, saying, sent
from tests.support.drive import WAYS, Outcome, ask, failure, served
from tests.support.models import file_route, local_model
from tests.support.vision_model import IMAGE_TOKENS, build_projector

in_every_way = pytest.mark.parametrize("way", WAYS)
in_two_ways = pytest.mark.parametrize("way", ["sync", "async unstreamed"])
at_every_server = pytest.mark.parametrize("kind", SERVERS)

EMBEDDING_SIZE = 576
"""Of the starter model."""


def png(color: Callable[[int, int], tuple[int, int, int]], side: int = 32) -> bytes:
    """A square image; `color` gives the color of each of its pixels."""
    rows = (b"\0" + b"".join(bytes(color(x, y)) for x in range(side)) for y in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


RED = png(lambda _x, _y: (255, 0, 0))
CHECKED = png(lambda x, y: (0, 0, 255) if (x // 8 + y // 8) % 2 else (255, 255, 0))
GIF = bytes.fromhex("47494638396101000100800000ff000000000021f90400000000002c00000000010001000002")
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")
WEBP = b"RIFF\x1a\0\0\0WEBPVP8L\r\0\0\0\x2f\0\0\0\x10\x07\x10\x11\x11\x88\x88\xfe\x07\0"
IMAGES = {"png": RED, "gif": GIF, "jpeg": JPEG, "webp": WEBP}


def image_in(kind: str, body: Any) -> tuple[str, bytes]:
    """The type, if the request names it, and the bytes of the one image in a request."""
    (message,) = body["messages"]
    if kind == "ollama":
        (image,) = message["images"]
        return "", base64.b64decode(image, validate=True)
    text, image = message["content"]
    assert text == {"type": "text", "text": "Look"}
    head, _, data = image["image_url"]["url"].partition(",")
    return head, base64.b64decode(data, validate=True)


@pytest.mark.parametrize("source", ["content", "path", "url", "url of a known type"])
@in_two_ways
@at_every_server
@pytest.mark.parametrize("format_", IMAGES)
def test_image_arrives_byte_for_byte(
    format_: str, kind: str, way: str, source: str, tmp_path: Path
) -> None:
    image, type_ = IMAGES[format_], f"image/{format_}"
    path = tmp_path / "image"
    path.write_bytes(image)

    def web(request: Request) -> list[bytes]:
        reply = whole(image, type_)
        return [reply.removesuffix(image) if request.method == "HEAD" else reply]

    with saying(kind, Says("I see.")) as (model, server), StandIn(web) as site:
        url = f"{site.url}/image"
        attachment = {
            "content": llm.Attachment(content=image),
            "path": llm.Attachment(path=str(path)),
            "url": llm.Attachment(url=url),
            "url of a known type": llm.Attachment(url=url, type=type_),
        }[source]
        outcome = ask(model, "Look", way, attachments=[attachment])
    assert outcome.text == "I see."
    (body,) = sent(server)
    head, data = image_in(kind, body)
    assert data == image
    assert head == ("" if kind == "ollama" else f"data:{type_};base64")


@in_every_way
@at_every_server
def test_several_images_keep_their_order(kind: str, way: str) -> None:
    images = [RED, CHECKED, RED]
    with saying(kind, Says("I see.")) as (model, server):
        ask(model, "Look", way, attachments=[llm.Attachment(content=each) for each in images])
    (body,) = sent(server)
    (message,) = body["messages"]
    if kind == "ollama":
        texts = message["images"]
    else:
        texts = [part["image_url"]["url"].partition(",")[2] for part in message["content"][1:]]
    assert [base64.b64decode(text) for text in texts] == images


@at_every_server
def test_image_stays_in_the_conversation(kind: str) -> None:
    with saying(kind, Says("I see."), Says("Red.")) as (model, server):
        conversation = llm_model(model).conversation()
        conversation.prompt("Look", attachments=[llm.Attachment(content=RED)]).text()
        conversation.prompt("Which color?").text()
    first, second = sent(server)
    assert second["messages"][0] == first["messages"][0]
    assert second["messages"][2] == {"role": "user", "content": "Which color?"}


def llm_model(model: LocalModel) -> Any:
    from llm_localrun.chat.models import LocalChat

    return LocalChat(model)


WAV = (
    b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\0\0\0"
)
REFUSED = {
    "application/pdf": b"%PDF-1.7\n",
    "audio/wav": WAV,
    "text/plain": b"hello",
    "image/tiff": b"II*\0\x08\0\0\0",
    "video/mp4": b"\0\0\0\x18ftypmp42",
}


@in_every_way
@at_every_server
@pytest.mark.parametrize("type_", REFUSED)
def test_other_types_are_refused_before_anything_is_sent(type_: str, kind: str, way: str) -> None:
    attachment = llm.Attachment(content=REFUSED[type_], type=type_)
    with saying(kind, capabilities=("tools", "vision")) as (model, server):
        with pytest.raises(ValueError, match=f"is {type_}, which the model cannot take"):
            ask(model, "Look", way, attachments=[attachment])
        history = [llm.user("Look", attachment), llm.user("And?")]
        said = failure(lambda: ask(model, None, way, messages=history))
    types = "image/gif, image/jpeg, image/png, image/webp"
    assert f"is {type_}, which the model cannot take. It takes {types}" in said
    assert server.requests == []


@in_every_way
@at_every_server
def test_model_that_is_blind_is_refused_images(kind: str, way: str) -> None:
    attachment = llm.Attachment(content=RED)
    with (
        saying(kind, capabilities=("tools",)) as (model, server),
        pytest.raises(ValueError, match=r"takes text only\. Choose a model that can see"),
    ):
        ask(model, "Look", way, attachments=[attachment])
    assert server.requests == []


@in_every_way
def test_model_that_sees_is_named(way: str, user_path: Path, tmp_path: Path) -> None:
    """By us if it is known which models are blind, and else when the server refuses the image."""
    eyes = local_model(id="local/gguf/eyes", name="eyes", path="/e", capabilities=("vision",))
    file = ScannedFile(path="/e", size=1, modified=0, model=eyes)
    catalogue._memory[home()] = Snapshot(
        taken_at=1, stamp=settings_stamp([]), files=(file,), is_complete=True
    )
    image = tmp_path / "red.png"
    image.write_bytes(RED)
    attachments = [llm.Attachment(path=str(image))]
    with saying("ollama", capabilities=("tools",)) as (model, server):
        said = failure(lambda: ask(model, "Look", way, attachments=attachments))
    assert said.endswith(f"a model that can see: `llm -m local/gguf/eyes -a {image} prompt`.")
    assert server.requests == []

    def refuse(_: Request) -> Iterator[bytes]:
        yield json_reply({"error": {"message": "image input is not supported"}}, 400)

    with StandIn(refuse) as blind:
        said = failure(
            lambda: ask(served(blind.url, "openai", "m"), "Look", way, attachments=attachments)
        )
    assert said.endswith("Choose a model that can see: `llm -m local/gguf/eyes prompt`.")


@in_every_way
@pytest.mark.parametrize(
    ("type_", "format_"),
    [("audio/wav", "wav"), ("audio/mpeg", "mp3"), ("audio/mp3", "mp3"), ("audio/x-wav", "wav")],
)
def test_sound_for_a_model_that_hears(type_: str, format_: str, way: str) -> None:
    with saying("lmstudio", Says("I hear."), capabilities=("audio",)) as (model, server):
        ask(model, "Listen", way, attachments=[llm.Attachment(content=WAV, type=type_)])
    (_, sound) = sent(server)[0]["messages"][0]["content"]
    data = base64.b64encode(WAV).decode()
    assert sound == {"type": "input_audio", "input_audio": {"data": data, "format": format_}}


@in_every_way
@at_every_server
@pytest.mark.parametrize("status", [404, 500])
def test_image_that_cannot_be_fetched(status: int, kind: str, way: str) -> None:
    with (
        saying(kind) as (model, server),
        StandIn(lambda _: [whole(b"no", "text/plain", status)]) as site,
    ):
        attachment = llm.Attachment(url=f"{site.url}/image.png", type="image/png")
        said = failure(lambda: ask(model, "Look", way, attachments=[attachment]))
    assert said.startswith(f"{site.url}/image.png cannot be fetched: ")
    assert said.endswith("Download it, and attach the file.")
    assert server.requests == []


# With the real engine

QUESTION = "What is in the picture?"


@pytest.fixture(scope="session")
def seeing_user(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user directory with the starter model and a projector, whose engine stays warm."""
    user = tmp_path_factory.mktemp("seeing")
    configure(user, **CONFIG)
    model = put_starter(user, starter_model)
    build_projector(model.with_name("mmproj-F32.gguf"), EMBEDDING_SIZE)
    yield user
    stop_engines(user)


@pytest.fixture
def seeing(seeing_user: Path, monkeypatch: pytest.MonkeyPatch) -> LocalModel:
    """The starter model with the projector, as discovery finds it."""
    monkeypatch.setenv("LLM_USER_PATH", str(seeing_user))
    return found("local-smollm2")


def describe(model: LocalModel, way: str, *images: bytes) -> Outcome:
    attachments = [llm.Attachment(content=image) for image in images]
    return ask(model, QUESTION, way, attachments=attachments, temperature=0, max_tokens=8)


def test_projector_next_to_a_model_lets_it_see(seeing: LocalModel, warm: Path) -> None:
    assert seeing.capabilities == ("vision",)
    assert file_route(seeing).projector.endswith("mmproj-F32.gguf")
    model = llm_model(seeing)
    assert model.attachment_types >= {"image/png", "image/jpeg", "image/gif", "image/webp"}
    assert llm_model(found("local-smollm2")).attachment_types == frozenset()


@in_two_ways
def test_image_becomes_its_tokens(seeing: LocalModel, way: str) -> None:
    without, one, two = (describe(seeing, way, *[RED] * count) for count in range(3))
    assert without.input is not None
    assert one.input is not None
    assert one.input >= without.input + IMAGE_TOKENS
    assert two.input == one.input + (one.input - without.input)
    assert one.resolved_model == seeing.name


@in_two_ways
def test_what_an_image_shows_makes_a_difference(seeing: LocalModel, way: str) -> None:
    texts = [describe(seeing, way, *images).text for images in ((), (RED,), (CHECKED,), (RED,))]
    nothing, red, checked, red_again = texts
    assert red == red_again
    assert len({nothing, red, checked}) == 3


def test_every_way_sees_the_same(seeing: LocalModel) -> None:
    assert len({describe(seeing, way, CHECKED).text for way in WAYS}) == 1


@in_two_ways
def test_damaged_image_is_an_error_for_people(seeing: LocalModel, way: str) -> None:
    said = failure(lambda: describe(seeing, way, RED[:60]))
    assert said.startswith("llama.cpp says: ")
    assert "Check that the file is a complete PNG, JPEG, WebP or GIF." in said


def test_command(seeing: LocalModel, seeing_user: Path, tmp_path: Path, run_llm: Llm) -> None:
    (tmp_path / "image.png").write_bytes(RED)
    options = ("-o", "temperature", "0", "-o", "max_tokens", "8")
    done = run_llm("-m", "local", QUESTION, "-a", "image.png", *options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    expected = describe(seeing, "sync", RED)
    assert done.stdout == f"{expected.text}\n"
    (turn,) = json.loads(run_llm("logs", "--json", "-n", "1").stdout)
    assert turn["input_tokens"] == expected.input
    (attachment,) = turn["attachments"]
    assert attachment["type"] == "image/png"
    continued = run_llm("-c", "And now?", *options)
    assert (continued.returncode, continued.stderr) == (0, "")
    (second,) = json.loads(run_llm("logs", "--json", "-n", "1").stdout)
    assert second["input_tokens"] > turn["input_tokens"] + 8
    (engine,) = list_running(seeing_user / "localrun/engine")
    assert engine.spec.settings.projector == file_route(seeing).projector
