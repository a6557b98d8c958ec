"""GGUF files: their headers and their names. Pure, bounded, and without numpy."""
