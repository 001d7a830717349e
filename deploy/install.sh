#!/bin/sh
# Install the runtime and the server into a folder of their own: install.sh PREFIX [EXTRAS], from the repository's root.
# EXTRAS: those of pyproject.toml (default: serve).  Both Dockerfiles run this, and a test does.
set -eu
prefix=$1
extras=${2:-serve}
"${PYTHON:-python3}" -m venv "$prefix"
"$prefix/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check ".[$extras]"
# Nothing is installed at run time: what is left is the interpreter, the libraries and lsms-rt.
"$prefix/bin/python" -m pip uninstall --quiet --yes --disable-pip-version-check pip
find "$prefix" -name __pycache__ -type d -prune -exec rm -rf {} +
"$prefix/bin/lsms-rt" --version
