"""Embedding models and the commands that use them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import llm
import pytest
import sqlite_utils
from llm.models import EmbeddingModel

from llm_localrun.chat.models import LocalEmbedding
from tests.fakes.http_server import StandIn
from tests.support.contract import output

# llm leaves files open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]


def test_embedding_takes_any_iterable_lazily(box: StandIn) -> None:
    model: Any = llm.get_embedding_model("local-nomic-embed-text")  # type: ignore[no-untyped-call]
    assert isinstance(model, LocalEmbedding)
    assert (model.supports_text, model.supports_binary, model.batch_size) == (True, False, 32)
    texts = [f"text {number}" for number in range(5)]
    expected = list(model.embed_batch(texts))
    assert all(type(number) is float for vector in expected for number in vector)
    assert len({tuple(vector) for vector in expected}) == 5
    for items in (iter(texts), tuple(texts), (text for text in texts), dict.fromkeys(texts)):
        vectors = model.embed_batch(items, key=None)
        assert iter(vectors) is vectors
        assert list(vectors) == expected


def test_commands_that_embed(box: StandIn, tmp_path: Path) -> None:
    model = ("-m", "local-nomic-embed-text")
    assert len(json.loads(output("embed", *model, "-c", "hello"))) == 8
    items = tmp_path / "items.json"
    items.write_text(json.dumps([{"id": n, "content": f"text {n}"} for n in range(3)]))
    output("embed-multi", "texts", str(items), *model, "--store")
    (nearest,) = json.loads(output("similar", "texts", "-c", "text 1", "-n", "1"))["id"]
    assert nearest == "1"


def test_llm_stores_a_batch_up_to_where_its_vectors_end(tmp_path: Path) -> None:
    """`chat.embed` relies on it: a batch whose vectors end early is stored up to there."""

    class EndsEarly(EmbeddingModel):
        model_id = "ends-early"
        batch_size = 4

        def embed_batch(
            self, items: Iterable[str | bytes], *, key: str | None = None
        ) -> Iterator[list[float]]:
            for item in items:
                if item == "text 2":
                    return
                yield [1.0]

    database = sqlite_utils.Database(tmp_path / "e.db")
    collection = llm.Collection("texts", database, model=EndsEarly())
    collection.embed_multi((str(number), f"text {number}") for number in range(9))
    assert [row["id"] for row in database["embeddings"].rows] == ["0", "1", "4", "5", "6", "7", "8"]
    database.close()
