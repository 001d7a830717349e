#!/usr/bin/env bash
# Install Ray, where it is absent, into an environment of its own that uses the packages of the tests' one.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python} place=${LSMS_RT_TEST_RAY:-.venv-ray}
if "$place/bin/python" -c "import pyarrow, ray.data" 2> /dev/null; then exit 0; fi
site='import sysconfig; print(sysconfig.get_paths()["purelib"])'
if "$python" -m venv --without-pip "$place" &&
  "$python" -c "$site" > "$("$place/bin/python" -c "$site")/tests.pth" &&
  "$place/bin/python" -m pip install -q "ray[data]>=2.60,<3" > /dev/null 2>&1; then
  exit 0
fi
rm -rf "$place"
echo "Ray cannot be installed: its tests are skipped"
