"""`--json`: the fields of every command are those that docs/json.md describes, and no others."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.cli import command_names, load_command
from llm_localrun.cli.doctor import finding_facts
from llm_localrun.cli.doctor_findings import engine_findings
from llm_localrun.engine import acceptance
from llm_localrun.engine.acceptance import Accepted
from llm_localrun.engine.build_probe import Build, Device
from llm_localrun.engine.builds import BuildReport
from llm_localrun.memory import machine
from llm_localrun.models import ScannedFile, ScannedStore, Snapshot
from llm_localrun.pull.starter import FILE_NAME
from tests.conftest import CONFIG, Invoke, configure, put_starter
from tests.support.drive import ask
from tests.support.engines import SHORT_ANSWER, in_file
from tests.support.installing import mirrored
from tests.support.llm_log import NOW, write_log
from tests.support.llm_log import run as run_logged
from tests.support.many_models import MEMORY, SNAPSHOT, put
from tests.support.pulling import REPO, World, done, run
from tests.support.trees import gguf, llm_gguf_index

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
TYPES = {
    "text": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
}


@dataclass(frozen=True)
class Field:
    """The type of a field as the page has it."""

    type: str
    """Such as `text`, or the title of a section."""
    is_list: bool
    may_be_null: bool
    is_optional: bool

    @property
    def section(self) -> str:
        """The section that describes its objects; "" if it holds none."""
        return "" if self.type in TYPES else self.type

    def fits(self, value: object) -> bool:
        if value is None:
            return self.may_be_null
        if self.is_list:
            return isinstance(value, list) and all(self._fits_one(each) for each in value)
        return self._fits_one(value)

    def _fits_one(self, value: object) -> bool:
        wanted: Any = TYPES.get(self.type, dict)
        # In Python, True is an integer too.
        return isinstance(value, wanted) and (isinstance(value, bool) <= (wanted is bool))


def field_of(text: str) -> Field:
    text, optional, _ = text.partition(", optional")
    text, null, _ = text.partition(" or null")
    is_list = text.startswith("list of ")
    name = re.sub(r"\[(.+)\]\(#.+\)", r"\1", text.removeprefix("list of "))
    return Field(name, is_list, bool(null), bool(optional))


def sections() -> dict[str, dict[str, Field]]:
    """The fields of each section of the page."""
    found: dict[str, dict[str, Field]] = {}
    for part in PAGE.split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        rows = re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", body, re.MULTILINE)
        found[title] = {name: field_of(kind) for name, kind in rows}
    found["show"] |= found["model"]
    return found


SECTIONS = sections()


def assert_documented(section: str, value: Any) -> None:
    """Every object in `value` has the fields of `section`, with their types."""
    for item in value if isinstance(value, list) else [value]:
        fields = SECTIONS[section]
        required = {name for name, field in fields.items() if not field.is_optional}
        assert required <= item.keys() <= fields.keys(), section
        for name, content in item.items():
            field = fields[name]
            assert field.fits(content), (section, name, content)
            if field.section and content is not None:
                assert_documented(field.section, content)


def json_of(invoke: Invoke, *arguments: str) -> Any:
    return json.loads(invoke("localrun", *arguments, "--json").stdout)


@pytest.fixture
def busy(user_path: Path, still_there: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user directory of a machine with many models."""
    monkeypatch.setattr(machine, "physical_memory", lambda: MEMORY)
    put(user_path)
    return user_path


@pytest.mark.parametrize(
    ("arguments", "section"),
    [
        ([], "status"),
        (["status"], "status"),
        (["models"], "model"),
        (["show", "local-qwen3-8b"], "show"),
        (["show", "local-smollm2-135m"], "show"),
        (["which", "local"], "which"),
        (["recommend"], "recommend"),
        (["engine"], "engine build"),
        (["engine", "list"], "engine build"),
        (["endpoints"], "endpoint"),
        (["endpoints", "list"], "endpoint"),
    ],
)
def test_what_is_known(busy: Path, invoke: Invoke, arguments: list[str], section: str) -> None:
    value = json_of(invoke, *arguments)
    assert value
    assert_documented(section, value)


@pytest.mark.pure
def test_links_lead_to_sections() -> None:
    anchors = {title.replace(" ", "-") for title in SECTIONS}
    assert set(re.findall(r"\(#(.+?)\)", PAGE)) <= anchors
    assert {field.section for fields in SECTIONS.values() for field in fields.values()} <= {
        "",
        *SECTIONS,
    }


@pytest.mark.pure
def test_page_names_every_command_that_takes_it() -> None:
    table = PAGE.partition("`add`, `remove`")[0]
    named = set(re.findall(r"`llm localrun ([a-z]+)", table))
    commands = {name: load_command(name) for name in command_names()}
    takes = {
        name
        for name, command in commands.items()
        for each in (command, *getattr(command, "commands", {}).values())
        if each and any("--json" in parameter.opts for parameter in each.params)
    }
    assert named == takes


def test_installed_build(user_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Accepted("version 7", ("RTX 4090",), 50.0)
    monkeypatch.setattr(acceptance, "accept", lambda *_: found)
    (user_path / "localrun" / "models").mkdir(exist_ok=True)
    (user_path / "localrun" / "models" / FILE_NAME).touch()
    with mirrored(user_path) as mirror:
        mirror.offer("b7")
        value = json_of(invoke, "engine", "install", "--tag", "b7", "--yes", "--quiet")
    assert_documented("engine install", value)
    assert value["devices"] == ["RTX 4090"]


def test_engine(warm: Path, starter_model: Path, invoke: Invoke) -> None:
    ask(in_file(warm / "localrun/models" / starter_model.name), "Hi", **SHORT_ANSWER)
    engines = json_of(invoke, "ps")
    names = [engine["name"] for engine in engines]
    assert starter_model.stem in names
    assert_documented("ps", engines)
    assert json_of(invoke)["loaded_in_engine"] == names


def test_purge(user_path: Path, starter_model: Path, invoke: Invoke) -> None:
    put_starter(user_path, starter_model)
    shown = json_of(invoke, "purge")
    removed = json_of(invoke, "purge", "--yes")
    for value in (shown, removed, json_of(invoke, "purge", "--yes")):
        assert value
        assert_documented("purge", value)
    assert [item["removed"] for item in removed] == [True, False]


def test_what_other_plugins_have(user_path: Path, invoke: Invoke) -> None:
    path = gguf(user_path / "gguf" / "models" / "m.gguf")
    llm_gguf_index(user_path / "gguf", {"m": path, "gone": user_path / "gone.gguf"})
    (user_path / "aliases.json").write_text('{"a": "gguf/gguf/m", "b": "gguf/none"}')
    imported = json_of(invoke, "import", "llm-gguf")
    assert [each["model"] for each in imported] == ["local/gguf/m", None]
    assert_documented("import", imported)
    moved = json_of(invoke, "migrate")
    assert [each["model"] for each in moved] == ["local/gguf/m", None]
    assert_documented("migrate", moved)


def test_bench(warm: Path, invoke: Invoke) -> None:
    sizes = ["--prompt", "64", "--generate", "2", "--repeat", "1"]
    rows = json_of(invoke, "bench", "local", *sizes, "--depth", "0,100000")
    assert_documented("bench", [each for each in rows if each["runs"]])
    assert_documented("bench", [each for each in rows if each["error"]])
    assert len(rows) == 2


def test_pulled_models(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pulled = json.loads(done("pull", f"{REPO}:Q4_K_M", "--json"))
    assert len(pulled["files"]) == 1
    assert_documented("pull", pulled)
    monkeypatch.setattr("llm_localrun.pull.download._MAX_TRIES", 1)
    world.files.cuts = [2**18, 1_000_000]
    assert run("pull", f"{REPO}:Q8_0").exit_code
    on_disk = json.loads(done("du", "--json"))
    assert len(on_disk) == 2
    assert_documented("du", on_disk)
    checks = json.loads(run("verify", "local-tiny-1b", "--json").stdout)
    assert len(checks) > 2
    assert_documented("verify", checks)
    pulls = json.loads(done("outdated", "--json"))
    assert len(pulls) == 1
    assert_documented("outdated", pulls)


def test_search(world: World) -> None:
    world.hub.odd_entries = [{"id": "gone/Tiny"}]
    found = json.loads(done("search", "tiny", "--json"))
    assert [each["fits"] for each in found] == [True, None]
    assert_documented("search", found)
    offered = run("pull", "tiny", "--json")
    assert offered.exit_code == 2
    assert_documented("search", json.loads(offered.stdout))


def test_doctor(warm: Path, starter_model: Path, invoke: Invoke) -> None:
    ask(in_file(warm / "localrun/models" / starter_model.name), "Hi", **SHORT_ANSWER)
    report = json_of(invoke, "doctor")
    assert_documented("doctor", report)
    seen = {name for finding in report["findings"] for name in finding}
    assert seen >= {"stores", "pid", "log", "path", "memory", "age", "can_run"}


def test_doctor_of_a_machine_with_many_models(
    busy: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the optional fields that the other machine lacks."""
    skipped = ScannedFile(path="/m/a.gguf", size=1, modified=1.0, model=None, reason="it is odd")
    store = ScannedStore(store="folders", path="/m", status="read", files=1)
    snapshot = SNAPSHOT.model_copy(update={"stores": (store,), "files": (*SNAPSHOT.files, skipped)})
    monkeypatch.setattr("llm_localrun.cli.doctor.get_catalogue", lambda _policy: snapshot)
    configure(busy, **CONFIG, allow=["local/ollama/gpt-oss:120b-cloud"], rpc=["127.0.0.1:1"])
    report = json_of(invoke, "doctor")
    assert_documented("doctor", report)
    seen = {name for finding in report["findings"] for name in finding}
    assert seen >= {"endpoints", "too_large", "allowed", "refused", "rpc"}
    assert any(store["skipped"] for f in report["findings"] for store in f.get("stores", ()))


def test_stats(user_path: Path, invoke: Invoke) -> None:
    slow: dict[str, Any] = {"generation_tokens_per_second": 2.0}
    rows = [run_logged(NOW + at, **(slow if at > 12 else {})) for at in range(16)]
    write_log(user_path, [run_logged(NOW, "local/x/unknown", tokens=(None, None)), *rows])
    found = json_of(invoke, "stats")
    assert [each["slowdown"] is None for each in found] == [False, True]
    assert_documented("stats", found)


@pytest.mark.pure
def test_finding_about_a_build() -> None:
    gpu = Device(name="CUDA0", title="RTX 4090", memory=24 * 2**30)
    build = Build(kind="llama-server", path="/llama-server", version="b9000", devices=(gpu,))
    report = BuildReport((build,), build, "", ())
    (finding,) = engine_findings(Snapshot(), report, [])
    assert_documented("finding", finding_facts(finding))
    assert finding_facts(finding)["devices"] == [{"title": "RTX 4090", "memory": 24 * 2**30}]


SECRETS = ("fingerprints", "key_alias", "manifest", "stamp", "asked_at", "geometry", "sk-secret")


def keys_in(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from value
        for each in value.values():
            yield from keys_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from keys_in(each)


@pytest.mark.parametrize("arguments", [["models"], ["endpoints"], ["show", "local"], ["doctor"]])
def test_internals_and_keys_are_not_shown(
    busy: Path, invoke: Invoke, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_localrun.cli.doctor.get_catalogue", lambda _policy: SNAPSHOT)
    (busy / "keys.json").write_text('{"localrun-ollama": "sk-secret"}')
    value = json_of(invoke, *arguments)
    assert {*keys_in(value)}.isdisjoint(SECRETS)
    assert "sk-secret" not in json.dumps(value)


def test_status(user_path: Path, starter_model: Path, invoke: Invoke) -> None:
    put_starter(user_path, starter_model)
    configure(user_path, **CONFIG)
    value = json_of(invoke)
    assert value == json_of(invoke, "status")
    assert value["models"] == 1
    assert value["models_on_servers"] == 0
    assert value["local"] == f"local/gguf/{starter_model.stem}"
    assert value["engine"].startswith("xllamacpp ")
    assert value["next_steps"][0] == {
        "command": 'llm -m local "prompt"',
        "purpose": "ask the best model",
    }


def test_status_without_models(user_path: Path, invoke: Invoke) -> None:
    configure(user_path, **CONFIG)
    value = json_of(invoke)
    assert_documented("status", value)
    assert (value["models"], value["local"], value["servers"]) == (0, None, [])


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("localrun", "--json", "models"), "models"),
        (("localrun", "endpoints", "--json", "list"), "list"),
        (("localrun", "endpoints", "--json", "add", "a", "b"), "add"),
    ],
)
def test_json_before_a_command(
    user_path: Path, invoke: Invoke, arguments: tuple[str, ...], command: str
) -> None:
    """It would be lost there."""
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert f"Give --json after {command}." in done.stderr
