"""Reads from a GGUF header the numbers that decide how much memory a model's context needs.

Pure. The rules are those by which llama.cpp b11549 lays out its caches; each names the file of its
`src/` that it comes from. `footprint` turns these numbers into bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from typing import NamedTuple

from llm_localrun.gguf.header import Header, Value

# No layer attends (llama-arch.cpp, `llm_arch_is_recurrent`).
_RECURRENT = ("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7")
# Each layer attends and keeps a state as well (llama-model.cpp, `create_memory`).
_HYBRID_LAYERS = ("falcon-h1",)
# One layer in this many attends where the header does not say which (models/qwen3next.cpp).
_ATTENTION_INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}
# There is no cache: an input is evaluated at once (llama-model.cpp, `create_memory`).
_UNCACHED = (
    *("bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert"),
    *("eurobert", "modern-bert", "gemma-embedding", "dream", "llada", "llada-moe", "rnd1"),
)
# One layer in this many sees everything, the others a window, where the header does not say
# which (models/*.cpp, `load_swa_pattern`): the last of them, or the first where the number is
# negative.
_WINDOW_PATTERNS = {
    **{"gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "llama4": 4, "cohere2": 4},
    **{"cohere2moe": -4, "exaone4": 4, "exaone-moe": 4, "olmo2": 4, "plamo3": 8, "afmoe": 4},
    **{"mellum": 4, "laguna": -4, "smallthinker": -4},
}
_DEFAULT_WINDOWS = {"gemma2": 4096, "llama4": 8192}
# llama.cpp ignores the window in their headers (models/phi3.cpp).
_WINDOWLESS = ("phi3", "phimoe")
# Later layers use the cache of earlier ones (models/gemma3n.cpp).
_CACHING_LAYERS = {"gemma3n": 20}
_MAX_LAYERS = 1024
_MAX_NUMBER = 2**24
"""Of anything that a header counts, or gives the width of: a file may be malicious."""


class Geometry(NamedTuple):
    """The numbers that decide how much memory a model's context needs. Widths count numbers.

    `kv_width` is what all layers that see the whole context cache for each token,
    `window_kv_width` what the layers that see only the last `window` tokens cache for each, and
    `state_width` what the other layers keep for each conversation, whatever its length.
    `hidden_width` is the widest intermediate result for a token, `query_width` is that of the
    queries of all `heads` together. A model that is not `cached` keeps nothing.
    """

    width: int
    hidden_width: int
    query_width: int
    heads: int
    kv_width: int
    window_kv_width: int = 0
    window: int = 0
    state_width: int = 0
    cached: bool = True


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of a header that begin with its architecture, without that."""

    architecture: str
    values: Mapping[str, Value]

    def number(self, key: str) -> int | None:
        """The number at `key`; None if there is none, or it is implausible."""
        value = self.values.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_NUMBER:
            return value
        return None

    def per_layer(self, key: str, count: int) -> tuple[int, ...] | None:
        """What `key` holds for each layer: one number for all, or many (`get_key_or_arr`)."""
        value = self.values.get(key)
        if not isinstance(value, tuple):
            number = self.number(key)
            return None if number is None else (number,) * count
        numbers = tuple(int(number) for number in value[:count] if isinstance(number, int))
        is_whole = len(numbers) == count and all(0 <= number <= _MAX_NUMBER for number in numbers)
        return numbers if is_whole else None


def geometry_of(header: Header) -> Geometry | None:
    """The geometry of the model with this header; None if the header lacks what that takes."""
    prefix = f"{header.architecture}."
    items = header.metadata.items()
    own = tuple(
        (key[len(prefix) :], value[:_MAX_LAYERS] if isinstance(value, tuple) else value)
        for key, value in items
        if key.startswith(prefix) and not isinstance(value, str)
    )
    return _geometry_of(header.architecture, own)


# What it holds is from files, so it holds little.
@lru_cache(maxsize=64)
def _geometry_of(architecture: str, items: tuple[tuple[str, Value], ...]) -> Geometry | None:
    """Quantizations of a model have the same geometry: a scan computes it once."""
    keys = _Keys(architecture, dict(items))
    width, count = keys.number("embedding_length"), _layer_count(keys)
    if not width or not 0 < count <= _MAX_LAYERS:
        return None
    heads = keys.per_layer("attention.head_count", count) or (0,) * count
    kv_heads = keys.per_layer("attention.head_count_kv", count) or heads
    head_width = width // max(heads) if any(heads) else 0
    key_width = keys.number("attention.key_length") or head_width
    windowed, recurrent = _windowed(keys, count), _recurrent(keys, kv_heads)
    kv_widths = _kv_widths(keys, kv_heads, windowed, recurrent, head_width)
    in_windows = sum(compress(kv_widths, windowed))
    return Geometry(
        width=width,
        hidden_width=_hidden_width(keys, count),
        query_width=max(heads) * key_width,
        heads=max(heads),
        kv_width=sum(kv_widths) - in_windows,
        window_kv_width=in_windows,
        window=_window(keys),
        state_width=sum(recurrent) and _state_width(keys, width, max(heads)) * sum(recurrent),
        cached=keys.architecture not in _UNCACHED,
    )


def _layer_count(keys: _Keys) -> int:
    """The layers, without those that predict further tokens: llama.cpp does not cache for them."""
    count = keys.number("block_count") or 0
    predicting = keys.number("nextn_predict_layers") or 0
    return count - predicting if predicting < count else count


def _kv_widths(
    keys: _Keys,
    kv_heads: Sequence[int],
    windowed: Sequence[bool],
    recurrent: Sequence[bool],
    head_width: int,
) -> list[int]:
    """What each layer caches for a token: its keys and values (llama-kv-cache.cpp).

    With multi-head latent attention that is one vector, which the header gives as the key of one
    head; the values are computed from it (`is_mla`).
    """
    key_width = keys.number("attention.key_length") or head_width
    value_width = keys.number("attention.value_length") or head_width
    window_key_width = keys.number("attention.key_length_swa") or key_width
    window_value_width = keys.number("attention.value_length_swa") or value_width
    if keys.number("attention.key_length_mla") and keys.number("attention.value_length_mla"):
        value_width = window_value_width = 0
    of_all, of_window = key_width + value_width, window_key_width + window_value_width
    indexer = keys.number("attention.indexer.key_length") or 0
    shared = keys.number("attention.shared_kv_layers") or 0
    caching = _CACHING_LAYERS.get(keys.architecture, len(kv_heads) - shared)
    is_hybrid = keys.architecture in _HYBRID_LAYERS
    layers = zip(kv_heads[: max(caching, 0)], windowed, recurrent, strict=False)
    return [
        heads * (of_window if is_windowed else of_all) + indexer
        if is_hybrid or not is_recurrent
        else 0
        for heads, is_windowed, is_recurrent in layers
    ]


def _window(keys: _Keys) -> int:
    """The tokens that a windowed layer sees; 0 if there is no such layer (models/*.cpp)."""
    window = keys.number("attention.sliding_window")
    if keys.architecture in _WINDOWLESS or window == 0:
        return 0
    if keys.architecture == "llama4":
        # Chunks of 8,192 tokens, whatever the header says.
        return _DEFAULT_WINDOWS["llama4"]
    return window or _DEFAULT_WINDOWS.get(keys.architecture, 0)


def _windowed(keys: _Keys, count: int) -> tuple[bool, ...]:
    """Which layers see only a window."""
    if not _window(keys):
        return (False,) * count
    pattern = keys.values.get("attention.sliding_window_pattern")
    if isinstance(pattern, tuple) and len(pattern) >= count:
        return tuple(bool(flag) for flag in pattern[:count])
    every = _WINDOW_PATTERNS.get(keys.architecture, 0)
    if isinstance(pattern, int) and not isinstance(pattern, bool) and every:
        every = pattern if every > 0 else -pattern
    if not every:
        return (False,) * count
    full = every - 1 if every > 0 else 0
    return tuple(layer % abs(every) != full for layer in range(count))


def _recurrent(keys: _Keys, kv_heads: Sequence[int]) -> tuple[bool, ...]:
    """Which layers keep a state (models/*.cpp, `is_recr_impl`)."""
    count = len(kv_heads)
    if keys.architecture in (*_RECURRENT, *_HYBRID_LAYERS):
        return (True,) * count
    if flags := keys.per_layer("attention.recurrent_layers", count):
        return tuple(bool(flag) for flag in flags)
    interval = keys.number("full_attention_interval")
    if interval := interval or _ATTENTION_INTERVALS.get(keys.architecture):
        return tuple((layer + 1) % interval != 0 for layer in range(count))
    if 0 not in kv_heads:
        return (False,) * count
    # Layers that only feed forward have no heads either: these have a width.
    feeds = keys.per_layer("feed_forward_length", count) or (0,) * count
    only_feeds = keys.architecture.startswith("nemotron_h")
    return tuple(
        heads == 0 and not (only_feeds and feed)
        for heads, feed in zip(kv_heads, feeds, strict=True)
    )


def _state_width(keys: _Keys, width: int, heads: int) -> int:
    """The numbers that a recurrent layer keeps for a conversation (llama-hparams.cpp,
    `n_embd_r` and `n_embd_s`)."""
    if head_size := keys.number("wkv.head_size"):
        return width * (keys.number("token_shift_count") or 2) + width * head_size
    if length := keys.number("shortconv.l_cache"):
        return width * (length - 1)
    kernel = keys.number("ssm.conv_kernel") or 0
    if head := keys.number("kda.head_dim"):
        return 3 * max(kernel - 1, 0) * heads * head + head * head * heads
    inner, size = keys.number("ssm.inner_size") or 0, keys.number("ssm.state_size") or 0
    groups = keys.number("ssm.group_count") or 0
    return max(kernel - 1, 0) * (inner + 2 * groups * size) + size * inner


def _hidden_width(keys: _Keys, count: int) -> int:
    """The widest intermediate result for a token: between a layer's feed-forward matrices, of all
    experts that are used together, or on the way into its state."""
    feed = max(keys.per_layer("feed_forward_length", count) or (0,))
    experts = max(keys.per_layer("expert_used_count", count) or (0,))
    expert = max(keys.per_layer("expert_feed_forward_length", count) or (0,))
    hidden = max(feed, experts * expert)
    if not (inner := keys.number("ssm.inner_size")):
        return hidden
    size, groups = keys.number("ssm.state_size") or 0, keys.number("ssm.group_count") or 0
    return max(hidden, 2 * inner + 2 * groups * size + (keys.number("ssm.time_step_rank") or 0))
