"""Msty Studio's settings: where its models are, and at which addresses its servers listen."""

import sys
from pathlib import Path
from typing import Any

from llm_localrun.system.json_files import setting
from llm_localrun.system.paths import expanded


def settings_path() -> Path:
    """The settings file, in the application's own folder."""
    by_system = {"darwin": "~/Library/Application Support", "win32": "$APPDATA"}
    folder = expanded(by_system.get(sys.platform, "$XDG_CONFIG_HOME"))
    return folder / "MstyStudio" / "Gifnoc.nosj"


def setting_at(*keys: str) -> Any:
    """A value in the settings, e.g. `setting_at("localAIService", "host")`; None if absent."""
    return setting(settings_path(), *keys)
