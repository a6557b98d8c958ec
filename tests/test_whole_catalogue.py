"""Everything at once: ten kinds of server on their usual ports, and a model in every store.

In the network namespace of the tests no other server has these ports.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Invoke, configure, one_error
from tests.fakes.docker import docker
from tests.fakes.gpt4all import gpt4all
from tests.fakes.http_server import Respond, StandIn
from tests.fakes.koboldcpp import koboldcpp
from tests.fakes.lemonade import lemonade
from tests.fakes.llama_server import llama_server
from tests.fakes.llamaswap import llamaswap
from tests.fakes.lmstudio import LMStudio
from tests.fakes.ollama import recorded
from tests.fakes.sglang import sglang
from tests.fakes.vllm import vllm
from tests.support.outward import Guard
from tests.support.trees import plant

SERVERS: dict[int, Callable[[], Respond]] = {
    11434: lambda: recorded("openai", "tags", "version", "show", "ps"),
    1234: LMStudio,
    8000: vllm,
    30000: sglang,
    5001: koboldcpp,
    4891: gpt4all,
    12434: docker,
    13305: lemonade,
    9292: llamaswap,
}
EXPECTED = (Path(__file__).parent / "data" / "catalogue.txt").read_text().splitlines()[1:]


@pytest.fixture
def machine(
    tmp_path: Path, user_path: Path, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[int, StandIn]]:
    """The servers that are up, by their ports."""
    if not guard.sees_children:
        pytest.skip("the usual ports may be others', outside a network namespace")
    monkeypatch.setattr("llm_localrun.servers.discover.QUICK_S", 10.0)
    configure(user_path, threads=1)
    planted = {each.name: each.path for each in plant(tmp_path)}
    # The file of this one is on the disk too.
    gemma: Respond = llama_server(path=str(planted["gemma-3-4b-it-Q4_K_M"]))
    with ExitStack() as running:
        responds = {8080: gemma, **{port: make() for port, make in SERVERS.items()}}
        yield {
            port: running.enter_context(StandIn(respond, port=port))
            for port, respond in responds.items()
        }


_FIELDS = (
    *("id", "purpose", "quantization", "size", "parameters", "context_loaded"),
    *("context_max", "loaded", "capabilities", "runs_on", "remote_host", "store", "path"),
    *("file_id", "short_name"),
)


def listed(invoke: Invoke, below: Path) -> list[str]:
    """`models --json` as the lines of the table of what is expected, in its order."""
    models = json.loads(invoke("localrun", "models", "--json").stdout)
    return sorted(_line(model, below) for model in models)


def _line(model: dict[str, Any], below: Path) -> str:
    return " | ".join(_cell(model[key]) for key in _FIELDS).replace(str(below), "")


def _without(lines: list[str], *positions: int) -> list[list[str]]:
    """The cells of `lines` that are not at `positions`."""
    rows = (line.split(" | ") for line in lines)
    return [[cell for at, cell in enumerate(row) if at not in positions] for row in rows]


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(value) or "nothing"
    return "-" if value is None or value == "" else str(value)


def test_everything_is_listed_as_it_is(
    machine: dict[int, StandIn], invoke: Invoke, tmp_path: Path
) -> None:
    assert listed(invoke, tmp_path) == EXPECTED
    aliases = [
        alias
        for model in json.loads(invoke("localrun", "models", "--json").stdout)
        for alias in model["aliases"]
    ]
    assert len(aliases) == len(set(aliases))


def test_name_runs_the_model_that_which_says(machine: dict[int, StandIn], invoke: Invoke) -> None:
    first, *_ = json.loads(invoke("localrun", "which", "local-qwen", "--json").stdout)
    answer = invoke("-m", "local-qwen", "Hi")
    assert (answer.exit_code, answer.stdout) == (0, "Hello.\n"), answer.output
    (turn,) = json.loads(invoke("logs", "--json", "-n", "1").stdout)
    assert turn["model"] == first["id"] == "local/llamaswap/qwen3-8b"


OFF = {
    "local/ollama/smollm2:135m": "Ollama at http://127.0.0.1:11434 does not answer."
    " Start it with `ollama serve`.",
    "local/vllm/Qwen/Qwen3-8B": "vLLM at http://127.0.0.1:8000 does not answer."
    " Start it with `vllm serve MODEL`.",
    "local/lmstudio/openai/gpt-oss-20b": "local/lmstudio/openai/gpt-oss-20b runs on an"
    " unknown machine, so the prompt would leave this machine."
    " To allow it: `llm localrun allow local/lmstudio/openai/gpt-oss-20b`.",
}


def test_servers_that_are_killed_keep_their_models_in_the_list(
    machine: dict[int, StandIn], invoke: Invoke, tmp_path: Path
) -> None:
    """But none that is loaded, and names can move to models that can run."""
    at = _FIELDS.index("loaded"), _FIELDS.index("short_name")
    expected = _without(EXPECTED, *at)
    assert listed(invoke, tmp_path) == EXPECTED
    for port, server in machine.items():
        server.__exit__()
        invoke("localrun", "refresh")
        assert _without(listed(invoke, tmp_path), *at) == expected, port
    assert "True" not in {line.split(" | ")[at[0]] for line in listed(invoke, tmp_path)}
    for model_id, said in OFF.items():
        assert one_error(invoke("-m", model_id, "Hi")) == said
    # The fixture stops every server when it ends, so all have to run again.
    for server in machine.values():
        server.__enter__()
