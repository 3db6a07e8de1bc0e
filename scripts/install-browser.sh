#!/usr/bin/env bash
# Installs the browser for the tests of our pages: Debian's Chromium, as root.
set -euo pipefail
command -v chromium >/dev/null && exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "Install chromium first (this script does it, as root on Debian)" >&2
    exit 1
fi
echo "Installing chromium ..." >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >&2
apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
