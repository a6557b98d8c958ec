"""Servers with faults, asked for their models and for answers, in each of the four ways.

A trial is clean if it ends in an answer, in a report, or in one error of the package's tree in one
line, and in time. `python -m tests.support.faults.servers FAULT AMOUNT` does those of one fault, in
a process that can be measured.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from tests.support.faults.command import Home, waited_seconds_of
from tests.support.faults.trial import GB, Result, Trial
from tests.support.server_faults import FAULTS, faulty

GROUP = "faults of servers"
_CHATS, _LISTS = 24, 16
"""Trials with each fault."""
_TIMEOUT_S, _EXTRA_S = 1.0, 5.0
_MODEL = "smollm2:135m"


def trials(guard_bytes: int, share: float = 1.0) -> Iterator[Trial]:
    for fault in FAULTS:
        yield Trial(GROUP, fault, partial(_try, fault, share, guard_bytes))


def _try(fault: str, share: float, guard_bytes: int) -> Result:
    with Home(guard_bytes) as home:
        ran = home.run(["-m", "tests.support.faults.servers", fault, str(share)])
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.endswith(b"}")]
    bad = [f"{fault}: {line['bad']}" for line in lines if "bad" in line]
    begun = [line["name"] for line in lines if "name" in line]
    if ran.status:
        what = ran.stopped or f"status {ran.status}: {ran.error[-300:]}"
        bad.append(f"{fault}: {begun[-1] if begun else 'at the start'}: {what}")
    if ran.own_peak > GB:
        bad.append(f"{fault}: {ran.own_peak / 1e6:,.0f} MB")
    longest = max((line["seconds"] for line in lines if "seconds" in line), default=ran.seconds)
    return Result(len(begun), tuple(bad), ran.own_peak, longest)


# In a process of its own.


def _chat(fault: str, kind: str, way: str, seed: int) -> str:
    """What is wrong with how a prompt ended; "" if nothing is."""
    import llm

    from llm_localrun.errors import LocalRunError
    from tests.fakes.http_server import Respond, StandIn
    from tests.fakes.lmstudio import LMStudio
    from tests.fakes.ollama import Ollama
    from tests.fakes.openai_compatible import Server, listing
    from tests.support.contract import NAMES
    from tests.support.drive import ask, served

    name = NAMES.get(kind, _MODEL)
    fakes: dict[str, Callable[[], Respond]] = {
        "ollama": lambda: Ollama(has=[name]),
        "lmstudio": LMStudio,
    }
    fake = fakes.get(kind, lambda: Server({"/v1/models": listing({"id": name})}))()
    with StandIn(faulty(fake, FAULTS[fault], seed)) as server:
        try:
            ask(served(server.url, kind, name), "Hello", way, timeout=_TIMEOUT_S)
        except LocalRunError as error:
            return "" if "\n" not in str(error) else f"an error of several lines: {error}"
        except llm.ModelError as error:
            return f"not an error of this package: {error!r}"
    return ""


def _list(fault: str, title: str, seed: int) -> str:
    """What is wrong with the report on a server; "" if nothing is."""
    from llm_localrun.models import Endpoint
    from llm_localrun.name_cache import CachePolicy
    from llm_localrun.servers.discover import Discovery
    from llm_localrun.servers.recognize import ServerCandidate
    from tests.fakes.http_server import StandIn
    from tests.fakes.servers import SERVERS

    with StandIn(faulty(SERVERS[title](), FAULTS[fault], seed)) as server:
        candidate = ServerCandidate(Endpoint(name="box", kind="openai", url=server.url))
        (report,) = Discovery([candidate], [], CachePolicy.REFRESH).run()
    word = report.problem.partition(":")[0]
    return report.problem if word.endswith(("Error", "Exception")) else ""


def _all(fault: str, share: float) -> Iterator[tuple[str, Callable[[], str]]]:
    """The trials with a fault, by name: other servers with each fault, in turn."""
    from llm_localrun.servers.base import server_kinds
    from tests.fakes.servers import SERVERS
    from tests.support.drive import WAYS

    first = [*FAULTS].index(fault)
    kinds = ["ollama", "openai", "lmstudio", *server_kinds()]
    for number in range(round(_CHATS * share)):
        kind, way = kinds[(first + number // len(WAYS)) % len(kinds)], WAYS[number % len(WAYS)]
        seed = 1000 * first + number
        yield f"{kind}, {way}, seed {seed}", partial(_chat, fault, kind, way, seed)
    titles = [*SERVERS]
    for number in range(round(_LISTS * share)):
        title, seed = titles[(3 * first + number) % len(titles)], 1000 * first + number
        yield f"{title}, listed, seed {seed}", partial(_list, fault, title, seed)


def main(fault: str, share: float) -> None:
    def say(**facts: object) -> None:
        print(json.dumps(facts), flush=True)  # noqa: T201

    # What is imported for the first time is not a part of a trial.
    for _, act in _all(fault, 0.05):
        act()
    for name, act in _all(fault, share):
        say(name=name)
        begun, begun_cpu = time.monotonic(), time.process_time()
        waited = waited_seconds_of(os.getpid())
        try:
            problem = act()
        except Exception as error:  # noqa: BLE001  # that is what is looked for
            problem = f"{error!r}"
        seconds, cpu = time.monotonic() - begun, time.process_time() - begun_cpu
        limit = (_TIMEOUT_S if "listed" not in name else 5.0) + _EXTRA_S
        waited = waited_seconds_of(os.getpid()) - waited
        if not problem and seconds - waited > limit:
            problem = f"{seconds:.1f} s, {cpu:.1f} s of CPU time"
        say(seconds=seconds)
        if problem:
            say(bad=f"{name}: {problem}")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
