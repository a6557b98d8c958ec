"""Where LM Studio keeps its settings and its models, as LM Studio itself finds that.

`user` is the folder of the user whose LM Studio it is.
"""

from pathlib import Path

from llm_localrun.system.json_files import read_text, setting


def lmstudio_home(user: Path) -> Path:
    """LM Studio's folder: where a file points to, the old place if it exists, the usual one."""
    if pointed := read_text(user / ".lmstudio-home-pointer").strip():
        return Path(pointed)
    old = user / ".cache" / "lm-studio"
    return old if old.is_dir() else user / ".lmstudio"


def models_folder(user: Path) -> Path:
    """Where models are downloaded to: PUBLISHER/REPOSITORY/…, for GGUF and MLX alike."""
    home = lmstudio_home(user)
    chosen = setting(home / "settings.json", "downloadsFolder")
    return Path(chosen) if isinstance(chosen, str) and chosen else home / "models"


def bundled_models(user: Path) -> Path:
    """Where the embedding model lies that comes with LM Studio."""
    return lmstudio_home(user) / ".internal" / "bundled-models"


def server_port(user: Path) -> int | None:
    """The port that its server was last set to, whether it runs or not."""
    settings = lmstudio_home(user) / ".internal" / "http-server-config.json"
    port = setting(settings, "port")
    return port if isinstance(port, int) else None
