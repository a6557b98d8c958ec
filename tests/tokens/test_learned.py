"""What was learned of each model is kept in a file that may be lost or damaged."""

from pathlib import Path

import pytest

from llm_localrun.tokens.estimate import parts_of
from llm_localrun.tokens.learned import ModelFacts, learn_from_reply, read_facts, write_facts
from tests.support.corpus import CORPUS

OF_BEFORE = b'{"models": {"m": {"factors": {"han": 0.3, "word": 0.9}, "context_size": 16384}}}'


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        pytest.param(b"", ModelFacts(), id="empty"),
        pytest.param(b"{", ModelFacts(), id="cut off"),
        pytest.param(b"\xff", ModelFacts(), id="no text"),
        pytest.param(b'{"models": 7}', ModelFacts(), id="no models"),
        pytest.param(b'{"models": {"a": {}}}', ModelFacts(), id="another model"),
        pytest.param(
            b'{"models": {"m": {"script_factors": {"CJK": -1}}}}', ModelFacts(), id="impossible"
        ),
        pytest.param(OF_BEFORE, ModelFacts(context_size=16384), id="from before factors by script"),
    ],
)
def test_file_that_says_little(user_path: Path, content: bytes, facts: ModelFacts) -> None:
    (user_path / "localrun" / "tokens.json").write_bytes(content)
    assert read_facts("m") == facts
    write_facts("m", ModelFacts(context_size=8192))
    assert read_facts("m").context_size == 8192


def test_folder_that_cannot_be_written_to(user_path: Path) -> None:
    (user_path / "localrun" / "tokens.json").mkdir()
    write_facts("m", ModelFacts(context_size=8192))
    assert read_facts("m") == ModelFacts()


def test_models_that_were_written_first_are_forgotten(user_path: Path) -> None:
    for number in range(203):
        write_facts(str(number), ModelFacts(context_size=number + 1))
    assert [read_facts(name).context_size for name in ("2", "3", "202")] == [0, 4, 203]


def test_reply_corrects_one_model_and_keeps_its_context(user_path: Path) -> None:
    write_facts("m", ModelFacts(context_size=8192))
    learn_from_reply("m", parts_of([CORPUS["chinese"]]), 300)
    assert set(read_facts("m").script_factors) == {"CJK"}
    assert read_facts("m").context_size == 8192
    assert read_facts("another") == ModelFacts()


@pytest.mark.parametrize("counted", [0, 1, 100])
def test_count_that_cannot_be_of_the_whole_prompt(counted: int, user_path: Path) -> None:
    learn_from_reply("m", parts_of([CORPUS["chinese"]]), counted)
    assert not (user_path / "localrun" / "tokens.json").exists()


def test_long_template_is_remembered(user_path: Path) -> None:
    parts = {"template": 72.0}
    learn_from_reply("m", parts, 2000)
    assert read_facts("m").script_factors["template"] > 20
