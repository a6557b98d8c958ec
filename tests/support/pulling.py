"""A world to pull in: a hub, what it sends people to, and the folder that they fill."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from llm_localrun.cli import load_command
from tests.fakes.http_server import StandIn
from tests.fakes.hub import Files, Hub, model, sha256

REPO = "tiny-org/Tiny-1B-GGUF"
Q4, Q8 = model("q4"), model("q8", 2_400_000)
_PATHS = {"q4": "Tiny-1B-Q4_K_M.gguf", "q8": "Tiny-1B-Q8_0.gguf"}


@dataclass
class World:
    """What there is to pull from, and where it goes."""

    hub: Hub
    files: Files
    at_hub: StandIn
    at_files: StandIn
    models: Path

    def offer(self, **files: bytes) -> None:
        """Puts files into the repository: `q4` and `q8` have names, other keys are paths."""
        self.hub.files = {_PATHS.get(key, key): data for key, data in files.items()}
        self.files.content = {sha256(data): data for data in files.values()}

    @property
    def there(self) -> dict[str, bytes]:
        """Every GGUF file in the models folder."""
        found = self.models.rglob("*.gguf")
        return {str(path.relative_to(self.models)): path.read_bytes() for path in found}

    @property
    def half_done(self) -> list[Path]:
        return list((self.models / ".partial").iterdir())

    @property
    def records(self) -> list[dict[str, Any]]:
        """What was noted of the pulls."""
        pulled: list[dict[str, Any]]
        pulled = json.loads((self.models / "pulled.json").read_text())["pulled"]
        return pulled


def run(*arguments: str) -> Result:
    """A command of `llm localrun`, in this process."""
    name, *rest = arguments
    command = load_command(name)
    assert command is not None
    return CliRunner().invoke(command, rest, prog_name=f"llm localrun {name}")


def done(*arguments: str) -> str:
    """What a command says that succeeds."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def failed(*arguments: str) -> str:
    """The last line of what a command says that fails as it should."""
    result = run(*arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    return result.stderr.splitlines()[-1]
