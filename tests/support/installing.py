"""What tests of installing a build need: small releases of a fake llama-server, and the folders."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from llm_localrun.engine import hardware
from llm_localrun.engine.hardware import Hardware
from llm_localrun.engine.installed import SERVER
from llm_localrun.pull.releases import MIRROR_VARIABLE
from tests.fakes.http_server import StandIn
from tests.fakes.releases import Releases
from tests.support.archives import Member, program, symlink, tar
from tests.support.engines import STAND_IN

PLATFORM = "ubuntu-x64"
LIBRARY = bytes(range(256)) * 2_000


def build(tag: str, before: str = "") -> bytes:
    """The archive of a release: the fake llama-server, which runs the code `before` first."""
    code = f"#!{sys.executable}\nimport os, runpy, sys; {before}\n"
    code += f"runpy.run_path({str(STAND_IN)!r}, run_name='__main__')\n"
    return tar(
        (
            Member(f"llama-{tag}/LICENSE", b"MIT"),
            program(f"llama-{tag}/{SERVER}", code.encode()),
            Member(f"llama-{tag}/libllama.so.0.1.0", LIBRARY, 0o755),
            symlink(f"llama-{tag}/libllama.so", "libllama.so.0.1.0"),
        )
    )


def archive_name(tag: str, platform: str = PLATFORM) -> str:
    return f"llama-{tag}-bin-{platform}.tar.gz"


@dataclass
class Mirror:
    """The releases that a mirror has, and the folder that they are installed into."""

    folder: Path
    releases: Releases
    at: StandIn
    """The server, which says what was asked of it."""

    def offer(self, tag: str, data: bytes | None = None, platform: str = PLATFORM) -> None:
        """Adds a release, the newest so far."""
        files = {archive_name(tag, platform): build(tag) if data is None else data}
        self.releases.content = {tag: files, **self.releases.content}

    @property
    def installed(self) -> list[str]:
        """The folders that count, and whatever else is beside them."""
        if not self.folder.exists():
            return []
        return sorted(path.name for path in self.folder.iterdir() if path.name != ".partial")

    @property
    def unfinished(self) -> list[str]:
        return sorted(path.name for path in (self.folder / ".partial").iterdir())


@contextmanager
def mirrored(user: Path) -> Iterator[Mirror]:
    """A mirror that this process installs from, for a machine without a GPU."""
    releases = Releases()
    with StandIn(releases) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv(MIRROR_VARIABLE, server.url)
        patch.setattr("llm_localrun.pull.download._FIRST_RETRY_S", 0.0)
        patch.setattr(hardware, "detect", lambda: Hardware("linux", "x64"))
        yield Mirror(user / "localrun" / "engines", releases, server)
