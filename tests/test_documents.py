"""The generated parts of the documents are what the code says; `just docs` writes them."""

import re

import pytest

from llm_localrun.cli import command_names
from llm_localrun.config import Config, ConfiguredEndpoint
from llm_localrun.files.base import stores
from llm_localrun.servers.base import GENERIC_KIND, server_class
from tests.support.generated.commands import commands_table, with_all_commands
from tests.support.generated.comparison import COMPARED_ROWS, compared_table
from tests.support.generated.options import OPTION_COLUMNS
from tests.support.generated.parts import PARTS, regenerated
from tests.support.generated.recommended import (
    RECOMMENDED_RAM_GB,
    RECOMMENDED_USES,
    recommended_for,
    recommended_table,
)
from tests.support.generated.servers import product_kinds, servers_table
from tests.support.generated.stores import stores_table
from tests.support.repository import ROOT

OPTIONS = (ROOT / "docs" / "options.md").read_text("utf-8")
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text("utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text("utf-8")


@pytest.mark.parametrize("name", PARTS)
def test_generated_parts_are_what_the_code_says(name: str) -> None:
    text = (ROOT / PARTS[name][0]).read_text("utf-8")
    assert regenerated(name, text) == text


def test_every_kind_of_server_has_a_row_with_its_ports() -> None:
    rows = servers_table().splitlines()
    for kind in product_kinds():
        (row,) = (row for row in rows if row.startswith(f"| {kind.title} |"))
        assert {*map(str, (*kind.usual_ports, *kind.shared_ports))} <= {
            *re.findall(r"\d{4,5}", row)
        }, kind.title
        assert re.search(r"\d{4,5}", row), f"{kind.title} has no port"


# By kind: whose column it has, the options that it takes besides, and those that it does not take.
DIFFERENCES: dict[str, tuple[str, set[str], set[str]]] = {
    "sglang": ("vllm", set(), {"grammar"}),
    "llamafile": ("llamacpp", set(), set()),
    "lemonade": (GENERIC_KIND, {"top_k", "repeat_penalty"}, set()),
    "mlx": (GENERIC_KIND, {"top_k", "repeat_penalty", "min_p"}, {"stop"}),
    "transformers": (GENERIC_KIND, set(), {"presence_penalty"}),
}


def test_text_below_the_options_names_every_difference_from_the_columns() -> None:
    (text,) = re.findall(r"^SGLang takes .*", OPTIONS, flags=re.MULTILINE)
    for kind in product_kinds():
        if kind.kind in OPTION_COLUMNS.values():
            continue
        column, more, fewer = DIFFERENCES.get(kind.kind, (GENERIC_KIND, set(), set()))
        listed = {*server_class(column).options}
        assert ({*kind.options} - listed, listed - {*kind.options}) == (more, fewer), kind.title
        named = {kind.title} if kind.kind in DIFFERENCES else set()
        assert all(name in text for name in named | {f"`{each}`" for each in more | fewer})


@pytest.mark.parametrize("command", sorted({*command_names()} - {"status"}))
def test_every_command_is_in_the_table_of_commands_and_has_a_section(command: str) -> None:
    """`status` is what `llm localrun` alone shows."""
    assert f"[`llm localrun {command}`](#llm-localrun-{command}) |" in commands_table()
    assert COMMANDS.count(f"\n### llm localrun {command}\n") == 1


def test_a_new_command_gets_a_section() -> None:
    assert with_all_commands(COMMANDS) == COMMANDS
    without = COMMANDS.replace("<!-- help: llm localrun which -->", "")
    added = with_all_commands(without).removeprefix(without.rstrip())
    assert added.startswith("\n\n### llm localrun which\n")
    assert "`llm localrun which`" not in added
    assert "Usage: llm localrun which" in regenerated("help: llm localrun which", added)


def test_readme_names_the_first_recommended_models() -> None:
    rows = recommended_table().splitlines()[2:]
    for ram, row in zip(RECOMMENDED_RAM_GB, rows, strict=True):
        firsts = [recommended_for(use, ram)[0].model.name for use in RECOMMENDED_USES.values()]
        assert re.findall(r"`(\S+)`", row) == firsts


def test_readme_repeats_times_of_the_comparison() -> None:
    measured = (ROOT / "docs" / "comparison.md").read_text("utf-8")
    *rows, _, machine = compared_table().splitlines()[2:]
    assert re.fullmatch(r"Measured on 20\d\d-\d\d-\d\d: \d+ cores of .*, Linux .*\.", machine)
    for title, row in zip(COMPARED_ROWS, rows, strict=True):
        (source,) = (line for line in measured.splitlines() if line.startswith(f"| {title} |"))
        times = [cell.removeprefix("over ") for cell in row.rstrip(" |").split(" | ")[1:]]
        assert times.count("-") == source.count("not measured")
        assert all(time in source for time in times if time != "-")


def test_every_store_has_a_row_with_what_moves_it() -> None:
    rows = stores_table().splitlines()
    for store in stores():
        (row,) = (row for row in rows if row.startswith(f"| `{store.name}` |"))
        names = {each.partition("/")[0] for each in store.overrides}
        assert all(f"`{name}`" in row for name in names), store.name


def _keys_of(section: str) -> list[str]:
    (text,) = re.findall(
        rf"^## {section}\n(.*?)(?=^## |\Z)", CONFIGURATION, re.DOTALL | re.MULTILINE
    )
    return re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)


def test_configuration_describes_every_key_and_no_other() -> None:
    assert sorted(_keys_of("Keys")) == sorted(Config.model_fields)
    assert sorted(_keys_of("Endpoints")) == sorted(ConfiguredEndpoint.model_fields)


def test_example_of_config_json_is_valid_and_has_every_key() -> None:
    (text,) = re.findall(r"^```json\n(.*?)^```", CONFIGURATION, flags=re.DOTALL | re.MULTILINE)
    assert Config.model_validate_json(text).model_fields_set == set(Config.model_fields)


def test_a_part_that_is_missing_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 places for servers"):
        regenerated("servers", "# Servers\n")
