"""A chat request, the same for every wire language: messages, media, tools, options, thinking.

Pure values. Making one from llm's prompt is left to `chat.prompt`, its JSON to `wire.openai` and
`wire.ollama`.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
AUDIO = frozenset({"audio/wav", "audio/mpeg"})

ALIASES = {"image/jpg": "image/jpeg", "audio/x-wav": "audio/wav", "audio/mp3": "audio/mpeg"}
"""Other spellings of some types, with the type that each stands for."""


def _with_aliases(types: frozenset[str]) -> frozenset[str]:
    return types | {alias for alias, name in ALIASES.items() if name in types}


_ALL_IMAGES, _ALL_AUDIO = _with_aliases(IMAGES), _with_aliases(AUDIO)


def accepted_types(*, images: bool, audio: bool) -> frozenset[str]:
    """Every MIME type, in every spelling, of a model that accepts `images` or `audio`."""
    return (_ALL_IMAGES if images else frozenset()) | (_ALL_AUDIO if audio else frozenset())


@dataclass(frozen=True, slots=True)
class Media:
    """An image or a sound; `type` is its MIME type."""

    type: str
    data: bytes

    @property
    def is_image(self) -> bool:
        return self.type in IMAGES

    @property
    def base64(self) -> str:
        return base64.b64encode(self.data).decode("ascii")


@dataclass(frozen=True, slots=True)
class PastCall:
    """A tool call of the model in an earlier turn."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn; `role` is system, user, assistant or tool."""

    role: str
    text: str
    media: tuple[Media, ...] = ()
    calls: tuple[PastCall, ...] = ()
    reasoning: str = ""
    """The model's thinking since the last question, which goes back to the model."""
    call_id: str = ""
    """Of a tool's result: the id of the call that it answers."""
    tool_name: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether leaving it out changes nothing. An empty answer stays: templates want turns."""
        return not (self.text or self.media or self.calls or self.role in ("assistant", "tool"))


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool that the model may call; `parameters` is a JSON schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a model is asked to answer."""

    messages: tuple[ChatMessage, ...]
    options: Mapping[str, Any]
    """The options that the user set, under the names of `chat.options`."""
    stream: bool
    tools: tuple[ToolSpec, ...] = ()
    schema: Mapping[str, Any] | None = None
    """The JSON schema that the answer has to follow."""
    calls_as_text: bool = False
    """Whether the server has to leave the calls in the text, since it fails to read them."""
    conversation: str = ""
    """The id under which llm logs the conversation; "" if it does not, and then nothing is kept."""


THINK_LEVELS = ("off", "low", "on", "medium", "high", "max")
"""The values of `-o think` from least to most; `on` leaves the amount to the model."""


def nearest_think_level(level: str, allowed: Sequence[str] | None) -> str | None:
    """The level nearest to `level` that is `allowed`; None if the model cannot think at all.

    A model whose thinking cannot be switched off gets its lowest level. `allowed` is None if the
    levels of a model are unknown; every level passes then.
    """
    if allowed is None or level in allowed:
        return level
    thinking = [known for known in allowed if known != "off" and known in THINK_LEVELS]
    if not thinking:
        return None
    wanted = THINK_LEVELS.index(level)
    return min(thinking, key=lambda known: abs(THINK_LEVELS.index(known) - wanted))
