"""odptwist: a session-aware proxy for OceanBase and MySQL-compatible servers."""

__version__ = "0.1.0"
