"""The real `llm` command, its SQLite log, and the real engine on the real starter model."""

import json
from pathlib import Path

import pytest

from tests.conftest import Llm, put_starter

GREEDY = ("-o", "temperature", "0", "-o", "max_tokens", "24")
# A cached prefix changes the batches, and so the last digits of the probabilities.
UNCACHED = (*GREEDY, "-o", "extra_body", '{"cache_prompt": false}')


def logged(run_llm: Llm, count: int = 1) -> list[dict[str, object]]:
    turns: list[dict[str, object]] = json.loads(run_llm("logs", "--json", "-n", str(count)).stdout)
    return turns


def test_prompt_answers_and_is_logged(warm: Path, run_llm: Llm) -> None:
    done = run_llm("-m", "local", "Name the primary colors", *GREEDY)
    assert (done.returncode, done.stderr) == (0, "")
    assert "primary colors" in done.stdout
    (turn,) = logged(run_llm)
    assert turn["model"] == "local/gguf/SmolLM2-135M-Instruct.Q4_1"
    assert turn["resolved_model"] == "SmolLM2-135M-Instruct.Q4_1"
    assert (turn["input_tokens"], turn["output_tokens"]) == (34, 24)
    facts = turn["response_json"]
    assert isinstance(facts, dict)
    assert facts["finish_reason"] == "length"
    assert (facts["context_size"], facts["quantization"], facts["endpoint"]) == (
        8192,
        "Q4_1",
        "gguf",
    )
    assert facts["generation_tokens_per_second"] > 0
    assert facts["time_to_first_token"] > 0


def test_unstreamed_prompt_gives_the_same_answer(warm: Path, run_llm: Llm) -> None:
    streamed = run_llm("-m", "local", "Name the primary colors", *UNCACHED)
    unstreamed = run_llm("-m", "local", "Name the primary colors", "--no-stream", *UNCACHED)
    assert streamed.stdout == unstreamed.stdout
    first, second = logged(run_llm, 2)
    for same in ("response", "input_tokens", "output_tokens", "resolved_model"):
        assert first[same] == second[same]


def test_async_prompt_gives_the_same_answer(warm: Path, run_llm: Llm) -> None:
    sync = run_llm("-m", "local", "Name the primary colors", *UNCACHED)
    assert run_llm("-m", "local", "Name the primary colors", "--async", *UNCACHED).stdout == (
        sync.stdout
    )


def test_continued_conversation_reaches_the_model(warm: Path, run_llm: Llm) -> None:
    run_llm("-m", "local", "My name is Ada. Say hello to me.", *GREEDY)
    (first,) = logged(run_llm)
    done = run_llm("-c", "What is my name?", *GREEDY)
    assert done.returncode == 0, done.stderr
    (second,) = logged(run_llm)
    assert second["conversation_id"] == first["conversation_id"]
    assert second["model"] == first["model"]
    assert int(str(second["input_tokens"])) > int(str(first["input_tokens"])) + 24
    # The engine has all of it in its cache except the new question.
    assert json.loads(str(second["token_details"]))["cached_tokens"] >= first["input_tokens"]


def test_chat_of_two_turns(warm: Path, run_llm: Llm) -> None:
    done = run_llm(
        *("chat", "-m", "local-smollm2", *GREEDY),
        input="My name is Ada. Say hello to me.\nWhat is my name?\nexit\n",
    )
    assert (done.returncode, done.stderr) == (0, "")
    turns = logged(run_llm, 2)
    assert turns[0]["conversation_id"] == turns[1]["conversation_id"]
    assert all(str(turn["response"]) in done.stdout for turn in turns)
    assert int(str(turns[1]["input_tokens"])) > int(str(turns[0]["input_tokens"])) + 24


def test_template(warm: Path, run_llm: Llm) -> None:
    saved = run_llm("-m", "local", "-s", "You speak of cats.", *GREEDY, "--save", "cats")
    assert saved.returncode == 0, saved.stderr
    done = run_llm("-t", "cats", "What do you speak of?")
    assert done.returncode == 0, done.stderr
    (turn,) = logged(run_llm)
    assert turn["system"] == "You speak of cats."
    assert turn["options_json"] == {"temperature": 0.0, "max_tokens": 24}


def test_changed_system_prompt_replaces_the_first(warm: Path, run_llm: Llm) -> None:
    run_llm("-m", "local", "-s", "Answer with the word banana.", "Hello", *GREEDY)
    (first,) = logged(run_llm)
    run_llm("-c", "-s", "x " * 200, "Hello", *GREEDY)
    (second,) = logged(run_llm)
    assert int(str(second["input_tokens"])) > int(str(first["input_tokens"])) + 190


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local-smollm3", "No local model is called 'local-smollm3'. Nearest: local-smollm"),
        ("./missing.gguf", f"{Path.cwd() / 'missing.gguf'} does not exist"),
        (
            "local/gguf/SmolLM2",
            "No local model is called 'local/gguf/SmolLM2'. Nearest: local/gguf",
        ),
    ],
)
@pytest.mark.parametrize("command", [("prompt", "hi"), ("chat",)])
def test_unknown_name(
    warm: Path, run_llm: Llm, command: tuple[str, ...], name: str, message: str
) -> None:
    done = run_llm(*command, "-m", name)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {message}")
    assert "Traceback" not in done.stderr


def test_prompt_to_a_path_and_its_continuation(
    user_path: Path, starter_model: Path, run_llm: Llm, tmp_path: Path
) -> None:
    file = tmp_path / "mine.gguf"
    file.symlink_to(put_starter(user_path, starter_model))
    other = tmp_path / "other.gguf"
    other.write_bytes(file.read_bytes())
    done = run_llm("-m", "./other.gguf", "Hello", *GREEDY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert run_llm("-c", "Again", *GREEDY, cwd="/").returncode == 0
    assert [turn["model"] for turn in logged(run_llm, 2)] == ["local/gguf/other"] * 2
    # A symbolic link to a file in the catalogue means that file.
    assert run_llm("-m", "./mine.gguf", "Hello", *GREEDY, cwd=tmp_path).returncode == 0
    assert logged(run_llm)[0]["model"] == "local/gguf/SmolLM2-135M-Instruct.Q4_1"
    assert run_llm("localrun", "unload", "local/gguf/other").stdout == "Unloaded other\n"


def test_prompt_without_any_model(user_path: Path, run_llm: Llm) -> None:
    done = run_llm("-m", "local", "hi")
    assert done.returncode == 1
    assert done.stderr == (
        "Error: No local model was found on this machine. Start LM Studio or Ollama, or get a small"
        " model: `llm localrun pull starter`.\n"
    )


def test_user_aliases_and_default(warm: Path, run_llm: Llm) -> None:
    assert run_llm("aliases", "set", "tiny", "local-smollm2").returncode == 0
    done = run_llm("-m", "tiny", "Hello", *GREEDY)
    assert done.returncode == 0, done.stderr
    assert run_llm("models", "default", "local-smollm2").returncode == 0
    assert run_llm("models", "default").stdout.strip() == ("local/gguf/SmolLM2-135M-Instruct.Q4_1")
    assert run_llm("Hello", *GREEDY).returncode == 0
    assert "tiny" in run_llm("models", "-q", "smollm2").stdout


def test_models_which_ps(warm: Path, run_llm: Llm) -> None:
    run_llm("-m", "local", "Hello", *GREEDY)
    (model,) = [
        model
        for model in json.loads(run_llm("localrun", "models", "--json").stdout)
        if model["store"] == "localrun"
    ]
    assert model["id"] == "local/gguf/SmolLM2-135M-Instruct.Q4_1"
    assert model["aliases"][:3] == [
        "local-smollm2-135m-instruct-q4-1-gguf",
        "local-smollm2-135m-instruct-q4-1",
        "local-smollm2-135m-instruct",
    ]
    assert "local-smollm2" in run_llm("localrun", "models").stdout
    (listed,) = json.loads(run_llm("localrun", "which", "local", "--json").stdout)
    assert (listed["id"], listed["reason"]) == (model["id"], "no other model has this name")
    engines = json.loads(run_llm("localrun", "ps", "--json").stdout)
    assert model["path"] in [engine["path"] for engine in engines]
    assert all(engine["memory"] > 50e6 and engine["pid"] for engine in engines)
    assert "SmolLM2" in run_llm("localrun", "ps").stdout
