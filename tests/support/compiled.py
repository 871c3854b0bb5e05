"""Modules in C, wherever they were built."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import distributions
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any


def find_compiled(name: str) -> Any:
    """Return a module in C by its full name, or None: beside this source, or in the installed package."""
    try:
        return import_module(name)
    except ImportError:
        pass
    # A build leaves an egg-info beside the source, which comes first and has no module in C.
    beginning = name.rpartition(".")[2] + "."
    for each in (file for found in distributions(name="odptwist") for file in found.files or ()):
        if each.name.startswith(beginning) and each.suffix == ".so":
            spec = spec_from_file_location(name, str(each.locate()))
            if spec is not None and spec.loader is not None:
                module = module_from_spec(spec)
                spec.loader.exec_module(module)
                return module
    return None
