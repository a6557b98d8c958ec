"""llamafile: one file that is a llama-server and its model. Source: llamafile's README (0.9)."""

from llm_localrun.servers.base import Facts, Sign
from llm_localrun.servers.llamacpp import LlamaCpp, RunsLlamaCpp
from llm_localrun.servers.openai_compatible import ListedModel


class _LlamafileModel(ListedModel):
    def facts(self) -> Facts:
        return {**super().facts(), "loaded": True}


class Llamafile(RunsLlamaCpp):
    kind = "llamafile"
    title = "llamafile"
    checked = "0.9 (read)"
    start_hint = "Start it with `--server`"
    shared_ports = (8080,)
    context_flag = "-c {}"
    signs = (Sign("/health", "status", "ok", rank=3, names="."),)
    guarded_path = LlamaCpp.guarded_path
    listed_model = _LlamafileModel
    options = LlamaCpp.options
