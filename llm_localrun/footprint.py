"""What the model in a GGUF file needs of memory: reads its header for `memory`'s formulas.

A command that is to say it asks `footprint_of(path)` for a footprint, and that for

    need(Setting(32_768, "q8_0")).total      bytes, at a context and with a type of cache
    largest_context(free, Setting(131_072))  tokens of context that fit into so many bytes
"""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from llm_localrun.gguf.geometry import geometry_of
from llm_localrun.gguf.header import Header, NotGGUF, read_header, read_summary
from llm_localrun.gguf.names import part_stems
from llm_localrun.memory import Footprint, weight_bytes


def footprint_of(path: str, beside: Iterable[str] = ()) -> Footprint | None:
    """What the model in the file at `path` needs, by the tensor tables of all its parts.

    `beside` are files that are loaded with it. None if one cannot be read, or does not tell.
    """
    try:
        return _read(tuple((file, file.stat().st_mtime_ns) for file in _files(path, beside)))
    except (OSError, NotGGUF):
        return None


def bound_of(path: str, beside: Iterable[str] = ()) -> Footprint | None:
    """No less than what `footprint_of` says, by the sizes of files: in a hundredth of its time."""
    files = _files(path, beside)
    try:
        with files[0].open("rb") as file:
            geometry = geometry_of(read_summary(file))
        size = sum(file.stat().st_size for file in files)
    except (OSError, NotGGUF):
        return None
    return Footprint(geometry, size) if geometry else None


def _files(path: str, beside: Iterable[str]) -> list[Path]:
    first = Path(path)
    parts = [first.with_name(f"{stem}{first.suffix}") for stem in part_stems(first.stem)]
    return [*(parts or [first]), *map(Path, beside)]


@lru_cache(maxsize=8)
def _read(files: tuple[tuple[Path, int], ...]) -> Footprint | None:
    """Of files as they were at a time: reading their headers takes up to a tenth of a second."""
    headers = [_header(path) for path, _ in files]
    geometry = geometry_of(headers[0])
    sizes = [size for header in headers if (size := weight_bytes(header)) is not None]
    return Footprint(geometry, sum(sizes)) if geometry and len(sizes) == len(headers) else None


def _header(path: Path) -> Header:
    with path.open("rb") as file:
        return read_header(file, path.stat().st_size)
