"""How fast a model read prompts at an endpoint so far, by llm's log."""


def prompt_rate(model_id: str, endpoint: str) -> float | None:
    """Tokens of a prompt that the model reads in a second at the endpoint; None if unknown."""
    raise NotImplementedError
