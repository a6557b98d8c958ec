"""The models of llm: a prompt of llm becomes a request, and the events of the answer a response.

`models` has the classes that llm calls, `prompt` makes the request, `run` has a server or an engine
answer it, and `response` writes the answer into llm's response.
"""
