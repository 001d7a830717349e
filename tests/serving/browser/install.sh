#!/usr/bin/env bash
# Install what the page is bundled and tested with, where it is absent: npm and Chromium, both from Debian.
set -euo pipefail
missing=()
command -v npm > /dev/null || missing+=(npm)
command -v chromium > /dev/null || missing+=(chromium)
[ ${#missing[@]} -gt 0 ] || exit 0
if command -v apt-get > /dev/null && [ "$(id -u)" = 0 ] &&
  (apt-get update -qq && apt-get install -qq --no-install-recommends "${missing[@]}") > /dev/null; then
  exit 0
fi
echo "${missing[*]} cannot be installed: the page's tests are skipped"
