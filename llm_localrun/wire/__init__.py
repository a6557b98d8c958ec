"""What goes over the wire: HTTP, framing, and the two languages of model servers.

`request` and `events` are what a chat is made of. `openai` and `ollama` turn it into JSON and back,
`sse` splits bytes into JSON, `http` sends and receives. Who serves a model is left to `servers`.
"""
