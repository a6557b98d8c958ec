"""GPT4All's folders: the application's, and that of its Python package, which llm-gpt4all uses."""

import sys
from collections.abc import Sequence
from pathlib import Path

from llm_localrun.files.base import APPLICATION_SUPPORT, Store
from llm_localrun.system.json_files import lines_of
from llm_localrun.system.paths import expanded


class GPT4AllStore(Store):
    """The folder that GPT4All.ini names, or the usual one; and the Python package's."""

    name = "gpt4all"
    precedence = 80
    linux = ("$XDG_DATA_HOME/nomic.ai/GPT4All",)
    mac = (f"{APPLICATION_SUPPORT}/nomic.ai/GPT4All",)
    windows = ("$LOCALAPPDATA/nomic.ai/GPT4All",)

    def variables(self) -> set[str]:
        return super().variables() | {"APPDATA", "XDG_CONFIG_HOME"}

    def configured_folder(self) -> str:
        folder = "$APPDATA" if sys.platform == "win32" else "$XDG_CONFIG_HOME"
        settings = expanded(f"{folder}/nomic.ai/GPT4All.ini")
        return lines_of(settings, "=").get("modelPath", "")

    def folders(self, added: Sequence[str]) -> list[Path]:
        return [*super().folders(added), expanded("~/.cache/gpt4all")]
