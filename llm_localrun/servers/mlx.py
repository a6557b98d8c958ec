"""mlx_lm.server: MLX models of the Hugging Face hub, and the folder that it was started with.

Sources: mlx_lm's `SERVER.md` (0.31), and the server itself (0.32.2).
"""

from collections.abc import Iterator

from llm_localrun.servers import msty
from llm_localrun.servers.base import Sign, WireOption, sent_as_named
from llm_localrun.servers.openai_compatible import OpenAICompatible


class Mlx(OpenAICompatible):
    kind = "mlx"
    title = "mlx_lm.server"
    checked = "0.32.2 (run)"
    start_hint = "Start it with `mlx_lm.server`"
    shared_ports = (8080,)
    found_by = ("Msty Studio's settings",)
    accepts_schemas = False
    names_models_as_listed = True
    # Many servers answer so, but few of them leave their models, repositories and paths, unsigned.
    signs = (Sign("/health", "status", "ok", rank=2, names=r"/|\\"),)
    no_list = (200, "")
    empty_hint = (
        "It lists nothing without the Hugging Face cache: `mkdir -p ~/.cache/huggingface/hub`"
    )
    # Otherwise its answers end after 512 tokens. This is as good as no limit.
    fixed_body = {"max_tokens": 2**17}
    options = {
        **OpenAICompatible.options,
        **sent_as_named("top_k", "min_p"),
        "repeat_penalty": WireOption("repetition_penalty"),
    }

    @classmethod
    def addresses_in_settings(cls) -> Iterator[str]:
        return msty.mlx_addresses()
