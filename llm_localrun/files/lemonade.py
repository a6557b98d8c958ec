"""Lemonade's folder of models."""

from llm_localrun.files.base import Store


class LemonadeStore(Store):
    """Files in folders."""

    name = "lemonade"
    precedence = 130
    linux = ("~/.cache/lemonade",)
