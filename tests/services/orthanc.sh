#!/usr/bin/env bash
# Install Orthanc with its DICOMweb plugin, which the worker's tests start, where it is absent: from Debian.
set -euo pipefail
if [ -x /usr/sbin/Orthanc ] && [ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ]; then exit 0; fi
# Debian starts a service with the package; the tests start their own.
if command -v apt-get > /dev/null && [ "$(id -u)" = 0 ] &&
  (apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
    orthanc orthanc-dicomweb) > /dev/null; then
  exit 0
fi
echo "Orthanc cannot be installed: tests with a real archive are skipped"
