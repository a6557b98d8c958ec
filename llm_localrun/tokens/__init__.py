"""How many tokens a prompt takes, and how large a context it needs for that."""
