#!/bin/sh
# Install the runtime and the server into a folder of their own: install.sh PREFIX [EXTRAS], from the repository's root.
# EXTRAS: those of pyproject.toml (default: serve).  Both Dockerfiles run this, rootfs.sh does, and tests do.
set -eu
export PYTHONDONTWRITEBYTECODE=1
prefix=$1
extras=${2:-serve}
"${PYTHON:-python3}" -m venv "$prefix"
pip() { "$prefix/bin/python" -m pip "$@" --quiet --disable-pip-version-check; }
pip install --no-cache-dir --no-compile ".[$extras]"
# Nothing is downloaded or installed at run time.  Before pip and setuptools, these are what tokenizers downloads by.
pip uninstall --yes huggingface-hub hf-xet fsspec filelock pyyaml httpx2 httpcore2 truststore 2> /dev/null
pip uninstall --yes setuptools pip 2> /dev/null
site=$("$prefix/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# ONNX Runtime for programs in C: the Python module holds the same once more.
rm -f "$site"/onnxruntime/capi/libonnxruntime.so.*
# What makes graphs, and what compilers and type checkers read.
rm -rf "$site"/onnxruntime/quantization "$site"/onnxruntime/transformers "$site"/onnxruntime/tools
find "$site" -type f \( -name '*.a' -o -name '*.h' -o -name '*.pyi' \) -delete
find "$site" -type d \( -name __pycache__ -o -name tests \) -prune -exec rm -rf {} +
"$prefix/bin/lsms-rt" --version
