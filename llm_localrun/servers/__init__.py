"""Model servers: one module per kind, how they are found, and how requests reach them.

`base` is what every kind has, `openai_compatible` what servers with OpenAI's API share, and
`discover` finds and recognizes servers. A new kind is one new module with a subclass.
"""
