#!/usr/bin/env bash
# Every check and every test, from nothing. Arguments go to pytest: ./run-tests.sh tests/unit -k latency
# ./run-tests.sh --faults [ROUNDS]   the long runs of random faults and of the fuzzers (default: 300 faults)
set -euo pipefail
cd "$(dirname "$0")"
if [ "${1:-}" = --faults ]; then
    set -- tests/history tests/faults tests/abuse tests/cluster -s --fault-rounds "${2:-300}" "${@:3}"
fi
scripts/setup.sh requirements-dev.lock
scripts/install-servers.sh || echo "Tests that need these servers will be skipped." >&2
for server in opensearch elasticsearch; do
    scripts/install-search.sh "$server" || echo "Tests that need $server will be skipped." >&2
done
scripts/install-browser.sh || echo "Tests that need a browser will be skipped." >&2
if [ $# -eq 0 ]; then
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy
fi
exec .venv/bin/pytest "$@"
