#!/usr/bin/env bash
# Every check and every test, from nothing. Arguments go to pytest: ./run-tests.sh tests/unit -k latency
# ./run-tests.sh --faults [ROUNDS]   the long runs of the fuzzers and of faults: so many at random (default: 300), and
#                                    each of a cluster's at least 20 times. --fault NAME has one alone.
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
    # What computes and waits for little runs beside the rest, behind it in rank: a whole run takes long enough.
    beside=(tests/model tests/unit tests/ports tests/abuse/test_parsers.py)
    said=$(mktemp -d)
    trap 'rm -rf "$said"' EXIT
    nice -n 19 .venv/bin/pytest -p no:cacheprovider "${beside[@]}" >"$said/beside" 2>&1 &
    status=0
    .venv/bin/pytest "${beside[@]/#/--ignore=}" 2>&1 | tee "$said/rest" || status=$?
    wait $! || status=$?
    cat "$said/beside"
    tail -n 1 "$said/rest"
    exit "$status"
fi
exec .venv/bin/pytest "$@"
