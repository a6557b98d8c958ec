"""Names and addresses from the network that must not be followed."""

import pytest

from llm_localrun.pull.safety import is_safe_url, origin, parts_of, redirected
from tests.support.drive import failure

pytestmark = pytest.mark.pure


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
def test_plain_names(path: str, parts: tuple[str, ...]) -> None:
    assert parts_of(path) == parts


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
def test_names_that_are_refused(path: str) -> None:
    assert "is no name for a file on this machine" in failure(lambda: parts_of(path))


@pytest.mark.parametrize(
    ("url", "is_safe"),
    [
        ("https://example.org/x", True),
        ("https://127.0.0.1/x", True),
        ("http://127.0.0.1:8080/x", True),
        ("http://localhost/x", True),
        ("http://example.org/x", False),
        ("http://127.0.0.1.example.org/x", False),
        ("ftp://example.org/x", False),
        ("file:///etc/passwd", False),
        ("https://user@example.org/x", False),
        ("//example.org/x", False),
        ("https://[::1", False),
        ("", False),
    ],
)
def test_safe_addresses(url: str, is_safe: bool) -> None:
    assert is_safe_url(url) == is_safe


HUB, LAN_HUB, HERE = "https://hub.org/a/x", "http://hub.lan:80/a/x", "http://127.0.0.1:9/a/x"


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        (HUB, "https://cdn.org/y?z", "https://cdn.org/y?z"),
        (HUB, "/api/y", "https://hub.org/api/y"),
        (HUB, "y", "https://hub.org/a/y"),
        (HUB, "//cdn.org/y", "https://cdn.org/y"),
        (LAN_HUB, "/y", "http://hub.lan:80/y"),
        (LAN_HUB, "http://hub.lan/y", "http://hub.lan/y"),
        (LAN_HUB, "https://cdn.org/y", "https://cdn.org/y"),
        (HERE, "http://localhost:8/y", "http://localhost:8/y"),
        (HERE, "https://cdn.org/y", "https://cdn.org/y"),
    ],
)
def test_redirects(url: str, location: str, target: str) -> None:
    assert redirected(url, location, "the hub") == target


@pytest.mark.parametrize(
    ("url", "location"),
    [
        (HUB, "http://hub.org/a/x"),
        (HUB, "http://cdn.org/y"),
        (HUB, "https://127.0.0.1:11434/api/delete"),
        (HUB, "http://localhost:11434/"),
        (HUB, "file:///etc/passwd"),
        (HUB, "ftp://cdn.org/y"),
        (HUB, "https://me:pw@cdn.org/y"),
        (LAN_HUB, "http://other.lan/y"),
        (LAN_HUB, "http://hub.lan:8080/y"),
        (LAN_HUB, "http://127.0.0.1/y"),
        (HERE, "http://cdn.org/y"),
        (HUB, "https://cdn.org:x/"),
    ],
)
def test_redirects_that_are_refused(url: str, location: str) -> None:
    assert "which is not safe" in failure(lambda: redirected(url, location, "the hub"))


def test_origin() -> None:
    assert origin("https://hub.org/a") == origin("https://HUB.org:443/b")
    others = ["http://hub.org", "https://hub.org:444", "https://cdn.hub.org", "https://["]
    assert origin("https://hub.org") not in map(origin, others)
