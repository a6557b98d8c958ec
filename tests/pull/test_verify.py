"""Verifying a model: where its chat template may be."""

from pathlib import Path
from typing import Any

import pytest

from llm_localrun.models import LocalModel
from llm_localrun.pull import verify
from llm_localrun.pull.verify import CheckState, FileCheck
from tests.fakes.hub import model as gguf_with_template
from tests.support.models import local_model
from tests.support.trees import gguf, ollama_model


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files here have hardly any tensors, so that no engine can load them."""
    loads = FileCheck("loads", CheckState.OK)
    monkeypatch.setattr(verify, "_check_load", lambda *_: loads)


def template_check(model: LocalModel) -> FileCheck:
    steps = verify.verify(model, [])
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        (check,) = (check for check in stop.value if check.what == "chat template")
        assert isinstance(check, FileCheck)
        return check


@pytest.mark.parametrize(
    ("texts", "purpose", "state", "detail"),
    [
        ({"template": "{{ .Prompt }}"}, "chat", "ok", ""),
        ({}, "chat", "unknown", "the file has none"),
        ({}, "embedding", "ok", "embedding models need none"),
        ({}, "rerank", "ok", "rerank models need none"),
    ],
)
def test_template_of_an_ollama_model(
    tmp_path: Path, texts: dict[str, Any], purpose: str, state: str, detail: str
) -> None:
    weights = gguf(tmp_path / "weights.gguf")
    tag = "registry.ollama.ai/library/little/1b"
    manifest = ollama_model(tmp_path / "store", tag, weights, **texts)
    model = local_model(
        id="x", name="x", path=str(weights), manifest=str(manifest), purpose=purpose
    )
    check = template_check(model)
    assert (check.state, check.detail) == (state, detail)


def test_template_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf_with_template())
    check = template_check(local_model(id="x", name="x", path=str(path)))
    assert check == FileCheck("chat template", CheckState.OK)
