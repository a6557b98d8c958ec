"""Trials of what may go wrong, for `benchmarks/faults.py` and for the test that keeps it working.

A module for each group of trials, with `trials()`; `command` runs commands and measures them.
"""
