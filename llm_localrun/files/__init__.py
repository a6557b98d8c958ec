"""Finds the GGUF files that any tool has left on this machine.

locations   where each tool keeps them, on each system
folders     looks through folders; `ollama`, `docker` and others through stores of their own kind
scan        each file once, and into those only that are new or have changed
contents    a file's header to a model, or to why it holds none that can be run
named       files that users have named by their paths
"""

from llm_localrun.files.named import is_same, open_file, remember
from llm_localrun.files.scan import scan, unique_id

__all__ = ["is_same", "open_file", "remember", "scan", "unique_id"]
