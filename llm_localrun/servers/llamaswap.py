"""llama-swap: starts one server or another as requests need it, and passes some on to peers.

Source: llama-swap's `internal/server/api.go` and documentation (2026-08).
"""

from collections.abc import Mapping, Sequence

from llm_localrun.models import RunsOn
from llm_localrun.servers.base import Facts
from llm_localrun.servers.fields import Entries, LoadStatus, Maybe, Senses, capabilities_of
from llm_localrun.servers.llamacpp import RunsLlamaCpp
from llm_localrun.servers.openai_compatible import ListedModel
from llm_localrun.wire.response import Ask, parse_reply
from llm_localrun.wire.shapes import Count, Text, WireModel


class _SwapMeta(WireModel):
    type: Maybe[Text] = None
    """`model`, `peer`, `selector` or `alias`; older versions mark a peer by its id alone."""
    peerID: Maybe[Text] = None  # noqa: N815  # as it is on the wire


class _EntryMeta(WireModel):
    llamaswap: Maybe[_SwapMeta] = None
    n_ctx: Maybe[Count] = None


class _SwapModel(ListedModel):
    status: Maybe[LoadStatus] = None
    context_length: Maybe[Count] = None
    capabilities: Maybe[Senses] = None
    """As configured, or as the server behind it says."""
    meta: Maybe[_EntryMeta] = None
    peerID: Maybe[Text] = None  # noqa: N815  # as it is on the wire

    @property
    def swap(self) -> _SwapMeta:
        return (self.meta and self.meta.llamaswap) or _SwapMeta()

    @property
    def peer(self) -> str:
        """The name of the machine or service that runs it, if this one does not."""
        return self.peerID or self.swap.peerID or ("a peer" if self.swap.type == "peer" else "")

    def facts(self) -> Facts:
        where = {"runs_on": RunsOn.UNKNOWN, "remote_host": self.peer} if self.peer else {}
        can = self.capabilities
        return {
            **super().facts(),
            **where,
            "loaded": self.status and self.status.is_loaded,
            "context_loaded": self.context_length or (self.meta and self.meta.n_ctx),
            "capabilities": can and capabilities_of(tools=True, vision=can.vision, audio=can.audio),
        }


class _SwapProcess(WireModel):
    model: Text
    state: Maybe[Text] = None


class _SwapProcesses(WireModel):
    """/running, of versions whose list has no status."""

    running: Entries[_SwapProcess]


class LlamaSwap(RunsLlamaCpp):
    kind = "llamaswap"
    title = "llama-swap"
    checked = "2026-08 (read)"
    start_hint = "Start it with `llama-swap --config FILE`"
    usual_ports = (9292,)  # of its Docker image
    shared_ports = (8080,)
    owned_by = "llama-swap"
    version_path = "/api/version"
    listed_model = _SwapModel

    def details(self, ask: Ask, entries: Sequence[_SwapModel]) -> Mapping[str, Facts]:
        facts: dict[str, Facts] = {}
        if any(entry.peer for entry in entries):
            # A name for other entries may stand for a peer's model.
            indirect = [entry for entry in entries if entry.swap.type in ("selector", "alias")]
            facts = {entry.id: {"runs_on": RunsOn.UNKNOWN} for entry in indirect}
        if not any(entry.status for entry in entries):
            running = parse_reply(_SwapProcesses, ask("/running"))
            for each in running.running if running else ():
                if each.state == "ready":
                    facts.setdefault(each.model, {})["loaded"] = True
        return facts
