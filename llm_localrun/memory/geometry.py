"""Reads from a GGUF header the numbers that decide how much memory a model's context needs.

Pure. The rules are those by which llama.cpp b11549 lays out its caches; each names the file of its
`src/` that it comes from. `footprint` turns these numbers into bytes.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from llm_localrun.gguf.header import Header

# No layer attends (llama-arch.cpp, `llm_arch_is_recurrent`).
_RECURRENT = ("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7")
# Each layer attends and keeps a state as well (llama-model.cpp, `create_memory`).
_HYBRID_LAYERS = ("falcon-h1",)
# One layer in so many attends where the header does not say which (models/qwen3next.cpp).
_ATTENTION_INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}
# There is no cache: an input is evaluated at once (llama-model.cpp, `create_memory`).
_UNCACHED = (
    *("bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert"),
    *("eurobert", "modern-bert", "gemma-embedding", "dream", "llada", "llada-moe", "rnd1"),
)
# One layer in so many sees everything, the others a window, where the header does not say which
# (models/*.cpp, `load_swa_pattern`): the last of them, or the first where the number is negative.
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
"""Of anything that a header counts, or gives the width of: a file may be made to harm."""


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


def geometry_of(header: Header) -> Geometry | None:
    """The geometry of the model with this header; None if the header lacks what that takes."""
    width, count = _number(header, "embedding_length"), _layer_count(header)
    if not width or not 0 < count <= _MAX_LAYERS:
        return None
    heads = _per_layer(header, "attention.head_count", count) or (0,) * count
    kv_heads = _per_layer(header, "attention.head_count_kv", count) or heads
    head_width = width // max(heads) if any(heads) else 0
    key_width = _number(header, "attention.key_length") or head_width
    windowed, recurrent = _windowed(header, count), _recurrent(header, kv_heads)
    kv_widths = _kv_widths(header, kv_heads, windowed, recurrent, head_width)
    in_windows = sum(
        size for size, is_windowed in zip(kv_widths, windowed, strict=False) if is_windowed
    )
    return Geometry(
        width=width,
        hidden_width=_hidden_width(header, count),
        query_width=max(heads) * key_width,
        heads=max(heads),
        kv_width=sum(kv_widths) - in_windows,
        window_kv_width=in_windows,
        window=_window(header),
        state_width=sum(recurrent) and _state_width(header, width, max(heads)) * sum(recurrent),
        cached=header.architecture not in _UNCACHED,
    )


def _number(header: Header, key: str) -> int | None:
    """The number at a key of the architecture; None if there is none, or it is implausible."""
    number = header.of_architecture(key)
    return number if number is not None and 0 <= number <= _MAX_NUMBER else None


def _layer_count(header: Header) -> int:
    """The layers, without those that predict further tokens: llama.cpp does not cache for them."""
    count = _number(header, "block_count") or 0
    predicting = _number(header, "nextn_predict_layers") or 0
    return count - predicting if predicting < count else count


def _per_layer(header: Header, key: str, count: int) -> tuple[int, ...] | None:
    """A key that holds one number for all layers, or one for each (`get_key_or_arr`)."""
    value = header.metadata.get(f"{header.architecture}.{key}")
    if not isinstance(value, tuple):
        return (value,) * count if isinstance(value, int) and 0 <= value <= _MAX_NUMBER else None
    numbers = tuple(int(number) for number in value[:count] if isinstance(number, int))
    is_whole = len(numbers) == count and all(0 <= number <= _MAX_NUMBER for number in numbers)
    return numbers if is_whole else None


def _kv_widths(
    header: Header,
    kv_heads: Sequence[int],
    windowed: Sequence[bool],
    recurrent: Sequence[bool],
    head_width: int,
) -> list[int]:
    """What each layer caches for a token: its keys and values (llama-kv-cache.cpp).

    With multi-head latent attention that is one vector, which the header gives as the key of one
    head; the values are computed from it (`is_mla`).
    """
    number = partial(_number, header)
    key_width = number("attention.key_length") or head_width
    value_width = number("attention.value_length") or head_width
    window_key_width = number("attention.key_length_swa") or key_width
    window_value_width = number("attention.value_length_swa") or value_width
    if number("attention.key_length_mla") and number("attention.value_length_mla"):
        value_width = window_value_width = 0
    of_all, of_window = key_width + value_width, window_key_width + window_value_width
    indexer = number("attention.indexer.key_length") or 0
    shared = number("attention.shared_kv_layers") or 0
    caching = _CACHING_LAYERS.get(header.architecture, len(kv_heads) - shared)
    is_hybrid = header.architecture in _HYBRID_LAYERS
    layers = zip(kv_heads[: max(caching, 0)], windowed, recurrent, strict=False)
    return [
        heads * (of_window if is_windowed else of_all) + indexer
        if is_hybrid or not is_recurrent
        else 0
        for heads, is_windowed, is_recurrent in layers
    ]


def _window(header: Header) -> int:
    """The tokens that a windowed layer sees; 0 if there is no such layer (models/*.cpp)."""
    window = _number(header, "attention.sliding_window")
    if header.architecture in _WINDOWLESS or window == 0:
        return 0
    if header.architecture == "llama4":
        # Chunks of 8,192 tokens, whatever the header says.
        return _DEFAULT_WINDOWS["llama4"]
    return window or _DEFAULT_WINDOWS.get(header.architecture, 0)


def _windowed(header: Header, count: int) -> tuple[bool, ...]:
    """Which layers see only a window."""
    if not _window(header):
        return (False,) * count
    key = "attention.sliding_window_pattern"
    pattern = header.metadata.get(f"{header.architecture}.{key}")
    if isinstance(pattern, tuple) and len(pattern) >= count:
        return tuple(bool(flag) for flag in pattern[:count])
    every = _WINDOW_PATTERNS.get(header.architecture, 0)
    if isinstance(pattern, int) and not isinstance(pattern, bool) and every:
        every = pattern if every > 0 else -pattern
    if not every:
        return (False,) * count
    full = every - 1 if every > 0 else 0
    return tuple(layer % abs(every) != full for layer in range(count))


def _recurrent(header: Header, kv_heads: Sequence[int]) -> tuple[bool, ...]:
    """Which layers keep a state (models/*.cpp, `is_recr_impl`)."""
    count = len(kv_heads)
    if header.architecture in (*_RECURRENT, *_HYBRID_LAYERS):
        return (True,) * count
    if flags := _per_layer(header, "attention.recurrent_layers", count):
        return tuple(bool(flag) for flag in flags)
    interval = _number(header, "full_attention_interval")
    if interval := interval or _ATTENTION_INTERVALS.get(header.architecture):
        return tuple((layer + 1) % interval != 0 for layer in range(count))
    if 0 not in kv_heads:
        return (False,) * count
    # Layers that only feed forward have no heads either: these have a width.
    feeds = _per_layer(header, "feed_forward_length", count) or (0,) * count
    only_feeds = header.architecture.startswith("nemotron_h")
    return tuple(
        heads == 0 and not (only_feeds and feed)
        for heads, feed in zip(kv_heads, feeds, strict=True)
    )


def _state_width(header: Header, width: int, heads: int) -> int:
    """The numbers that a recurrent layer keeps for a conversation (llama-hparams.cpp,
    `n_embd_r` and `n_embd_s`)."""
    number = partial(_number, header)
    if head_size := number("wkv.head_size"):
        return width * (number("token_shift_count") or 2) + width * head_size
    if length := number("shortconv.l_cache"):
        return width * (length - 1)
    kernel = number("ssm.conv_kernel") or 0
    if head := number("kda.head_dim"):
        return 3 * max(kernel - 1, 0) * heads * head + head * head * heads
    inner, size = number("ssm.inner_size") or 0, number("ssm.state_size") or 0
    groups = number("ssm.group_count") or 0
    return max(kernel - 1, 0) * (inner + 2 * groups * size) + size * inner


def _hidden_width(header: Header, count: int) -> int:
    """The widest intermediate result for a token: between a layer's feed-forward matrices, of all
    experts that are used together, or on the way into its state."""
    number = partial(_number, header)
    feed = max(_per_layer(header, "feed_forward_length", count) or (0,))
    experts = max(_per_layer(header, "expert_used_count", count) or (0,))
    expert = max(_per_layer(header, "expert_feed_forward_length", count) or (0,))
    hidden = max(feed, experts * expert)
    if not (inner := number("ssm.inner_size")):
        return hidden
    size, groups = number("ssm.state_size") or 0, number("ssm.group_count") or 0
    return max(hidden, 2 * inner + 2 * groups * size + (number("ssm.time_step_rank") or 0))
