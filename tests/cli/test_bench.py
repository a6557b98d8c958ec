"""`llm localrun bench`: real engine and fakes of servers. Counts are checked, never times."""

import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from llm_localrun.bench import busy, measure, run
from llm_localrun.bench.measure import Target
from llm_localrun.bench.plan import BenchSetting
from llm_localrun.bench.prompts import PromptWriter
from llm_localrun.bench.summary import BenchRun, Row, TimedAnswer
from llm_localrun.charts.model import BarChart
from llm_localrun.cli import bench as command
from llm_localrun.engine.state import list_running
from llm_localrun.errors import BenchFailed
from llm_localrun.servers import llamacpp
from llm_localrun.system import locks
from llm_localrun.system.paths import engine_folder, home
from tests.conftest import CONFIG, Invoke, configure, one_error, put_starter
from tests.fakes.http_server import Respond, StandIn, events, json_reply
from tests.fakes.llama_server import llama_server
from tests.fakes.lmstudio import LMStudio
from tests.fakes.ollama import NAME, Ollama
from tests.fakes.openai_compatible import completion, listing
from tests.fakes.vllm import SmallVllm

SMALL = ("--prompt", "64", "--generate", "4", "--repeat", "2")
STARTER = "local-smollm2-135m"


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing else computes."""
    monkeypatch.setattr(busy, "cores_of_others", lambda _own=(): 0.0)


@contextmanager
def served(user: Path, **fakes: Respond) -> Iterator[dict[str, StandIn]]:
    """Servers that the user has added, by their names."""
    with ExitStack() as running:
        servers = {name: running.enter_context(StandIn(fake)) for name, fake in fakes.items()}
        endpoints = [{"name": name, "url": server.url} for name, server in servers.items()]
        configure(user, **CONFIG, endpoints=endpoints)
        yield servers


def rows_of(invoke: Invoke, *arguments: str, status: int = 0) -> list[dict[str, Any]]:
    done = invoke("localrun", "bench", *arguments, "--json")
    assert done.exit_code == status, done.output
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def counts(row: dict[str, Any], kind: str = "prompts") -> set[tuple[int | None, int | None, int]]:
    """Tokens of the prompt, those of them from the cache, and those of the answer."""
    return {
        (answer["prompt_tokens"], answer["cached_tokens"], answer["generated_tokens"])
        for answer in answers_of(row, kind)
    }


def answers_of(row: dict[str, Any], kind: str = "answers") -> list[dict[str, Any]]:
    return [answer for run in row["runs"] for answer in run[kind]]


def chats(server: StandIn) -> list[dict[str, Any]]:
    return [request.body for request in server.requests if "chat" in request.path]


def test_engine_gets_prompts_of_the_exact_length(
    user_path: Path, starter_model: Path, invoke: Invoke
) -> None:
    put_starter(user_path, starter_model)
    rows = rows_of(invoke, STARTER, *SMALL, "--depth", "0,96", "--concurrency", "1,3")
    found = {(row["depth"], row["concurrency"]): row for row in rows}
    assert [*found] == [(0, 1), (0, 3), (96, 1), (96, 3)]
    for (depth, concurrency), row in found.items():
        assert counts(row) == {(depth + 64, depth, 1)}
        assert {each[1:] for each in counts(row, "answers")} == {(depth, 4)}
        assert max(each[0] or 0 for each in counts(row, "answers")) < depth + 64
        assert [len(run["prompts"]) for run in row["runs"]] == [concurrency] * 2
        assert [len(run["answers"]) for run in row["runs"]] == [concurrency] * 2
        assert {run["prompt_timed_by"] for run in row["runs"]} == {
            "server" if concurrency == 1 else "here"
        }
        # Reading a stream would slow down the one answer that is timed.
        assert {answer["time_to_first_token"] is None for answer in answers_of(row)} == {
            concurrency == 1
        }
        assert all(answer["time_to_first_token"] for answer in answers_of(row, "prompts"))
        assert {run["generation_timed_by"] for run in row["runs"]} == {
            "server" if concurrency == 1 else "here"
        }
        assert row["doubts"] == []
        assert row["memory"] > 90e6
        spread = row["generation_tokens_per_second"]
        assert spread["min"] <= spread["median"] <= spread["max"]
    # What was started for this has ended, and nothing was kept.
    assert list_running(engine_folder()) == []
    assert [*(user_path / "localrun").glob("prompts/*")] == []
    assert not (user_path / "logs.db").exists()


def test_engine_that_runs_already_stays(warm: Path, invoke: Invoke) -> None:
    invoke("-m", STARTER, "-o", "max_tokens", "1", "-o", "context_size", "2048", "Hi")
    before = [engine.id for engine in list_running(engine_folder())]
    (row,) = rows_of(invoke, STARTER, *SMALL)
    assert row["error"] is None
    assert [engine.id for engine in list_running(engine_folder())] == before


def test_table_fits_80_columns(warm: Path, invoke: Invoke) -> None:
    done = invoke(
        *("localrun", "bench", STARTER, *SMALL, "--depth", "0,1024", "--concurrency", "1,2"),
        env={"COLUMNS": "80"},
    )
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split() == [
        *("model", "depth", "at", "once", "prompt/s", "answer/s", "first", "token", "memory")
    ]
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[1:5]] == [STARTER] * 4


def test_models_take_turns(user_path: Path, invoke: Invoke) -> None:
    ollama = Ollama(has=["a:1b", "b:1b"], version="0.34.0", cached=7)
    ollama.files = {"a:1b": "same", "b:1b": "same"}
    with served(user_path, box=ollama) as servers:
        rows = rows_of(invoke, "local/box/a:1b", "local/box/b:1b", *SMALL)
        asked = [body["model"][0] for body in chats(servers["box"])]
    # A short prompt and a warm-up each, then the rounds: a prompt, and an answer.
    assert "".join(asked) == "aaabbb" + "aabb" * 2
    for row in rows:
        assert {cached for _, cached, _ in counts(row)} == {7}
        assert row["memory"] == 209_505_483
    assert {body["options"]["temperature"] for body in chats(servers["box"])} == {0.0}
    assert not any("ignore_eos" in json.dumps(body) for body in chats(servers["box"]))


def test_server_that_counts_gets_the_exact_length(user_path: Path, invoke: Invoke) -> None:
    entry = {"id": "smol", "owned_by": "vllm", "root": "smol", "max_model_len": 1024}
    fake = SmallVllm({"/v1/models": listing(entry), "/version": {"version": "0.33.0"}})
    with served(user_path, box=fake) as servers:
        (row,) = rows_of(invoke, "local/box/smol", *SMALL)
        bodies = chats(servers["box"])
    assert all(abs((prompt or 0) - 64) <= 1 for prompt, _, _ in counts(row))
    assert all(body["ignore_eos"] and body["max_tokens"] in (1, 4) for body in bodies)
    assert row["doubts"] == ["clock", "length"]


@pytest.mark.parametrize(
    ("timings", "concurrency", "streamed"),
    [
        ({"prompt_per_second": 1e9, "predicted_per_second": 50}, "1", [True, False] * 2),
        ({"prompt_per_second": 1e9, "predicted_per_second": 50}, "2", [True] * 8),
        ({}, "1", [True] * 4),
    ],
)
def test_answers_that_the_server_times_are_not_streamed(
    user_path: Path,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    timings: dict[str, float],
    concurrency: str,
    streamed: list[bool],
) -> None:
    def says(body: dict[str, Any]) -> bytes:
        usage = {"prompt_tokens": 64, "completion_tokens": body["max_tokens"]}
        whole = completion("Hello.", finish_reason="length", usage=usage, timings=timings)
        if not body["stream"]:
            return json_reply(whole)
        (choice,) = whole["choices"]
        return events({**whole, "choices": [{**choice, "delta": choice["message"]}]})

    # As on a terminal, where a chat asks for the progress.
    monkeypatch.setattr(llamacpp, "is_shown", lambda: True)
    posts = {"/v1/chat/completions/input_tokens": {"input_tokens": 64}}
    fake = replace(llama_server(posts=posts), says=says)
    options = (*SMALL, "--concurrency", concurrency)
    with served(user_path, box=fake) as servers:
        (row,) = rows_of(invoke, "local/box/gemma-3-4b-it-Q4_K_M.gguf", *options)
        asked = [each.body for each in servers["box"].requests if each.path == fake.chat_path]
    assert [body["stream"] for body in asked][-len(streamed) :] == streamed
    assert all(body["stream"] or body["max_tokens"] == 4 for body in asked)
    assert not any(body["return_progress"] for body in asked)
    spread = row["generation_tokens_per_second"]
    assert bool(spread and spread["median"] == 50) == (False in streamed)


def test_a_first_token_that_shows_nothing_is_timed_by_the_end(
    user_path: Path, invoke: Invoke
) -> None:
    def says(body: dict[str, Any]) -> bytes:
        """As Qwen3 begins: its first token is <think>."""
        usage = {"prompt_tokens": 64, "completion_tokens": body["max_tokens"]}
        shown: list[dict[str, Any]] = [{"role": "assistant", "content": None}, {}]
        shown += [{"reasoning_content": "Well"}] * (body["max_tokens"] - 1)
        chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in shown]
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}], "usage": usage}
        return events(*chunks, end)

    posts = {"/v1/chat/completions/input_tokens": {"input_tokens": 64}}
    fake = replace(llama_server(posts=posts), says=says)
    with served(user_path, box=fake):
        (row,) = rows_of(invoke, "local/box/gemma-3-4b-it-Q4_K_M.gguf", *SMALL)
    assert counts(row) == {(64, None, 1)}
    assert row["time_to_first_token"]["min"] > 0
    assert row["prompt_tokens_per_second"]["min"] > 0


def test_depth_that_no_server_confirms_is_marked(user_path: Path, invoke: Invoke) -> None:
    with served(user_path, box=LMStudio()) as servers:
        configure(
            user_path,
            **CONFIG,
            allow=["local/box/google/gemma-4-26b-a4b"],
            endpoints=[{"name": "box", "url": servers["box"].url}],
        )
        done = invoke("localrun", "bench", "local/box/google/gemma-4-26b-a4b", *SMALL)
        assert done.exit_code == 0, done.output
        deep = invoke(
            "localrun", "bench", "local/box/google/gemma-4-26b-a4b", *SMALL, "--depth", "300"
        )
        lengths = [len(body["messages"][0]["content"]) for body in chats(servers["box"])]
    assert "+ nothing shows that the tokens before the prompt" not in done.stdout
    assert "+ nothing shows that the tokens before the prompt" in deep.stdout
    assert "* timed here" in done.stdout
    # The beginning is sent before each prompt that begins so.
    assert all(before < whole for before, whole in zip(lengths[-4::2], lengths[-3::2], strict=True))


def test_model_that_is_not_allowed_costs_its_own_row(user_path: Path, invoke: Invoke) -> None:
    fake = Ollama(has=[NAME, "far:cloud"], remote={"far:cloud": "https://ollama.com"})
    with served(user_path, box=fake) as servers:
        done = invoke("localrun", "bench", "local/box/far:cloud", f"local/box/{NAME}", *SMALL)
        assert {body["model"] for body in chats(servers["box"])} == {NAME}
    assert done.exit_code == 1
    assert "local/box/far:cloud failed: local/box/far:cloud runs in a cloud" in done.stderr
    assert "bench would send it about 384 tokens" in done.stderr
    assert "llm localrun allow local/box/far:cloud" in done.stderr
    assert done.stdout.splitlines()[1].startswith(f"local/box/{NAME}")


def test_what_followed_a_beginning_teaches_no_length(
    user_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[str] = []
    monkeypatch.setattr(PromptWriter, "learn", lambda _self, text, _tokens: learned.append(text))
    for version, taught in (("", 1), ("0.34.0", 7)):
        with served(user_path, box=Ollama(has=[NAME], version=version, cached=300)):
            rows_of(invoke, f"local/box/{NAME}", *SMALL, "--depth", "300")
        # The first request has no beginning. Then a warm-up and two rounds: prompt and answer.
        assert len(learned) == taught
        learned.clear()


def test_the_beginnings_of_prompts_are_part_of_the_time_that_it_takes(
    user_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, float]] = []
    with served(user_path, box=Ollama(has=[NAME])) as servers:
        # Each request takes a second.
        clock = Mock(time, perf_counter=lambda: float(len(chats(servers["box"]))), time_ns=int)
        monkeypatch.setattr(measure, "time", clock)
        monkeypatch.setattr(run, "_tell_plan", lambda *plan: told.append(plan))
        rows_of(invoke, f"local/box/{NAME}", *SMALL, "--depth", "300")
    # Two rounds: a beginning, the prompt, the beginning again and the answer.
    assert told == [(2, 8.0)]


def test_a_failure_keeps_the_runs_before_it(
    user_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = failing_after(2, BenchFailed("It broke", "Mend it"))
    monkeypatch.setattr(Target, "measure", failing)
    with served(user_path, box=Ollama(has=[NAME])):
        (row,) = rows_of(invoke, f"local/box/{NAME}", *SMALL, "--repeat", "4", status=1)
    assert (len(row["runs"]), row["error"]) == (2, "It broke. Mend it.")


def test_runs_with_a_load_do_not_count(
    user_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BenchRun, "was_loaded", True)
    with served(user_path, box=Ollama(has=[NAME])):
        (row,) = rows_of(invoke, f"local/box/{NAME}", *SMALL, status=1)
    assert row["error"].startswith(f"local/box/{NAME} had to be loaded for each of 3 runs")
    assert row["runs"] == []


def test_interruption_keeps_what_was_measured(
    user_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Target, "measure", failing_after(1, KeyboardInterrupt()))
    with served(user_path, box=Ollama(has=[NAME])):
        done = invoke("localrun", "bench", f"local/box/{NAME}", *SMALL)
    assert done.exit_code == 130
    assert done.stdout.splitlines()[1].startswith(f"local/box/{NAME}")
    assert "Interrupted before the last 1 run\n" in done.stderr


def failing_after(count: int, error: BaseException) -> Callable[[Target, BenchSetting], BenchRun]:
    """`Target.measure`, which fails when it has been called `count` times."""
    whole, called = Target.measure, []

    def failing(target: Target, setting: BenchSetting) -> BenchRun:
        called.append(setting)
        if len(called) > count:
            raise error
        return whole(target, setting)

    return failing


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "Missing argument 'NAME...'"),
        (["x", "--prompt", "0"], "0 is not in the range"),
        (["x", "--generate", "-1"], "-1 is not in the range"),
        (["x", "--repeat", "0"], "0 is not in the range"),
        (["x", "--depth", "a,b"], "'a,b' is no list of whole numbers"),
        (["x", "--depth", "1,,2"], "'1,,2' is no list of whole numbers"),
        (["x", "--depth", "-1"], "'-1' is no list of whole numbers"),
        (["x", "--depth", "99999999"], "use numbers from 0 to 10,000,000"),
        (["x", "--concurrency", "0"], "use numbers from 1 to 256"),
    ],
)
def test_bad_options(invoke: Invoke, arguments: list[str], problem: str) -> None:
    done = invoke("localrun", "bench", *arguments)
    assert done.exit_code == 2
    assert problem in done.stderr


def test_names_that_cannot_be_measured(
    user_path: Path, starter_model: Path, embedding_model: Path, invoke: Invoke
) -> None:
    put_starter(user_path, starter_model)
    assert "No local model is called 'local-none'" in one_error(
        invoke("localrun", "bench", STARTER, "local-none")
    )
    assert "cannot answer prompts" in one_error(invoke("localrun", "bench", str(embedding_model)))
    assert "There is no build of llama.cpp" not in one_error(
        invoke("localrun", "bench", STARTER, "--engine", "/no/such/llama-server")
    )


def test_what_does_not_fit_is_said_before(
    user_path: Path, starter_model: Path, invoke: Invoke
) -> None:
    put_starter(user_path, starter_model)
    options = ["--prompt", "100000", "--concurrency", "1,5"]
    done = invoke("localrun", "bench", STARTER, *options)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"{STARTER} is left out: it needs a context of 100,192 tokens, and"
        " SmolLM2-135M-Instruct.Q4_1 was trained for 8,192",
        f"{STARTER}, 5 at once is left out: the engine answers 4 prompts at once, not 5",
    ]
    rows = rows_of(invoke, STARTER, *options, status=1)
    assert [(bool(row["error"]), row["runs"]) for row in rows] == [(True, [])] * 2
    assert list_running(engine_folder()) == []


def test_the_same_model_twice_is_measured_once(user_path: Path, invoke: Invoke) -> None:
    with served(user_path, box=Ollama(has=[NAME])):
        id_ = f"local/box/{NAME}"
        done = invoke("localrun", "bench", id_, id_, *SMALL, "--depth", "0,0")
    assert done.stderr == f"{id_}: the same as another NAME, measured once\n"
    assert sum(line.startswith(id_) for line in done.stdout.splitlines()) == 1


def test_one_benchmark_at_a_time(user_path: Path, invoke: Invoke) -> None:
    with served(user_path, box=Ollama(has=[NAME])), locks.exclusive(home() / "bench.lock", 0):
        done = invoke("localrun", "bench", f"local/box/{NAME}")
    assert one_error(done) == "Another benchmark is running. Wait until it has ended."


@pytest.mark.parametrize(
    ("used", "cores", "said"),
    [
        ([1.44, 0.1], 2, "Other programs used 1.4 of 2 cores when this began or"),
        ([0.1, 1.44], 2, "Other programs used 1.4 of 2 cores when this began or"),
        ([0.2, 0.2], 2, ""),
        ([1.44, 1.44], 16, ""),
        # Without psutil, only the load before is not that of the benchmark itself.
        ([None, None], 2, "The load was 1.9 on 2 cores before this began, so"),
    ],
)
def test_a_busy_machine_is_said(
    user_path: Path,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    used: list[float | None],
    cores: int,
    said: str,
) -> None:
    monkeypatch.setattr(busy, "cores_of_others", lambda _own=(): used.pop(0))
    monkeypatch.setattr(busy, "cores", lambda: cores)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.9, 0.0, 0.0))
    with served(user_path, box=Ollama(has=[NAME])):
        done = invoke("localrun", "bench", f"local/box/{NAME}", *SMALL)
    assert done.stderr.startswith(said) if said else not done.stderr
    assert done.stderr.count("mean little") == bool(said)
    assert used == []


def test_what_this_and_its_engines_use_is_not_that_of_others(
    user_path: Path, starter_model: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines, excluded = [], []

    def used(own: Collection[int] = ()) -> float:
        engines.append([each.server_pid for each in list_running(engine_folder())])
        excluded.append(own)
        return 0.0

    monkeypatch.setattr(busy, "cores_of_others", used)
    put_starter(user_path, starter_model)
    rows_of(invoke, STARTER, *SMALL)
    assert [len(running) for running in engines] == [0, 1]
    assert not excluded[0]
    assert set(engines[1]) <= set(excluded[1])


def test_plot(user_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[BarChart] = []
    saved: list[Path] = []

    def draw(_title: str, panels: list[BarChart], _footnote: str) -> str:
        drawn.extend(panels)
        return "<svg/>"

    monkeypatch.setattr(command, "bars_svg", draw)
    monkeypatch.setattr(command, "check_plot_path", lambda _: None)
    monkeypatch.setattr(command, "save_chart", lambda _, path: saved.append(path))
    fake = Ollama(has=["a:1b", "b:1b"])
    with served(user_path, box=fake):
        names = ["local/box/a:1b", "local/box/b:1b"]
        done = invoke("localrun", "bench", *names, *SMALL, "--depth", "0,90", "--plot", "x.svg")
    assert done.exit_code == 0, done.output
    assert saved == [Path("x.svg")]
    assert [panel.unit for panel in drawn] == ["tokens/s", "tokens/s", "s"]
    first = drawn[-1]
    assert [group.label for group in first.groups] == ["", "depth 90"]
    assert [bar.label for bar in first.groups[0].bars] == names


@pytest.mark.parametrize(
    ("counts", "failed", "legend", "footnote"),
    [
        ((5, 5), (), "medians of 5 runs", "Medians of 5 runs, with lowest and highest"),
        ((2, 1), (), "medians of 1 to 2 runs", "Medians of 1 to 2 runs, with lowest and highest"),
        ((1, 1), (), "one run", "One run"),
        ((5, 2), (1,), "medians of 5 runs", "Medians of 5 runs, with lowest and highest"),
        ((3, 2), (0, 1), "medians of 2 to 3 runs", "Medians of 2 to 3 runs, with lowest and"),
    ],
)
def test_runs_that_are_shown_are_counted(
    monkeypatch: pytest.MonkeyPatch,
    counts: tuple[int, ...],
    failed: Collection[int],
    legend: str,
    footnote: str,
) -> None:
    draw = Mock(return_value="<svg/>")
    monkeypatch.setattr(command, "bars_svg", draw)
    answer = TimedAnswer(10, 12, 17, prompt_tokens=100, cached_tokens=0, generated=11)
    runs = [BenchRun(BenchSetting(100, 11), (answer,), (answer,))]
    rows = [
        Row(Mock(label=str(at)), BenchSetting(100, 11), runs * count, "It broke" * (at in failed))
        for at, count in enumerate(counts)
    ]
    assert command._legend(rows)[0].endswith(f"; {legend}")
    command.chart_of(rows)
    said = draw.call_args.args[-1]
    assert said.startswith(footnote)
    assert ". * timed here" in said
    assert ("with lowest" in said) == (max(counts) > 1)
    sure = replace(answer, prompt_rate=60, generation_rate=2.2)
    rows[0].runs = [BenchRun(BenchSetting(100, 11), (sure,), (sure,))]
    command.chart_of(rows)
    assert ". * 1: timed here" in draw.call_args.args[-1]


def test_a_build_that_is_named_runs_the_file(
    user_path: Path, starter_model: Path, invoke: Invoke
) -> None:
    put_starter(user_path, starter_model)
    (row,) = rows_of(invoke, STARTER, *SMALL, "--engine", "xllamacpp,xllamacpp")
    assert (row["name"], row["engine"], row["error"]) == (STARTER, "xllamacpp", None)
    with served(user_path, box=Ollama(has=[NAME])):
        done = invoke("localrun", "bench", f"local/box/{NAME}", "--engine", "xllamacpp")
    assert one_error(done).startswith(f"The file of local/box/{NAME} is not known")
