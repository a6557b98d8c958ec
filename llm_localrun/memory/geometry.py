"""A GGUF header to what decides how much memory a model's context takes: its geometry.

Pure. The rules are those by which llama.cpp b11549 lays out its caches, and each names the file of
its `src/` that it was read in. What comes of a geometry in bytes is `memory`'s business.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from llm_localrun.gguf.header import Header

# No layer attends (llama-arch.cpp, `llm_arch_is_recurrent`).
_RECURRENT = ("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7")
# Each layer attends and keeps a state as well (llama-model.cpp, `create_memory`).
_BOTH = ("falcon-h1",)
# One layer in so many attends where the header does not say which (models/qwen3next.cpp).
_ATTENTION_INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}
# Nothing is kept: an input is evaluated at once (llama-model.cpp, `create_memory`).
_UNCACHED = (
    *("bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert"),
    *("eurobert", "modern-bert", "gemma-embedding", "dream", "llada", "llada-moe", "rnd1"),
)
# One layer in so many sees everything, the others a window, where the header does not say which
# (models/*.cpp, `load_swa_pattern`): the last of them, or the first where the number is negative.
_PATTERNS = {
    **{"gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "llama4": 4, "cohere2": 4},
    **{"cohere2moe": -4, "exaone4": 4, "exaone-moe": 4, "olmo2": 4, "plamo3": 8, "afmoe": 4},
    **{"mellum": 4, "laguna": -4, "smallthinker": -4},
}
_WINDOWS = {"gemma2": 4096, "llama4": 8192}
# The window in their headers is left aside (models/phi3.cpp).
_WINDOWLESS = ("phi3", "phimoe")
# Later layers use the cache of earlier ones (models/gemma3n.cpp).
_CACHING_LAYERS = {"gemma3n": 20}
_MOST_LAYERS = 1024
_MOST = 2**24
"""Of anything that a header counts, or gives the width of."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Of a model, what decides how much memory its context takes; widths are counts of numbers.

    `kept` is what all layers that see everything keep of a token, `kept_in_window` what those keep
    that see the last `window` tokens only, `state` what the others keep of a whole conversation.
    `hidden` is the widest that a layer makes of a token, `queries` is all its heads' together.
    """

    width: int
    hidden: int
    queries: int
    heads: int
    kept: int
    kept_in_window: int = 0
    window: int = 0
    state: int = 0
    is_cached: bool = True


def geometry_of(header: Header) -> Geometry | None:
    """The geometry of the model with this header; None if the header does not tell."""
    width, count = _number(header, "embedding_length"), _layer_count(header)
    if not width or not 0 < count <= _MOST_LAYERS:
        return None
    heads = _each(header, "attention.head_count", count) or (0,) * count
    kv_heads = _each(header, "attention.head_count_kv", count) or heads
    windowed, recurrent = _windowed(header, count), _recurrent(header, kv_heads)
    head = width // max(heads) if any(heads) else 0
    key = _number(header, "attention.key_length") or head
    kept = _kept(header, kv_heads, windowed, key, head)
    return Geometry(
        width=width,
        hidden=_hidden(header, count),
        queries=max(heads) * key,
        heads=max(heads),
        kept=sum(size for size, is_windowed in zip(kept, windowed, strict=True) if not is_windowed),
        kept_in_window=sum(size for size, is_in in zip(kept, windowed, strict=True) if is_in),
        window=_window(header),
        state=_state(header, width, max(heads)) * sum(recurrent),
        is_cached=header.architecture not in _UNCACHED,
    )


def _number(header: Header, key: str) -> int | None:
    """The number at a key of the architecture, unless a header that was made to harm has one that
    cannot be."""
    number = header.of_architecture(key)
    return number if number is not None and 0 <= number <= _MOST else None


def _layer_count(header: Header) -> int:
    """Without the layers that guess tokens ahead: they are not attended to."""
    count = _number(header, "block_count") or 0
    ahead = _number(header, "nextn_predict_layers") or 0
    return count - ahead if ahead < count else count


def _each(header: Header, key: str, count: int) -> tuple[int, ...] | None:
    """A key that holds a number for all layers, or one for each (`get_key_or_arr`)."""
    value = header.metadata.get(f"{header.architecture}.{key}")
    values = value if isinstance(value, tuple) else (value,) * count
    numbers = [int(number) for number in values[:count] if isinstance(number, int)]
    is_whole = len(numbers) == count and all(0 <= number <= _MOST for number in numbers)
    return tuple(numbers) if is_whole else None


def _kept(
    header: Header, kv_heads: Sequence[int], windowed: Sequence[bool], key: int, head: int
) -> tuple[int, ...]:
    """What each layer keeps of a token: its keys and values (llama-kv-cache.cpp).

    With multi-head latent attention that is one vector, which the header gives as the key of one
    head, and the values are made of it (`is_mla`).
    """
    number = partial(_number, header)
    value = number("attention.value_length") or head
    key_in_window = number("attention.key_length_swa") or key
    value_in_window = number("attention.value_length_swa") or value
    if number("attention.key_length_mla") and number("attention.value_length_mla"):
        value = value_in_window = 0
    indexer = number("attention.indexer.key_length") or 0
    recurrent = _recurrent(header, kv_heads)
    caching = _CACHING_LAYERS.get(
        header.architecture, len(kv_heads) - (number("attention.shared_kv_layers") or 0)
    )
    sizes = []
    for layer, heads in enumerate(kv_heads):
        attends = layer < caching and (header.architecture in _BOTH or not recurrent[layer])
        each = key_in_window + value_in_window if windowed[layer] else key + value
        sizes.append(heads * each + indexer if attends else 0)
    return tuple(sizes)


def _window(header: Header) -> int:
    """Tokens that a windowed layer sees; 0 if none is (models/*.cpp)."""
    window = _number(header, "attention.sliding_window")
    if header.architecture in _WINDOWLESS or window == 0:
        return 0
    if header.architecture == "llama4":
        # Chunks of 8,192 tokens, whatever the header says.
        return _WINDOWS["llama4"]
    return window or _WINDOWS.get(header.architecture, 0)


def _windowed(header: Header, count: int) -> tuple[bool, ...]:
    """Which layers see a window only."""
    if not _window(header):
        return (False,) * count
    key = "attention.sliding_window_pattern"
    pattern = header.metadata.get(f"{header.architecture}.{key}")
    if isinstance(pattern, tuple) and len(pattern) >= count:
        return tuple(bool(flag) for flag in pattern[:count])
    every = _PATTERNS.get(header.architecture, 0)
    if isinstance(pattern, int) and not isinstance(pattern, bool) and every:
        every = pattern if every > 0 else -pattern
    if not every:
        return (False,) * count
    full = every - 1 if every > 0 else 0
    return tuple(layer % abs(every) != full for layer in range(count))


def _recurrent(header: Header, kv_heads: Sequence[int]) -> tuple[bool, ...]:
    """Which layers keep a state (models/*.cpp, `is_recr_impl`)."""
    count = len(kv_heads)
    if header.architecture in (*_RECURRENT, *_BOTH):
        return (True,) * count
    if said := _each(header, "attention.recurrent_layers", count):
        return tuple(bool(flag) for flag in said)
    interval = _number(header, "full_attention_interval")
    if interval := interval or _ATTENTION_INTERVALS.get(header.architecture):
        return tuple((layer + 1) % interval != 0 for layer in range(count))
    # Where layers that do nothing but feed forward have no heads either, they have a width.
    feeds = _each(header, "feed_forward_length", count) or (0,) * count
    only_feeds = header.architecture.startswith("nemotron_h")
    return tuple(
        heads == 0 and not (only_feeds and feed)
        for heads, feed in zip(kv_heads, feeds, strict=True)
    )


def _state(header: Header, width: int, heads: int) -> int:
    """The numbers that a recurrent layer keeps of a conversation (llama-hparams.cpp,
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


def _hidden(header: Header, count: int) -> int:
    """The widest that a layer makes of a token: between its feed-forward matrices, of all experts
    that are used together, or on the way into its state."""
    number = partial(_number, header)
    feed = max(_each(header, "feed_forward_length", count) or (0,))
    experts = max(_each(header, "expert_used_count", count) or (0,))
    expert = max(_each(header, "expert_feed_forward_length", count) or (0,))
    inner, size = number("ssm.inner_size") or 0, number("ssm.state_size") or 0
    groups, rank = number("ssm.group_count") or 0, number("ssm.time_step_rank") or 0
    state = 2 * inner + 2 * groups * size + rank if inner else 0
    return max(feed, experts * expert, state)
