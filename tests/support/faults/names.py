"""Odd names of files and models, and odd texts of servers and headers, through the commands.

A trial is clean if the command ends as it should, its output can be printed as it is, and `--json`
is valid JSON.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tests.fakes.http_server import Request, StandIn, json_reply, not_found, whole
from tests.support.faults.command import Home, Ran
from tests.support.faults.trial import Result, Trial
from tests.support.hostile_files import STRING, Content, source
from tests.support.odd_names import ODD, for_file, unprintable

GROUP = "names and texts"

_STYLES = (b"\x1b[1m", b"\x1b[2m", b"\x1b[0m")
"""What our tables send to a terminal: bold, faint, and their end. No odd name has them."""
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("localrun", "models"),
    ("localrun", "models", "--json"),
    ("localrun", "doctor"),
    ("localrun", "doctor", "--json"),
    ("localrun", "status"),
    ("localrun", "status", "--json"),
    ("localrun", "which", "local"),
    ("localrun", "du"),
    ("localrun", "du", "--json"),
    ("localrun", "show", "{id}"),
    ("localrun", "show", "{id}", "--json"),
    ("localrun", "show", "{file}"),
    ("localrun", "which", "{name}"),
    ("models",),
    ("aliases",),
    ("models", "--options"),
    ("-m", "{id}", "hi", "-o", "timeout", "10"),
    ("-m", "{file}", "hi", "-o", "timeout", "10", "-o", "max_tokens", "2"),
    ("-m", "{name}", "hi", "-o", "timeout", "10"),
    ("-m", "{bad}", "hi", "-o", "timeout", "10"),
)


def trials(
    starter: Path, guard_bytes: int, commands: Sequence[tuple[str, ...]] = COMMANDS
) -> Iterator[Trial]:
    base = source(starter)
    for what in ODD:
        yield Trial(GROUP, what, partial(_try, base, what, guard_bytes, commands))


class _Server:
    """A server of OpenAI's API whose models and errors have an odd name."""

    def __init__(self, name: str) -> None:
        self._name = name.encode("utf-8", "replace").decode()

    def __call__(self, request: Request) -> Iterator[bytes]:
        entry = {"id": self._name, "object": "model", "owned_by": self._name, "created": 1}
        if request.path == "/v1/models":
            yield json_reply({"object": "list", "data": [entry, {**entry, "id": "plain"}]})
        elif request.path.endswith("/chat/completions"):
            error = json.dumps({"error": {"message": self._name, "type": self._name}}).encode()
            yield whole(error, "application/json", 500)
        elif request.path in ("/version", "/health"):
            yield json_reply({"version": self._name, "status": self._name})
        else:
            yield not_found(request.path)


def _try(base: Content, what: str, guard_bytes: int, commands: Sequence[tuple[str, ...]]) -> Result:
    name = ODD[what]
    data = name.encode("utf-8", "surrogateescape")
    raw = struct.pack("<IQ", STRING, len(data)) + data
    odd = base.having({"general.name": raw, "general.size_label": raw, "general.basename": raw})
    with Home(guard_bytes) as home, StandIn(_Server(name)) as server:
        folder = home.path / "folder"
        folder.mkdir()
        home.configure(folders=[str(folder)], endpoints=[{"name": "box", "url": server.url}])
        file = folder / (for_file(name) + b".gguf").decode("utf-8", "surrogateescape")
        odd.write(file)
        # One that cannot be loaded, with the name in the error of llama.cpp.
        bad = base.having({"tokenizer.ggml.pre": raw, "general.architecture": raw})
        bad.write(folder / "bad.gguf")
        (folder / f"{file.stem}-00001-of-00002.gguf").write_bytes(b"GGUF")
        result = Result(0)
        for command in commands:
            found = _id_of(home) if "{id}" in command else ""
            if "{id}" in command and not found:
                continue
            texts = {
                "{id}": found,
                "{file}": str(file),
                "{bad}": str(folder / "bad.gguf"),
                "{name}": name.replace("\0", "_"),
            }
            arguments = [texts.get(word, word) for word in command]
            encoded = (each.encode("utf-8", "surrogateescape") for each in arguments)
            ran = home.llm(*encoded, terminal=True)
            problem = _problem_of(ran, "--json" in command)
            wrong = (f"{what}: llm {' '.join(command)}: {problem}",) if problem else ()
            result += Result(1, wrong, ran.own_peak, ran.seconds)
        return result


def _id_of(home: Home) -> str:
    """The id of the server's model with the odd name, as the package has it."""
    try:
        found = json.loads(home.llm("localrun", "models", "--json").stdout)
    except ValueError:
        return ""
    ids = [each["id"] for each in found if each["id"].startswith("local/box/")]
    return next((each for each in ids if each != "local/box/plain"), "")


def _problem_of(ran: Ran, is_json: bool) -> str:
    if ran.stopped:
        return f"stopped after {ran.seconds:.0f} s: {ran.stopped}"
    if b"Traceback" in ran.stderr:
        return f"a traceback: {ran.error[-200:]!r}"
    if ran.status not in {0, 1, 2}:
        return f"status {ran.status}: {ran.error[-200:]!r}"
    # What loads is shown in one line, which is written again and again.
    found = _problem_of_text(ran.stdout, "") or _problem_of_text(ran.stderr, "\r")
    return found or (_problem_of_json(ran.stdout) if is_json and ran.status == 0 else "")


def _problem_of_text(data: bytes, allowed: str) -> str:
    for style in _STYLES:
        data = data.replace(style, b"")
    try:
        return unprintable(data.decode(), allowed)
    except UnicodeDecodeError:
        return f"no UTF-8: {data[:200]!r}"


def _problem_of_json(data: bytes) -> str:
    try:
        json.loads(data)
    except ValueError:
        return "no JSON"
    return ""
