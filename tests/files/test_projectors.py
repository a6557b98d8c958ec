"""What a GGUF file can do beyond chatting: by its template, and by the projector next to it."""

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from llm_localrun.files import open_file, remember, scan
from llm_localrun.models import LocalModel, ScannedFile, Snapshot
from llm_localrun.names.parse import parse_name
from llm_localrun.names.quantizations import quality
from llm_localrun.names.roles import is_projector_name, projected_words
from tests.support.models import file_route
from tests.support.trees import (
    MIB,
    SHA,
    field,
    gguf,
    header,
    layer,
    manifest,
    projector,
    string,
    write,
)


def model_of(path: Path, template: str | None = None) -> Path:
    """A model's file, with its template where it always is: behind the tokenizer's arrays."""
    tokens = string("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 3)
    fields = [
        field("general.architecture", "llama"),
        tokens + string("a") + string("tokenizer.chat_template") + string("c"),
        *([] if template is None else [field("tokenizer.chat_template", template)]),
        field("general.quantization_version", 2),
    ]
    return write(path, header(*fields), 2 * MIB)


def models(below: Path) -> dict[str, LocalModel]:
    entries = scan([str(below)], Snapshot()).files
    return {entry.model.name: entry.model for entry in entries if entry.model is not None}


def one_in(below: Path, before: Sequence[ScannedFile]) -> list[ScannedFile]:
    """The entries of the one model there and of its projector, the model first."""
    entries = scan([str(below)], Snapshot(files=tuple(before))).files
    return sorted(entries, key=lambda entry: entry.model is None)


# Which projector is whose.


@pytest.mark.parametrize(
    ("stem", "words"),
    [
        ("mmproj", ""),
        ("mmproj-f16", ""),
        ("mmproj-BF16", ""),
        ("mmproj-Q8_0", ""),
        ("mmproj-model", ""),
        ("mmproj-model-f16", ""),
        ("MMPROJ-MODEL-F32", ""),
        ("model-mmproj-f16", ""),
        ("mmproj_model_f16", ""),
        ("mmproj-gemma-3-4b-it-f16", "gemma3 4b"),
        ("gemma-3-4b-it-mmproj-f16", "gemma3 4b"),
        ("gemma-3-4b-it.mmproj-Q8_0", "gemma3 4b"),
        ("gemma-3-4b-it-mmproj", "gemma3 4b"),
        ("mmproj-google_gemma-3-4b-it-bf16", "gemma3 4b"),
        ("Qwen2.5-VL-7B-Instruct-mmproj-f16", "qwen2.5 vl 7b"),
        ("mmproj-Qwen2.5-VL-7B-Instruct-Q8_0", "qwen2.5 vl 7b"),
        ("mmproj-SmolVLM2-500M-Video-Instruct-f16", "smolvlm2 500m video"),
        ("ultravox-v0_5-llama-3_2-1b-mmproj-f16", "ultravox v0.5 llama3.2 1b"),
    ],
)
def test_words_of_the_model_that_a_projector_names(stem: str, words: str) -> None:
    assert projected_words(stem) == set(words.split())
    assert is_projector_name(stem)


@pytest.mark.parametrize(
    ("model", "stem"),
    [
        ("gemma-3-4b-it-Q4_K_M", "mmproj-gemma-3-4b-it-f16"),
        ("google_gemma-3-4b-it-Q4_K_M", "mmproj-google_gemma-3-4b-it-bf16"),
        ("google_gemma-3-4b-it-Q4_K_M", "mmproj-gemma-3-4b-it-f16"),
        ("Qwen2.5-VL-7B-Instruct-UD-Q4_K_XL", "Qwen2.5-VL-7B-Instruct-mmproj-F16"),
        ("Qwen2-VL-2B-Instruct.i1-Q4_K_M", "Qwen2-VL-2B-Instruct.mmproj-Q8_0"),
        ("ultravox-v0_5-llama-3_2-1b-Q8_0", "mmproj-ultravox-v0_5-llama-3_2-1b-f16"),
    ],
)
def test_a_projector_has_the_words_of_its_model(model: str, stem: str) -> None:
    assert projected_words(stem) == parse_name(model).words


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(["gemma-3-4b-it-Q4_K_M"], {"gemma-3-4b-it-Q4_K_M": ""}, id="none"),
        pytest.param(
            ["gemma-3-4b-it-Q4_K_M", "mmproj-model-f16"],
            {"gemma-3-4b-it-Q4_K_M": "mmproj-model-f16"},
            id="one that names no model",
        ),
        pytest.param(
            ["gemma-3-4b-it-Q4_K_M", "gemma-3-4b-it-mmproj-f16"],
            {"gemma-3-4b-it-Q4_K_M": "gemma-3-4b-it-mmproj-f16"},
            id="its own",
        ),
        pytest.param(
            ["gemma-3-4b-it-Q4_K_M", "gemma-3-4b-it-Q8_0", "mmproj-F16"],
            {"gemma-3-4b-it-Q4_K_M": "mmproj-F16", "gemma-3-4b-it-Q8_0": "mmproj-F16"},
            id="one for every quantization",
        ),
        pytest.param(
            ["gemma-3-4b-it-Q4_K_M", "mmproj-model-f16", "mmproj-gemma-3-4b-it-Q8_0"],
            {"gemma-3-4b-it-Q4_K_M": "mmproj-gemma-3-4b-it-Q8_0"},
            id="its own before one that names no model",
        ),
        pytest.param(
            ["gemma-3-4b-it-Q4_K_M", "gemma-3-12b-it-mmproj-f16"],
            {"gemma-3-4b-it-Q4_K_M": ""},
            id="another's",
        ),
        pytest.param(
            [
                *("gemma-3-4b-it-Q4_K_M", "gemma-3-12b-it-Q4_K_M"),
                *("mmproj-gemma-3-4b-it-f16", "mmproj-gemma-3-12b-it-f16"),
            ],
            {
                "gemma-3-4b-it-Q4_K_M": "mmproj-gemma-3-4b-it-f16",
                "gemma-3-12b-it-Q4_K_M": "mmproj-gemma-3-12b-it-f16",
            },
            id="to each its own",
        ),
        pytest.param(
            ["gemma-3-4b-it-Q4_K_M", "mmproj-Q8_0", "mmproj-F16", "mmproj-F32", "mmproj-BF16"],
            {"gemma-3-4b-it-Q4_K_M": "mmproj-F32"},
            id="the most faithful",
        ),
        pytest.param(
            ["gemma-3-4b-it-Q4_K_M", "mmproj-Q8_0", "mmproj-BF16"],
            {"gemma-3-4b-it-Q4_K_M": "mmproj-BF16"},
            id="the more faithful",
        ),
        pytest.param(
            ["gemma-3-4b-it-Q4_K_M", "mmproj", "mmproj-Q8_0"],
            {"gemma-3-4b-it-Q4_K_M": "mmproj-Q8_0"},
            id="one that says what it is",
        ),
        pytest.param(
            ["gemma-3-4b-it-Q4_K_M", "sub/mmproj-F16"],
            {"gemma-3-4b-it-Q4_K_M": ""},
            id="a folder below",
        ),
        pytest.param(
            ["sub/gemma-3-4b-it-Q4_K_M", "mmproj-F16"],
            {"gemma-3-4b-it-Q4_K_M": ""},
            id="a folder above",
        ),
        pytest.param(
            ["a/gemma-3-4b-it-Q4_K_M", "b/gemma-3-4b-it-mmproj-F16"],
            {"gemma-3-4b-it-Q4_K_M": ""},
            id="another folder",
        ),
        pytest.param(
            ["a/gemma-3-4b-it-Q4_K_M", "a/mmproj-F16", "b/qwen2-vl-2b-Q8_0", "b/mmproj-F32"],
            {"gemma-3-4b-it-Q4_K_M": "mmproj-F16", "qwen2-vl-2b-Q8_0": "mmproj-F32"},
            id="each folder for itself",
        ),
        pytest.param(
            ["big-Q8_0-00001-of-00002", "big-Q8_0-00002-of-00002", "mmproj-F16"],
            {"big-Q8_0": "mmproj-F16"},
            id="a split model",
        ),
        pytest.param(["mmproj-F16"], {}, id="no model"),
    ],
)
def test_pairs(files: Sequence[str], expected: dict[str, str], tmp_path: Path) -> None:
    for file in files:
        write_it = projector if "mmproj" in file else model_of
        write_it(tmp_path / f"{file}.gguf")
    paired = models(tmp_path)
    assert {
        name: Path(file_route(model).projector).stem for name, model in paired.items()
    } == expected
    for model in paired.values():
        is_sighted = bool(file_route(model).projector)
        assert model.can("vision", if_unknown=False) is is_sighted
        assert (
            not is_sighted
            or Path(file_route(model).projector).parent == Path(file_route(model).path).parent
        )


def test_every_usual_precision_of_a_projector_is_known() -> None:
    ranks = [quality(name) for name in ("", "Q4_0", "Q8_0", "BF16", "F16", "F32")]
    assert ranks == sorted({*ranks})
    assert ranks[0] == -1


@pytest.mark.parametrize("by", ["path", "memory"])
def test_a_file_that_is_named_by_its_path_has_its_projector_too(by: str, tmp_path: Path) -> None:
    path = model_of(tmp_path / "gemma-3-4b-it-Q4_K_M.gguf")
    projector_file = projector(tmp_path / "mmproj-F16.gguf")
    if by == "path":
        model = open_file(path).model
    else:
        remember(path)
        entries = scan([], Snapshot()).files
        (model,) = (entry.model for entry in entries if entry.path == str(path))
    assert model is not None
    assert (file_route(model).projector, model.can("vision", if_unknown=False)) == (
        str(projector_file),
        True,
    )


@pytest.mark.parametrize("change", ["comes", "goes", "changes"])
def test_a_projector_that(change: str, tmp_path: Path) -> None:
    """The model's file is as it was; what it can do is not."""
    model_of(tmp_path / "gemma-3-4b-it-Q4_K_M.gguf")
    projector_file = tmp_path / "mmproj-F16.gguf"
    if change != "comes":
        projector(projector_file)
    before = one_in(tmp_path, [])
    if change == "comes":
        projector(projector_file)
    elif change == "goes":
        projector_file.unlink()
    else:
        projector_file.rename(projector_file.with_name("mmproj-F32.gguf"))
    after = one_in(tmp_path, before)
    rescanned = one_in(tmp_path, [])
    assert after == rescanned
    was, model = before[0].model, after[0].model
    assert was is not None
    assert model is not None
    assert file_route(model).projector != file_route(was).projector
    assert model.can("vision", if_unknown=False) is (change != "goes")


@pytest.mark.parametrize(
    ("layers", "is_there", "expected"),
    [
        pytest.param([layer(), layer("projector", "cc")], True, "sha256-cc", id="a projector"),
        pytest.param([layer("projector", "cc"), layer()], True, "sha256-cc", id="in any order"),
        pytest.param([layer()], True, "", id="none"),
        pytest.param([layer(), layer("projector", "../cc")], True, "", id="a path for a digest"),
        pytest.param([layer(), layer("projector", "cc")], False, "", id="one that is not there"),
    ],
)
def test_projector_of_a_model_of_ollama(
    layers: list[dict[str, str]], is_there: bool, expected: str, tmp_path: Path
) -> None:
    store = tmp_path / "home" / ".ollama" / "models"
    gguf(store / "blobs" / f"sha256-{SHA}")
    if is_there:
        projector(store / "blobs" / "sha256-cc")
    manifest(store, "registry.ollama.ai/library/gemma3/4b", layers)
    (model,) = models(tmp_path).values()
    assert model is not None
    assert Path(file_route(model).projector).name == expected
    assert model.can("vision", if_unknown=False) is bool(expected)


# What a model can do.


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, ()),
        ("", ()),
        ("{{ messages }}", ()),
        ("{% if tools %}", ("tools",)),
        ("{{ '<think>' }}", ("thinking",)),
        ("{% if enable_thinking is false %}", ("thinking",)),
        ("{{ '<|channel|>analysis' }}", ("thinking",)),
        ("{% if tools %}{{ '<think>' }}", ("tools", "thinking")),
        ("…" * 10_000 + "{% if tools %}", ("tools",)),
    ],
)
def test_capabilities_by_template(
    template: str | None, expected: tuple[str, ...], tmp_path: Path
) -> None:
    model_of(tmp_path / "m.gguf", template)
    assert models(tmp_path)["m"].capabilities == expected


@pytest.mark.parametrize(
    ("vision", "audio", "expected"),
    [
        (True, None, ("tools", "vision")),
        (True, False, ("tools", "vision")),
        (False, True, ("tools", "audio")),
        (True, True, ("tools", "vision", "audio")),
        (False, None, ("tools",)),
    ],
)
def test_capabilities_by_projector(
    vision: bool, audio: bool | None, expected: tuple[str, ...], tmp_path: Path
) -> None:
    model_of(tmp_path / "m.gguf", "{% if tools %}")
    projector(tmp_path / "mmproj-F16.gguf", vision=vision, audio=audio)
    assert models(tmp_path)["m"].capabilities == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no GGUF",
        header(field("general.architecture", "clip"), count=9),
        header(field("general.architecture", "clip")),
        # Flags that are no flags.
        header(field("clip.has_vision_encoder", 1), field("clip.has_audio_encoder", "true")),
    ],
)
def test_a_projector_that_does_not_say_what_it_does(data: bytes, tmp_path: Path) -> None:
    model_of(tmp_path / "m.gguf", "{% if tools %}")
    write(tmp_path / "mmproj-F16.gguf", data)
    assert models(tmp_path)["m"].capabilities == ("tools",)
