"""Build odptwist.

`package_dir={"": "."}` is needed: without it an editable install finds only the package and hides `twisted/plugins`.
"""

import re
from pathlib import Path

from setuptools import Extension, find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "odptwist/__init__.py").read_text()).group(1)

EMBEDDED = ["pylibseekdb>=1.4"]
TLS = ["twisted[tls]>=26.4"]
ZSTD = ["zstandard>=0.22"]
TEST = [
    *EMBEDDED,
    *TLS,
    *ZSTD,
    "aiomysql>=0.3",
    "asyncmy>=0.2.10",
    "cryptography>=42",  # PyMySQL needs it for caching_sha2_password
    "hypothesis>=6.100",
    "mycli>=2.30",
    "mysql-connector-python>=9",
    "pexpect>=4.9",
    "pip",
    "pymysql>=1.1",
    "pynacl>=1.5",  # PyMySQL needs it for client_ed25519
    "pytest>=8",
    "pytest-twisted>=1.14",
    "setuptools>=68",
    "sqlalchemy>=2",
    "wheel",
]

setup(
    name="odptwist",
    version=VERSION,
    description="A session-aware proxy for OceanBase and MySQL-compatible servers, on Twisted",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=[*find_packages(include=["odptwist", "odptwist.*"]), "twisted.plugins"],
    package_dir={"": "."},
    package_data={"odptwist": ["py.typed"]},
    # Without a C compiler the same machine runs in Python, and sessions read for themselves.
    ext_modules=[
        Extension(
            "odptwist.machines._response",
            ["odptwist/machines/_response.c"],
            depends=["odptwist/machines/_response.h"],
            optional=True,
        ),
        Extension(
            "odptwist.sessions._hub",
            ["odptwist/sessions/_hub.c"],
            depends=[
                "odptwist/machines/_command.h",
                "odptwist/machines/_response.h",
                "odptwist/sessions/_exchanges.h",
                "odptwist/sessions/_layout.h",
                "odptwist/sessions/_prepared.h",
                "odptwist/sessions/_slots.h",
            ],
            optional=True,
        ),
    ],
    install_requires=[
        "attrs>=24.2",
        "cattrs>=24.1",
        "twisted>=26.4",
        "zope.interface>=7",
    ],
    extras_require={
        "embedded": EMBEDDED,
        "tls": TLS,
        "zstd": ZSTD,
        "test": TEST,
        "dev": [
            *TEST,
            "atheris>=3; platform_system == 'Linux' and platform_machine == 'x86_64'",
            "build",
            "import-linter>=2.1",
            "mypy>=1.15",
            "mypy-zope>=1.0.11",
            "ruff>=0.9",
            "towncrier>=24.8",
            "types-PyMySQL",
            "types-pexpect",
        ],
        "docs": ["furo", "myst-parser>=4", "sphinx>=8"],
    },
    zip_safe=False,
)
