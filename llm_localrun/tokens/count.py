"""How many tokens a request's prompt takes: at most, and by estimate. Pure.

Exact counting is left to the servers that can count.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from llm_localrun.tokens.estimate import Factors, estimate, units_of
from llm_localrun.tokens.window import Size
from llm_localrun.wire.request import ChatRequest

# Tokens that a template may put around everything, and around each message; what vocabularies put
# in front of a text. Generous: of a short prompt nothing more has to be known.
_TEMPLATE, _MESSAGE = 1024, 32
_MEDIA = 2048
"""Tokens of an image or a sound, of which servers take a few hundred mostly."""


@dataclass(frozen=True)
class Prompt:
    """What of a request becomes tokens."""

    request: ChatRequest

    @cached_property
    def texts(self) -> list[str]:
        return [*_texts(self.request)]

    @property
    def media(self) -> int:
        """How many images and sounds there are."""
        return sum(len(message.media) for message in self.request.messages)

    @cached_property
    def bound(self) -> int:
        """No fewer tokens than the prompt takes: none stands for less than a byte of its texts.

        Tools count twice, because templates write them out in a manner of their own.
        """
        tools = sum(len(_encoded(text)) for text in _tools(self.request))
        return (
            sum(len(_encoded(text)) for text in self.texts)
            + tools
            + _TEMPLATE
            + _MESSAGE * len(self.request.messages)
            + _MEDIA * self.media
        )

    @cached_property
    def units(self) -> dict[str, float]:
        """Its pieces, as `tokens` takes texts apart."""
        around = {"template": 1.0, "message": len(self.request.messages), "media": self.media}
        return {**units_of(self.texts), **around}

    def estimate(self, factors: Factors) -> Size:
        """On the safe side, from what is known of a model."""
        return Size(estimate(self.units, factors), is_exact=False)


def _texts(request: ChatRequest) -> Iterator[str]:
    for message in request.messages:
        yield from (message.text, message.reasoning)
        yield from (json.dumps(dict(call.arguments)) + call.name for call in message.calls)
    yield from _tools(request)


def _tools(request: ChatRequest) -> Iterator[str]:
    for tool in request.tools:
        yield f"{tool.name} {tool.description} {json.dumps(dict(tool.parameters))}"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")
