"""Texts of many kinds and the tokens that nine vocabularies take of them.

The texts were written for the tests or are made here. `data/token_counts.json` holds the counts:
SmolLM2's and Gemma 3's by llama.cpp b11549, Mistral's by mistral-common 1.13, the others by
@lenml/tokenizers 3.7.2.
"""

import base64
import csv
import io
import json
import random
import uuid
from pathlib import Path

_DATA = Path(__file__).parents[1] / "data"
_random = random.Random(0)


def _cpp() -> str:
    return """
template <typename Key, typename Value>
std::optional<Value> LruCache<Key, Value>::get(const Key& key) {
    std::lock_guard<std::mutex> guard(mutex_);
    auto it = index_.find(key);
    if (it == index_.end()) { ++misses_; return std::nullopt; }
    entries_.splice(entries_.begin(), entries_, it->second);
    return it->second->second;
}

static inline uint32_t rotl32(uint32_t x, int8_t r) { return (x << r) | (x >> (32 - r)); }
#define MAX_RETRIES 5
for (size_t i = 0; i < n_threads && !stop_requested.load(std::memory_order_acquire); ++i) {
    workers.emplace_back([this, i] { run_worker(static_cast<int>(i), 0xDEADBEEF); });
}
"""


def _json() -> str:
    items = (
        {"id": 1000 + n, "name": f"Item {n}", "price": n * 1.25, "tags": ["new", "sale"]}
        for n in range(40)
    )
    return json.dumps([*items], indent=2)


def _html() -> str:
    return """
<section class="card card--wide" id="results" data-page="3">
  <h2 class="card__title">Results</h2>
  <ul>
    <li><a href="https://example.org/a?id=42&amp;lang=en#top" rel="noopener">First result</a></li>
    <li><img src="/static/img/icon-24x24.png" alt="" width="24" height="24"></li>
  </ul>
</section>
"""


def _minified() -> str:
    return (
        "function a(b,c){var d=b.length,e=[];for(var f=0;f<d;f++){if(c&&!c(b[f]))continue;"
        'e.push(b[f]);}return e}!function(){"use strict";var t={x:1,y:[2,3],z:null};window.q=t}();'
    )


def _sql() -> str:
    return (
        "SELECT u.id, u.name, COUNT(o.id) AS orders FROM users u LEFT JOIN orders o ON o.user_id ="
        " u.id WHERE u.created_at >= '2024-01-01' AND u.status IN ('active', 'trial') GROUP BY"
        " u.id HAVING COUNT(o.id) > 3 ORDER BY orders DESC LIMIT 50;\n"
    )


def _capitals() -> str:
    return (
        "THIS AGREEMENT IS GOVERNED BY THE LAWS OF THE STATE AND THE PARTIES SUBMIT TO THE"
        " EXCLUSIVE JURISDICTION OF ITS COURTS, WITHOUT REGARD TO CONFLICTS OF LAW PRINCIPLES.\n"
    )


def _table() -> str:
    out = io.StringIO()
    rows = csv.writer(out)
    for n in range(60):
        rows.writerow([f"2026-03-{n % 28 + 1:02}", n, _random.randint(0, 10**6), _random.random()])
    return out.getvalue()


def _log() -> str:
    return "\n".join(
        f"2026-11-{n % 28 + 1:02}T12:{n % 60:02}:07.{n:03}Z INFO  [worker-{n % 4}] GET /api/v2/"
        f"users/{n * 7919 % 10007}?expand=roles 200 {n * 13 % 997}ms id={n * 2654435761:010x}"
        for n in range(40)
    )


def _base64() -> str:
    return base64.encodebytes(_random.randbytes(1800)).decode()


def _hex() -> str:
    return "\n".join(_random.randbytes(32).hex() for _ in range(30))


def _uuids() -> str:
    return "\n".join(str(uuid.UUID(bytes=_random.randbytes(16))) for _ in range(40))


CORPUS = {
    **{path.stem: path.read_text("utf-8") for path in sorted((_DATA / "texts").iterdir())},
    "c++": _cpp(),
    "json": _json(),
    "html": _html(),
    "javascript": _minified(),
    "sql": _sql(),
    "capitals": _capitals(),
    "table": _table(),
    "log": _log(),
    "base64": _base64(),
    "base64 in one line": base64.b64encode(_random.randbytes(1800)).decode(),
    "hex": _hex(),
    "uuids": _uuids(),
}

COUNTS: dict[str, dict[str, int]] = json.loads((_DATA / "token_counts.json").read_text())
"""By text and vocabulary: `{"prose": {"Qwen3": 349}}`."""
VOCABULARIES = [*COUNTS["prose"]]
