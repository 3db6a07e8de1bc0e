#!/usr/bin/env bash
# The performance test, from nothing: sets itself up, starts a private Hubbub, loads it, stops it, says PASS or FAIL.
#   ./run-performance-test.sh [--writes N] [--reads N] [--duration N] [--workers N] [--stack cluster] [--help]
# With --url URL or --running (port 3000) it loads that service instead, and deletes there what it made.
# and what else hubbub perftest takes: docs/load-testing.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
"$here/scripts/setup.sh" requirements.lock || exit 3
exec "$here/.venv/bin/hubbub" perftest "$@"
