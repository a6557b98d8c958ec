"""Jan: models below its own folder, and those of providers. Source: Jan's documentation (0.7)."""

from llm_localrun.servers.base import Facts
from llm_localrun.servers.llamacpp import RunsLlamaCpp
from llm_localrun.servers.openai_compatible import ListedModel


class _JanModel(ListedModel):
    """The name of a model below Jan's folder, or of a provider's model."""

    def facts(self) -> Facts:
        return {**super().facts(), "fingerprints": (f"name:jan:{self.id}",)}


class Jan(RunsLlamaCpp):
    kind = "jan"
    title = "Jan"
    checked = "0.7 (read)"
    start_hint = "Start its server in the app under Settings, Local API Server, or with `jan serve`"
    usual_ports = (1337, 6767)
    recognized_by_port = True
    relays = True  # remote providers share its API
    listed_model = _JanModel
