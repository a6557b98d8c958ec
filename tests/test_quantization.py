"""`-o quantization`: a model's variants from all sources, and how to get one that is absent."""

from typing import Any

import pytest

from llm_localrun import catalogue
from llm_localrun.errors import ConfigError
from llm_localrun.models import (
    Endpoint,
    EndpointReport,
    LocalModel,
    ScannedFile,
    ServerStatus,
    Snapshot,
)
from llm_localrun.name_cache import settings_stamp
from llm_localrun.names.aliases import siblings
from llm_localrun.names.quantizations import canonical
from llm_localrun.pull.records import PulledFile, PullRecord, save_record
from llm_localrun.pull.refs import parse_ref
from llm_localrun.resolve import advice_for_variant, resolve_variant
from llm_localrun.system.paths import home, models_folder
from tests.support.drive import failure
from tests.support.models import local_model

OLLAMA = Endpoint(name="ollama", kind="ollama", url="http://127.0.0.1:1")
STUDIO = Endpoint(name="lmstudio", kind="lmstudio", url="http://127.0.0.1:2")
HUB = "/home/u/.cache/huggingface/hub/models--unsloth--Qwen3-8B-GGUF/snapshots/0a/{}.gguf"
STUDIO_FOLDER = "/home/u/.lmstudio/models/bartowski/Qwen3-8B-GGUF/{}.gguf"


def tag(name: str, quantization: str) -> LocalModel:
    return local_model(
        id=f"local/ollama/{name}", name=name, endpoint=OLLAMA, quantization=quantization
    )


def key(name: str, quantization: str) -> LocalModel:
    return local_model(
        id=f"local/lmstudio/{name}", name=name, endpoint=STUDIO, quantization=quantization
    )


def file(name: str, quantization: str, path: str = "/m/{}.gguf", **known: Any) -> LocalModel:
    return local_model(
        id=f"local/gguf/{name}",
        name=name,
        path=path.format(name),
        quantization=quantization,
        **known,
    )


Q4_TAG, Q8_TAG = tag("qwen3:8b", "Q4_K_M"), tag("qwen3:8b-q8_0", "Q8_0")
Q6_KEY = key("qwen/qwen3-8b@q6_k", "Q6_K")
Q5_FILE, F16_FILE = file("Qwen3-8B-Q5_K_M", "Q5_K_M"), file("Qwen3-8B-F16", "F16")
OTHERS = [
    tag("qwen3:14b-q8_0", "Q8_0"),
    file("Qwen3-8B-Coder-Q8_0", "Q8_0"),
    file("Qwen3-8B-embedding-Q2_K", "Q2_K", purpose="embedding"),
]
ALL = [Q4_TAG, Q8_TAG, Q6_KEY, Q5_FILE, F16_FILE]


def know(*models: LocalModel) -> None:
    """Makes these the models in the catalogue."""
    served = [
        EndpointReport(
            endpoint=endpoint,
            status=ServerStatus.ANSWERS,
            asked_at=0,
            models=tuple(
                model for model in models if model.served and model.served.endpoint == endpoint
            ),
        )
        for endpoint in (OLLAMA, STUDIO)
    ]
    files = [
        ScannedFile(path=model.on_disk.path, size=1, modified=0, model=model)
        for model in models
        if model.on_disk
    ]
    catalogue._memory[home()] = Snapshot(
        taken_at=1, stamp=settings_stamp([]), endpoints=tuple(served), files=tuple(files)
    )


def test_variants_are_found_in_all_sources() -> None:
    for model in ALL:
        assert [model, *siblings(model, [*ALL, *OTHERS])] == [
            model,
            *(other for other in ALL if other != model),
        ]


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.id)
@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("Q4_K_M", Q4_TAG),
        ("Q8_0", Q8_TAG),
        ("Q6_K", Q6_KEY),
        ("Q5_K_M", Q5_FILE),
        ("Q5_K", Q5_FILE),
        ("F16", F16_FILE),
        ("FP16", F16_FILE),
        (None, None),
    ],
)
def test_variant_for_the_option(
    user_path: object, model: LocalModel, wanted: str | None, chosen: LocalModel | None
) -> None:
    know(*ALL, *OTHERS)
    options = {} if wanted is None else {"quantization": wanted}
    assert resolve_variant(model, options) == (chosen or model)


def test_absent_variant_is_an_error(user_path: object) -> None:
    know(Q4_TAG, Q8_TAG, *OTHERS)
    said = failure(lambda: resolve_variant(Q4_TAG, {"quantization": "Q6_K"}))
    assert said == (
        "There is no Q6_K of qwen3:8b here. There is Q4_K_M, Q8_0."
        " Try `llm localrun pull ollama:qwen3:8b-q6_K`."
    )
    with pytest.raises(ConfigError, match=r"`llm localrun quantize local/gguf/Qwen3-8B-F16 Q6_K`"):
        know(Q4_TAG, F16_FILE)
        resolve_variant(Q4_TAG, {"quantization": "Q6_K"})


UNKNOWN_ORIGIN = "To look for another file of it: `llm localrun search {}`"


@pytest.mark.parametrize(
    ("model", "wanted", "advice"),
    [
        (Q4_TAG, "Q8_0", "pull ollama:qwen3:8b-q8_0"),
        (Q4_TAG, "F16", "pull ollama:qwen3:8b-fp16"),
        (Q8_TAG, "Q4_K_M", "pull ollama:qwen3:8b-q4_K_M"),
        (tag("qwen3:latest", "Q4_K_M"), "Q8_0", "pull ollama:qwen3:q8_0"),
        (tag("hf.co/u/Q-GGUF:Q4_K_M", "Q4_K_M"), "Q8_0", "pull ollama:hf.co/u/Q-GGUF:q8_0"),
        (tag("hf.co/u/Q-GGUF:latest", "Q4_K_M"), "F16", "pull ollama:hf.co/u/Q-GGUF:f16"),
        (key("qwen/qwen3-8b", "Q4_K_M"), "Q8_0", "pull lmstudio:qwen/qwen3-8b@q8_0"),
        (Q6_KEY, "Q8_0", "pull lmstudio:qwen/qwen3-8b@q8_0"),
        (key("qwen3-8b", "Q4_K_M"), "Q8_0", None),
        (file("Qwen3-8B-Q5_K_M", "Q5_K_M", HUB), "Q8_0", "pull unsloth/Qwen3-8B-GGUF -q Q8_0"),
        (
            file("Qwen3-8B-Q5_K_M", "Q5_K_M", STUDIO_FOLDER, store="lmstudio"),
            "Q8_0",
            "pull bartowski/Qwen3-8B-GGUF -q Q8_0",
        ),
        (
            file("qwen3:8b", "Q4_K_M", store="ollama", manifest="/m/manifests/qwen3/8b"),
            "Q8_0",
            "pull ollama:qwen3:8b-q8_0",
        ),
        (Q5_FILE, "Q8_0", None),
        (F16_FILE, "Q8_0", "quantize local/gguf/Qwen3-8B-F16 Q8_0"),
        (file("My F16", "F16"), "Q8_0", "quantize 'local/gguf/My F16' Q8_0"),
        (F16_FILE, "F32", None),
        (F16_FILE, "4BIT", None),
    ],
)
def test_advice_for_a_variant(
    user_path: object, model: LocalModel, wanted: str, advice: str | None
) -> None:
    expected = UNKNOWN_ORIGIN.format("qwen3 8b")
    if advice is not None:
        verb = "Make it with" if advice.startswith("quantize") else "Try"
        expected = f"{verb} `llm localrun {advice}`"
    assert advice_for_variant(model, [], wanted) == expected
    if advice is not None and advice.startswith("pull"):
        ref, *options = advice.split()[1:]
        parse_ref(ref, *options[1:])


@pytest.mark.parametrize(
    ("ref", "advice"),
    [
        ("hf:o/r-GGUF:Q5_K_M", "Try `llm localrun pull o/r-GGUF -q Q8_0`"),
        ("hf:o/r-GGUF@v1:Q5_K_M", "Try `llm localrun pull o/r-GGUF -q Q8_0`"),
        ("hf:o/r-GGUF/UD/x-Q5_K_M.gguf", "Try `llm localrun pull o/r-GGUF -q Q8_0`"),
        ("https://example.org/x-Q5_K_M.gguf", UNKNOWN_ORIGIN.format("x")),
        ("quantize:x-Q5_K_M.gguf", UNKNOWN_ORIGIN.format("x")),
    ],
)
def test_advice_for_a_file_that_was_pulled(user_path: object, ref: str, advice: str) -> None:
    pulled = PulledFile(path="o/r-GGUF/x-Q5_K_M.gguf", size=1, sha256="")
    save_record(PullRecord(ref=ref, source="", files=(pulled,)))
    model = file("x-Q5_K_M", "Q5_K_M", str(models_folder() / pulled.path))
    assert advice_for_variant(model, [], "Q8_0") == advice


def test_advice_for_what_is_no_quantization(user_path: object) -> None:
    said = advice_for_variant(Q4_TAG, [], "NONSENSE")
    assert said == "Q4_K_M, Q8_0 and F16 are examples of quantizations"


@pytest.mark.parametrize(
    ("written", "meant"),
    [("q8_0", "Q8_0"), ("fp16", "F16"), ("Q4_K", "Q4_K_M"), ("4bit", "4BIT"), ("", "")],
)
def test_spelling(written: str, meant: str) -> None:
    assert canonical(written) == meant
