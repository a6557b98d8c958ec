"""How much memory a model needs, how much there is, and whether the one fits into the other."""
