#!/usr/bin/env bash
# Makes .venv in the checkout from a lock file: scripts/setup.sh requirements.lock. Does nothing if it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
lock=$1

usable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}
# Distributions build Python with optimisations that pyenv leaves out; docs/performance.md has what that costs.
python=${PYTHON:-/usr/bin/python3}
usable "$python" || python=${PYTHON:-python3}
if ! usable "$python"; then
    echo "Hubbub needs Python 3.11 or newer with venv. On Debian: apt-get install python3 python3-venv" >&2
    exit 3
fi

# requirements-dev.lock includes all of requirements.lock, so an environment of it serves for both.
stamp=.venv/installed
wanted=$(cat "$lock" pyproject.toml | sha256sum)
larger=$(cat requirements-dev.lock pyproject.toml | sha256sum)
if [ -f "$stamp" ] && grep -qxF -e "$wanted" -e "$larger" "$stamp"; then
    exit 0
fi
echo "Setting up .venv from $lock ..." >&2
# An environment without a pip that works is one whose making was interrupted.
.venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv .venv
# uv needs a tenth of pip's time. It doesn't read pip's settings, so where it can't reach the files, pip may.
with_pip() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@" >&2
}
# Python usually keeps what it compiles at the first import. Where it may not, compile now, or every start would.
with_uv() {
    .venv/bin/uv pip install --quiet --python .venv/bin/python ${PYTHONDONTWRITEBYTECODE:+--compile-bytecode} "$@" >&2
}
install() {
    with_uv "$@" || with_pip "$@"
}
with_pip --require-hashes -r scripts/uv.lock || echo "uv can't be installed; pip takes longer." >&2
install --no-deps --require-hashes -r "$lock"
install --no-deps --no-build-isolation -e .
echo "$wanted" >> "$stamp"
