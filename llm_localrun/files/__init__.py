"""Finds the GGUF files that any tool keeps on this machine.

base        what the stores have in common; a module per tool says where, how read, how deleted
folders     walks folders, and decides from names what each file is
scan        lists every store, and opens only the files that are new or have changed
contents    reads a file's header: the model in it, or why it cannot be run
named       files that users have named by path
failed_loads  files that llama.cpp could not load
modelfile   what Ollama's manifest says about running a model: template, system prompt, parameters
"""

from llm_localrun.files.base import store_named, variables
from llm_localrun.files.named import is_same, open_file, remember
from llm_localrun.files.scan import scan, unique_id

__all__ = ["is_same", "open_file", "remember", "scan", "store_named", "unique_id", "variables"]
