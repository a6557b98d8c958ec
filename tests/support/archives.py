"""Makes archives of programs: those of releases, and hostile ones."""

import io
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """An entry of an archive. `type` is one of tarfile's."""

    name: str
    content: bytes = b""
    mode: int = 0o644
    type: bytes = tarfile.REGTYPE
    link: str = ""


def program(name: str, content: bytes) -> Member:
    return Member(name, content, 0o755)


def symlink(name: str, target: str) -> Member:
    return Member(name, type=tarfile.SYMTYPE, link=target)


def tar(members: Iterable[Member], level: int = 6) -> bytes:
    """A .tar.gz with these members, whatever their names are."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=level) as archive:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.mode, info.type, info.linkname = member.mode, member.type, member.link
            info.size = len(member.content)
            archive.addfile(info, io.BytesIO(member.content))
    return packed.getvalue()


def zipped(members: Iterable[Member]) -> bytes:
    """A .zip with these members. Its folders are those whose names end in /."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in members:
            info = zipfile.ZipInfo(member.name)
            info.external_attr = member.mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.content)
    return packed.getvalue()
