"""Quantizing with Ollama, which makes a new tag of its own model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llm_localrun.cli.quantize import _QuantizeOptions, _route_through_server
from llm_localrun.models import Endpoint, LocalModel
from llm_localrun.names.parse import parse_name
from llm_localrun.servers.ollama import tag_for
from llm_localrun.system.paths import models_folder
from tests.fakes.http_server import StandIn
from tests.fakes.lmstudio import LMStudio
from tests.fakes.ollama import Ollama
from tests.support import little_model
from tests.support.models import changed, local_model
from tests.support.pulling import bodies_sent_to, done, failed, run, use_server

SOURCE = "smollm2:135m-f16"


def test_ollama_quantizes(user_path: Path, reported: list[str]) -> None:
    with StandIn(Ollama(has=[SOURCE])) as server:
        use_server(user_path, "ollama", server)
        result = run("quantize", f"local/ollama/{SOURCE}", "q8_0")
        assert result.exit_code == 0, result.output
        asked = {"model": "smollm2:135m-q8_0", "from": SOURCE, "quantize": "Q8_0", "stream": True}
        assert bodies_sent_to(server, "/api/create") == [asked]
        assert "local/ollama/smollm2:135m-q8_0" in done("models", "--json")
        assert done("quantize", f"local/ollama/{SOURCE}", "Q8_0") == (
            "It exists already: smollm2:135m-q8_0\nGive --replace to make it again.\n"
        )
        assert len(bodies_sent_to(server, "/api/create")) == 1
    assert result.stderr == ""
    said = [each.removeprefix("smollm2:135m-q8_0: ") for each in reported]
    assert said[:2] == ["parsing GGUF", "verifying conversion"]
    assert said[-2:] == ["writing manifest", "success"]
    assert result.stdout.splitlines()[0] == "Created smollm2:135m-q8_0 in Ollama"
    assert result.stdout.splitlines()[-1] == "size   98 MB  98 MB"


@pytest.mark.parametrize(
    ("name", "quantization", "said"),
    [
        (SOURCE, "Q3_K_M", "unsupported quantization type Q3_K_M - supported types are F32, F16"),
        ("smollm2:135m", "Q8_0", "quantization is only supported for F16, BF16 and F32 models"),
    ],
)
def test_ollama_refuses(user_path: Path, name: str, quantization: str, said: str) -> None:
    with StandIn(Ollama(has=[name])) as server:
        use_server(user_path, "ollama", server)
        assert said in failed("quantize", f"local/ollama/{name}", quantization)


def test_when_ollama_quantizes(user_path: Path) -> None:
    """Ollama quantizes what it can while it answers, because it keeps the template of the model."""
    options = _QuantizeOptions(None, requantize=False, replace=False, no_measure=False, yes=False)
    informed = replace(options, imatrix=Path("imatrix.gguf"))
    with StandIn(Ollama(has=[SOURCE])) as server:
        served = model(server.url, "F16")
        known = changed(served, path="/blobs/sha256-0")
        coarse = known.model_copy(update={"quantization": "Q8_0"})
        assert _route_through_server(served, "Q4_K_M", options)
        assert _route_through_server(served, "Q5_K_M", options)
        assert _route_through_server(known, "Q4_K_M", options)
        assert not _route_through_server(known, "Q5_K_M", options)
        assert not _route_through_server(coarse, "Q4_K_M", options)
        assert not _route_through_server(known, "Q4_K_M", informed)
    assert not _route_through_server(known, "Q4_K_M", options)


def model(url: str, quantization: str) -> LocalModel:
    endpoint = Endpoint(name="ollama", kind="ollama", url=url)
    return local_model(id="x", name=SOURCE, endpoint=endpoint, quantization=quantization)


def test_file_in_the_store_of_ollama(user_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = user_path / "ollama"
    monkeypatch.setenv("OLLAMA_MODELS", str(store))
    little_model.build(store / "blobs" / f"sha256-{'0' * 64}")
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{'0' * 64}"}
    manifest = store / "manifests/registry.ollama.ai/library/little/3b-f16"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": [layer]}))
    said = done("quantize", "local/gguf/little:3b-f16", "Q8_0", "--no-measure").splitlines()
    made = models_folder() / "little-3b-Q8_0.gguf"
    assert said[0] == f"Wrote {made} with ggml from xllamacpp"
    assert said[1] == "The new file does not have the template and parameters that Ollama keeps."
    assert [path.name for path in manifest.parent.iterdir()] == ["3b-f16"]


def test_served_model_without_a_file(user_path: Path) -> None:
    with StandIn(LMStudio()) as server:
        use_server(user_path, "lmstudio", server)
        said = failed("quantize", "local/lmstudio/openai/gpt-oss-20b", "Q8_0")
    assert said == (
        "Error: The file of local/lmstudio/openai/gpt-oss-20b is not known: its server does not"
        " say where it is. Give the path of its GGUF file instead."
    )


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("smollm2:135m-f16", "smollm2:135m-q4_K_M"),
        ("smollm2:135m", "smollm2:135m-q4_K_M"),
        ("mine:latest", "mine:q4_K_M"),
        ("me/mine:fp16", "me/mine:q4_K_M"),
        ("hf.co/bartowski/Llama-3.2-1B-GGUF:F16", "hf.co/bartowski/Llama-3.2-1B-GGUF:q4_K_M"),
    ],
)
def test_tag_has_the_name_of_the_model(name: str, tag: str) -> None:
    assert tag_for(name, "Q4_K_M") == tag
    assert parse_name(tag).words == parse_name(name).words
