"""Asking servers over real sockets: in time, by name, with the right key, and not too often."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.config import Config, ConfiguredEndpoint
from llm_localrun.models import Endpoint, EndpointReport, RunsOn, ServerStatus
from llm_localrun.name_cache import CachePolicy
from llm_localrun.privacy import is_loopback
from llm_localrun.servers import discover
from llm_localrun.servers.base import server_kinds
from llm_localrun.servers.discover import (
    PATIENT_S,
    QUICK_S,
    SILENCE_MEMORY_S,
    Discovery,
    candidates_for,
    is_complete,
    patience_for,
)
from llm_localrun.servers.recognize import ServerCandidate
from llm_localrun.wire.http import find_offline
from tests.conftest import CONFIG, configure
from tests.fakes.broken import Off, Resetting, ServerFactory, Silent, always, needs_key, website
from tests.fakes.http_server import Request, Respond, StandIn, chunk, head, json_reply, whole
from tests.fakes.jan import jan
from tests.fakes.llama_server import OPEN, llama_server
from tests.fakes.ollama import Ollama
from tests.fakes.omlx import omlx
from tests.fakes.vllm import vllm
from tests.support.models import local_model, served_route

NO_HURRY = 10.0
"""Seconds for servers that answer sooner or later: a busy machine must not make them late."""


def listing(owned_by: str | None, *ids: str) -> Respond:
    """A server that answers /v1/models and nothing else."""
    signed = {} if owned_by is None else {"owned_by": owned_by}
    entries = [{"id": name, **signed} for name in ids]

    def respond(request: Request) -> Iterable[bytes]:
        if request.path.endswith("/v1/models"):
            return [json_reply({"object": "list", "data": entries})]
        return [json_reply({"detail": "Not Found"}, 404)]

    return respond


def ollama_with(count: int) -> Callable[[], Respond]:
    """Makes an Ollama that has `count` models."""
    return lambda: Ollama(has=[f"m{number}:1b" for number in range(count)])


def slowly(pieces: Iterable[bytes]) -> Iterator[bytes | float]:
    for piece in pieces:
        yield piece
        yield 0.02


def drip(reply: bytes) -> Respond:
    return lambda _: slowly(bytes([byte]) for byte in reply)


def endless(request: Request) -> Iterator[bytes]:
    yield head("application/json")
    while True:
        yield chunk(b" " * 2**16)


ANSWERING: ServerFactory = lambda: StandIn(listing("vllm", "m"))  # noqa: E731


@contextmanager
def running(*servers: ServerFactory) -> Iterator[list[Any]]:
    with ExitStack() as stack:
        yield [stack.enter_context(server()) for server in servers]


def probe(
    url: str, kind: str = "vllm", name: str | None = None, key: str | None = None
) -> ServerCandidate:
    """A usual endpoint, or a configured one if it has a `name`."""
    endpoint = Endpoint(name=name or kind, kind=kind, url=url)
    return ServerCandidate(endpoint, key, is_named=name is not None)


def round_of(
    probes: Sequence[ServerCandidate],
    before: Iterable[EndpointReport] = (),
    policy: CachePolicy = CachePolicy.FRESH,
) -> list[EndpointReport]:
    return Discovery(probes, before, policy).run()


def report(
    url: str,
    status: ServerStatus = ServerStatus.ANSWERS,
    age: float = 0.0,
    models: tuple[str, ...] = (),
    waited_s: float = PATIENT_S,
    *,
    has_answered: bool = False,
) -> EndpointReport:
    endpoint = Endpoint(name="vllm", kind="vllm", url=url)
    served = tuple(
        local_model(id=f"local/vllm/{name}", name=name, endpoint=endpoint) for name in models
    )
    return EndpointReport(
        endpoint=endpoint,
        status=status,
        asked_at=time.time() - age,
        waited_s=waited_s,
        has_answered=has_answered,
        models=served,
    )


def ids(reports: Iterable[EndpointReport]) -> list[str]:
    return [model.id for each in reports for model in each.models]


@pytest.mark.parametrize(
    ("server", "status"),
    [
        pytest.param(ANSWERING, ServerStatus.ANSWERS, id=ServerStatus.ANSWERS),
        pytest.param(needs_key, ServerStatus.NEEDS_KEY, id="locked"),
        pytest.param(Off, ServerStatus.OFFLINE, id="off"),
        pytest.param(website, ServerStatus.UNRECOGNIZED, id="website"),
        pytest.param(lambda: StandIn(always()), ServerStatus.UNRECOGNIZED, id="hangs up"),
        pytest.param(Resetting, ServerStatus.UNRECOGNIZED, id="resets"),
        pytest.param(
            lambda: StandIn(always(b"SSH-2.0-OpenSSH_9.9\r\n")),
            ServerStatus.UNRECOGNIZED,
            id="not HTTP",
        ),
        pytest.param(
            lambda: StandIn(always(head("application/json"), chunk(b'{"data": ['))),
            ServerStatus.UNRECOGNIZED,
            id="cut off",
        ),
        pytest.param(
            lambda: StandIn(always(whole(b"[" * 100_000))),
            ServerStatus.UNRECOGNIZED,
            id="nested deeply",
        ),
        pytest.param(
            lambda: StandIn(always(whole(b"\xff\xfe\x00", "text/plain"))),
            ServerStatus.UNRECOGNIZED,
            id="not UTF-8",
        ),
    ],
)
def test_server_that_reacts(server: ServerFactory, status: str) -> None:
    with running(server) as (box,):
        (found,) = round_of([probe(box.url)])
    assert found.status == status
    assert ids([found]) == (["local/vllm/m"] if status == ServerStatus.ANSWERS else [])


HANGING: dict[str, ServerFactory] = {
    "silent": Silent,
    "reads and says nothing": lambda: StandIn(always(60.0)),
    "drips its head": lambda: StandIn(drip(json_reply({"data": []}))),
    "drips its body": lambda: StandIn(
        lambda _: slowly([head("application/json"), *[chunk(b" ")] * 100])
    ),
}
NEVER_ENDING: dict[str, ServerFactory] = {
    "drips its body": HANGING["drips its body"],
    "endless body": lambda: StandIn(endless),
}


@pytest.mark.parametrize("server", HANGING.values(), ids=HANGING)
def test_server_that_hangs(server: ServerFactory) -> None:
    with running(server) as (box,):
        (found,) = round_of([probe(box.url)], policy=CachePolicy.IF_STALE)
    assert (found.status, found.waited_s) == (ServerStatus.BUSY, QUICK_S)
    assert not found.has_answered


@pytest.mark.parametrize("server", NEVER_ENDING.values(), ids=NEVER_ENDING)
def test_server_that_never_ends_is_left(server: ServerFactory) -> None:
    with running(server) as (box,):
        (found,) = round_of([probe(box.url)], policy=CachePolicy.IF_STALE)
        assert found.models == ()
        assert box.closed_early.wait(NO_HURRY)


def test_all_are_asked_at_the_same_time() -> None:
    """One after the other, they would take 4 seconds."""
    servers = [*HANGING.values()] * 3
    with running(*servers, Off, ANSWERING, website) as boxes:
        begun = time.monotonic()
        reports = round_of([probe(box.url) for box in boxes], policy=CachePolicy.IF_STALE)
        assert time.monotonic() - begun < len(servers) * QUICK_S
    assert [found.endpoint.url for found in reports] == [box.url for box in boxes]
    assert {found.status for found in reports[: len(servers)]} == {ServerStatus.BUSY}


def test_nothing_to_ask_and_nothing_to_wait_for() -> None:
    begun = time.monotonic()
    assert round_of([], [report("http://127.0.0.1:9")]) == []
    with running(ANSWERING, Off) as boxes:
        round_of([probe(box.url) for box in boxes])
    assert time.monotonic() - begun < NO_HURRY / 2


def test_two_names_of_one_server() -> None:
    with running(ANSWERING) as (box,):
        reports = round_of([probe(box.url, name=name) for name in ("one", "two")])
    assert ids(reports) == ["local/one/m", "local/two/m"]


QUICK = (CachePolicy.IF_EMPTY, CachePolicy.IF_STALE)
URL = "http://127.0.0.1:1"
SILENT = report(URL, ServerStatus.BUSY)
HEARD = report(URL, ServerStatus.BUSY, has_answered=True)


@pytest.mark.parametrize(
    ("last", "quick", "needed", "fresh", "refresh"),
    [
        pytest.param(None, QUICK_S, PATIENT_S, PATIENT_S, PATIENT_S, id="never asked"),
        pytest.param(SILENT, 0.0, QUICK_S, QUICK_S, PATIENT_S, id="silent"),
        pytest.param(
            report(URL, ServerStatus.TIMEOUT), 0.0, QUICK_S, QUICK_S, PATIENT_S, id="unreachable"
        ),
        pytest.param(
            report(URL, ServerStatus.BUSY, waited_s=QUICK_S),
            *(0.0, PATIENT_S, PATIENT_S, PATIENT_S),
            id="silent for a moment",
        ),
        pytest.param(
            report(URL, ServerStatus.BUSY, age=SILENCE_MEMORY_S + 10),
            *(QUICK_S, PATIENT_S, PATIENT_S, PATIENT_S),
            id="silent long ago",
        ),
        # The clock was set back.
        pytest.param(
            report(URL, ServerStatus.BUSY, age=-3600),
            *(QUICK_S, PATIENT_S, PATIENT_S, PATIENT_S),
            id="silent tomorrow",
        ),
        pytest.param(HEARD, QUICK_S, PATIENT_S, PATIENT_S, PATIENT_S, id="heard"),
        pytest.param(
            report(URL, ServerStatus.BUSY, models=("m",), has_answered=True),
            *(QUICK_S, QUICK_S, PATIENT_S, PATIENT_S),
            id="known",
        ),
        pytest.param(
            report(URL, ServerStatus.OFFLINE), QUICK_S, PATIENT_S, PATIENT_S, PATIENT_S, id="off"
        ),
    ],
)
def test_how_long_a_server_may_take(
    last: EndpointReport | None, quick: float, needed: float, fresh: float, refresh: float
) -> None:
    assert {patience_for(policy, last) for policy in QUICK} == {quick}
    assert patience_for(CachePolicy.IF_NEEDED, last) == needed
    assert patience_for(CachePolicy.FRESH, last) == patience_for(CachePolicy.RETRY, last) == fresh
    assert patience_for(CachePolicy.REFRESH, last) == refresh


def test_silent_server_is_spared_by_those_who_can_do_without() -> None:
    with Silent() as box:
        first = round_of([probe(box.url)], policy=CachePolicy.IF_STALE)
        assert box.connections() > 0
        assert round_of([probe(box.url)], first, CachePolicy.IF_STALE) == first
        assert box.connections() == 0
        assert not is_complete(first)


def test_silence_counts_from_when_it_was_given_most_time() -> None:
    """A shorter wait says nothing new, and must not make the next command wait again."""
    with Silent() as box:
        before = report(box.url, ServerStatus.BUSY, age=60)
        assert round_of([probe(box.url)], [before]) == [before]
        assert box.connections() > 0


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows cannot stop a process")
def test_reply_that_came_while_this_process_was_stopped_counts(user_path: Path) -> None:
    """What a busy machine does in small: the reply is there, and nobody reads it for a while."""
    code = (
        "import sys\n"
        "from llm_localrun.catalogue import get_catalogue\n"
        "from llm_localrun.name_cache import CachePolicy\n"
        "import httpx, llm_localrun.servers.discover\n"
        "print('ready', flush=True)\n"
        "print([m.id for m in get_catalogue(CachePolicy.IF_STALE).models])\n"
    )
    asked = threading.Event()

    def respond(request: Request) -> Iterable[bytes | float]:
        if not asked.is_set():
            asked.set()
            os.kill(looking.pid, signal.SIGSTOP)
        return listing("vllm", "m")(request)

    with StandIn(respond) as box:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": box.url}])
        looking = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert asked.wait(60)
        time.sleep(2 * QUICK_S)
        os.kill(looking.pid, signal.SIGCONT)
        said, _ = looking.communicate(timeout=60)
    assert "local/box/m" in said


def test_server_that_was_busy_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has answered before, so nobody has to do without its models for longer than it takes."""
    monkeypatch.setattr(discover, "QUICK_S", NO_HURRY)
    before = report(URL, ServerStatus.BUSY, models=("old",), has_answered=True)
    with StandIn(listing("vllm", "new")) as box:
        endpoint = before.endpoint.model_copy(update={"url": box.url})
        before = before.model_copy(update={"endpoint": endpoint})
        (found,) = round_of([probe(box.url)], [before], CachePolicy.IF_STALE)
    assert (found.status, ids([found])) == (ServerStatus.ANSWERS, ["local/vllm/new"])


SLOW_ANSWER_S = 0.04


@pytest.mark.parametrize(
    "server",
    [ollama_with(3), vllm],
    ids=["Ollama", "vLLM"],
)
def test_server_each_of_whose_answers_takes_a_while_is_found(
    server: Callable[[], Respond],
) -> None:
    with StandIn(server(), delay=SLOW_ANSWER_S) as box:
        (found,) = round_of([probe(box.url)])
    assert found.status is ServerStatus.ANSWERS
    assert found.models != ()


def test_list_counts_although_the_details_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The details follow with the next look, and are not asked for again after that."""
    monkeypatch.setattr(discover, "QUICK_S", 1.0)
    slow = True

    def respond(request: Request) -> Iterator[bytes | float]:
        if request.path == "/api/show" and slow:
            yield NO_HURRY
        yield from fake(request)

    fake = ollama_with(3)()
    with StandIn(respond) as box:
        first = round_of([probe(box.url, "ollama")], policy=CachePolicy.IF_STALE)
        assert ids(first) == [f"local/ollama/m{n}:1b" for n in range(3)]
        assert [model.served.digest for model in first[0].models if model.served] == [""] * 3
        slow = False
        second = round_of([probe(box.url, "ollama")], first)
        assert all(model.served and model.served.digest for model in second[0].models)
        box.requests.clear()
        assert round_of([probe(box.url, "ollama")], second)[0].models == second[0].models
        assert "/api/show" not in [request.path for request in box.requests]


def test_kind_is_not_guessed_from_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ollama's port without Ollama's greeting is a gateway, unless there was no time for it."""
    monkeypatch.setattr(discover, "QUICK_S", 0.5)

    def respond(request: Request) -> Iterator[bytes | float]:
        if request.path == "/":
            yield NO_HURRY
        yield from fake(request)

    fake = ollama_with(1)()
    with StandIn(respond) as box:
        (found,) = round_of([probe(box.url, "ollama")], policy=CachePolicy.IF_STALE)
    assert (found.status, found.has_answered, found.models) == (ServerStatus.BUSY, True, ())
    assert found.endpoint.kind == "ollama"


def test_search_ends_when_it_has_found_enough() -> None:
    with running(ANSWERING, Silent) as boxes:
        search = Discovery([probe(box.url) for box in boxes], [], CachePolicy.RETRY)
        reports = search.run(lambda reports: "local/vllm/m" in ids(reports))
    assert search.has_stopped_early
    assert [found.status for found in reports] == [ServerStatus.ANSWERS, ServerStatus.BUSY]
    # It has not had its time, so this says nothing of it.
    assert reports[1].asked_at == 0.0
    assert patience_for(CachePolicy.IF_STALE, reports[1]) == QUICK_S
    assert not is_complete(reports)


def test_user_is_told_once_which_servers_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "PATIENT_S", 1.2)
    told: list[list[str]] = []
    with running(ANSWERING, Silent) as boxes:
        search = Discovery([probe(box.url) for box in boxes], [], CachePolicy.FRESH)
        search.run(on_wait=lambda reports: told.append([r.endpoint.url for r in reports]))
        assert told == [[boxes[1].url]]


def test_thread_that_fails_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr("llm_localrun.servers.recognize.open_server", fail)
    with running(ANSWERING) as (box,):
        (found,) = round_of([probe(box.url)], [report(box.url, models=("old",))])
    assert (found.status, found.problem) == (
        ServerStatus.UNRECOGNIZED,
        "RecursionError: too deep",
    )
    assert ids([found]) == ["local/vllm/old"]
    assert capfd.readouterr() == ("", "")


def test_two_servers_of_a_kind_are_not_named_by_who_is_faster() -> None:
    def slow(request: Request) -> Iterator[bytes | float]:
        yield 0.2
        yield from listing("vllm", "a")(request)

    with StandIn(slow) as first, StandIn(listing("vllm", "b")) as second:
        search = Discovery([probe(first.url), probe(second.url)], [], CachePolicy.RETRY)
        assert ids(search.run(lambda found: bool(ids(found)))) == ["local/vllm-2/b"]


@pytest.mark.parametrize(
    ("server", "status"),
    [
        pytest.param(Off, ServerStatus.OFFLINE, id="off"),
        pytest.param(needs_key, ServerStatus.NEEDS_KEY, id="locked"),
        pytest.param(website, ServerStatus.UNRECOGNIZED, id="website"),
        pytest.param(lambda: StandIn(always()), ServerStatus.UNRECOGNIZED, id="hangs up"),
        pytest.param(
            lambda: StandIn(always(json_reply({"error": {"message": "Loading model"}}, 503))),
            ServerStatus.LOADING,
            id="loads",
        ),
    ],
)
def test_server_that_answered_once_keeps_its_models_and_their_ids(
    server: ServerFactory, status: str
) -> None:
    with running(server) as (box,):
        before = report(box.url, models=("a", "b"))
        usual = probe(box.url, kind="llamacpp")
        again = round_of([usual], [before])
        third = round_of([usual], again)
    assert [found.status for found in (*again, *third)] == [status, status]
    assert ids(again) == ids(third) == ["local/vllm/a", "local/vllm/b"]


def test_server_that_hangs_keeps_its_models() -> None:
    with Silent() as box:
        before = report(box.url, models=("a",))
        usual = probe(box.url, kind="llamacpp")
        (found,) = round_of([usual], [before], CachePolicy.IF_STALE)
    assert (found.status, ids([found])) == (ServerStatus.BUSY, ["local/vllm/a"])


def test_server_that_answers_tells_what_it_has_now() -> None:
    with StandIn(listing("vllm")) as box:
        (found,) = round_of([probe(box.url)], [report(box.url, models=("a",))])
    assert (found.status, found.models) == (ServerStatus.ANSWERS, ())


VLLM: ServerFactory = lambda: StandIn(listing("vllm", "m"))  # noqa: E731
LLAMACPP: ServerFactory = lambda: StandIn(listing("llamacpp", "m"))  # noqa: E731
UNSIGNED: ServerFactory = lambda: StandIn(listing(None, "m"))  # noqa: E731


@pytest.mark.parametrize(
    ("servers", "names", "expected"),
    [
        ([VLLM], [None], ["local/vllm/m"]),
        ([VLLM, VLLM, VLLM], [None] * 3, ["local/vllm/m", "local/vllm-2/m", "local/vllm-3/m"]),
        ([LLAMACPP, VLLM], [None, None], ["local/llamacpp/m", "local/vllm/m"]),
        ([UNSIGNED, UNSIGNED], [None, None], ["local/openai/m", "local/openai-2/m"]),
        ([VLLM, VLLM], ["box", "attic"], ["local/box/m", "local/attic/m"]),
        ([VLLM, VLLM], ["box", None], ["local/box/m", "local/vllm/m"]),
        ([UNSIGNED, VLLM], ["vllm", None], ["local/vllm/m", "local/vllm-2/m"]),
        ([VLLM, VLLM], ["box", "box"], ["local/box/m", "local/box-2/m"]),
    ],
)
def test_names(servers: list[ServerFactory], names: list[str | None], expected: list[str]) -> None:
    with running(*servers) as boxes:
        probes = [probe(box.url, name=name) for box, name in zip(boxes, names, strict=True)]
        reports = round_of(probes)
        again = round_of(probes, reports)
    assert ids(reports) == ids(again) == expected
    for found in reports:
        assert [served_route(model).endpoint for model in found.models] == [found.endpoint]


@pytest.mark.parametrize(
    ("owner", "names", "expected"),
    [
        ("llamacpp", ["/a/long/way/x-Q8_0.gguf"], ["x-Q8_0.gguf"]),
        ("llamacpp", ["models/x-Q8_0.gguf"], ["x-Q8_0.gguf"]),
        ("vllm", ["C:\\models\\x", "vllm/x"], ["x", "vllm/x"]),
        ("vllm", ["/a/x", "/b/x", "/b/y/"], ["a/x", "b/x", "y"]),
        (None, ["/a/x", "owner/x", "x"], ["a/x", "owner/x", "x"]),
    ],
)
def test_model_named_by_its_path_has_a_short_id(
    owner: str | None, names: list[str], expected: list[str]
) -> None:
    with StandIn(listing(owner, *names)) as box:
        (found,) = round_of([probe(box.url, name="box")])
    assert ids([found]) == [f"local/box/{each}" for each in expected]
    assert [model.name for model in found.models] == names


@pytest.mark.parametrize("is_named", [True, False])
def test_id_stays_when_another_model_has_the_end_of_its_path(is_named: bool) -> None:
    """Also over a time without an answer, and when the other one is gone."""
    box = Off()
    usual = probe(box.url, name="box" if is_named else None)
    found: list[EndpointReport] = []
    for names, expected in (
        (("/models/x",), ["x"]),
        (("/lora/x", "/models/x"), ["lora/x", "x"]),
        ((), ["lora/x", "x"]),
        (("/lora/x",), ["lora/x"]),
    ):
        with StandIn(listing("vllm", *names), port=box.port) if names else nullcontext():
            found = round_of([usual], found)
        assert ids(found) == [f"local/{'box' if is_named else 'vllm'}/{each}" for each in expected]


def test_open_list_is_that_of_a_server_that_wants_a_key() -> None:
    """What it lists replaces what it listed before."""
    with StandIn(llama_server("secret", public=OPEN)) as box:
        (found,) = round_of([probe(box.url, name="box")], [report(box.url, models=("a",))])
    name = "gemma-3-4b-it-Q4_K_M.gguf"
    assert (found.status, ids([found])) == (ServerStatus.NEEDS_KEY, [f"local/box/{name}"])


def test_ids_stay_when_a_server_of_another_kind_comes_up() -> None:
    off = Off()
    with running(LLAMACPP) as (box,):
        probes = [probe(off.url, "llamacpp"), probe(box.url, "llamacpp")]
        before = round_of(probes)
        with StandIn(listing(None, "m"), port=off.port):
            after = round_of(probes, before)
    assert [found.status for found in after] == [ServerStatus.ANSWERS, ServerStatus.ANSWERS]
    assert ids(after[1:]) == ids(before)


def test_name_is_not_kept_for_a_port_where_nothing_ever_was() -> None:
    first, second = Off(), Off()
    probes = [probe(first.url, "vllm"), probe(second.url, "vllm")]
    before = round_of(probes)
    with StandIn(listing("vllm", "m"), port=second.port):
        after = round_of(probes, before)
    assert ids(after) == ["local/vllm/m"]
    with StandIn(listing("vllm", "m"), port=first.port):
        assert ids(round_of(probes, after)) == ["local/vllm-2/m", "local/vllm/m"]


def test_each_key_goes_to_its_own_server_only() -> None:
    with running(*[ANSWERING] * 3) as (one, two, three):
        round_of(
            [
                probe(one.url, name="one", key="first-key"),
                probe(two.url, name="two", key="second-key"),
                probe(three.url),
            ]
        )
    sent = [{r.headers.get("authorization") for r in box.requests} for box in (one, two, three)]
    assert sent == [{"Bearer first-key"}, {"Bearer second-key"}, {None}]


def keys_sent(box: StandIn) -> list[str | None]:
    """What it was sent, one after the other, each once."""
    return [*dict.fromkeys(request.headers.get("authorization") for request in box.requests)]


@pytest.mark.parametrize(
    ("server", "kind", "keys", "variables", "alias"),
    [
        pytest.param(
            llama_server,
            "llamacpp",
            {"localrun-llamacpp": "secret"},
            {},
            "localrun-llamacpp",
            id="llm",
        ),
        pytest.param(
            llama_server, "llamacpp", {}, {"LLAMA_API_KEY": "secret"}, None, id="variable"
        ),
        pytest.param(
            llama_server,
            "llamacpp",
            {"localrun-llamacpp": "secret"},
            {"LLAMA_API_KEY": "old"},
            "localrun-llamacpp",
            id="llm's before the variable's",
        ),
        pytest.param(
            lambda key: llama_server(key, public=OPEN),
            "llamacpp",
            {"localrun-llamacpp": "secret"},
            {},
            "localrun-llamacpp",
            id="with an open list",
        ),
        # Recognized by what it shows, on a port that is usually another's.
        pytest.param(
            omlx, "vllm", {"localrun-omlx": "secret"}, {}, "localrun-omlx", id="recognized"
        ),
        pytest.param(jan, "jan", {"localrun-jan": "secret"}, {}, "localrun-jan", id="by its port"),
    ],
)
def test_server_that_wants_a_key_gets_the_one_for_its_kind(
    server: Callable[[str], Respond],
    kind: str,
    keys: dict[str, str],
    variables: dict[str, str],
    alias: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with StandIn(server("secret")) as box:
        usual = ServerCandidate(Endpoint(name=kind, kind=kind, url=box.url), spare_keys=keys)
        (found,) = round_of([usual])
    assert (found.status, found.endpoint.key_alias) == (ServerStatus.ANSWERS, alias)
    assert keys_sent(box) == [None, "Bearer secret"]


@pytest.mark.parametrize(
    ("server", "keys"),
    [
        # One that needs none is sent none.
        pytest.param(lambda: StandIn(llama_server()), {"localrun-llamacpp": "secret"}, id="open"),
        # It is unknown what this is, so what is meant for llama-server is not for it.
        pytest.param(needs_key, {}, id=RunsOn.UNKNOWN),
        pytest.param(needs_key, {"localrun-vllm": "secret"}, id="another's key"),
    ],
)
def test_key_is_not_sent_around(
    server: ServerFactory, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_API_KEY", "secret")
    with running(server) as (box,):
        endpoint = Endpoint(name="llamacpp", kind="llamacpp", url=box.url)
        round_of([ServerCandidate(endpoint, spare_keys=keys)])
    assert keys_sent(box) == [None]


def test_wrong_key_is_tried_once() -> None:
    with StandIn(llama_server("secret")) as box:
        endpoint = Endpoint(name="llamacpp", kind="llamacpp", url=box.url)
        (found,) = round_of([ServerCandidate(endpoint, spare_keys={"localrun-llamacpp": "wrong"})])
    assert (found.status, found.endpoint.kind) == (ServerStatus.NEEDS_KEY, "llamacpp")
    assert [request.path for request in box.requests] == ["/v1/models"] * 2


def test_dialect_that_the_user_gave() -> None:
    config = Config(endpoints=(ConfiguredEndpoint(name="box", url="http://box", dialect="jan"),))
    probe = candidates_for(config, {})[0]
    assert (probe.kind, probe.endpoint.kind) == ("jan", "jan")
    with StandIn(listing("vllm", "m")) as box:
        url = Endpoint(name="box", kind="jan", url=box.url)
        (found,) = round_of([ServerCandidate(url, is_named=True, kind="jan")])
    assert (found.endpoint.kind, ids([found])) == ("jan", ["local/box/m"])


def test_version_is_asked_for_once_while_the_server_answers() -> None:
    def paths(before: Iterable[EndpointReport]) -> tuple[list[EndpointReport], list[str]]:
        box.requests.clear()
        return round_of([probe(box.url)], before), [request.path for request in box.requests]

    with StandIn(vllm()) as box:
        first, asked = paths([])
        assert (first[0].version, asked) == ("0.33.0", ["/v1/models", "/version"])
        again, asked = paths(first)
        assert (again[0].version, asked) == ("0.33.0", ["/v1/models"])
        off = again[0].model_copy(update={"status": ServerStatus.OFFLINE})
        assert paths([off])[1] == ["/v1/models", "/version"]


def test_path_of_a_served_file_is_its_real_one(tmp_path: Path) -> None:
    (tmp_path / "blob").touch()
    (tmp_path / "model.gguf").symlink_to("blob")
    with StandIn(llama_server(path=str(tmp_path / "model.gguf"))) as box:
        (found,) = round_of([probe(box.url)])
    assert found.models[0].fingerprints == (f"path:{(tmp_path / 'blob').resolve()}",)


@pytest.mark.parametrize("path", ["models/m.gguf", "none", "/models/\0.gguf", ""])
def test_path_that_tells_nothing_is_no_error(path: str) -> None:
    with StandIn(llama_server(path=path)) as box:
        (found,) = round_of([probe(box.url)])
    assert found.models[0].fingerprints == ((f"path:{path}",) if path else ())


def test_where_nothing_listens_is_found_out_without_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(**_: Any) -> None:
        raise AssertionError("a thread was started")

    monkeypatch.setattr(threading, "Thread", no_thread)
    reports = round_of([probe(Off().url) for _ in range(20)])
    assert {found.status for found in reports} == {ServerStatus.OFFLINE}


def test_where_something_may_listen() -> None:
    off = Off()
    here = f"http://127.0.0.1:{off.port}"
    with Silent() as box:
        named = box.url.replace("127.0.0.1", "localhost")
        urls = [box.url, named, here, "http://192.0.2.1:80", "http://", "http://127.0.0.1:99999"]
        assert find_offline(urls) == {here}


def test_key_does_not_follow_a_redirect() -> None:
    with running(ANSWERING) as (other,):
        moved = (
            f"HTTP/1.1 302 Found\r\nLocation: {other.url}/v1/models\r\nContent-Length: 0\r\n\r\n"
        )
        with StandIn(always(moved.encode())) as box:
            (found,) = round_of([probe(box.url, key="first-key")])
    assert (found.status, other.requests) == (ServerStatus.UNRECOGNIZED, [])


def test_proxy_does_not_see_what_goes_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(ANSWERING, ANSWERING) as (box, proxy):
        for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(variable, proxy.url)
        (found,) = round_of([probe(box.url, key="first-key")])
    assert (found.status, proxy.requests) == (ServerStatus.ANSWERS, [])


@pytest.mark.parametrize("key", ["sk-\u043a\u043b\u044e\u0447", "two\nlines", "sk-\u00a0"])
def test_key_that_no_header_can_hold(key: str) -> None:
    with running(ANSWERING) as (box,):
        (found,) = round_of([probe(box.url, key=key)])
    assert (found.status, box.requests) == (ServerStatus.UNRECOGNIZED, [])


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:port",
        "http://127.0.0.1:99999",
        "http://[::1",
        "http://a..b",
        "http://127.0.0.1\x00",
        "http://",
        "http:// ",
        "http://" + "a" * 300,
    ],
)
def test_address_that_is_none(url: str) -> None:
    (found,) = round_of([probe(url)])
    assert found.status in (ServerStatus.OFFLINE, ServerStatus.UNRECOGNIZED)


def usual_ports() -> dict[str, str]:
    """The kind that each usual address of this machine belongs to, as the kinds declare it."""
    declared = [(url, cls.kind) for cls in server_kinds().values() for url in cls.addresses()]
    assert len(dict(declared)) == len(declared), "two kinds have the same usual port"
    return dict(declared)


def configured(*urls: str) -> Config:
    named = (ConfiguredEndpoint(name=f"box{n}", url=url) for n, url in enumerate(urls))
    return Config(endpoints=tuple(named))


def test_usual_endpoints_are_on_this_machine() -> None:
    probes = candidates_for(Config(), {"box": "first-key"})
    assert {probe.endpoint.url: probe.endpoint.kind for probe in probes} == usual_ports()
    assert ("http://127.0.0.1:11434", "ollama") in usual_ports().items()
    assert all(is_loopback(probe.endpoint.url) for probe in probes)
    assert [probe for probe in probes if probe.is_named or probe.key] == []


def test_configured_endpoints_come_first_with_their_keys() -> None:
    config = Config(
        endpoints=(
            ConfiguredEndpoint(name="box", url="https://box:8000/v1/", key="box"),
            ConfiguredEndpoint(name="attic", url="attic:8000", key="lost"),
            ConfiguredEndpoint(name="open", url="http://open"),
        )
    )
    keys = {"box": "first-key", "": "no-key", "openai": "other-key"}
    first, second, third, *usual = candidates_for(config, keys)
    assert [
        (p.endpoint.name, p.endpoint.url, p.key, p.is_named) for p in (first, second, third)
    ] == [
        ("box", "https://box:8000", "first-key", True),
        ("attic", "http://attic:8000", None, True),
        ("open", "http://open", None, True),
    ]
    assert [p.endpoint.key_alias for p in (first, second, third)] == ["box", "lost", None]
    assert len(usual) == len(usual_ports())


@pytest.mark.parametrize(
    ("urls", "ollama_host"),
    [
        pytest.param(["http://127.0.0.1:11434"], "", id="the same address"),
        pytest.param(["http://localhost:11434/v1"], "", id="localhost"),
        pytest.param([], "127.0.0.1:8080", id="Ollama at another's usual port"),
    ],
)
def test_no_server_is_asked_twice(
    urls: list[str], ollama_host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", ollama_host)
    found = [probe.endpoint.url for probe in candidates_for(configured(*urls), {})]
    same = [url.replace("localhost", "127.0.0.1") for url in found]
    assert sorted(same) == sorted({*same})


def test_usual_endpoints_can_be_switched_off() -> None:
    config = configured("http://box:1").model_copy(update={"default_endpoints": False})
    assert [probe.endpoint.url for probe in candidates_for(config, {})] == ["http://box:1"]
