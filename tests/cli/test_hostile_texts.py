"""Names and texts from outside: no command prints them raw, and JSON has the true ones."""

import ast
import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result

import llm_localrun
from llm_localrun.system.text import MAX_ID, id_part, printable, printable_json
from tests.conftest import CONFIG, Invoke, configure, one_error, put_starter
from tests.fakes.http_server import StandIn, events, json_reply, text, whole
from tests.fakes.ollama import Ollama
from tests.fakes.openai_compatible import Server, listing
from tests.support.engines import executable, patched, text_value
from tests.support.pulling import Q4, Q8, REPO, World
from tests.support.snapshots import point_at
from tests.support.tiny_models import llama

NASTY = {
    "color": "\x1b[31m",
    "title": "\x1b]0;owned\x07",
    "C1": "\x9b2J",
    "bell": "\x07",
    "line": "\n",
    "return": "\r",
    "tab": "\t",
    "delete": "\x7f",
    "bidi override": "\u202e",
    "bidi isolate": "\u2066",
    "Arabic mark": "\u061c",
    "direction": "\u200f",
    "no width": "\u200b",
    "joiner": "\u200d",
    "line separator": "\u2028",
    "byte order mark": "\ufeff",
    "tag": "\U000e0041",
    "soft hyphen": "\xad",
    "grapheme joiner": "\u034f",
    "Hangul filler": "\u3164",
    "half-width filler": "\uffa0",
    "Hangul initial": "\u115f",
    "Khmer vowel": "\u17b4",
    "Mongolian selector": "\u180b",
    "empty Braille": "\u2800",
    "selector": "\ufe00",
    "selector of a picture": "\ufe0f",
    "selector of an ideograph": "\U000e0100",
}
EMPTY = (
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800"
    "\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""What Python can print, and nobody sees."""
MIX = "".join(NASTY.values())
PLAIN = "naïve 模型 🦙 👩\u200d🔬 e\u0301 Ω~"


def is_clean(output: str) -> bool:
    """Whether a terminal shows all of `output`, and obeys nothing but the ends of lines."""
    return printable(output.replace("\n", "")) == output.replace("\n", "")


@pytest.mark.parametrize("nasty", NASTY.values(), ids=NASTY)
def test_a_text_is_shown_with_escapes(nasty: str) -> None:
    shown = printable(f"a{nasty}b")
    assert shown.isprintable()
    assert shown == "a" + nasty.encode("unicode_escape").decode() + "b"
    assert printable(shown) == shown


def test_halves_of_pairs_and_bytes_of_names_are_shown() -> None:
    assert printable(os.fsdecode(b"a\xff")) == "a\\udcff"
    assert printable("\ud83d") == "\\ud83d"


@pytest.mark.parametrize(
    "plain",
    [
        *(
            PLAIN,
            "",
            "a\\x1bb",
            "❤️\u200d🔥",
            "🏳️\u200d🌈",
            "🧑🏽\u200d🚀",
            "☁\ufe0f",
            "1\ufe0f\u20e3",
        ),
        *("🏃🏽\u200d♀️", "🏳️\u200d⚧️", "👩\u200d❤️\u200d👨", "🐈\u200d⬛", "👁️\u200d🗨️", "⛓️\u200d💥"),
    ],
)
def test_other_texts_stay_as_they_are(plain: str) -> None:
    assert printable(plain) == plain == id_part(plain)
    assert json.loads(printable_json([plain])) == [plain]


@pytest.mark.parametrize(
    "text",
    [
        *("☁\u200d☁", "a\u200d🔥", "🔥\u200da", "☁\ufe0f\ufe0f", "1\ufe0f", "☁\ufe0e", "漢\ufe0f"),
        *("\U0001faff\ufe0f", "\U0001faff\u200d🔥", "🔥\u200d\U0001faff", "\u2800\ufe0f"),
    ],
)
def test_what_is_no_emoji_is_shown(text: str) -> None:
    shown = printable(text)
    assert len(shown) > len(text)
    assert printable(shown) == shown
    assert id_part(text) != text


def test_no_character_escapes() -> None:
    """Of all characters, what `printable` leaves is what Python can print, and nothing else."""
    for number in range(sys.maxunicode + 1):
        shown = printable(chr(number))
        assert shown.isprintable()
        is_empty = re.fullmatch(EMPTY, chr(number))
        assert (shown == chr(number)) == (chr(number).isprintable() and not is_empty)
        assert (
            unicodedata.category(chr(number)) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
            or shown[0] == "\\"
        )


@pytest.mark.parametrize("indent", [None, 2])
def test_json_has_the_text_itself(indent: int | None) -> None:
    value = {MIX: [MIX, os.fsdecode(b"\xff"), PLAIN, {"a": 1}]}
    shown = printable_json(value, indent=indent)
    assert json.loads(shown) == value
    assert is_clean(shown)
    assert PLAIN in shown
    assert indent is None or shown.count("\n") == 9


def test_ids_of_different_names_differ() -> None:
    names = [*(f"a{nasty}b" for nasty in NASTY.values()), "x" * 5000, "x" * 5001, MIX]
    parts = {id_part(name) for name in names}
    assert len(parts) == len(names)
    assert all(part.isprintable() and len(part) <= MAX_ID for part in parts)
    assert {id_part(part) for part in parts} == parts


# Every command

SERVED = [f"served{nasty}x" for nasty in NASTY.values()]
FILES = [f"file{nasty}x.gguf" for nasty in NASTY.values()]
NOT_UTF_8 = os.fsdecode(b"bytes\xff.gguf")
MINE = f"mine{MIX}"


def refusals() -> dict[str, bytes]:
    """What a server sends instead of an answer."""
    status = f"HTTP/1.1 500 {OVER_HTTP}\r\n".encode()
    return {
        "error": json_reply({"error": {"message": MIX}}, 500),
        "detail": json_reply({"detail": MIX}, 422),
        "template": json_reply({"error": {"message": f"Jinja Exception: {MIX}"}}, 500),
        "text": text(MIX, 500),
        "type": whole(MIX.encode(), OVER_HTTP),
        "reason": status + b"Content-Length: 0\r\n\r\n",
        "no payload": events(MIX),
        "half": whole(f'{{"{MIX}'.encode()),
    }


OVER_HTTP = "text/\u202e\u200b\x9b\u2028x"
"""HTTP itself forbids ASCII control characters in a head."""


def completed(model: str) -> bytes:
    """An answer whose statistics are hostile."""
    delta = {"index": 0, "delta": {"content": "Hi."}, "finish_reason": MIX}
    return events({"model": model, "choices": [delta]})


@dataclass
class Box:
    """A server whose names are hostile, and what it says next."""

    url: str
    folder: Path
    reply: bytes = b""


@pytest.fixture
def box(user_path: Path, tmp_path: Path, starter_model: Path) -> Iterator[Box]:
    """A machine on which everything has a hostile name."""
    folder = tmp_path / f"models{MIX}"
    put_starter(user_path, starter_model)
    folder.mkdir()
    for name in FILES:
        llama(layers=1).build(folder / name)
    (folder / f"broken{MIX}.gguf").write_bytes(b"GGUF" * 2**19)
    (folder / NOT_UTF_8).write_bytes(b"GGUF" * 2**19)
    (folder / os.fsdecode(b"folder\xff")).mkdir()
    openai = Server({"/v1/models": listing(*({"id": name, "owned_by": MIX} for name in SERVED))})
    ollama = Ollama(has=[f"{name}:latest" for name in SERVED], version=f"9.{MIX}")
    ollama.remote = {f"{SERVED[0]}:latest": f"https://{MIX}.example"}
    with StandIn(openai) as first, StandIn(ollama) as second:
        box = Box(first.url, folder)
        openai.says = lambda _: box.reply
        allow = [f"local/box/{MIX}"]
        point_at(user_path, first.url, second.url, folders=[str(folder)], allow=allow)
        yield box


def checked(result: Result) -> str:
    """The output of a command that ends as it should, after a look at it."""
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert is_clean(result.stdout), ascii(result.stdout)
    assert is_clean(result.stderr), ascii(result.stderr)
    return str(result.stdout)


def ids_of(invoke: Invoke, key: str = "id") -> dict[str, str]:
    """The value of `key` by the true names of the models."""
    listed = json.loads(checked(invoke("localrun", "models", "--json")))
    return {each["name"]: each[key] for each in listed}


COMMANDS = {
    "": (), "models": (), "doctor": (), "du": (), "endpoints": (), "allow": (),
    "which": ("local",), "show": ("local",),
}  # fmt: skip


def test_no_command_prints_them_raw(box: Box, invoke: Invoke) -> None:
    for command, arguments in COMMANDS.items():
        words = ("localrun", *filter(None, [command]), *arguments)
        assert checked(invoke(*words))
        json.loads(checked(invoke(*words, "--json")))
    for words in (("models",), ("models", "--options"), ("aliases",), ("aliases", "--json")):
        assert "local/box/served_x@" in checked(invoke(*words))
    checked(invoke("localrun", "refresh"))


def test_models_stay_distinct_and_reachable(box: Box, invoke: Invoke) -> None:
    ids = ids_of(invoke)
    files = {name.removesuffix(".gguf") for name in FILES}
    assert ids.keys() >= {*SERVED, *(f"{name}:latest" for name in SERVED), *files}
    assert len(set(ids.values())) == len(ids)
    for name in (SERVED[0], f"{SERVED[0]}:latest", FILES[0].removesuffix(".gguf")):
        shown = json.loads(checked(invoke("localrun", "show", ids[name], "--json")))
        assert shown["name"] == name
        assert ids[name] in checked(invoke("localrun", "which", ids[name]))
    box.reply = completed("m")
    assert checked(invoke("-m", ids[SERVED[4]], "Hello")) == "Hi.\n"
    # The next discovery gives them the same ids.
    assert ids_of(invoke) == ids


@pytest.mark.parametrize("what", refusals())
def test_what_a_server_says(box: Box, invoke: Invoke, what: str) -> None:
    box.reply = refusals()[what]
    result = invoke("-m", ids_of(invoke)[SERVED[0]], "Hello")
    checked(result)
    said = one_error(result)
    assert what == "reason" or "\\x1b" in said or "\\u202e" in said


def test_the_log_of_llm_has_escapes(box: Box, invoke: Invoke) -> None:
    box.reply = completed(MIX)
    checked(invoke("-m", ids_of(invoke)[SERVED[0]], "Hello"))
    for words in (("logs",), ("logs", "--json"), ("logs", "-u"), ("logs", "--short")):
        assert "local/box/served" in checked(invoke(*words))
    (logged,) = json.loads(checked(invoke("logs", "--json")))
    assert logged["resolved_model"] == logged["response_json"]["finish_reason"] == printable(MIX)
    assert logged["model"].isprintable()


def test_files_whose_names_are_not_utf_8(box: Box, invoke: Invoke) -> None:
    path = str(box.folder / NOT_UTF_8)
    refused = f"{printable(path)} cannot be run: its name is not UTF-8 text. Rename it."
    for words in (
        ("-m", path, "Hello"),
        *(("localrun", command, path) for command in ("which", "show", "verify", "rm", "unload")),
        ("localrun", "quantize", path, "Q8_0"),
    ):
        result = invoke(*words)
        checked(result)
        assert one_error(result) == refused, words
    store = f"{printable(str(box.folder))}: {len(FILES) + 1} files"
    doctor = checked(invoke("localrun", "doctor"))
    assert store in doctor
    assert f"{printable(path)}: its name is not UTF-8 text (and 1 more)" in doctor


LOST = "its name is not UTF-8 text"
BYTES = os.fsdecode(b"by\xfftes")


@pytest.mark.parametrize("option", ["lora", "draft_model", "chat_template"])
def test_an_option_names_a_file_whose_name_is_not_utf_8(
    user_path: Path, starter_model: Path, invoke: Invoke, option: str
) -> None:
    put_starter(user_path, starter_model)
    result = invoke("-m", "local", "-o", option, f"/x/{BYTES}", "Hello")
    checked(result)
    assert "/x/by\\udcfftes" in one_error(result)
    assert (LOST in result.stderr) == (option != "chat_template")


def test_our_own_folder_has_a_name_that_is_not_utf_8(
    tmp_path: Path, starter_model: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / BYTES
    monkeypatch.setenv("LLM_USER_PATH", str(user))
    monkeypatch.setenv("HOME", str(user))
    configure(user, **CONFIG)
    result = invoke("-m", str(starter_model), "Hello")
    checked(result)
    assert one_error(result).endswith(f"{LOST}. Set LLM_USER_PATH to another folder.")
    for command in ("models", "doctor", "status", "du"):
        json.loads(checked(invoke("localrun", command, "--json")))


@pytest.mark.parametrize("variable", ["HF_HOME", "PATH", "OLLAMA_HOST"])
def test_a_variable_has_bytes_that_are_not_utf_8(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (tmp_path / BYTES / "hub").mkdir(parents=True)
    executable(tmp_path / BYTES / "llama-server", "")
    monkeypatch.setenv(variable, str(tmp_path / BYTES))
    shown = checked(invoke("localrun", "doctor"))
    assert (LOST in shown) == (variable != "OLLAMA_HOST")


SETTINGS = (
    {MIX: 1},
    {"quantization": MIX},
    {"llama_server": f"/x{MIX}"},
    {"folders": [f"/x{MIX}"]},
)


@pytest.mark.parametrize("settings", SETTINGS, ids=["key", "quantization", "program", "folder"])
def test_settings(
    user_path: Path, starter_model: Path, invoke: Invoke, settings: dict[str, object]
) -> None:
    configure(user_path, **{**CONFIG, **settings})
    put_starter(user_path, starter_model)
    doctor = checked(invoke("localrun", "doctor"))
    assert "\\u202e" in doctor + checked(invoke("localrun", "doctor", "--json"))
    if "folders" not in settings:
        result = invoke("-m", "local", "Hello")
        checked(result)
        assert "\\u202e" in one_error(result)


def test_a_name_that_nothing_has(invoke: Invoke) -> None:
    for name in (f"local-{MIX}", f"./{MIX}", f"local-{BYTES}", f"./{BYTES}", "./" + "x" * 5000):
        result = invoke("-m", name, "Hello")
        checked(result)
        one_error(result)
    for name in (MIX, BYTES):
        checked(invoke("localrun", "endpoints", "add", name, "http://x"))
        added = invoke("localrun", "endpoints", "add", "x", f"http://x{name}")
        assert "has characters that no URL has" in one_error(added)
        checked(invoke("localrun", "forget", name))
        checked(invoke("localrun", "pull", name))


def test_what_a_hub_says(world: World, invoke: Invoke) -> None:
    world.offer(**{f"Tiny{MIX}-Q4_K_M.gguf": Q4, f"Tiny{MIX}-Q8_0.gguf": Q8})
    checked(invoke("localrun", "pull", REPO))
    checked(invoke("localrun", "pull", f"{REPO}:Q3_K_M"))
    for refusal in (text(MIX, 404), text(MIX, 500), json_reply({"error": MIX}, 403)):
        world.hub.refusal = refusal
        result = invoke("localrun", "pull", REPO)
        checked(result)
        one_error(result)


def test_the_engine(user_path: Path, tmp_path: Path, starter_model: Path, invoke: Invoke) -> None:
    file = tmp_path / f"a{MIX}b.gguf"
    file.hardlink_to(starter_model)
    checked(invoke("-m", str(file), "-o", "max_tokens", "1", "Hello"))
    (engine,) = json.loads(checked(invoke("localrun", "ps", "--json")))
    assert (engine["name"], engine["path"]) == (file.stem, str(file))
    assert printable(file.stem) in checked(invoke("localrun", "ps"))
    assert "local/gguf/a_" in checked(invoke("logs", "--short"))
    for command in ("verify", "show", "which", "unload", "rm", "forget"):
        checked(invoke("localrun", command, str(file)))
    # A file of its own: the first one is a link to the model that all tests share.
    file = tmp_path / f"c{MIX}d.gguf"
    patched(starter_model, file, "general.architecture", text_value(b"\x1b[2Ja"))
    result = invoke("-m", str(file), "Hello")
    checked(result)
    assert "unknown model architecture: '\\x1b[2Ja'" in one_error(result)
    for command in ("show", "which", "verify"):
        checked(invoke("localrun", command, str(file)))
    assert "\\x1b[2Ja" in checked(invoke("localrun", "doctor"))


# No other way out

ELSEWHERE = {
    "cli.doctor: section",
    "cli.doctor: wrapper.fill(text)",
    "cli.show: template",
}
"""What is printed without `printable`: it is made printable before, or goes into a file."""


def test_everything_is_printed_through_it() -> None:
    package = Path(llm_localrun.__file__).parent
    printed = {
        f"{'.'.join(path.relative_to(package).with_suffix('').parts)}: {ast.unparse(node.args[0])}"
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.echo", "click.secho")
        if node.args
    }
    others = {each for each in printed if not each.startswith("cli.table: ")}
    assert {each for each in others if ": printable(" not in each} == ELSEWHERE
