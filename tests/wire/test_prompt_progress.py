"""What llama.cpp says while it reads a prompt: the bytes of real servers, split anywhere."""

import pytest

from llm_localrun.system.progress import Progress
from llm_localrun.wire.events import GENERATING, WRITING_CALL, Event, Finished, TextDelta
from llm_localrun.wire.openai import OpenAIDecoder
from llm_localrun.wire.response import ResponseContext, ResponseDecoder, ResponseHead
from tests.fakes.http_server import transcript
from tests.support.replies import EVENTS, chunk, sse

pytestmark = pytest.mark.pure

READ = [[(0, 931), (512, 931), (931, 931)], [(924, 1531), (1436, 1531), (1531, 1531)]]
"""Tokens that are ready, those of the cache included, and all tokens, for each of two prompts."""


def decoder() -> ResponseDecoder:
    response = ResponseDecoder("S", OpenAIDecoder(), ResponseContext())
    assert not list(response.feed(ResponseHead(200, EVENTS)))
    return response


@pytest.mark.parametrize("size", [1, 100, 10**6])
@pytest.mark.parametrize("server", ["llama-server-b10434", "xllamacpp-2026.10.11549"])
def test_progress_is_no_event(server: str, size: int) -> None:
    for exchange, read in zip(transcript("progress", server), READ, strict=True):
        response, said, events = decoder(), list[Progress | None](), list[Event]()
        for start in range(0, len(exchange.body), size):
            begun = bool(events)
            events += response.feed(exchange.body[start : start + size])
            if response.progress not in said:
                assert not begun
                said.append(response.progress)
        events += response.close()
        assert [type(event) for event in events] == [TextDelta] * (len(events) - 1) + [Finished]
        reports = [Progress("reading the prompt", *counts, "tokens") for counts in read]
        # Some of these answers are empty.
        expected = [None, *reports, *[GENERATING][: len(events) - 1]]
        assert said == expected if size == 1 else said[-1] == expected[-1]


@pytest.mark.parametrize(
    "value", [None, 5, [], {}, {"total": 5}, {"total": "5", "processed": []}, {"total": -1}]
)
def test_malformed_progress_is_none(value: object) -> None:
    response = decoder()
    events = list(response.feed(sse({**chunk(content="Hi"), "prompt_progress": value})))
    assert len(events) == 1
    assert response.progress is GENERATING


def test_call_that_is_written() -> None:
    response = decoder()
    call = {"index": 0, "id": "1", "function": {"name": "f", "arguments": "{"}}
    assert not list(response.feed(sse(chunk(tool_calls=[call]))))
    assert response.progress is WRITING_CALL
