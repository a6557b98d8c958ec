"""Where LM Studio keeps its settings and its models, as LM Studio itself finds that."""

from pathlib import Path

from llm_localrun.discovery.settings import setting, user_home


def lmstudio_home() -> Path:
    """LM Studio's folder: where a file points to, the old place if it exists, the usual one."""
    home = user_home()
    try:
        pointed = (home / ".lmstudio-home-pointer").read_text("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError):
        pointed = ""
    old = home / ".cache" / "lm-studio"
    if pointed:
        return Path(pointed)
    return old if old.is_dir() else home / ".lmstudio"


def models_folder() -> Path:
    """Where models are downloaded to: PUBLISHER/REPOSITORY/…, for GGUF and MLX alike."""
    home = lmstudio_home()
    chosen = setting(home / "settings.json", "downloadsFolder")
    return Path(chosen) if isinstance(chosen, str) and chosen else home / "models"


def bundled_models() -> Path:
    """Where the embedding model lies that comes with LM Studio."""
    return lmstudio_home() / ".internal" / "bundled-models"


def server_port() -> int | None:
    """The port that its server was last set to, whether it runs or not."""
    settings = lmstudio_home() / ".internal" / "http-server-config.json"
    port = setting(settings, "port")
    return port if isinstance(port, int) else None
