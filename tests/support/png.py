"""Reads PNG files as resvg writes them: 8 bits, red, green, blue and alpha, not interlaced."""

import struct
import zlib
from typing import NamedTuple


class Picture(NamedTuple):
    """Pixels as grays from 0, which is black, to 255."""

    width: int
    height: int
    rows: list[bytes]

    def part(self, x: float, y: float, width: float, height: float) -> list[bytes]:
        """The rows of a part, whose corners are rounded to pixels."""
        columns = slice(round(x), round(x + width))
        return [row[columns] for row in self.rows[round(y) : round(y + height)]]


def is_white(rows: list[bytes]) -> bool:
    return all(row.count(255) == len(row) for row in rows)


def read_png(data: bytes) -> Picture:
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height, *kind = struct.unpack(">IIBBBBB", data[16:29])
    assert kind == [8, 6, 0, 0, 0]
    at, packed = 8, b""
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + size]
        at += size + 12
    return Picture(width, height, _grays(zlib.decompress(packed), width, height))


def _grays(data: bytes, width: int, height: int) -> list[bytes]:
    before, rows, stride = bytes(4 * width), [], 4 * width + 1
    for start in range(0, height * stride, stride):
        before = _unfiltered(data[start], data[start + 1 : start + stride], before)
        colors = zip(before[::4], before[1::4], before[2::4], strict=True)
        rows.append(bytes((r * 299 + g * 587 + b * 114) // 1000 for r, g, b in colors))
    return rows


def _unfiltered(kind: int, row: bytes, above: bytes) -> bytes:
    if kind == 0:
        return row
    if kind == 2:
        return bytes((a + b) & 255 for a, b in zip(row, above, strict=True))
    out = bytearray(4) + row
    over = bytes(4) + above
    for at in range(4, len(out)):
        left, up, corner = out[at - 4], over[at], over[at - 4]
        out[at] = (out[at] + _predicted(kind, left, up, corner)) & 255
    return bytes(out[4:])


def _predicted(kind: int, left: int, up: int, corner: int) -> int:
    if kind == 1:
        return left
    if kind == 3:
        return (left + up) // 2
    guess = left + up - corner
    return min((left, up, corner), key=lambda each: abs(guess - each))
