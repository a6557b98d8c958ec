"""Translates the templates of Ollama, which are Go text/template, to the Jinja of llama.cpp."""

from llm_localrun.files.gotemplate.jinja import to_jinja
from llm_localrun.files.gotemplate.syntax import Untranslatable

__all__ = ["Untranslatable", "to_jinja"]
