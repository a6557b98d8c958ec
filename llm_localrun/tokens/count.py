"""How many tokens the prompt of a request takes: an upper bound, and an estimate. Pure.

Exact counting is left to the servers that can count.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from llm_localrun.tokens.estimate import Factors, estimate, least_plausible, parts_of
from llm_localrun.tokens.window import Size
from llm_localrun.wire.request import ChatRequest

# Upper bounds: what a template puts around all messages and around each, and what an image or a
# sound takes.
MAX_TEMPLATE_TOKENS = 1024
MAX_MESSAGE_TOKENS = 32
MAX_MEDIA_TOKENS = 2048

# Estimates of the same, until the model's replies have corrected them.
USUAL_TEMPLATE_TOKENS = 64
USUAL_MESSAGE_TOKENS = 8
USUAL_MEDIA_TOKENS = 1500

_MAX_MARKER_TOKENS = 4
"""What tokenizers put around a text to embed: its beginning, its end, and a space."""


@dataclass(frozen=True)
class Prompt:
    """What of a request the model reads as tokens."""

    request: ChatRequest

    @cached_property
    def texts(self) -> list[str]:
        return [*_texts(self.request)]

    @property
    def media_count(self) -> int:
        """How many images and sounds there are."""
        return sum(len(message.media) for message in self.request.messages)

    @cached_property
    def bound(self) -> int:
        """At least as many tokens as the prompt takes, since each stands for one byte or more.

        The bytes of tools count twice: templates write them in formats of their own.
        """
        texts = [*self.texts, *_tools(self.request)]
        return (
            sum(len(text.encode("utf-8", "replace")) for text in texts)
            + MAX_TEMPLATE_TOKENS
            + MAX_MESSAGE_TOKENS * len(self.request.messages)
            + MAX_MEDIA_TOKENS * self.media_count
        )

    @cached_property
    def parts(self) -> dict[str, float]:
        """Its tokens by script, with the most expensive vocabulary."""
        template = USUAL_TEMPLATE_TOKENS + USUAL_MESSAGE_TOKENS * len(self.request.messages)
        media = USUAL_MEDIA_TOKENS * self.media_count
        return {**parts_of(self.texts), "template": template, "media": media}

    def estimate(self, factors: Factors) -> Size:
        """The tokens it takes, with the factors learned of the model."""
        tokens = estimate(self.parts, factors)
        return Size(tokens, is_exact=False, least=min(least_plausible(self.parts), tokens - 1))


def bound_of_text(text: str) -> int:
    """At least as many tokens as a text to embed takes, since each stands for one byte or more.

    The exceptions are characters that a tokenizer decomposes, such as U+FDFA: a server that gets
    too many of them says so.
    """
    return len(text.encode("utf-8", "replace")) + _MAX_MARKER_TOKENS


def _texts(request: ChatRequest) -> Iterator[str]:
    for message in request.messages:
        yield from (message.text, message.reasoning)
        yield from (json.dumps(dict(call.arguments)) + call.name for call in message.calls)
    yield from _tools(request)


def _tools(request: ChatRequest) -> Iterator[str]:
    for tool in request.tools:
        yield f"{tool.name} {tool.description} {json.dumps(dict(tool.parameters))}"
