"""Fuzzing: targets that take any bytes, run by `python -m tests.fuzz`, and for a moment in every test run."""
