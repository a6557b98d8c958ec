"""Makes smaller files of models, and measures what that costs in quality."""
