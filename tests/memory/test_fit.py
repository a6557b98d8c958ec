"""Whether a model fits: by the arithmetic alone, and as every command and the engine say it."""

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.catalogue import get_catalogue
from llm_localrun.engine import builds
from llm_localrun.engine.builds import BuildReport
from llm_localrun.engine.memory_check import ensure_fits
from llm_localrun.engine.settings import EngineRequest
from llm_localrun.engine.state import EngineSettings, list_running
from llm_localrun.errors import NotEnoughMemory
from llm_localrun.gguf.header import Header, read_summary
from llm_localrun.gguf.tensor_types import TensorType
from llm_localrun.memory import machine
from llm_localrun.memory.fit import (
    MARGIN_BYTES,
    UNLIMITED,
    Fit,
    fit_of,
    fit_of_model,
    largest_context,
)
from llm_localrun.memory.footprint import Footprint, Setting
from llm_localrun.memory.geometry import Geometry, geometry_of
from llm_localrun.models import Endpoint, LocalModel, RunsOn
from llm_localrun.name_cache import CachePolicy
from llm_localrun.pull.fitting import fit_of_variant
from llm_localrun.pull.variants import HubFile, Variant
from llm_localrun.quantize import quality
from llm_localrun.system.paths import engine_folder
from tests.conftest import CONFIG, Invoke, configure
from tests.support import tiny_models
from tests.support.models import file_route, local_model
from tests.support.published_models import LLAMA_3_1_8B, QWEN3_32B
from tests.support.trees import field, header, string, write

GB = 10**9
SERVER = Endpoint(name="ollama", kind="ollama", url="http://127.0.0.1:11434")


def geometry(keys: dict[str, Any]) -> Geometry:
    known = geometry_of(Header(keys))
    assert known is not None
    return known


# The arithmetic.


def test_largest_context() -> None:
    footprint = Footprint(geometry(LLAMA_3_1_8B), weights=5 * GB)
    whole = footprint.need(Setting(131_072)).total + MARGIN_BYTES
    assert largest_context(footprint, Setting(131_072), whole) == 131_072
    assert largest_context(footprint, Setting(1000), whole) == 1000
    for memory in (whole - 1, 10 * GB, 6 * GB):
        size = largest_context(footprint, Setting(131_072), memory)
        assert size % 256 == 0
        assert footprint.need(Setting(size)).total + MARGIN_BYTES <= memory
        assert footprint.need(Setting(size + 256)).total + MARGIN_BYTES > memory
    assert largest_context(footprint, Setting(131_072), 5 * GB) == 0


@pytest.mark.parametrize(
    ("trained", "spare", "fit"),
    [
        pytest.param(512, 0, Fit(512), id="the smallest context that is useful"),
        pytest.param(512, -1, Fit(0), id="a byte less"),
        pytest.param(300, 0, Fit(300), id="all that a model was trained for"),
        pytest.param(300, -1, Fit(0), id="a byte less than that"),
    ],
)
def test_smallest_context(trained: int, spare: int, fit: Fit) -> None:
    footprint = Footprint(geometry(LLAMA_3_1_8B), weights=5 * GB)
    memory = footprint.need(Setting(trained)).total + MARGIN_BYTES + spare
    assert fit_of(footprint, Setting(trained), memory) == fit


@pytest.mark.parametrize(
    ("facts", "memory", "fit"),
    [
        # Of what a server runs here only the size is known: a tenth more, and 1 GiB.
        ({"endpoint": SERVER, "size": 10 * GB}, 11 * GB + 2**30, UNLIMITED),
        ({"endpoint": SERVER, "size": 10 * GB}, 11 * GB + 2**30 - 1, Fit(0)),
        # Nothing tells that these do not fit.
        ({"endpoint": SERVER, "size": 10 * GB}, None, UNLIMITED),
        ({"endpoint": SERVER, "size": None}, GB, UNLIMITED),
        ({"endpoint": SERVER, "size": 10 * GB, "runs_on": RunsOn.CLOUD}, GB, UNLIMITED),
        ({"endpoint": SERVER, "size": 10 * GB, "runs_on": RunsOn.ANOTHER_MACHINE}, GB, UNLIMITED),
        ({"endpoint": SERVER, "size": 10 * GB, "runs_on": RunsOn.UNKNOWN}, GB, UNLIMITED),
        # A file fits by the size of all that is loaded, and by its geometry if that is whole.
        ({"path": "/m.gguf", "size": 10 * GB, "load_size": 12 * GB}, 13 * GB, Fit(0)),
        ({"path": "/m.gguf", "size": 10 * GB, "geometry": (1, 2)}, 13 * GB, UNLIMITED),
    ],
)
def test_fit_of_a_model(facts: dict[str, Any], memory: int | None, fit: Fit) -> None:
    model = local_model(id="local/x/m", name="m", **facts)
    assert fit_of_model(model, memory) == fit


# What the commands and the engine say, of the same files on machines of different sizes.


def published(keys: dict[str, Any], size: int) -> Callable[[Path], Path]:
    """Writes a file with the header of a published model, which takes no disk space.

    All its weights are in one tensor.
    """
    data = header(*(field(key, value) for key, value in keys.items()))
    tensor = string("w") + struct.pack("<IQIQ", 1, (size - 2**16) // 4, TensorType.F32, 0)
    data = data[:8] + struct.pack("<Q", 1) + data[16:] + tensor
    return lambda path: write(path, data, size)


MODELS: dict[str, Callable[[Path], Path]] = {
    "Dense": tiny_models.llama().build,
    "Windowed": tiny_models.gemma3().build,
    "Latent": tiny_models.deepseek2().build,
    "Recurrent": tiny_models.mamba2().build,
    "Qwen3-32B-Q4": published(QWEN3_32B, 17_830_000_000),
    "Qwen3-32B-Q5": published(QWEN3_32B, 21_650_000_000),
    "Unknown": published({"general.architecture": "novel"}, 300_000_000),
}
MACHINES = (3 * 10**8, 4 * 10**8, 8 * 10**8, 2 * GB, 18 * GB, 22 * GB, 25 * GB, 100 * GB)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    below = tmp_path_factory.mktemp("models")
    for name, build in MODELS.items():
        build(below / f"{name}.gguf")
    return below


@pytest.fixture
def machine_with(
    user_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], None]:
    """Gives this machine so many bytes of RAM, all of them free, and no GPU."""
    configure(user_path, **CONFIG, folders=[str(folder)])
    monkeypatch.setattr(builds, "report", lambda *_: BuildReport((), None, "", ()))

    def pin(memory: int) -> None:
        monkeypatch.setattr(machine, "physical_memory", lambda: memory)
        monkeypatch.setattr(machine, "free_ram", lambda: memory)

    return pin


def granted(model: LocalModel) -> int:
    """The context with which the engine would load a model that is to have its largest; 0 if it
    would not load it."""
    settings = EngineSettings(context_size=model.context_max or 8192)
    try:
        request = EngineRequest(file_route(model).path, model.name, settings)
        fitting = ensure_fits(model, request, may_shrink=True)
    except NotEnoughMemory:
        return 0
    return fitting.settings.context_size or 0


def in_pull_table(model: LocalModel, memory: int) -> Fit:
    """What `pull` says of a hub's variant that is the file of `model`."""
    assert model.size is not None
    with Path(file_route(model).path).open("rb") as file:
        known = read_summary(file)
    variant = Variant("", (HubFile("model.gguf", model.size, ""),))
    return fit_of_variant(variant, known, memory)


def json_of(invoke: Invoke, *arguments: str) -> Any:
    done = invoke("localrun", *arguments, "--json")
    assert done.exit_code in (0, 1), done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize("memory", MACHINES)
def test_commands_and_engine_agree(
    memory: int, machine_with: Callable[[int], None], invoke: Invoke
) -> None:
    machine_with(memory)
    models = get_catalogue(CachePolicy.REFRESH).models
    assert {model.name for model in models} == set(MODELS)
    contexts = {model.id: granted(model) for model in models}
    listed = {each["id"]: each["fits"] for each in json_of(invoke, "models")}
    assert listed == {model_id: size > 0 for model_id, size in contexts.items()}
    findings = json_of(invoke, "doctor")["findings"]
    (too_large,) = (each["too_large"] for each in findings if each["section"] == "memory")
    assert set(too_large) == {model_id for model_id, size in contexts.items() if not size}
    for model in models:
        context = contexts[model.id]
        fit = in_pull_table(model, memory)
        card = json_of(invoke, "show", model.id)
        (named,) = json_of(invoke, "which", model.id)
        assert (card["fits"], named["fits"], fit.fits) == (context > 0,) * 3
        assert card["largest_context"] == fit.context_size
        if context and model.name == "Unknown":
            assert fit == UNLIMITED
        else:
            assert fit == Fit(context)
        text = invoke("localrun", "show", model.id).stdout
        assert ("is too large for" in text) == (context == 0)
        assert (f"with up to {context:,} tokens of context" in text) == bool(fit.context_size)
        too_long = [size for size in map(int, card["memory_by_context"]) if size > context]
        assert text.count("of context: does not fit") == len(too_long)


@pytest.mark.parametrize(
    ("name", "context", "said"),
    [
        (
            "Qwen3-32B-Q4",
            25_088,
            [
                "19 GB with 4k of context",
                "27 GB with 32k of context: does not fit",
                "29 GB with 40k of context: does not fit",
                "fits into the 25 GB of this machine with up to 25,088 tokens of context",
            ],
        ),
        (
            "Qwen3-32B-Q5",
            10_752,
            [
                "23 GB with 4k of context",
                "31 GB with 32k of context: does not fit",
                "33 GB with 40k of context: does not fit",
                "fits into the 25 GB of this machine with up to 10,752 tokens of context",
            ],
        ),
    ],
)
def test_real_sizes_on_a_machine_with_25_gb(
    name: str, context: int, said: list[str], machine_with: Callable[[int], None], invoke: Invoke
) -> None:
    machine_with(25 * GB)
    lines = invoke("localrun", "show", f"local/gguf/{name}").stdout.splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("memory"))
    assert [line.removeprefix("memory").strip() for line in lines[at : at + 4]] == said
    (model,) = (model for model in get_catalogue().models if model.name == name)
    assert granted(model) == context


def test_listing_opens_no_model(
    machine_with: Callable[[int], None], invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the scan has kept is enough as long as the files have not changed."""
    machine_with(4 * 10**8)
    before = json_of(invoke, "models")
    opened: list[object] = []
    # The package has a function of the module's name.
    scan = sys.modules["llm_localrun.files.scan"]
    monkeypatch.setattr(scan, "read_model", lambda *each: opened.append(each))
    assert json_of(invoke, "models") == before
    assert opened == []


def test_verify_does_not_load_what_does_not_fit(
    machine_with: Callable[[int], None], invoke: Invoke
) -> None:
    machine_with(3 * 10**8)
    done = invoke("localrun", "verify", "local/gguf/Dense", "--json")
    assert done.exit_code == 0
    *_, check = json.loads(done.stdout)
    assert (check["what"], check["state"]) == ("loads", "unknown")
    assert check["detail"].startswith("Dense does not fit into the free memory: with a context of")
    assert check["detail"].endswith("or verify it on a machine with more memory.")
    assert list_running(engine_folder()) == []


def test_quality_is_not_measured_where_a_model_does_not_fit(
    machine_with: Callable[[int], None],
) -> None:
    machine_with(3 * 10**8)
    models = get_catalogue(CachePolicy.REFRESH).models
    (model,) = (model for model in models if model.name == "Dense")
    with pytest.raises(NotEnoughMemory, match="does not fit into the free memory"):
        next(quality.text_loss(model, model))
    with pytest.raises(NotEnoughMemory, match="Close other programs before you measure"):
        quality.vector_loss(model, model)
    assert list_running(engine_folder()) == []
