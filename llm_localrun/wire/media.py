"""The MIME types of what models can be shown and played."""

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
AUDIO = frozenset({"audio/wav", "audio/mpeg"})

SAME = {"image/jpg": "image/jpeg", "audio/x-wav": "audio/wav", "audio/mp3": "audio/mpeg"}
"""Other names that some of them go by."""


def _spelled(types: frozenset[str]) -> frozenset[str]:
    return types | {other for other, name in SAME.items() if name in types}


_ALL_IMAGES, _ALL_AUDIO = _spelled(IMAGES), _spelled(AUDIO)


def taken_by(*, sees: bool, hears: bool) -> frozenset[str]:
    """Every type, in every spelling, that a model takes which sees or hears."""
    return (_ALL_IMAGES if sees else frozenset()) | (_ALL_AUDIO if hears else frozenset())


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
