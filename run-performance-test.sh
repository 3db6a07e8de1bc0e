#!/usr/bin/env bash
# The performance test, from nothing: sets itself up, starts a Hubbub of its own if none runs, loads it, says PASS or FAIL.
#   ./run-performance-test.sh [--writes N] [--reads N] [--duration N] [--workers N] [--url URL] [--stack cluster] [--help]
# and what else hubbub perftest takes: docs/load-testing.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
"$here/scripts/setup.sh" requirements.lock || exit 3
exec "$here/.venv/bin/hubbub" perftest "$@"
