"""The values that discovery produces: models, the routes to run them, and where they were found.

All are plain data that `catalogue` keeps on disk as JSON. `servers` and `files` find them, `names`
names them, and `chat` runs them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict

from llm_localrun.system.logins import add_login

Purpose = Literal["chat", "embedding", "rerank", "decision", "other"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
"""From what is assumed where nothing is known to what only a clear statement can mean."""


def surer_purpose(*purposes: Purpose) -> Purpose:
    """What a model is for, if several sources say so: "chat" gives way to all others."""
    return max(purposes, key=PURPOSES.index)


SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
)
"""The options of `-o` that choose among the next tokens, besides the seed."""


class RunsOn(str, Enum):
    """Where a model runs."""

    THIS_MACHINE = "this machine"
    ANOTHER_MACHINE = "another machine"
    CLOUD = "cloud"
    UNKNOWN = "unknown"

    __str__ = str.__str__


class ServerStatus(str, Enum):
    """The result of asking a server for its models."""

    ANSWERS = "answers"
    LOADING = "loading"
    OFFLINE = "offline"
    """Nothing listens at its address."""
    TIMEOUT = "timeout"
    """Its host did not accept a connection in time."""
    BUSY = "busy"
    """It accepts connections and has not answered yet."""
    NEEDS_KEY = "needs key"
    UNRECOGNIZED = "unrecognized"
    """Its answers are not those of a model server."""

    __str__ = str.__str__

    @property
    def obstacle(self) -> str:
        """Why a server with this status cannot run a model now; "" if it can be asked to."""
        return {
            ServerStatus.OFFLINE: "its server is off",
            ServerStatus.TIMEOUT: "its server cannot be reached",
            ServerStatus.UNRECOGNIZED: "something else answers at its server's address",
            ServerStatus.NEEDS_KEY: "its server needs a key",
        }.get(self, "")


class FrozenValue(BaseModel):
    """The base of these values: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Endpoint(FrozenValue):
    """A model server. `url` is its root, without `/v1` and without a slash at the end."""

    name: str
    kind: str
    url: str
    key_alias: str | None = None
    """The name of this server's key in `llm keys`, if config.json has one: see `key_name`."""
    shown_login: str = ""
    """What `logins.shown_login` shows of the user and password that it is sent."""

    @property
    def address(self) -> str:
        """`url` as messages show it: `http://me:…@box`."""
        return add_login(self.url, self.shown_login)

    @property
    def key_name(self) -> str:
        """The name of this server's key in `llm keys`."""
        return self.key_alias or default_key_alias(self.name)


def default_key_alias(endpoint_name: str) -> str:
    """The name of an endpoint's key in `llm keys`, unless config.json has another."""
    return f"localrun-{endpoint_name}"


class Served(FrozenValue):
    """A route: a server runs the model. None and "" mean that the server does not say."""

    endpoint: Endpoint
    runs_on: RunsOn = RunsOn.THIS_MACHINE
    remote_host: str = ""
    """The host, device or provider that runs the model, if this machine does not."""
    loaded: bool | None = None
    context_loaded: int | None = None
    """Tokens of context that the server has allocated."""
    context_default: int | None = None
    """Tokens of context that a request gets that asks for none, where the model's own settings say
    that."""
    digest: str = ""
    """The server's identifier for this version of the model."""
    also_named: tuple[str, ...] = ()
    """Other names of the model at its server, by which its replies may call it."""


NAMED_BY_PATH = "files"
"""The `store` of a file that is in no store: a user has named it by path."""


class OnDisk(FrozenValue):
    """A route: the engine runs the model from its GGUF file."""

    path: str
    store: str = ""
    """The tool that keeps the file: a module of `files`."""
    projector: str = ""
    """The file that lets the model see or hear; "" if there is none."""
    manifest: str = ""
    """Ollama's manifest for the file, whose other layers say how to run it; "" if none."""
    id: str = ""
    """The id of the file alone, if a server offers the model too; "" otherwise."""
    load_size: int = 0
    """Bytes of all files that the engine loads: every part and the projector. 0: unknown."""
    geometry: tuple[int, ...] = ()
    """The numbers of `memory.geometry.Geometry`; empty if the header lacks them."""
    problem: str = ""
    """Why the file cannot be loaded, in half a sentence: "it is cut off: …"; "" if it is whole."""


Route: TypeAlias = Served | OnDisk


class TemplateThinking(FrozenValue):
    """What a chat template shows of a model's thinking: see `wire.think_tags.read_template`."""

    tags: tuple[str, ...] = ()
    """The openings of thinking that it knows: `("<think>",)`."""
    opened: str = ""
    """The one that it may write before the answer, so that the model does not write it."""
    always: bool = False
    """Whether it writes it unless thinking is switched off."""
    closes: bool = False
    """Whether it shows the closing of that one too."""
    has_switch: bool = False
    """Whether thinking can be switched off."""


class LocalModel(FrozenValue):
    """A model and the routes to run it, the preferred one first.

    Sizes are bytes, contexts are tokens; None and "" mean unknown.
    """

    id: str
    name: str
    """The server's name for the model, or the file's own."""
    variant_of: str = ""
    """The name under which the server lists it and another model; `name` is then its digest."""
    purpose: Purpose = "chat"
    routes: tuple[Route, ...] = ()
    architecture: str = ""
    quantization: str = ""
    parameters: int | None = None
    size: int | None = None
    context_max: int | None = None
    """The context that the model was trained for: an upper bound."""
    modified: float = 0.0
    """Seconds since the epoch."""
    capabilities: tuple[str, ...] | None = None
    """Some of `tools`, `vision`, `audio` and `thinking`."""
    think_levels: tuple[str, ...] | None = None
    """The values of `-o think`: `("low", "medium", "high")`; None if the server lists none."""
    template_thinking: TemplateThinking | None = None
    """What the template shows that its server uses; None if the server does not show it."""
    sampling: tuple[tuple[str, int | float], ...] = ()
    """Options of `SAMPLING`, with the values that its server says it uses by default."""
    fingerprints: tuple[str, ...] = ()
    """Strings by which a served model is matched with its file: see `merge_routes`."""

    @property
    def served(self) -> Served | None:
        """The route through a server, if there is one."""
        return next((route for route in self.routes if isinstance(route, Served)), None)

    @property
    def on_disk(self) -> OnDisk | None:
        """The route through a file, if there is one."""
        return next((route for route in self.routes if isinstance(route, OnDisk)), None)

    @property
    def problem(self) -> str:
        """Why it cannot be run at all: its only file cannot be loaded; "" if it may be run.

        Such a model has no name but its id.
        """
        return self.on_disk.problem if self.on_disk and not self.served else ""

    @property
    def runs_on(self) -> RunsOn:
        """Where the server runs it; a model without a server runs on this machine."""
        return self.served.runs_on if self.served else RunsOn.THIS_MACHINE

    @property
    def remote_host(self) -> str:
        return self.served.remote_host if self.served else ""

    @property
    def loaded(self) -> bool | None:
        return self.served.loaded if self.served else None

    @property
    def context_loaded(self) -> int | None:
        return self.served.context_loaded if self.served else None

    @property
    def context_default(self) -> int | None:
        return self.served.context_default if self.served else None

    @property
    def has_command(self) -> bool:
        """Whether llm has commands that run models of this purpose."""
        return self.purpose in ("chat", "embedding")

    def can(self, capability: str, *, if_unknown: bool) -> bool:
        """Whether the model has a capability, according to its server or its file."""
        return if_unknown if self.capabilities is None else capability in self.capabilities

    def with_served(self, **changes: Any) -> "LocalModel":
        """The model with `changes` in its route through a server."""
        routes = (
            route.model_copy(update=changes) if isinstance(route, Served) else route
            for route in self.routes
        )
        return self.model_copy(update={"routes": tuple(routes)})


class EndpointReport(FrozenValue):
    """What an endpoint answered when it was last asked for its models."""

    endpoint: Endpoint
    status: ServerStatus
    asked_at: float
    """Seconds since the epoch; 0 if it has not had its time yet."""
    waited_s: float = 0.0
    """How long it was given to answer."""
    has_answered: bool = False
    """Whether it has ever answered anything."""
    version: str = ""
    models: tuple[LocalModel, ...] = ()
    """From its last usable answer, which may be older than `asked_at`: see `current_models`."""
    devices: dict[str, str] | None = None
    """If LM Studio's `lms` was asked: device name by model key, "" for this machine."""
    problem: str = ""
    """What went wrong here, not at the server, while its answers were read."""

    @property
    def is_unheard(self) -> bool:
        """Whether it accepts connections and nothing is known of its models."""
        return self.status is ServerStatus.BUSY and not self.models

    @property
    def is_silent(self) -> bool:
        """Whether it did not answer in time, and has never answered anything."""
        is_slow = self.status in (ServerStatus.BUSY, ServerStatus.TIMEOUT)
        return is_slow and not (self.has_answered or self.models)

    @property
    def is_kind_known(self) -> bool:
        """Whether an answer has told the kind of the server: it is not only that of the port."""
        told = (ServerStatus.ANSWERS, ServerStatus.LOADING, ServerStatus.NEEDS_KEY)
        return self.status in told or bool(self.models or self.version)

    @property
    def current_models(self) -> Iterable[LocalModel]:
        """`models`, of which a server that is off has none loaded."""
        if not self.status.obstacle:
            return self.models
        return (m.with_served(loaded=None) if m.loaded else m for m in self.models)


class ScannedFile(FrozenValue):
    """A file that a scan has opened. The next scan opens it again only if it has changed."""

    path: str
    size: int
    modified: float
    stamp: str = ""
    """Devices, inodes and times of change of all its files: see `files.found.stamp_of`."""
    model: LocalModel | None
    """None: the file contains no model that can be run."""
    reason: str = ""
    """Why it contains none, in half a sentence: "it is a vocabulary without weights"."""
    name: str = ""
    """What its tool calls such a file, if that is another name than the file's."""
    manifest_modified: float = 0.0
    """When Ollama's manifest for the file was written; 0 if there is none."""


class ScannedStore(FrozenValue):
    """The result of scanning one folder of models."""

    store: str
    path: str
    status: Literal["read", "missing", "unreadable"]
    files: int = 0
    """The number of GGUF files in it, models or not."""
    problem: str = ""
    """What could not be read, in half a sentence."""


class Snapshot(FrozenValue):
    """Everything that the last discovery found."""

    taken_at: float = 0.0
    """Seconds since the epoch; 0: never."""
    stamp: str = ""
    """The settings under which it was taken: `name_cache.settings_stamp`."""
    endpoints: tuple[EndpointReport, ...] = ()
    files: tuple[ScannedFile, ...] = ()
    stores: tuple[ScannedStore, ...] = ()
    scan_digest: str = ""
    """SHA-256 of what the stores listed. If it is the same again, no file has changed."""
    is_partial: bool = False
    """Whether the search for a model ended when it was found, before all servers had answered."""
    is_complete: bool = False
    """Whether every server that accepts connections has had its time to answer."""

    @property
    def answering_reports(self) -> list[EndpointReport]:
        """Those of servers that have answered."""
        return [report for report in self.endpoints if report.status is ServerStatus.ANSWERS]

    @property
    def slow_reports(self) -> list[EndpointReport]:
        """Those of servers that accept connections and have not answered."""
        return [report for report in self.endpoints if report.status is ServerStatus.BUSY]

    @property
    def models(self) -> tuple[LocalModel, ...]:
        """Every model once, the served ones first."""
        served = [model for report in self.endpoints for model in report.current_models]
        return merge_routes(
            served, [entry.model for entry in self.files if entry.model is not None]
        )


def merge_routes(
    served: Iterable[LocalModel], files: Iterable[LocalModel]
) -> tuple[LocalModel, ...]:
    """All models, where a served model and a file with a common fingerprint are one model.

    Such a model has both routes. A model that runs outside this machine is not merged; one of a
    server that does not say where it runs is. A file that cannot be loaded is not merged either.
    """
    files = list(files)
    by_fingerprint = _by_fingerprint([file for file in files if not file.problem])
    models, joined = [], set()
    for model in served:
        found = (by_fingerprint.get(fingerprint) for fingerprint in model.fingerprints)
        file = next(filter(None, found), None)
        if file is None or model.runs_on not in (RunsOn.THIS_MACHINE, RunsOn.UNKNOWN):
            models.append(model)
            continue
        joined.add(file.id)
        models.append(_with_file(model, file))
    return (*models, *(file for file in files if file.id not in joined))


def _by_fingerprint(files: Sequence[LocalModel]) -> dict[str, LocalModel]:
    """The file for each fingerprint, except for a size or a blob that several files share.

    Tags of Ollama's that share a blob are run in different ways.
    """
    counts = Counter(each for file in files for each in file.fingerprints)
    return {
        each: file
        for file in reversed(files)
        for each in file.fingerprints
        if counts[each] == 1 or not each.startswith(("size:", "blob:"))
    }


def _with_file(model: LocalModel, file: LocalModel) -> LocalModel:
    """A served model with the route through its file. The server's values take precedence."""
    here = model.with_served(runs_on=RunsOn.THIS_MACHINE, remote_host="")
    on_disk = (route.model_copy(update={"id": file.id}) for route in file.routes)
    capabilities = file.capabilities if model.capabilities is None else model.capabilities
    return here.model_copy(
        update={
            "routes": (*here.routes, *on_disk),
            "purpose": surer_purpose(model.purpose, file.purpose),
            "architecture": model.architecture or file.architecture,
            "quantization": model.quantization or file.quantization,
            "parameters": model.parameters or file.parameters,
            "size": model.size or file.size,
            "context_max": model.context_max or file.context_max,
            "modified": model.modified or file.modified,
            "capabilities": capabilities,
        }
    )
