"""Images and sounds that models accept, and their MIME types."""

import base64
from dataclasses import dataclass

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
