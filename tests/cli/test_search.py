"""`llm localrun search`, and `pull` with words, with a number, and without anything."""

import io
import json
import re

import pytest

from llm_localrun.cli import recommend
from llm_localrun.engine import builds
from llm_localrun.engine.memory_check import memory_for_a_new_model
from llm_localrun.gguf.header import read_summary
from llm_localrun.memory import machine
from llm_localrun.memory.fit import (
    MARGIN_BYTES,
    MIN_USEFUL_CONTEXT_TOKENS,
    default_setting,
    is_enough,
)
from llm_localrun.memory.footprint import Footprint, Setting
from llm_localrun.memory.geometry import geometry_of
from llm_localrun.pull.hub_search import recommended_matching
from llm_localrun.pull.refs import parse_ref
from llm_localrun.recommended.models import read_recommended, recommended_named
from tests.conftest import Invoke, one_error
from tests.fakes.hub import TOO_MANY, model, sha256
from tests.support.hub_models import HELPER, HELPER_NAME, offer_ten, recommend_helper
from tests.support.memory import leave_for_a_model
from tests.support.pulling import World
from tests.support.terminal import dialog

GB = 10**9
QUESTION = "Number of the model to download (Enter for none): "
LONG = "bartowski/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-GGUF"


@pytest.fixture
def ten(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    offer_ten(world)
    monkeypatch.setattr(machine, "physical_memory", lambda: 16 * GB)
    monkeypatch.setenv("COLUMNS", "80")
    return world


STARTER_ADVICE = " To get a model without the hub: `llm localrun pull starter`."


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens where the hub should be."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


# search


def test_table(ten: World, invoke: Invoke) -> None:
    result = invoke("localrun", "search", "qwen3", "4b")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "model                  fits    size  downloads  license\n"
        "unsloth/Qwen3-4B-GGUF  Q4_K_M  1 MB    120,345  apache-2.0\n"
        "Qwen/Qwen3-14B-GGUF    Q4_K_M  1 MB    500,000  apache-2.0\n"
        "\n"
        "Get the first that fits: llm localrun pull unsloth/Qwen3-4B-GGUF\n"
    )


def test_eighty_columns(ten: World, invoke: Invoke) -> None:
    lines = invoke("localrun", "search", "gguf", "--limit", "10").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    at = lines.index(LONG)
    assert lines[at + 1].split() == ["Q4_K_M", "1", "MB", "800", "apache-2.0"]
    assert len(lines) == 1 + 10 + 1 + 2


def test_nothing_fits(ten: World, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "physical_memory", lambda: 1_000_000)
    result = invoke("localrun", "search", "helper")
    assert result.stdout.splitlines()[1:] == [f"{HELPER}  none  1 MB         70  apache-2.0"]


def test_what_cannot_be_read_is_explained(ten: World, invoke: Invoke) -> None:
    ten.hub.odd_entries = [{"id": "gone/Gone"}, {"id": "\x1b[31m/x"}]
    result = invoke("localrun", "search", "helper")
    assert re.search(rf"^{HELPER} ", result.stdout, re.MULTILINE)
    assert result.stdout.endswith(f"Get the first that fits: llm localrun pull {HELPER}\n")
    assert result.stderr.startswith("gone/Gone: There is no repository gone/Gone at http://127.")
    assert "\x1b" not in result.output


@pytest.mark.parametrize("words", [["zebra"], ["qwen", "zebra"]])
def test_nothing_found(ten: World, invoke: Invoke, words: list[str]) -> None:
    said = (
        f"The hub has no GGUF repository that matches '{' '.join(words)}'. Try fewer words, or see"
        " what is recommended: `llm localrun recommend`."
    )
    assert one_error(invoke("localrun", "search", *words)) == said
    assert one_error(invoke("localrun", "pull", *words)) == said
    assert json.loads(invoke("localrun", "search", *words, "--json").stdout) == []


# pull, in a pipe


def test_words_list_what_matches(ten: World, invoke: Invoke) -> None:
    recommend_helper(ten)
    result = invoke("localrun", "pull", "little", "helper")
    assert result.exit_code == 2
    table, _, commands = result.stdout.partition("\n\n")
    assert [line.split()[0] for line in table.splitlines()] == ["model", HELPER_NAME, HELPER]
    assert commands.splitlines() == [
        f"llm localrun pull {HELPER_NAME}",
        f"llm localrun pull {HELPER}",
    ]
    assert result.stderr == (
        "'little helper' is not the name of a model; choose one of these. Nothing was downloaded.\n"
    )
    assert not ten.at_files.requests or not ten.there


def test_quantization_is_kept(ten: World, invoke: Invoke) -> None:
    recommend_helper(ten)
    result = invoke("localrun", "pull", "helper", "-q", "q8_0")
    assert result.exit_code == 2
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [
        [HELPER, "Q8_0", "1", "MB", "70", "apache-2.0"],
        [],
        ["llm", "localrun", "pull", HELPER, "-q", "Q8_0"],
    ]


@pytest.mark.parametrize(
    ("words", "there", "found"),
    [
        ("coder", "UD-Q3_K_S", ["bartowski/Qwen2.5-Coder-14B-Instruct-GGUF"]),
        ("coder", "", []),
        ("little helper", "", []),
    ],
)
def test_only_matches_with_the_quantization_are_offered(
    ten: World, invoke: Invoke, words: str, there: str, found: list[str]
) -> None:
    recommend_helper(ten)
    data = model("small")
    ten.files.content[sha256(data)] = data
    for name in found:
        ten.hub.repositories[name].files[f"x-{there}.gguf"] = data
    result = invoke("localrun", "pull", *words.split(), "-q", "Q3_K_S")
    commands = [f"llm localrun pull {name} -q Q3_K_S" for name in found]
    assert re.findall(r"^llm .*", result.stdout, re.MULTILINE) == commands
    if found:
        assert result.stdout.splitlines()[1].split()[:2] == [found[0], there]
    else:
        assert one_error(result) == (
            f"None of the best matches for '{words}' is known to have Q3_K_S. See what fits without"
            f" -q: `llm localrun pull {words}`."
        )


def test_recommended_model_in_the_quantization(ten: World, invoke: Invoke) -> None:
    recommend_helper(ten)
    result = invoke("localrun", "pull", "helper", "-q", "Q4_K_M", "--json")
    assert [each["ref"] for each in json.loads(result.stdout)] == [HELPER_NAME, HELPER]


def test_words_as_json(ten: World, invoke: Invoke) -> None:
    recommend_helper(ten)
    result = invoke("localrun", "pull", "helper", "--json")
    assert result.exit_code == 2
    assert [each["ref"] for each in json.loads(result.stdout)] == [HELPER_NAME, HELPER]


def test_those_that_fit_come_first(
    ten: World, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that cannot be read are left out."""
    big = ten.hub.repositories["Qwen/Qwen3-14B-GGUF"]
    data = model("big", 40_000_000)
    big.files.clear()
    big.files["x-Q4_K_M.gguf"] = data
    ten.files.content[sha256(data)] = data
    ten.hub.odd_entries = [{"id": "gone/Qwen3-14B"}]
    footprint = Footprint(geometry_of(read_summary(io.BytesIO(data))), len(data))
    too_little = footprint.need(Setting(MIN_USEFUL_CONTEXT_TOKENS)).total + MARGIN_BYTES - 1
    leave_for_a_model(monkeypatch, too_little)
    found = json.loads(invoke("localrun", "pull", "qwen3", "--json").stdout)
    assert [each["fits"] for each in found] == [True, True, False]
    assert found[-1]["ref"] == big.name


@pytest.mark.parametrize("command", ["search", "pull"])
def test_words_without_a_hub(
    world: World, no_hub: None, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    leave_for_a_model(monkeypatch, 2 * GB)
    result = invoke("localrun", command, "qwen3", "0.6b")
    assert result.exit_code == 1
    assert re.search(r"^llm localrun pull qwen3-0\.6b$", result.stdout, re.MULTILINE)
    assert re.search(r"^qwen3-0\.6b +Q4_K_M +397 MB +Apache-2\.0$", result.stdout, re.MULTILINE)
    assert result.stderr.startswith("Error: http://127.0.0.1:9 cannot be reached: ")
    assert result.stderr.endswith(f". Recommended models that match are listed.{STARTER_ADVICE}\n")
    said = one_error(invoke("localrun", command, "zebra"))
    assert "Recommended" not in said
    assert said.endswith(f"HF_ENDPOINT.{STARTER_ADVICE}")


@pytest.mark.parametrize(
    ("memory", "arguments", "rows", "commands", "note"),
    [
        (30 * GB, ["pull", "qwen"], 5, 5, "listed."),
        (30 * GB, ["search", "qwen", "--limit", "2"], 2, 2, "listed."),
        (GB // 10, ["pull", "qwen"], 3, 0, "listed, but none fits this machine."),
        (30 * GB, ["pull", "qwen", "-q", "Q3_K_S"], 0, 0, "HF_ENDPOINT."),
    ],
)
def test_few_are_listed_without_a_hub(
    world: World,
    no_hub: None,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    memory: int,
    arguments: list[str],
    rows: int,
    commands: int,
    note: str,
) -> None:
    """Those that fit, or the smallest if none does."""
    leave_for_a_model(monkeypatch, memory)
    result = invoke("localrun", *arguments)
    table, _, lines = result.stdout.partition("\n\n")
    fits = [line.split()[1] for line in table.splitlines()[1:]]
    assert len(fits) == rows
    assert ("none" in fits) == (rows > commands)
    assert len(lines.splitlines()) == commands
    assert result.stderr.endswith(f"{note}{STARTER_ADVICE}\n")


def test_sentences_have_one_full_stop(ten: World, invoke: Invoke) -> None:
    ten.hub.refusal = TOO_MANY
    for words in (["qwen"], ["zebra"]):
        said = invoke("localrun", "pull", *words).stderr
        assert "55 seconds. " in said
        assert ".." not in said.replace("...", "")


@pytest.mark.parametrize("name", ["qwen3-0.6b", "little-helper"])
def test_recommended_name_without_a_hub(
    ten: World, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    recommend_helper(ten)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said = one_error(invoke("localrun", "pull", name))
    assert said.endswith(f"HF_ENDPOINT.{STARTER_ADVICE}")


@pytest.mark.parametrize(
    ("ram", "on_gpus", "largest"),
    [(8 * GB, 0, 4.8), (8 * GB, 12 * GB, 16.8), (25 * GB, 0, 18.75), (None, 0, 1000.0)],
)
@pytest.mark.parametrize("words", ["gemma", "qwen"])
def test_matches_that_fit_would_be_loaded(
    ten: World,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    ram: int | None,
    on_gpus: int,
    largest: float,
) -> None:
    """As `recommend` has it: with memory for the system, and for a useful context."""
    monkeypatch.setattr(machine, "physical_memory", lambda: ram)
    monkeypatch.setattr(builds, "free_memory_of_gpus", lambda *_: on_gpus)
    memory = memory_for_a_new_model()
    assert memory == (ram and int(largest * GB))
    models = {each.name: each for each in read_recommended()}
    fitting = [match for match in recommended_matching(words, memory) if match.fits]
    assert fitting
    for match in fitting:
        model = models[match.ref]
        setting = default_setting(min(8192, model.context_max or 8192), model.purpose)
        assert memory is None or is_enough(memory, model.footprint, setting), match
    shown = json.loads(invoke("localrun", "pull", words, "--json").stdout)
    assert shown[0]["size"] <= largest * GB


def test_no_ref_lists_what_is_recommended(ten: World, invoke: Invoke) -> None:
    result = invoke("localrun", "pull")
    found = recommend.recommendations()
    assert len(found) > 2
    assert result.exit_code == 2
    assert result.stdout.splitlines()[-len(found) :] == [each.command for each in found]
    assert result.stderr == "No model is named; choose one of these. Nothing was downloaded.\n"
    assert not ten.at_hub.requests


def test_no_ref_as_json(ten: World, invoke: Invoke) -> None:
    result = invoke("localrun", "pull", "--json")
    assert result.exit_code == 2
    facts = [recommend.recommendation_facts(each) for each in recommend.recommendations()]
    assert [each["name"] for each in json.loads(result.stdout)] == [each["name"] for each in facts]
    assert json.loads(result.stdout)[0].keys() == facts[0].keys()


def test_nothing_recommended_fits(
    ten: World, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "physical_memory", lambda: 10**6)
    said = one_error(invoke("localrun", "pull"))
    assert said == (
        "No recommended model fits the memory of this machine. Get the smallest one:"
        " `llm localrun pull starter --tiny`."
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["qwen", "--tiny"], "--tiny applies to `llm localrun pull starter` only.\n"),
        ([HELPER, "--tiny"], "--tiny applies to `llm localrun pull starter` only.\n"),
        (["qwen", "--embed"], "--embed applies to `llm localrun pull starter` only.\n"),
        (["starter", "--embed", "--tiny"], "--tiny and --embed exclude each other; give one.\n"),
        (["--tiny", "--embed"], "--tiny and --embed exclude each other; give one.\n"),
    ],
)
def test_kind_of_starter(invoke: Invoke, arguments: list[str], said: str) -> None:
    result = invoke("localrun", "pull", *arguments)
    assert result.exit_code == 2
    assert result.stderr.endswith(said)


# pull, on a terminal


def test_number_of_a_match(ten: World) -> None:
    recommend_helper(ten)
    status, shown = dialog(
        "localrun", "pull", "helper", question=QUESTION, answers=["x\n", "3\n", " 1 \n"]
    )
    assert status == 0
    assert shown.count("Error: type a number from 1 to 2, or nothing\n") == 2
    assert re.search(rf"^1  {HELPER_NAME} ", shown, re.MULTILINE)
    assert re.search(rf"^2  {HELPER} ", shown, re.MULTILINE)
    assert max(map(len, shown.partition(QUESTION)[0].splitlines())) <= 80
    assert [record["ref"] for record in ten.records] == [parse_ref(HELPER_NAME).text]


def test_recommended_models_fit_a_terminal(ten: World) -> None:
    """At 80 columns, no name has a line of its own."""
    _, shown = dialog("localrun", "pull", question=QUESTION, answers=["\n"])
    table, explained, _ = shown.split("\n\n")
    rows = table.splitlines()[1:]
    assert [row.split()[0] for row in rows] == [str(at + 1) for at in range(len(rows))]
    assert all(len(row.split()) > 3 and len(row) <= 80 for row in rows)
    assert explained.startswith("memory: with ")


def test_number_of_a_recommended_model(ten: World) -> None:
    """The hub of the test has none of them: it is asked for the one that is chosen."""
    _, shown = dialog("localrun", "pull", question=QUESTION, answers=["2\n"])
    (name,) = re.findall(r"^2  (\S+)", shown, re.MULTILINE)
    chosen = recommended_named(name)
    assert chosen is not None
    assert re.search(f"Error: (There is no repository )?{chosen.repository} (at|has no)", shown)
    assert ten.at_hub.requests[-1].path.startswith(
        f"/api/models/{chosen.repository}/revision/{chosen.revision}"
    )


@pytest.mark.parametrize(
    ("typed", "ends"),
    [("\n", "Nothing was downloaded.\n"), ("\x03", "Aborted!\n"), ("\x04", "Aborted!\n")],
    ids=["Enter", "Ctrl-C", "Ctrl-D"],
)
@pytest.mark.parametrize("words", [[], ["helper"]])
def test_no_number(ten: World, words: list[str], typed: str, ends: str) -> None:
    status, shown = dialog("localrun", "pull", *words, question=QUESTION, answers=[typed])
    assert status == 1
    assert shown.endswith(ends)
    assert "Traceback" not in shown
    assert ten.there == {}


def test_json_asks_nothing(ten: World) -> None:
    status, shown = dialog("localrun", "pull", "helper", "--json", question=QUESTION, answers=[])
    assert status == 2
    assert json.loads(shown.rpartition("]\n")[0] + "]")[0]["ref"] == HELPER
