"""Addresses from the network: which are safe, and which redirects are followed."""

import pytest

from llm_localrun.pull.http_files import is_safe_url, origin_of, resolve_redirect
from tests.support.drive import failure

pytestmark = pytest.mark.pure


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
    assert resolve_redirect(url, location, "the hub") == target


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
def test_refused_redirects(url: str, location: str) -> None:
    assert "which is not safe" in failure(lambda: resolve_redirect(url, location, "the hub"))


def test_origin() -> None:
    assert origin_of("https://hub.org/a") == origin_of("https://HUB.org:443/b")
    others = ["http://hub.org", "https://hub.org:444", "https://cdn.hub.org", "https://["]
    assert origin_of("https://hub.org") not in map(origin_of, others)
