"""Build hello-odptwist: a package, and a module in `twisted.plugins` that makes instances of its classes."""

from setuptools import setup

setup(
    name="hello-odptwist",
    version="1.0",
    description="An example of plugins for odptwist: a statement, an observer and a router",
    packages=["hello_odptwist", "twisted.plugins"],
    package_dir={"": "."},
    install_requires=["odptwist"],
    zip_safe=False,
)
