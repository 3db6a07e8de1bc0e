#!/usr/bin/env bash
# Installs vegeta (with Go) and wrk (from Debian), and measures our load tester beside them.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh requirements-dev.lock
command -v wrk >/dev/null || apt-get install -y -qq --no-install-recommends wrk >/dev/null
export GOBIN=$PWD/.venv/gobin
[ -x "$GOBIN/vegeta" ] || go install github.com/tsenart/vegeta/v12@v12.13.0
PATH=$GOBIN:$PATH exec .venv/bin/python -m benchmarks.load_testers "$@"
