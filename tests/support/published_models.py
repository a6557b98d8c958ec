"""The keys of published models' headers that decide how much memory a context needs."""

from typing import Any

LLAMA_3_1_8B: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 32,
    "llama.embedding_length": 4096,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8,
}
QWEN3_30B_A3B: dict[str, Any] = {
    "general.architecture": "qwen3moe",
    "qwen3moe.block_count": 48,
    "qwen3moe.embedding_length": 2048,
    "qwen3moe.attention.head_count": 32,
    "qwen3moe.attention.head_count_kv": 4,
    "qwen3moe.attention.key_length": 128,
    "qwen3moe.attention.value_length": 128,
    "qwen3moe.expert_used_count": 8,
    "qwen3moe.expert_feed_forward_length": 768,
}
DEEPSEEK_V3: dict[str, Any] = {
    "general.architecture": "deepseek2",
    "deepseek2.block_count": 61,
    "deepseek2.embedding_length": 7168,
    "deepseek2.attention.head_count": 128,
    "deepseek2.attention.head_count_kv": 1,
    "deepseek2.attention.key_length": 576,
    "deepseek2.attention.value_length": 512,
    "deepseek2.attention.key_length_mla": 192,
    "deepseek2.attention.value_length_mla": 128,
}
GPT_OSS_20B: dict[str, Any] = {
    "general.architecture": "gpt-oss",
    "gpt-oss.block_count": 24,
    "gpt-oss.embedding_length": 2880,
    "gpt-oss.attention.head_count": 64,
    "gpt-oss.attention.head_count_kv": 8,
    "gpt-oss.attention.key_length": 64,
    "gpt-oss.attention.value_length": 64,
    "gpt-oss.attention.sliding_window": 128,
}
GEMMA_3_27B: dict[str, Any] = {
    "general.architecture": "gemma3",
    "gemma3.block_count": 62,
    "gemma3.embedding_length": 5376,
    "gemma3.attention.head_count": 32,
    "gemma3.attention.head_count_kv": 16,
    "gemma3.attention.key_length": 128,
    "gemma3.attention.value_length": 128,
    "gemma3.attention.sliding_window": 1024,
}
QWEN3_NEXT_80B: dict[str, Any] = {
    "general.architecture": "qwen3next",
    "qwen3next.block_count": 48,
    "qwen3next.embedding_length": 2048,
    "qwen3next.attention.head_count": 16,
    "qwen3next.attention.head_count_kv": 2,
    "qwen3next.attention.key_length": 256,
    "qwen3next.attention.value_length": 256,
    "qwen3next.ssm.conv_kernel": 4,
    "qwen3next.ssm.inner_size": 4096,
    "qwen3next.ssm.state_size": 128,
    "qwen3next.ssm.group_count": 16,
    "qwen3next.ssm.time_step_rank": 32,
}
JAMBA: dict[str, Any] = {
    "general.architecture": "jamba",
    "jamba.block_count": 4,
    "jamba.embedding_length": 1024,
    "jamba.attention.head_count": 16,
    "jamba.attention.head_count_kv": (0, 0, 4, 0),
    "jamba.ssm.conv_kernel": 4,
    "jamba.ssm.inner_size": 2048,
    "jamba.ssm.state_size": 16,
}
GEMMA_4_SHARING: dict[str, Any] = {
    "general.architecture": "gemma4",
    "gemma4.block_count": 6,
    "gemma4.embedding_length": 1536,
    "gemma4.attention.head_count": 8,
    "gemma4.attention.head_count_kv": 1,
    "gemma4.attention.key_length": 512,
    "gemma4.attention.value_length": 512,
    "gemma4.attention.key_length_swa": 256,
    "gemma4.attention.value_length_swa": 256,
    "gemma4.attention.sliding_window": 512,
    "gemma4.attention.sliding_window_pattern": (True, True, False, True, True, False),
    "gemma4.attention.shared_kv_layers": 3,
}

QWEN3_32B: dict[str, Any] = {
    "general.architecture": "qwen3",
    "qwen3.context_length": 40_960,
    "qwen3.block_count": 64,
    "qwen3.embedding_length": 5120,
    "qwen3.feed_forward_length": 25_600,
    "qwen3.attention.head_count": 64,
    "qwen3.attention.head_count_kv": 8,
    "qwen3.attention.key_length": 128,
    "qwen3.attention.value_length": 128,
}
