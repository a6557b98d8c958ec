"""How models sample by default: as their files, Ollama's manifests or their makers say.

What is in force is what llama.cpp says of the request in its slot.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_localrun.catalogue import get_catalogue
from llm_localrun.chat.modelfile import request_defaults
from llm_localrun.chat.sampling import Origin, file_sampling
from llm_localrun.engine.state import list_running
from llm_localrun.files import scan
from llm_localrun.files.modelfile import sampling_of
from llm_localrun.gguf.header import Tensor
from llm_localrun.gguf.tensor_types import TensorType
from llm_localrun.models import Snapshot
from llm_localrun.name_cache import CachePolicy
from llm_localrun.recommended import recognize
from llm_localrun.recommended.models import read_recommended
from llm_localrun.wire.request import ChatRequest
from tests.conftest import CONFIG, Invoke, configure
from tests.fakes.http_server import Request, Respond, StandIn, json_reply
from tests.fakes.llama_server import llama_server
from tests.fakes.ollama import Ollama
from tests.support import little_model
from tests.support.contract import sent
from tests.support.drive import ask, served
from tests.support.engines import in_file, stand_in
from tests.support.gguf_files import Value, with_keys, write
from tests.support.models import changed, file_route
from tests.support.quantizing import make, plan_for
from tests.support.trees import LIBRARY, ollama_model

NAN = float("nan")
DEFAULTS = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1}
SAYS = {"temp": 0.5, "top_p": 0.7, "top_k": 7, "min_p": 0.02, "penalty_repeat": 1.1}
SAID = {"temperature": 0.5, "top_p": 0.7, "top_k": 7, "min_p": 0.02, "repeat_penalty": 1.1}
MORE = {"xtc_probability": 0.25, "penalty_last_n": 32}


def keys(said: dict[str, Any]) -> dict[str, Value]:
    return {f"general.sampling.{name}": value for name, value in said.items()}


def in_force(user_path: Path) -> dict[str, Any]:
    """How the last request was sampled, by the slot that it had."""
    (engine,) = list_running(user_path / "localrun" / "engine")
    headers = {"Authorization": f"Bearer {engine.key}"}
    slots = httpx.get(f"{engine.url}/slots", headers=headers, timeout=30).json()
    used = [slot for slot in slots if slot.get("params")]
    params: dict[str, Any] = max(used, key=lambda slot: slot["id_task"])["params"]
    return {
        name: round(value, 5) if isinstance(value, float) else value
        for name, value in params.items()
    }


@pytest.fixture
def model_file(tmp_path: Path) -> Iterator[Path]:
    """Where a copy of a model goes. It is large, so it does not stay."""
    path = tmp_path / "model.gguf"
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("runs_on", ["xllamacpp", "llama-server"])
@pytest.mark.parametrize(
    ("says", "turns"),
    [
        pytest.param({}, [({}, DEFAULTS), ({"top_k": 3}, DEFAULTS | {"top_k": 3})], id="nothing"),
        pytest.param(
            SAYS | MORE,
            [
                ({}, SAID | {"xtc_probability": 0.25, "repeat_last_n": 32}),
                ({"temperature": 0}, SAID | {"temperature": 0}),
                ({"top_k": 0, "seed": 7}, SAID | {"top_k": 0, "seed": 7, "xtc_probability": 0.25}),
            ],
            id="all",
        ),
        pytest.param(
            {"temp": NAN, "top_k": "many", "top_p": 7.0, "penalty_repeat": -1.0, "mirostat": 99}
            | {"min_p": 0.1},
            [({}, DEFAULTS | {"min_p": 0.1, "mirostat": 0})],
            id="odd values",
        ),
        pytest.param(
            # Each is the key's type, and valid: llama.cpp would refuse the requests, take top_k
            # for 1, and need gigabytes of memory.
            {"penalty_repeat": 1e-44, "top_k": 2**40 + 1, "penalty_last_n": 2 * 10**9},
            [({}, DEFAULTS | {"repeat_last_n": 64})],
            id="extreme values",
        ),
        pytest.param(
            {"top_k": -1, "temp": -1.0}, [({}, DEFAULTS | {"top_k": 0})], id="negative values"
        ),
        pytest.param(
            {"sequence": "TOP-P;typical;topK;min p;Penalties"},
            [
                ({"top_k": 9}, {"samplers": ["top_p", "top_k", "penalties"], "top_k": 9}),
                ({"typical_p": 0.3, "top_p": 0.5}, {"typical_p": 0.3, "top_p": 0.5}),
            ],
            id="other names of samplers",
        ),
        pytest.param(
            {"mirostat": 2, "mirostat_tau": 3.0, "sequence": "top_k;temperature"},
            [
                ({}, {"mirostat": 2, "mirostat_tau": 3, "samplers": ["top_k", "temperature"]}),
                ({"temperature": 0}, {"mirostat": 2, "samplers": ["top_k", "temperature"]}),
                ({"top_k": 5}, {"mirostat": 0, "samplers": ["top_k", "temperature"]}),
                (
                    {"top_p": 0.3, "extra_body": {"xtc_probability": 0.5}},
                    {"mirostat": 0, "top_p": 0.3, "xtc_probability": 0.5},
                ),
            ],
            id="other samplers",
        ),
    ],
)
def test_file_says_how_it_is_sampled(
    says: dict[str, Any],
    turns: list[tuple[dict[str, Any], dict[str, Any]]],
    runs_on: str,
    starter_model: Path,
    model_file: Path,
    user_path: Path,
) -> None:
    """Each option of the user wins, and the others stay the file's."""
    if runs_on == "llama-server":
        configure(user_path, llama_server=str(stand_in(user_path / "llama-server")))
    model = in_file(with_keys(starter_model, model_file, keys(says)))
    for options, expected in turns:
        assert ask(model, "Name a color.", max_tokens=3, **options).output
        params = in_force(user_path)
        assert {name: params[name] for name in expected} == expected
    if "top_p" in turns[-1][0]:
        assert {"top_p", "min_p", "penalties", "top_k"} < {*params["samplers"]}


def test_sampling_has_its_effect(starter_model: Path, model_file: Path) -> None:
    """Only the most likely token counts, whatever the seed; unless the user says otherwise."""
    model = in_file(with_keys(starter_model, model_file, keys({"top_k": 1, "temp": 2.0})))
    turns: list[tuple[dict[str, Any], int]] = [
        ({}, 1),
        ({"top_k": 0}, 3),
        ({"top_k": 0, "temperature": 0}, 1),
    ]
    for options, count in turns:
        said = {
            ask(model, "Tell me a story.", max_tokens=8, seed=seed, **options).text
            for seed in (1, 2, 3)
        }
        assert len(said) == count


@pytest.mark.parametrize("at_end", [False, True])
def test_keys_are_found_before_and_behind_the_vocabulary(
    at_end: bool, starter_model: Path, model_file: Path
) -> None:
    says = {**SAYS, "sequence": "top_k", "mirostat": 2, "mirostat_tau": 3.0}
    model = in_file(with_keys(starter_model, model_file, keys(says), at_end=at_end))
    sampling = file_sampling(model, file_route(model), {})
    assert sampling.sent({}) == SAID
    others = {"sequence": "top_k", "mirostat": 2, "mirostat_tau": 3.0}
    assert {name: each.value for name, each in sampling.others.items()} == others


# The recommended list.

QWEN = {"general.architecture": "qwen3"}
MAKERS = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "presence_penalty": 1.5}


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list with one model, of which the makers say how it is sampled."""
    first = read_recommended()[0]
    file = first.files[0].model_copy(
        update={"path": "Qwen3-0.6B-Instruct-2507-Q4_K_M.gguf", "sha256": "ab" * 32}
    )
    entry = replace(
        first,
        name="qwen3-0.6b",
        repository="ada/Qwen3-0.6B-Instruct-2507-GGUF",
        files=(file,),
        header=replace(first.header, metadata=QWEN),
        sampling={**MAKERS, "typical_p": -3, "nonsense": 1.0},
    )
    monkeypatch.setattr(recognize, "read_recommended", lambda: (entry,))


@pytest.mark.parametrize(
    ("path", "architecture", "is_it"),
    [
        ("Qwen3-0.6B-Instruct-2507-Q4_K_M.gguf", "qwen3", True),
        ("Qwen3-0.6B-2507-Q8_0.gguf", "", True),
        ("Qwen3-0.6B-2507-Q8_0.gguf", "llama", False),
        ("Qwen3-0.6B-2507-abliterated-Q8_0.gguf", "qwen3", False),
        ("Josiefied-Qwen3-0.6B-2507-Q8_0.gguf", "qwen3", False),
        ("Qwen3-0.6B-Q8_0.gguf", "qwen3", False),
        ("Qwen3-0.6B-Thinking-2507-Q8_0.gguf", "qwen3", False),
        ("Qwen3-0.6B-Base-2507-Q8_0.gguf", "qwen3", False),
        ("Qwen3-4B-Instruct-2507-Q4_K_M.gguf", "qwen3", False),
        ("ada/Qwen3-0.6B-Instruct-2507-GGUF/x.gguf", "qwen3", True),
        ("eve/Qwen3-0.6B-Instruct-2507-GGUF/x.gguf", "qwen3", False),
        ("models--ada--Qwen3-0.6B-Instruct-2507-GGUF/snapshots/1/x.gguf", "qwen3", True),
        (f"blobs/sha256-{'ab' * 32}", "qwen3", True),
        (f"blobs/sha256-{'cd' * 32}", "qwen3", False),
        ("medical_Qwen3-0.6B-2507-Q4_K_M.gguf", "qwen3", False),
        ("my-tune_Qwen3-0.6B-2507.gguf", "qwen3", False),
        ("ada_Qwen3-0.6B-2507-Q4_K_M.gguf", "qwen3", True),
        ("bartowski_Qwen3-0.6B-2507-Q4_K_M.gguf", "qwen3", True),
        ("medical_Qwen3-0.6B-2507-GGUF_Qwen3-0.6B-2507-Q4_K_M.gguf", "qwen3", False),
        ("bartowski_Qwen3-0.6B-2507-GGUF_Qwen3-0.6B-2507-Q4_K_M.gguf", "qwen3", True),
        ("bartowski_Qwen3-0.6B-2507-RP-GGUF_Qwen3-0.6B-2507-Q4_K_M.gguf", "qwen3", False),
        ("eve/Qwen3-0.6B-2507-abliterated-GGUF/Qwen3-0.6B-2507-Q4_K_M.gguf", "qwen3", False),
        ("eve/Qwen3-abliterated-GGUF/Qwen3-0.6B-2507-Q4_K_M.gguf", "qwen3", False),
        ("eve/Qwen3-0.6B-2507-i1-GGUF/Qwen3-0.6B-2507.i1-Q4_K_M.gguf", "qwen3", True),
        ("eve/Qwen3-0.6B-2507-GGUF/UD-Q4_K_M/Qwen3-0.6B-2507-UD-Q4_K_M.gguf", "qwen3", True),
        ("qwen/all of Qwen/Qwen3-0.6B-2507-Q4_K_M.gguf", "qwen3", True),
        (
            "models--eve--Qwen3-0.6B-2507-RP-GGUF/snapshots/1/Qwen3-0.6B-2507-Q4_K_M.gguf",
            "qwen3",
            False,
        ),
    ],
)
def test_which_model_counts_as_the_recommended_one(
    listed: None, path: str, architecture: str, is_it: bool
) -> None:
    model = changed(in_file(Path("/models") / path), architecture=architecture)
    assert (recognize.recognize(model, file_route(model)) is not None) is is_it


@pytest.mark.parametrize(
    ("name", "architecture", "listed_as"),
    [
        ("glm-4.7-flash", "deepseek2", "glm-4.7-flash"),
        ("glm-4.7-flash", "", None),
        ("GLM-4.7-Flash-REAP-Q4_K_M", "deepseek2", None),
        ("qwen3-coder-next:q4_K_M", "qwen3next", "qwen3-coder-next"),
        ("qwen3-coder", "qwen3next", None),
        ("Qwen3.8-Flash-Next-UD-Q4_K_XL", "qwen4exp", "qwen3.8-flash-next"),
        ("gemma-4-12b-it-Q4_K_M", "gemma4", "gemma-4-12b"),
        ("gemma4:12b", "gemma4", "gemma-4-12b"),
        ("gemma4:12b-it-qat", "gemma4", "gemma-4-12b"),
        ("gemma-3-270m-it-Q8_0", "gemma3", "gemma-3-270m"),
        ("google_gemma-3-270m-it-qat-Q4_0", "gemma3", "gemma-3-270m"),
        ("gemma-3-270m-Base-Q8_0", "gemma3", None),
        ("Qwen3-0.6B-Q4_K_M", "qwen3", "qwen3-0.6b"),
        ("medical_Qwen3-0.6B-Q4_K_M", "qwen3", None),
        ("openai_gpt-oss-20b-MXFP4", "gpt-oss", "gpt-oss-20b"),
    ],
)
def test_names_of_recommended_models(name: str, architecture: str, listed_as: str | None) -> None:
    model = changed(in_file(Path("/models/m.gguf")), name=name, architecture=architecture)
    found = recognize.recognize(model, file_route(model))
    assert (found and found.name) == listed_as


def test_makers_settings_are_in_force(
    listed: None, starter_model: Path, model_file: Path, user_path: Path
) -> None:
    """Below what the file says, which comes before llama.cpp's own."""
    name = model_file.with_name("Qwen3-0.6B-2507-Q8_0.gguf")
    path = with_keys(starter_model, model_file, keys({"top_k": 7, "temp": NAN})).rename(name)
    turns: list[tuple[dict[str, float], dict[str, float]]] = [
        ({}, {}),
        ({"presence_penalty": 0.5}, {"presence_penalty": 0.5}),
        # The most likely token is one without penalties, unless the user wants them.
        ({"temperature": 0}, {"temperature": 0, "presence_penalty": 0}),
        ({"temperature": 0, "presence_penalty": 1}, {"temperature": 0, "presence_penalty": 1}),
    ]
    for given, changes in turns:
        options: dict[str, Any] = given
        assert ask(in_file(path), "Name a color.", max_tokens=3, **options).output
        params = in_force(user_path)
        expected = {**DEFAULTS, **MAKERS, "top_k": 7, "typical_p": 1, **changes}
        assert {name: params[name] for name in expected} == expected
    path.unlink()


def test_order_of_those_who_say_how_a_model_is_sampled(listed: None, tmp_path: Path) -> None:
    store = tmp_path / "home/.ollama/models"
    write(tmp_path / "w", QWEN | keys({"top_p": 0.7, "temp": 0.3}), [], {})
    parameters = json.dumps(
        {"temperature": 0.1, "num_ctx": 512, "min_p": 9, "seed": 7, "repeat_last_n": 0}
        | {"top_k": 2**31, "repeat_penalty": 1e-45, "mirostat": 2}
    )
    ollama_model(store, f"{LIBRARY}/qwen3/0.6b-2507", tmp_path / "w", params=parameters)
    (entry,) = scan([], Snapshot()).files
    assert entry.model is not None
    defaults = request_defaults(entry.model, file_route(entry.model))
    manifests = {"temperature": 0.1, "context_size": 512, "seed": 7}
    assert defaults.options == manifests
    assert defaults.applied_to(ChatRequest((), {"top_p": 1.0}, stream=True)).options == {
        **manifests,
        **{"top_p": 1.0, "top_k": 20, "presence_penalty": 1.5},
        "extra_body": {"repeat_last_n": 0},
    }
    settings = defaults.sampling.in_force({})
    assert {name: (each.value, each.origin) for name, each in settings.items()} == {
        "temperature": (0.1, Origin.MANIFEST),
        "top_p": (0.7, Origin.FILE),
        "top_k": (20, Origin.LISTED),
        "min_p": (0.05, Origin.ENGINE),
        "repeat_penalty": (1.0, Origin.ENGINE),
        "presence_penalty": (1.5, Origin.LISTED),
        "seed": (7, Origin.MANIFEST),
        "penalty_last_n": (0, Origin.MANIFEST),
    }


@pytest.mark.parametrize(
    ("value", "context_max", "sent"),
    [
        (-1, 4096, -1),
        (-2, 4096, None),
        (4096, 4096, 4096),
        (4097, 4096, None),
        (2**20, None, 2**20),
        (2**20 + 1, None, None),
        (2**20 + 1, 2**40, None),
        (1.5, 4096, None),
        ("many", 4096, None),
    ],
)
@pytest.mark.parametrize("manifest", [False, True])
def test_tokens_that_penalties_look_back_on(
    value: Any, context_max: int | None, sent: int | None, manifest: bool, tmp_path: Path
) -> None:
    write(tmp_path / "m.gguf", QWEN | keys({} if manifest else {"penalty_last_n": value}), [], {})
    model = in_file(tmp_path / "m.gguf", context_max)
    says = {"repeat_last_n": value} if manifest else {}
    body = file_sampling(model, file_route(model), says).extra_body({})
    assert body == ({} if sent is None else {"repeat_last_n": sent})


def test_embedding_model_is_not_sampled(tmp_path: Path) -> None:
    write(tmp_path / "e.gguf", {"general.architecture": "bert", **keys(SAYS)}, [], {})
    model = changed(in_file(tmp_path / "e.gguf"), purpose="embedding")
    assert request_defaults(model, file_route(model)).options == {}


@pytest.mark.parametrize("at_end", [False, True])
def test_quantized_copy_is_sampled_as_its_source(at_end: bool, tmp_path: Path) -> None:
    says = {**SAYS, **MORE, "sequence": "top_k", "mirostat": 2}
    little = little_model.build(tmp_path / "little.gguf")
    source = with_keys(little, tmp_path / "source.gguf", keys(says), at_end=at_end)
    assert sampling_of(file_route(in_file(source))).keys() == says.keys()
    made = make(plan_for(source, "Q4_0"))
    assert sampling_of(file_route(in_file(made))) == sampling_of(file_route(in_file(source)))


# Servers.


def test_server_samples_as_it_likes(starter_model: Path, model_file: Path) -> None:
    """What the file says is not sent, even if it is here."""
    path = with_keys(starter_model, model_file, keys(SAYS))
    with StandIn(llama_server()) as server:
        model = served(server.url, "llamacpp", "m", path=str(path))
        ask(model, "Hi", top_k=3)
        (body,) = sent(server)
    assert body["top_k"] == 3
    assert body.keys() & {*SAID, "samplers", "mirostat"} == {"top_k"}


PROPS = {
    "default_generation_settings": {
        "n_ctx": 8192,
        "params": {"temperature": 0.699999988079071, "top_k": 20, "min_p": None, "top_p": "high"},
    }
}


def says_props(request: Request) -> Iterator[bytes]:
    if request.path == "/props":
        yield json_reply(PROPS)
    else:
        yield from llama_server()(request)


def says_parameters(request: Request) -> Iterator[bytes]:
    for reply in Ollama(has=["m"], capabilities=("completion",))(request):
        text = "top_k                          20\ntemperature                    0.7\nstop x\n"
        show = {"parameters": text + "top_p 1.2.3\nmin_p -\n", "capabilities": ["completion"]}
        yield json_reply(show) if request.path == "/api/show" else reply


@pytest.mark.parametrize("respond", [says_props, says_parameters])
def test_what_a_server_says_of_its_sampling(
    respond: Respond, user_path: Path, invoke: Invoke
) -> None:
    with StandIn(respond) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
        (model,) = get_catalogue(CachePolicy.FRESH).models
        assert dict(model.sampling) == {"temperature": 0.7, "top_k": 20}
        invoke("models", "options", "set", model.id, "top_k", "5")
        shown = json.loads(invoke("localrun", "show", model.id, "--json").stdout)["sampling"]
        card = invoke("localrun", "show", model.id).stdout.splitlines()
    assert shown == {
        "temperature": {"value": 0.7, "origin": "server"},
        "top_k": {"value": 5, "origin": "options"},
    }
    at = card.index("sampling     top_k 5 (llm models options)")
    assert card[at + 1 : at + 3] == [
        "             temperature 0.7 (its server)",
        "             its server decides the rest",
    ]


# What is shown.


def test_show_says_what_is_in_force_and_who_says_it(
    listed: None, user_path: Path, invoke: Invoke
) -> None:
    """A sampler that is not in the sequence has no effect, unless the user wants it."""
    name = "Qwen3-0.6B-2507-Q8_0"
    says = {"top_k": 7, "xtc_threshold": 0.2, "sequence": "penalties;top-k;temp", "top_p": NAN}
    says["penalty_last_n"] = 1000000
    weights = Tensor("token_embd.weight", (2**10, 2**10), TensorType.F16, 0)
    models = user_path / "localrun" / "models"
    write(models / f"{name}.gguf", QWEN | keys(says), [weights], {})
    card = invoke("localrun", "show", f"local/gguf/{name}").stdout.splitlines()
    at = card.index(
        "sampling     top_k 7, sequence penalties;top-k;temp, xtc_threshold 0.2,"
        " penalty_last_n 1000000 (the file)"
    )
    assert card[at + 1 : at + 3] == [
        "             temperature 0.6, presence_penalty 1.5 (the recommended list)",
        "             repeat_penalty 1 (llama.cpp's defaults)",
    ]
    for option, value in (("top_p", "0.5"), ("max_tokens", "9")):
        invoke("models", "options", "set", f"local/gguf/{name}", option, value)
    shown = json.loads(invoke("localrun", "show", f"local/gguf/{name}", "--json").stdout)[
        "sampling"
    ]
    assert {option: (each["value"], each["origin"]) for option, each in shown.items()} == {
        "temperature": (0.6, "list"),
        "top_k": (7, "file"),
        "min_p": (0.05, "engine"),
        "repeat_penalty": (1, "engine"),
        "presence_penalty": (1.5, "list"),
        "xtc_threshold": (0.2, "file"),
        "penalty_last_n": (1000000, "file"),
        "top_p": (0.5, "options"),
    }


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, {"temperature", "mirostat"}),
        ({"seed": 1}, {"temperature", "mirostat"}),
        ({"temperature": 1.0}, {"mirostat"}),
        ({"top_k": 3}, {"temperature", "top_p", "min_p", "repeat_penalty", "penalty_last_n"}),
    ],
)
def test_mirostat_takes_the_place_of_other_samplers(
    chosen: dict[str, float], expected: set[str], tmp_path: Path
) -> None:
    says = {"mirostat": 2, "top_k": 7, "penalty_last_n": 9}
    write(tmp_path / "m.gguf", QWEN | keys(says), [], {})
    model = in_file(tmp_path / "m.gguf")
    assert file_sampling(model, file_route(model), {}).in_force(chosen).keys() == expected
