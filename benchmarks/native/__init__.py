"""The load generator and the server that answers it: C, because Python ones would be what is measured."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_HERE = Path(__file__).parent
_FLAGS = ("-O2", "-Wall", "-Wextra")


def compiler() -> str | None:
    """Return the path of a C compiler, or None."""
    return shutil.which("cc") or shutil.which("gcc")


def build(name: str) -> Path:
    """Compile `name`.c, unless this version of it was compiled before, and return the program.

    Raises:
        RuntimeError: there is no compiler.
        subprocess.CalledProcessError: it does not compile.
    """
    cc = compiler()
    if cc is None:
        raise RuntimeError("the benchmarks need a C compiler, e.g. `apt install gcc libc6-dev`")
    source = _HERE / f"{name}.c"
    digest = hashlib.sha256(source.read_bytes() + repr(_FLAGS).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "odptwist-benchmarks"
    program = cache / f"{name}-{digest}"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as directory:
            made = Path(directory) / name
            subprocess.run([cc, *_FLAGS, "-o", made, source], check=True)
            made.replace(program)  # in one step, so that another benchmark never starts half a program
    return program
