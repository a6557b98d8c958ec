"""Gets models: from a Hugging Face hub, the web, a package index, or through a server."""
