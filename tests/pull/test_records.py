"""Names of files from the network, and the record of what was pulled."""

import json
from pathlib import Path

import pytest

from llm_localrun.pull.records import PulledFile, PullRecord, read_records, save_record, target_path
from llm_localrun.system.paths import models_folder
from tests.support.drive import failure


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("x.gguf", ("x.gguf",)),
        (
            "UD-Q4_K_XL/Qwen3 8B é-00001-of-00002.gguf",
            ("UD-Q4_K_XL", "Qwen3 8B é-00001-of-00002.gguf"),
        ),
        ("CONSOLE.gguf", ("CONSOLE.gguf",)),
        ("com10.gguf", ("com10.gguf",)),
        ("a/con-x/aux_.gguf", ("a", "con-x", "aux_.gguf")),
    ],
)
def test_safe_names(path: str, parts: tuple[str, ...]) -> None:
    assert target_path(path) == models_folder().joinpath(*parts)


@pytest.mark.parametrize(
    "path",
    [
        *("", "/x.gguf", "a//x.gguf", "a/", ".", "..", "../x.gguf", "a/../../x.gguf", "./x.gguf"),
        *("..\\x.gguf", "a\\x.gguf", "C:\\x.gguf", "C:x.gguf", "\\\\host\\share\\x.gguf"),
        *("x.gguf:stream", "x\0.gguf", "x\n.gguf", "x\x1b[2J.gguf", "x\u202egguf.", "x\u2028.gguf"),
        *(".hidden.gguf", "~/x.gguf", "~root", " x.gguf", "x.gguf ", "x.gguf.", "a./x.gguf"),
        *("CON", "con.gguf", "a/NUL.gguf", "aux.x.gguf", "COM1.gguf", "lpt9", "com¹.gguf", "PRN/x"),
        *("a*.gguf", "a?.gguf", "<x>.gguf", 'a".gguf', "a|b.gguf", "x" * 201, "é" * 101),
    ],
)
def test_unsafe_names(path: str) -> None:
    assert "is not a safe file name" in failure(lambda: target_path(path))


RECORD = PullRecord(
    ref="https://example.org/x.gguf",
    source="url",
    files=(PulledFile(path="example.org/x.gguf", size=7, sha256="0f" * 32),),
    etag='"abc"',
)


def test_record_is_read_as_it_was_saved(user_path: Path) -> None:
    saved = save_record(RECORD)
    assert saved == RECORD.model_copy(update={"pulled_at": saved.pulled_at})
    assert read_records() == (saved,)


def test_record_of_an_older_version(user_path: Path) -> None:
    """Version 0.1 called the ETag `mark`."""
    old = RECORD.model_dump(exclude={"etag"}) | {"mark": '"abc"'}
    models_folder().mkdir(parents=True)
    (models_folder() / "pulled.json").write_text(json.dumps({"pulled": [old]}))
    assert read_records() == (RECORD,)
