"""llm-localrun: every local model one ``-m`` away in llm.

Holds the version and nothing else: the engine host process imports this package and must not
pay for llm.
"""

__version__ = "0.2.0"
