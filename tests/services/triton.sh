#!/usr/bin/env bash
# The environment of the tests with a real tritonserver, which nvidia-pytriton's wheel carries (it needs NumPy below 2).
# LSMS_RT_TRITON names its folder (default: .venv-triton in the repository).  About 45 s; nothing to do if it is there.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${LSMS_RT_TRITON:-$PWD/.venv-triton}
if [ -e "$folder/ready" ]; then exit 0; fi
python=${PYTHON:-python3}
"$python" -m venv "$folder"
# What lsms-rt itself needs; the tests run it from the checkout.
needs=$("$python" -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']))")
mapfile -t needs <<< "$needs"
"$folder/bin/pip" install --quiet --disable-pip-version-check "${needs[@]}" "numpy<2" "tritonclient[grpc]==2.73.0"
# Only its server is used, so its own requirements are left out.
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps nvidia-pytriton==0.7.0
touch "$folder/ready"
