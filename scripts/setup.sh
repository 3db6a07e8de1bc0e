#!/usr/bin/env bash
# Makes .venv in the checkout from a lock file: scripts/setup.sh requirements.lock. Does nothing when it is there already.
set -euo pipefail
cd "$(dirname "$0")/.."
lock=$1

python=${PYTHON:-python3}
if ! "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "Hubbub needs Python 3.11 or newer with venv. On Debian: apt-get install python3 python3-venv" >&2
    exit 3
fi

# Either lock serves the performance test, and requirements-dev.lock holds all of requirements.lock.
stamp=.venv/installed
wanted=$(cat "$lock" pyproject.toml | sha256sum)
larger=$(cat requirements-dev.lock pyproject.toml | sha256sum)
if [ -f "$stamp" ] && grep -qxF -e "$wanted" -e "$larger" "$stamp"; then
    exit 0
fi
echo "Setting up .venv from $lock ..." >&2
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" >&2
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . >&2
echo "$wanted" >> "$stamp"
