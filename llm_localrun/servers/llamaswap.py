"""llama-swap: starts one server or another as it is asked, and hands on to peers.

Pure. Source: `internal/server/api.go` and its documentation (2026-08).
"""

from llm_localrun.models import RunsOn
from llm_localrun.servers.openai_compatible import Entry, entries_in, listed
from llm_localrun.servers.reading import Asked, Facts, Found, Maybe, Reading, able, ask, version_at
from llm_localrun.wire.response import Answer
from llm_localrun.wire.shapes import Count, Text, WireModel


class _Swap(WireModel):
    type: Maybe[Text] = None
    """`model`, `peer`, `selector` or `alias`; older versions tell a peer by its id alone."""
    peerID: Maybe[Text] = None  # noqa: N815  # as it is on the wire


class _Meta(WireModel):
    llamaswap: Maybe[_Swap] = None
    n_ctx: Maybe[Count] = None


class _Status(WireModel):
    value: Text


class _Capabilities(WireModel):
    """As configured, or as the server behind it says; what is not there may be possible."""

    vision: Maybe[bool] = None
    audio: Maybe[bool] = None


class _Entry(Entry):
    status: Maybe[_Status] = None
    context_length: Maybe[Count] = None
    capabilities: Maybe[_Capabilities] = None
    meta: Maybe[_Meta] = None
    peerID: Maybe[Text] = None  # noqa: N815  # as it is on the wire

    @property
    def swap(self) -> _Swap:
        return (self.meta and self.meta.llamaswap) or _Swap()

    @property
    def peer(self) -> str:
        """The name of the machine or service that runs it, if this one does not."""
        return self.peerID or self.swap.peerID or ("a peer" if self.swap.type == "peer" else "")

    def facts(self) -> Facts:
        place = {"runs_on": RunsOn.UNKNOWN, "remote_host": self.peer} if self.peer else {}
        can = self.capabilities
        return {
            **super().facts(),
            **place,
            "loaded": self.status and self.status.value == "loaded",
            "context_loaded": self.context_length or (self.meta and self.meta.n_ctx),
            "capabilities": can and able(tools=True, vision=can.vision, audio=can.audio),
        }


class _Process(WireModel):
    model: Text
    state: Maybe[Text] = None


class _Running(WireModel):
    running: tuple[_Process, ...]


def read_llamaswap(asked: Asked, answer: Answer) -> Reading:
    """The models of the llama-swap whose list is `answer`."""
    entries = entries_in(answer, _Entry)
    version = yield from version_at("/api/version", asked)
    more: dict[str, Facts] = {}
    if any(entry.peer for entry in entries):
        # What stands for others may stand for a peer's model.
        indirect = [entry for entry in entries if entry.swap.type in ("selector", "alias")]
        more = {entry.id: {"runs_on": RunsOn.UNKNOWN} for entry in indirect}
    if not any(entry.status for entry in entries):
        running = yield from ask("/running", _Running)
        names = {each.model for each in running.running if each.state == "ready"} if running else {}
        for name in names:
            more.setdefault(name, {})["loaded"] = True
    return Found(listed(asked.endpoint, entries, more), version)
