"""Lemonade's folder of models."""

from llm_localrun.files.base import Store


class Lemonade(Store):
    """Files in folders."""

    name = "lemonade"
    precedence = 130
    linux = ("~/.cache/lemonade",)
