"""mlx_lm.server: MLX models of the Hugging Face hub, and the folder that it was started with.

Sources: mlx_lm's `SERVER.md` (0.31); the server and each option were tried (0.32.2).
"""

from collections.abc import Iterator

from llm_localrun.servers import msty
from llm_localrun.servers.base import CallForcing, Sign, WireOption, sent_as_named
from llm_localrun.servers.openai_compatible import TEMPLATE_THINKING, OpenAICompatible


class Mlx(OpenAICompatible):
    kind = "mlx"
    title = "mlx_lm.server"
    checked = "0.32.2 (run)"
    start_hint = "Start it with `mlx_lm.server`"
    shared_ports = (8080,)
    found_by = ("Msty Studio's settings",)
    accepts_schemas = False
    call_forcing = CallForcing.NONE  # It does not read `tool_choice`.
    names_models_as_listed = True
    # Many servers answer so, but few of them leave their models, repositories and paths, unsigned.
    signs = (Sign("/health", "status", "ok", rank=2, names=r"/|\\"),)
    plugin_ids = ("{name}",)  # In llm-mlx 0.4, which runs the repositories itself.
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
        "think": TEMPLATE_THINKING,
    }
    # It cuts the text out and goes on, unless the model's tokens are those of the text by itself.
    del options["stop"]

    @classmethod
    def addresses_in_settings(cls) -> Iterator[str]:
        return msty.mlx_addresses()
