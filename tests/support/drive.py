"""Runs a model as a user of llm's Python API would, in each of the four ways, and reports
the outcome."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llm

from llm_localrun.chat.models import AsyncLocalChat, LocalChat
from llm_localrun.models import Endpoint, LocalModel
from tests.support.models import local_model

WAYS = ["sync", "async", "sync unstreamed", "async unstreamed"]


@dataclass(frozen=True)
class Outcome:
    """What a reply leaves in llm's response."""

    text: str
    reasoning: str
    parts: list[dict[str, Any]]
    input: int | None
    output: int | None
    details: dict[str, Any] | None
    resolved_model: str | None
    json: dict[str, Any] | None


def served(url: str, kind: str, name: str = "smollm2:135m", **known: Any) -> LocalModel:
    """A model that a server of `kind` at `url` offers."""
    endpoint = Endpoint(name=kind, kind=kind, url=url)
    return local_model(id=f"local/{kind}/{name}", name=name, endpoint=endpoint, **known)


def ask(model: LocalModel, prompt: str | None, way: str = "sync", **options: Any) -> Outcome:
    """Prompts `model` in one of the `WAYS`."""
    stream = "unstreamed" not in way
    if way.startswith("sync"):
        return _outcome(LocalChat(model).prompt(prompt, stream=stream, **options))
    return asyncio.run(_ask_async(model, prompt, stream, options))


async def _ask_async(
    model: LocalModel, prompt: str | None, stream: bool, options: dict[str, Any]
) -> Outcome:
    response = AsyncLocalChat(model).prompt(prompt, stream=stream, **options)
    await response.text()
    return _outcome(await response.to_sync_response())


def _outcome(response: Any) -> Outcome:
    text = response.text()
    parts = [part.to_dict() for message in response.messages() for part in message.parts]
    usage = response.usage()
    return Outcome(
        text=text,
        reasoning="".join(part["text"] for part in parts if part["type"] == "reasoning"),
        parts=parts,
        input=usage.input,
        output=usage.output,
        details=usage.details,
        resolved_model=response.resolved_model,
        json=response.response_json,
    )


def failure(act: Callable[[], object]) -> str:
    """The message of the error that `act` ends in, which must be one for people."""
    try:
        act()
    except llm.ModelError as error:
        return str(error)
    raise AssertionError("it did not fail")
