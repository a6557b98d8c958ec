"""The parts of the documents that the code determines: `just docs` writes them.

A part stands between `<!-- NAME -->` and `<!-- /NAME -->`. Each module makes the parts of one
topic. What is measured or recorded is written by a script in `benchmarks/` instead.
"""
