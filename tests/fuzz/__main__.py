"""Fuzzing with atheris: `python -m tests.fuzz [TARGET ...] [--seconds N]`. Ends with 1 at the first finding."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# A length of inputs that lets a parser meet its limits, and keeps the runs fast.
_LONGEST = 4096


def fuzz(name: str, corpus: str, seconds: int) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["odptwist"]):
        from tests.fuzz import targets

    for number, seed in enumerate((*targets.seeds()[name], *targets.FOUND.get(name, ()))):
        (Path(corpus) / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", f"-max_len={_LONGEST}", "-timeout=10", "-rss_limit_mb=1024"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={corpus}/", corpus], targets.TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="*", help="a function in tests/fuzz/targets.py [all]")
    parser.add_argument("--seconds", type=int, default=10, help="for each target [10]")
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.corpus:
        fuzz(options.target[0], options.corpus, options.seconds)
    from tests.fuzz.targets import TARGETS

    for name in options.target or TARGETS:
        with tempfile.TemporaryDirectory(prefix="odptwist-fuzz-") as corpus:
            command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(options.seconds), "--corpus", corpus]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
            runs = re.findall(r"Done (\d+) runs in (\d+) second", done.stderr)
            print(f"{name}: {int(runs[0][0]):,} runs in {runs[0][1]} s" if runs else f"{name}: FOUND", flush=True)
            if done.returncode:
                print(done.stdout[-3000:], done.stderr[-3000:], sep="\n")
                for found in (*Path(corpus).glob("crash-*"), *Path(corpus).glob("timeout-*")):
                    print(repr(found.read_bytes()))
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
