"""Benchmarks that anyone can repeat: `python -m benchmarks.NAME` prints a table."""
