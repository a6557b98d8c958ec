"""Unpacking archives of programs: what is in them, and what hostile ones do not get done."""

import gzip
import io
import stat
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from llm_localrun.errors import InstallFailed
from llm_localrun.pull import archive
from llm_localrun.pull.archive import unpack
from tests.support.archives import Member, program, symlink, tar, zipped

pytestmark = pytest.mark.pure

BUILD = (
    Member("llama-b1/", type=tarfile.DIRTYPE),
    Member("./llama-b1/LICENSE", b"MIT"),
    program("llama-b1/llama-server", b"#!/bin/sh\n"),
    symlink("llama-b1/libllama.so", "libllama.so.0"),
    symlink("llama-b1/libllama.so.0", "libllama.so.0.1.0"),
    Member("llama-b1/libllama.so.0.1.0", b"code", 0o6777),
    Member("llama-b1/lib/deep/plugin.so", b"more", 0o600),
    symlink("llama-b1/lib/deep/libllama.so", "../../libllama.so.0.1.0"),
    Member("llama-b1/copy", type=tarfile.LNKTYPE, link="llama-b1/LICENSE"),
)


def unpacked(folder: Path, data: bytes, name: str = "build.tar.gz") -> Path:
    path = folder / name
    path.write_bytes(data)
    read = list(unpack(path, folder / "made"))
    assert read == sorted(read)
    assert all(position <= len(data) for position in read)
    return folder / "made"


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_build(tmp_path: Path) -> None:
    made = unpacked(tmp_path, tar(BUILD))
    library = b"code"
    assert files_in(made / "llama-b1") == {
        "LICENSE": b"MIT",
        "copy": b"MIT",
        "llama-server": b"#!/bin/sh\n",
        **dict.fromkeys(("libllama.so", "libllama.so.0", "libllama.so.0.1.0"), library),
        "lib/deep/plugin.so": b"more",
        "lib/deep/libllama.so": library,
    }
    if sys.platform != "win32":
        modes = [
            stat.S_IMODE((made / "llama-b1" / name).stat().st_mode) | 0o022
            for name in ("LICENSE", "llama-server", "libllama.so.0.1.0")
        ]
        # No bit for another user or group, and none for what may write.
        assert modes == [0o666, 0o777, 0o777]
        assert (made / "llama-b1" / "libllama.so").is_symlink()


def test_a_build_for_windows(tmp_path: Path) -> None:
    entries = [Member("llama-server.exe", b"MZ", 0), Member("a/", mode=0), Member("a/b.dll", b"MZ")]
    made = unpacked(tmp_path, zipped(entries), "build.zip")
    assert files_in(made) == {"llama-server.exe": b"MZ", "a/b.dll": b"MZ"}


FILE = Member("f", b"x")
UP = "../" * 8
REFUSED: list[tuple[str, list[Member], str]] = [
    ("parent", [Member("../f", b"x")], "the name '../f' is not safe"),
    ("parent within", [Member("a/../../f", b"x")], "is not safe"),
    ("parent inside", [Member("a/../f", b"x")], "is not safe"),
    ("absolute", [Member("/tmp/f", b"x")], "the name '/tmp/f' is not safe"),
    ("backslashes", [Member("a\\..\\..\\f", b"x")], "is not safe"),
    ("drive", [Member("C:f", b"x")], "is not safe"),
    ("stream", [Member("f:evil", b"x")], "is not safe"),
    ("control characters", [Member("f\x1b[2J", b"x")], "is not safe"),
    ("name that ends in a dot", [Member("a./f", b"x")], "is not safe"),
    ("device of Windows", [Member("a/NUL.txt", b"x")], "is that of a device"),
    ("long name", [Member("a/" * 200 + "f", b"x")], "is not safe"),
    ("no name", [Member(".", b"x")], "a file without a name"),
    ("device", [Member("f", type=tarfile.CHRTYPE)], "'f' is neither a file nor a folder"),
    ("block device", [Member("f", type=tarfile.BLKTYPE)], "is neither"),
    ("FIFO", [Member("f", type=tarfile.FIFOTYPE)], "is neither"),
    ("link out", [symlink("f", "/etc/passwd")], "a link leads to '/etc/passwd'"),
    ("link up", [symlink("a/f", "../../f")], "a link leads to '../../f'"),
    ("link far up", [FILE, symlink("g", f"{UP}etc/passwd")], "a link leads to"),
    ("link to a folder", [Member("a/f", b"x"), symlink("g", "a")], "does not lead to a file"),
    ("link to itself", [symlink("f", "f")], "leads in a circle"),
    ("links in a circle", [symlink("f", "g"), symlink("g", "f")], "leads in a circle"),
    ("link to nothing", [symlink("f", "nothing")], "does not lead to a file in it"),
    ("empty link", [symlink("f", "")], "a link leads to ''"),
    (
        "through a link",
        [symlink("a", "/tmp"), Member("a/f", b"x")],
        "a link leads to '/tmp'",
    ),
    (
        "through a link inside",
        [Member("b/f", b"x"), symlink("a", "b"), Member("a/g", b"x")],
        "'a' is in it twice",
    ),
    ("over a link", [FILE, symlink("g", "f"), Member("g", b"x")], "'g' is in it twice"),
    ("over a file", [FILE, Member("F", b"y")], "'F' is in it twice"),
    ("within a file", [FILE, Member("f/g", b"y")], "'f' is in it twice"),
    (
        "hard link out",
        [Member("f", type=tarfile.LNKTYPE, link="/etc/passwd")],
        "a link leads to '/etc/passwd'",
    ),
    ("hard link up", [Member("f", type=tarfile.LNKTYPE, link="../f")], "a link leads to"),
    ("hard link to nothing", [Member("f", type=tarfile.LNKTYPE, link="g")], "does not lead"),
    ("too many", [Member(f"f{number}") for number in range(60)], "more than 50 entries"),
]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder around the one that archives are unpacked in."""
    folder = tmp_path / "top" / "a" / "b"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("members", "why"), [row[1:] for row in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_hostile_archives(
    outside: Path, monkeypatch: pytest.MonkeyPatch, members: list[Member], why: str
) -> None:
    monkeypatch.setattr(archive, "MAX_ENTRIES", 50)
    with pytest.raises(InstallFailed) as failure:
        unpacked(outside, tar(members))
    assert why in str(failure.value)
    assert str(failure.value).startswith("build.tar.gz is not unpacked: ")
    assert_nothing_escaped(outside)


def assert_nothing_escaped(outside: Path) -> None:
    made = outside / "made"
    around = {path for path in outside.parents[1].rglob("*") if made not in path.parents}
    assert {path.name for path in around} <= {"a", "b", "made", "build.tar.gz", "build.zip"}
    assert not [path for path in made.rglob("*") if path.is_symlink()]


ZIPS = [
    (Member("../f", b"x"), "is not safe"),
    (Member("/f", b"x"), "is not safe"),
    (Member("a:f", b"x"), "is not safe"),
    (Member("f", b"/etc/passwd", stat.S_IFLNK | 0o777), "is neither a file nor a folder"),
    (Member("f", b"", stat.S_IFIFO | 0o777), "is neither a file nor a folder"),
]


@pytest.mark.parametrize(("member", "why"), ZIPS)
def test_hostile_zips(outside: Path, member: Member, why: str) -> None:
    with pytest.raises(InstallFailed, match=why):
        unpacked(outside, zipped([member]), "build.zip")
    assert_nothing_escaped(outside)


def bomb(size: int) -> bytes:
    return tar([Member("f", bytes(size))], level=9)


def wrong_size() -> bytes:
    """A zip whose list says that its file is smaller than it is."""
    data = bytearray(zipped([Member("f", bytes(5_000_000))]))
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (10).to_bytes(4, "little")
    return bytes(data)


def long_header() -> bytes:
    """A tar whose header for a long name claims to have a gigabyte."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**30
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(2**20))


def many_headers() -> bytes:
    """A tar of headers for long names, each of which is for the next one."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1
    return gzip.compress((info.tobuf(tarfile.GNU_FORMAT) + bytes(512)) * 5_000)


def sparse() -> bytes:
    """A file of a terabyte that takes no place in its archive."""
    info = tarfile.TarInfo("f")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    info.pax_headers |= {"GNU.sparse.name": "f", "GNU.sparse.realsize": str(2**40)}
    info.size = 512
    content = b"1\n0\n1\n".ljust(512, b"\0")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.PAX_FORMAT) as opened:
        opened.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def old_sparse() -> bytes:
    """A header of a sparse file, with a chain of blocks that say where its parts are."""
    data = bytearray(tarfile.TarInfo("f").tobuf(tarfile.GNU_FORMAT))
    data[156:157] = tarfile.GNUTYPE_SPARSE
    data[482] = 1
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    block = b"00000000001\0" * 42 + b"\1" + bytes(7)
    return gzip.compress(bytes(data) + block * 5_000)


def map_of_parts() -> bytes:
    """A sparse file of the newest kind, with a list of a million parts."""
    info = tarfile.TarInfo("f")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    content = b"1000000\n" + b"9\n" * 900_000
    info.size = len(content)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.PAX_FORMAT) as opened:
        opened.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def for_all_members() -> bytes:
    packed = io.BytesIO()
    headers = {"comment": "x" * 1000}
    with tarfile.open(fileobj=packed, mode="w:gz", pax_headers=headers) as opened:
        opened.addfile(tarfile.TarInfo("f"))
    return packed.getvalue()


def long_headers() -> bytes:
    """Headers that are small each and large together."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.PAX_FORMAT) as opened:
        for number in range(20):
            info = tarfile.TarInfo(f"f{number}")
            info.pax_headers = {"comment": "x" * 10_000}
            opened.addfile(info)
    return packed.getvalue()


def compressed(method: int) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as opened:
        opened.writestr("llama-server", b"x" * 1000)
    return packed.getvalue()


def listed(count: int, *, is_large: bool = False) -> bytes:
    """A zip that has nothing but a list of `count` files without names."""
    entry = b"PK\1\2" + bytes(42)
    length = len(entry) * count
    large = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, 0)
    large += struct.pack("<4sIQI", b"PK\6\7", 0, length, 1)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, length, 0, 0)
    return entry * count + large * is_large + end


def encrypted() -> bytes:
    data = bytearray(zipped([Member("f", b"x" * 100)]))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    return bytes(data)


WHOLE = tar(BUILD)
UNREADABLE = {
    "bomb": (bomb(3_000_000), "it has more than"),
    "long header": (long_header(), "a header of an impossible size"),
    "sparse file": (sparse(), "is neither a file nor a folder"),
    "headers of headers": (many_headers(), "a header of an impossible size"),
    "chain of a sparse file": (old_sparse(), "is neither a file nor a folder"),
    "list of a sparse file": (map_of_parts(), "a header of an impossible size"),
    "header for all members": (for_all_members(), "is neither a file nor a folder"),
    "many long headers": (long_headers(), "a header of an impossible size"),
    "cut off": (WHOLE[: len(WHOLE) // 2], "is damaged"),
    "empty": (b"", "is damaged"),
    "a page of HTML": (b"<!DOCTYPE html>" * 100, "is damaged"),
    "compressed nothing": (gzip.compress(b""), "is damaged"),
    "compressed text": (gzip.compress(b"text" * 1000), "is damaged"),
    "flipped bits": (WHOLE[:40] + bytes(b ^ 255 for b in WHOLE[40:60]) + WHOLE[60:], "is damaged"),
}


@pytest.mark.parametrize(("data", "why"), UNREADABLE.values(), ids=UNREADABLE)
def test_bombs_and_damaged_archives(
    outside: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, why: str
) -> None:
    monkeypatch.setattr(archive, "_MIN_ALLOWED", 2_000_000)
    monkeypatch.setattr(archive, "_MAX_HEADERS", 100_000)
    with pytest.raises(InstallFailed, match=why):
        unpacked(outside, data)
    assert_nothing_escaped(outside)
    assert sum(map(len, files_in(outside / "made").values())) <= 2_000_000


ZIPS_UNREADABLE = {
    "bomb": (zipped([Member("f", bytes(3_000_000))]), "it has more than"),
    "wrong size": (wrong_size(), "is damaged"),
    "encrypted": (encrypted(), "is damaged"),
    "cut off": (zipped([FILE])[:-30], "is damaged"),
    "empty": (b"", "is damaged"),
    "bzip2": (compressed(zipfile.ZIP_BZIP2), "is compressed in an unusual way"),
    "LZMA": (compressed(zipfile.ZIP_LZMA), "is compressed in an unusual way"),
    "file without a name": (listed(1), "is damaged"),
    "many entries": (listed(20_001), "it has more than 20,000 entries"),
    "large zip": (listed(2, is_large=True), "it has more than 20,000 entries"),
}


@pytest.mark.parametrize(("data", "why"), ZIPS_UNREADABLE.values(), ids=ZIPS_UNREADABLE)
def test_bombs_and_damaged_zips(
    outside: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, why: str
) -> None:
    monkeypatch.setattr(archive, "_MIN_ALLOWED", 2_000_000)
    with pytest.raises(InstallFailed, match=why):
        unpacked(outside, data, "build.zip")
    assert_nothing_escaped(outside)


def test_a_zip_with_two_files_of_one_name(outside: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened, pytest.warns(UserWarning):
        opened.writestr("f", b"x")
        opened.writestr("f", b"y")
    with pytest.raises(InstallFailed, match="'f' is in it twice"):
        unpacked(outside, packed.getvalue(), "build.zip")
