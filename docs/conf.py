"""Settings of the documentation: `sphinx-build -W -b html docs docs/_build`."""

import re
import sys
from pathlib import Path

_VERSION_FILE = Path(__file__).parent.parent / "odptwist" / "__init__.py"
_VERSION = re.search(r'^__version__ = "(.+)"$', _VERSION_FILE.read_text(encoding="utf-8"), re.MULTILINE)
if _VERSION is None:
    raise ValueError(f"no version in {_VERSION_FILE}")

project = "odptwist"
author = "the odptwist authors"
version = release = _VERSION[1]

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))
extensions = ["myst_parser", "sequence"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
root_doc = "index"
exclude_patterns = ["_build", "_extensions"]
nitpicky = True

html_theme = "furo"
html_title = f"odptwist {release}"
html_show_copyright = False
