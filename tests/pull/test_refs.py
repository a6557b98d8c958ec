"""REFs are parsed, and the text of each value parses to the same value."""

import pytest

from llm_localrun.pull.refs import (
    HubRef,
    Ref,
    ServerRef,
    StarterRef,
    UrlRef,
    parse_ref,
)
from tests.support.drive import failure

REPO = "unsloth/Qwen3-8B-GGUF"
HASH = "0f" * 32
MEANT: list[tuple[str, Ref]] = [
    ("starter", StarterRef()),
    (REPO, HubRef(REPO)),
    (f"hf:{REPO}", HubRef(REPO)),
    (f"hf://{REPO}", HubRef(REPO)),
    (f"{REPO}:Q8_0", HubRef(REPO, quantization="Q8_0")),
    (f"hf:{REPO}:q4_k_m", HubRef(REPO, quantization="Q4_K_M")),
    (f"hf:{REPO}:ud-q4_k_xl", HubRef(REPO, quantization="UD-Q4_K_XL")),
    (f"hf:{REPO}:fp16", HubRef(REPO, quantization="F16")),
    (f"hf:{REPO}/Qwen3-8B-Q4_K_M.gguf", HubRef(REPO, file="Qwen3-8B-Q4_K_M.gguf")),
    (f"hf:{REPO}/BF16/50% a@b.GGUF", HubRef(REPO, file="BF16/50% a@b.GGUF")),
    (f"{REPO}@v1.0:Q8_0", HubRef(REPO, "v1.0", quantization="Q8_0")),
    (f"hf:{REPO}@refs%2Fpr%2F1/x.gguf", HubRef(REPO, "refs/pr/1", file="x.gguf")),
    (f"https://huggingface.co/{REPO}", HubRef(REPO)),
    (f"https://hf.co/{REPO}/tree/main", HubRef(REPO)),
    (f"https://huggingface.co/{REPO}/blob/main/a/x%20y.gguf", HubRef(REPO, file="a/x y.gguf")),
    (
        f"https://huggingface.co/{REPO}/resolve/abc123/x.gguf?download=true",
        HubRef(REPO, "abc123", file="x.gguf"),
    ),
    ("https://example.org/a/x.gguf", UrlRef("https://example.org/a/x.gguf")),
    ("https://example.org/x.gguf?a=b", UrlRef("https://example.org/x.gguf?a=b")),
    (f"https://e.org/x.gguf#sha256={HASH.upper()}", UrlRef("https://e.org/x.gguf", HASH)),
    ("http://127.0.0.1:8000/x.gguf", UrlRef("http://127.0.0.1:8000/x.gguf")),
    ("ollama:qwen3", ServerRef("ollama", "qwen3")),
    ("ollama:qwen3:8b", ServerRef("ollama", "qwen3:8b")),
    (
        "ollama:hf.co/unsloth/Qwen3-8B-GGUF:Q4_K_M",
        ServerRef("ollama", "hf.co/unsloth/Qwen3-8B-GGUF:Q4_K_M"),
    ),
    ("lmstudio:ibm/granite-4-micro", ServerRef("lmstudio", "ibm/granite-4-micro")),
    (f"lmstudio:hf:{REPO}", ServerRef("lmstudio", REPO, is_repository=True)),
    (
        f"lmstudio:hf:{REPO}:q8_0",
        ServerRef("lmstudio", REPO, is_repository=True, quantization="Q8_0"),
    ),
    (f"lmstudio:https://huggingface.co/{REPO}", ServerRef("lmstudio", REPO, is_repository=True)),
]


@pytest.mark.parametrize(("text", "ref"), MEANT, ids=[text for text, _ in MEANT])
def test_parse_ref(text: str, ref: Ref) -> None:
    assert parse_ref(text) == ref
    assert parse_ref(ref.text) == ref


@pytest.mark.parametrize(
    ("text", "quantization", "ref"),
    [
        (REPO, "q8_0", HubRef(REPO, quantization="Q8_0")),
        (f"{REPO}@v1", "q8_0", HubRef(REPO, "v1", quantization="Q8_0")),
        (f"{REPO}:Q8_0", "q8_0", HubRef(REPO, quantization="Q8_0")),
        (f"lmstudio:hf:{REPO}", "q8_0", ServerRef("lmstudio", REPO, True, "Q8_0")),
    ],
)
def test_quantization_option(text: str, quantization: str, ref: Ref) -> None:
    assert parse_ref(text, quantization) == ref


@pytest.mark.parametrize(
    ("text", "quantization", "said"),
    [
        ("nonsense", None, "'nonsense' is not a valid REF. A REF is"),
        ("", None, "'' is not a valid REF"),
        ("./x.gguf", None, "'./x.gguf' is not a valid REF"),
        ("a/b/c", None, "'a/b/c' is not a valid REF"),
        ("hf:a/b/x.safetensors", None, "'hf:a/b/x.safetensors' is not a valid REF"),
        ("hf:-a/b", None, "'hf:-a/b' is not a valid REF"),
        ("ollama:", None, "'ollama:' is not a valid REF"),
        ("ollama:a b", None, "'ollama:a b' is not a valid REF"),
        ("lmstudio:granite", None, "'lmstudio:granite' is not a valid REF"),
        ("lmstudio:hf:a/b/x.gguf", None, "LM Studio pulls whole repositories"),
        (f"{REPO}:small", None, "'small' is not a quantization"),
        (
            "http://example.org/x.gguf",
            None,
            "http://example.org/x.gguf is not safe to download from",
        ),
        ("https://me:secret@example.org/x.gguf", None, "https://me:…@example.org/x.gguf is"),
        ("https:///x.gguf", None, "https:///x.gguf is not safe"),
        ("https://example.org:x/x.gguf", None, "https://example.org:x/x.gguf is not safe"),
        (
            "https://example.org/x.zip",
            None,
            "https://example.org/x.zip is not the address of a GGUF",
        ),
        ("https://example.org/x.gguf#main", None, "https://example.org/x.gguf#main is not the"),
        (f"{REPO}:Q8_0", "Q4_0", f"hf:{REPO}:Q8_0 and -q Q4_0 contradict each other"),
        (f"{REPO}/x.gguf", "Q4_0", "-q Q4_0 does not apply to"),
        ("ollama:qwen3", "Q4_0", "-q Q4_0 does not apply to ollama:qwen3"),
        ("starter", "Q4_0", "-q Q4_0 does not apply to starter"),
        (REPO, "best", "'best' is not a quantization"),
    ],
)
def test_invalid_refs(text: str, quantization: str | None, said: str) -> None:
    assert failure(lambda: parse_ref(text, quantization)).startswith(said)
