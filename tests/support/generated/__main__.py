"""Writes every generated part into its document."""

from tests.support.generated.commands import COMMANDS_DOCUMENT, with_all_commands
from tests.support.generated.parts import PARTS, regenerated
from tests.support.repository import ROOT


def main() -> None:
    commands = ROOT / COMMANDS_DOCUMENT
    commands.write_text(with_all_commands(commands.read_text("utf-8")), "utf-8")
    for name, (document, _) in PARTS.items():
        path = ROOT / document
        path.write_text(regenerated(name, path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
