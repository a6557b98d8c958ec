"""Go's text/template, in which Ollama keeps chat templates, to the Jinja that llama.cpp takes."""

from llm_localrun.files.gotemplate.jinja import to_jinja
from llm_localrun.files.gotemplate.syntax import NotUnderstood

__all__ = ["NotUnderstood", "to_jinja"]
