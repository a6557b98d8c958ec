"""Measures models, files, endpoints and engine builds side by side."""
