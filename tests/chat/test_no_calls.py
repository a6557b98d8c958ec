"""Answers without a call to make, with tools offered: text, unchanged to the byte."""

import pytest

from tests.support import no_calls, six_tools
from tests.support.no_calls import CUTS, LANGUAGES, Answer, answers, wrong_answers


@pytest.mark.parametrize("cut", [*CUTS, ""])
@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_stay_as_they_are(language: str, cut: str) -> None:
    assert wrong_answers(language, cut) == []


@pytest.mark.pure
def test_answers_are_many_and_various() -> None:
    texts = answers()
    assert len({(each.text, each.thinking) for each in texts}) == len(texts) >= 200
    names = [tool.name for tool in six_tools.tools()]
    assert sum(any(name in each.sent for name in names) for each in texts) >= 60


def test_a_call_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Answer("a call", '{"name": "current_time", "arguments": {}}')
    monkeypatch.setattr(no_calls, "answers", lambda: [call])
    (found,) = wrong_answers("openai", "whole")
    assert found.startswith("a call 0: 1 calls, 1 requests, '' instead of ")
