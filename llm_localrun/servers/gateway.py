"""A gateway: what answers at Ollama's usual port, lists models and is not Ollama."""

from llm_localrun.servers.openai_compatible import OpenAICompatible


class Gateway(OpenAICompatible):
    """A server that may pass prompts on to any machine."""

    kind = "gateway"
    title = "Gateway"
    is_product = False
    list_position = 99
    relays = True
