"""Unpacks archives of programs (.tar.gz and .zip), which may be hostile, into a new folder.

An archive is refused as a whole if it has anything but files, folders and links, if a name or a
link leads out of the folder, or if it is larger than a program may be. Nothing is written through a
link: links are made last, when the folder holds files only. Which archive to unpack, and removing
what a refused one has left, is left to `install`.
"""

import gzip
import os
import posixpath
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from llm_localrun.errors import InstallFailed

MAX_BYTES = 16 * 2**30
MAX_RATIO = 60
"""Bytes for each byte of the archive. Libraries with kernels of GPUs have less than 10."""
_MIN_ALLOWED = 64 * 2**20
MAX_ENTRIES = 20_000
_MAX_NAME = 240
"""Characters of a path in the archive."""
_BLOCK = 2**18
"""Also the most that the headers of a member may have: tarfile reads them whole."""
_MAX_HEADERS = 2**26
"""Bytes of all headers of a tar."""
_MAX_DIRECTORY = 2**23
"""Bytes of the list in a zip: zipfile reads it whole, and takes ten times as much memory."""
_REFUSED_HEADERS = (tarfile.GNUTYPE_SPARSE, tarfile.XGLTYPE)
"""Sparse files, and what is for all members that follow: tarfile copies it for each of them."""
_UNSAFE = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]|[ .](?:/|$)')
"""What leads elsewhere on some system, or cannot be a file's name there."""
_DEVICE_NAME = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)", re.IGNORECASE)
_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError),
    *(ValueError, RuntimeError, OverflowError, LookupError, MemoryError, struct.error),
)
"""What the readers raise for an archive that they cannot read."""


class _Hostile(Exception):
    """An archive is refused; the message says why, in half a sentence."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file, folder or link in an archive."""

    name: str
    kind: str
    """file, folder, symlink or hardlink."""
    size: int = 0
    is_program: bool = False
    target: str = ""
    """Of a link."""


def unpack(archive: Path, folder: Path) -> Iterator[int]:
    """Unpacks into `folder`, which must not exist. Yields the bytes of the archive that are read.

    Raises `InstallFailed` if the archive is damaged or refused, and OSError.
    """
    folder.mkdir(mode=0o700)
    limit = min(MAX_BYTES, max(_MIN_ALLOWED, archive.stat().st_size * MAX_RATIO))
    reader = _unpack_zip if archive.name.endswith(".zip") else _unpack_tar
    try:
        yield from reader(archive, _Tree(folder, limit))
    except _Hostile as error:
        raise InstallFailed(
            f"{archive.name} is not unpacked: {error}", "Choose another release with --tag"
        ) from None
    except _DAMAGED as error:
        raise InstallFailed(
            f"{archive.name} is damaged: {str(error) or type(error).__name__}",
            "Run the same command again, or choose another release with --tag",
        ) from None


def _unpack_tar(archive: Path, tree: "_Tree") -> Iterator[int]:
    with archive.open("rb") as packed, gzip.GzipFile(fileobj=packed) as unzipped:
        stream = _Forward(unzipped, tree.limit + MAX_ENTRIES * 2**10)
        with tarfile.open(  # type: ignore[call-overload]
            fileobj=stream, mode="r:", tarinfo=_Header
        ) as opened:
            while member := opened.next():
                # It keeps all of them, and each with its headers.
                opened.members.clear()
                entry = _tar_entry(member)
                content = opened.extractfile(member) if entry.kind == "file" else None
                with stream.content():
                    tree.add(entry, content)
                yield packed.tell()
        tree.make_links()


def _unpack_zip(archive: Path, tree: "_Tree") -> Iterator[int]:
    _check_directory(archive)
    with _reading():
        opened = zipfile.ZipFile(archive)
    with opened:
        done = 0
        for info in opened.infolist():
            entry = _zip_entry(info)
            if entry.kind == "file":
                with _reading():
                    content = opened.open(info)
                with content:
                    tree.add(entry, content)
            else:
                tree.add(entry, None)
            done += info.compress_size
            yield done
    tree.make_links()


@contextmanager
def _reading() -> Iterator[None]:
    """An OSError while an archive is read is about the archive, and not about the disk."""
    try:
        yield
    except OSError as error:
        raise EOFError(error.strerror or str(error)) from None


def _check_directory(archive: Path) -> None:
    """Refuses a zip whose list of files is too long. Raises `_Hostile` and `BadZipFile`.

    The record at its end says where the list is. zipfile takes the one that ends the file, and one
    for large archives that lies before it.
    """
    with archive.open("rb") as file:
        file.seek(max(0, archive.stat().st_size - 42))
        locator, record = (end := file.read())[:-22], end[-22:]
    if len(record) < 22 or record[:4] != b"PK\x05\x06" or record[20:] != b"\0\0":
        raise zipfile.BadZipFile("it does not end with a list of its files")
    count, length = struct.unpack_from("<HI", record, 10)
    if count > MAX_ENTRIES or length > _MAX_DIRECTORY or locator[:4] == b"PK\x06\x07":
        raise _Hostile(f"it has more than {MAX_ENTRIES:,} entries")


def _tar_entry(member: tarfile.TarInfo) -> _Entry:
    if member.isdir():
        return _Entry(member.name, "folder")
    if member.issym():
        return _Entry(member.name, "symlink", target=member.linkname)
    if member.islnk():
        return _Entry(member.name, "hardlink", target=member.linkname)
    if not member.isreg() or member.issparse():
        raise _Hostile(f"{member.name!r} is neither a file nor a folder")
    return _Entry(member.name, "file", member.size, bool(member.mode & 0o111))


def _zip_entry(info: zipfile.ZipInfo) -> _Entry:
    # Archives that are made on Windows have no mode.
    mode = info.external_attr >> 16
    kind = stat.S_IFMT(mode)
    if info.is_dir():
        return _Entry(info.filename, "folder")
    if kind not in (0, stat.S_IFREG):
        raise _Hostile(f"{info.filename!r} is neither a file nor a folder")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _Hostile(f"{info.filename!r} is compressed in an unusual way")
    return _Entry(info.filename, "file", info.file_size, bool(mode & 0o111))


class _Header(tarfile.TarInfo):
    """A header that tarfile acts upon only if it is of a kind that a build needs."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if header.type in _REFUSED_HEADERS:
            raise _Hostile(f"{header.name!r} is neither a file nor a folder")
        return header


class _Forward:
    """A file that tarfile reads from the beginning to the end, and no more than `limit` bytes.

    What it reads outside of `content` is headers: no more than a block for each member.
    """

    def __init__(self, file: gzip.GzipFile, limit: int) -> None:
        self._file = file
        self._limit = limit
        self._position = 0
        self._is_header = True
        self._header_bytes = 0
        self._all_headers = 0

    @contextmanager
    def content(self) -> Iterator[None]:
        """While the content of a member is read."""
        self._all_headers += self._header_bytes
        self._header_bytes, self._is_header = 0, False
        yield
        self._is_header = True

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        if self._is_header:
            self._header_bytes += size
            if max(self._header_bytes - _BLOCK, self._all_headers - _MAX_HEADERS) > 0:
                raise _Hostile("it has a header of an impossible size")
        return self._read(size)

    def _read(self, size: int) -> bytes:
        with _reading():
            data = self._file.read(size)
        self._position += len(data)
        if self._position > self._limit:
            raise _Hostile(f"it has more than {self._limit:,} bytes")
        return data

    def seek(self, position: int) -> None:
        while self._position < position:
            if not self._read(min(_BLOCK, position - self._position)):
                raise EOFError("it ends too early")
        if position < self._position:
            raise _Hostile("its headers lead backwards")


@dataclass
class _Tree:
    """What has been unpacked into `root`; at most `limit` bytes."""

    root: Path
    limit: int
    written: int = 0
    count: int = 0
    kinds: dict[str, str] = field(default_factory=dict)
    """`file`, `folder` or `link`, by path. Case is folded: some systems do not tell it apart."""
    links: list[tuple[str, str, bool]] = field(default_factory=list)
    """Path, path of the target, and whether it is a symbolic link."""

    def add(self, entry: _Entry, content: IO[bytes] | None) -> None:
        """Raises `_Hostile` and OSError."""
        self.count += 1
        if self.count > MAX_ENTRIES:
            raise _Hostile(f"it has more than {MAX_ENTRIES:,} entries")
        path = _checked(entry.name)
        if entry.kind == "folder":
            self._make_folders(path)
            return
        if not path:
            raise _Hostile("it has a file without a name")
        self._make_folders(posixpath.dirname(path))
        self._note(path, "file" if content else "link")
        if content:
            self._write(path, entry, content)
        else:
            base = posixpath.dirname(path) if entry.kind == "symlink" else ""
            self.links.append((path, _joined(base, entry.target), entry.kind == "symlink"))

    def make_links(self) -> None:
        """Makes the links, if all of them lead to files in the folder.

        Raises `_Hostile` and OSError.
        """
        targets = {path: target for path, target, _ in self.links}
        files = {path: self.root / self._end(path, targets) for path in targets}
        for path, _, is_symbolic in self.links:
            link = self.root / path
            if is_symbolic:
                link.symlink_to(os.path.relpath(files[path], link.parent))
            else:
                link.hardlink_to(files[path])

    def _end(self, link: str, targets: Mapping[str, str]) -> str:
        """The file that `link` leads to, through other links or not."""
        path = link
        for _ in range(len(targets)):
            path = targets[path]
            if path not in targets:
                break
        else:
            raise _Hostile(f"the link {link!r} leads in a circle")
        if self.kinds.get(path.casefold()) != "file" or not (self.root / path).is_file():
            raise _Hostile(f"the link {link!r} does not lead to a file in it")
        return path

    def _make_folders(self, path: str) -> None:
        """Makes the folder `path` and those around it."""
        parts = path.split("/") if path else []
        for at in range(1, len(parts) + 1):
            folder = "/".join(parts[:at])
            if self.kinds.get(folder.casefold()) != "folder":
                self._note(folder, "folder")
                (self.root / folder).mkdir()

    def _note(self, path: str, kind: str) -> None:
        if path.casefold() in self.kinds:
            raise _Hostile(f"{path!r} is in it twice")
        self.kinds[path.casefold()] = kind

    def _write(self, path: str, entry: _Entry, content: IO[bytes]) -> None:
        if entry.size > self.limit - self.written:
            raise _Hostile(f"it has more than {self.limit:,} bytes")
        left = entry.size
        opener = partial(os.open, mode=0o755 if entry.is_program else 0o644)
        with open(self.root / path, "xb", opener=opener) as file:
            while data := _read(content, min(_BLOCK, left)) if left else b"":
                file.write(data)
                left -= len(data)
        if left or _read(content, 1):
            raise EOFError(f"{path} has another size than it should have")
        self.written += entry.size


def _read(content: IO[bytes], size: int) -> bytes:
    with _reading():
        return content.read(size)


def _checked(name: str) -> str:
    """The path of an entry, relative to the folder. Raises `_Hostile`."""
    path = posixpath.normpath(name)
    is_unsafe = _UNSAFE.search(path.removeprefix("./")) or len(name) > _MAX_NAME
    parts = name.split("/")
    if not name or name.startswith("/") or ".." in parts or (is_unsafe and path != "."):
        raise _Hostile(f"the name {name[:80]!r} is not safe")
    if any(map(_DEVICE_NAME.match, parts)):
        raise _Hostile(f"the name {name[:80]!r} is that of a device")
    return "" if path == "." else path


def _joined(base: str, target: str) -> str:
    """The path that a link in the folder `base` leads to. Raises `_Hostile`."""
    path = posixpath.normpath(posixpath.join(base, target))
    if not target or target.startswith("/") or path.startswith("..") or "\\" in target:
        raise _Hostile(f"a link leads to {target[:80]!r}")
    return path
