"""What tests of `pull` need: a hub, the server that has its files, and commands to run."""

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
    """The sources to pull from, and the models folder that pulls fill."""

    hub: Hub
    files: Files
    at_hub: StandIn
    at_files: StandIn
    models: Path

    def offer(self, **files: bytes) -> None:
        """Replaces the repository's files. `q4` and `q8` have names; other keys are paths."""
        self.hub.files = {_PATHS.get(key, key): data for key, data in files.items()}
        self.files.content = {sha256(data): data for data in files.values()}

    @property
    def there(self) -> dict[str, bytes]:
        """Every GGUF file in the models folder."""
        found = self.models.rglob("*.gguf")
        return {str(path.relative_to(self.models)): path.read_bytes() for path in found}

    @property
    def unfinished(self) -> list[Path]:
        """The files in the partial folder."""
        return list((self.models / ".partial").iterdir())

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records of pulls."""
        return records_in(self.models)


def records_in(models: Path) -> list[dict[str, Any]]:
    """The records of pulls into the folder `models`."""
    pulled: list[dict[str, Any]] = json.loads((models / "pulled.json").read_text())["pulled"]
    return pulled


def use_server(user_path: Path, kind: str, server: StandIn) -> None:
    """Makes `server` the user's only endpoint, with the name of its kind."""
    settings = {"default_endpoints": False, "endpoints": [{"name": kind, "url": server.url}]}
    (user_path / "localrun" / "config.json").write_text(json.dumps(settings))


def bodies_sent_to(server: StandIn, path: str) -> list[Any]:
    """The bodies of the requests to `path`."""
    return [request.body for request in server.requests if request.path == path]


def run(*arguments: str) -> Result:
    """A command of `llm localrun`, in this process."""
    name, *rest = arguments
    command = load_command(name)
    assert command is not None
    return CliRunner().invoke(command, rest, prog_name=f"llm localrun {name}")


def done(*arguments: str) -> str:
    """The output of a command that succeeds."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def failed(*arguments: str) -> str:
    """The last line of the error output of a command that fails."""
    result = run(*arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    return result.stderr.splitlines()[-1]
