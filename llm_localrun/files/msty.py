"""Msty Studio's store: Ollama's layout, in a folder of its own."""

from pathlib import Path

from llm_localrun.files.base import APPLICATION_SUPPORT
from llm_localrun.files.ollama import OllamaStore, tag_files
from llm_localrun.models import LocalModel, OnDisk
from llm_localrun.servers.msty import setting_at


class MstyStore(OllamaStore):
    """The folder belongs to the user, so a model can be deleted while Msty is not running."""

    name = "msty"
    pulled_by = ""  # `pull ollama:NAME` may reach another Ollama than Msty's
    precedence = 70
    overrides = ()
    linux = ("$XDG_CONFIG_HOME/MstyStudio/models",)
    mac = (f"{APPLICATION_SUPPORT}/MstyStudio/models",)
    windows = ("$APPDATA/MstyStudio/models",)

    def configured_folder(self) -> str:
        folder = setting_at("localAIService", "modelsPath")
        return folder if isinstance(folder, str) else ""

    def files_to_delete(self, model: LocalModel, route: OnDisk) -> list[Path]:
        return tag_files(Path(route.manifest))
