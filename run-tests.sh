#!/usr/bin/env bash
# Every check and every test, from nothing. Arguments go to pytest: ./run-tests.sh tests/unit -k latency
# ./run-tests.sh --quick             before a commit, in two minutes: ruff, mypy, the units, and one process over HTTP
# ./run-tests.sh --faults [ROUNDS]   the long runs of the fuzzers and of faults: so many at random (default: 300), and
#                                    each of a cluster's at least 20 times. --fault NAME has one alone. Every run draws
#                                    others, by a seed that it prints; all other runs draw the same each time.
set -euo pipefail
cd "$(dirname "$0")"
# The tests start hundreds of processes, each of which would compile all of Hubbub anew.
unset PYTHONDONTWRITEBYTECODE
check() {
    .venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy
}
if [ "${1:-}" = --faults ]; then
    fuzzers=(tests/abuse tests/model tests/unit/test_settings.py tests/loadtest/test_{plan,gauges,figures}.py)
    set -- tests/history tests/faults tests/cluster "${fuzzers[@]}" -s --fault-rounds "${2:-300}" "${@:3}"
fi
if [ "${1:-}" = --quick ]; then
    scripts/setup.sh requirements-dev.lock
    check
    exec .venv/bin/pytest tests/unit tests/http/test_accounts.py tests/http/test_chats.py tests/http/test_connection.py \
        tests/http/test_permissions.py -k "not cluster" "${@:2}"
fi
install() {
    scripts/install-servers.sh || echo "Tests that need these servers will be skipped." >&2
    scripts/install-servers.sh nginx-light caddy || echo "Tests that need these proxies will be skipped." >&2
    for server in opensearch elasticsearch; do
        scripts/install-search.sh "$server" || echo "Tests that need $server will be skipped." >&2
    done
    scripts/install-browser.sh || echo "Tests that need a browser will be skipped." >&2
}
install &
installing=$!
scripts/setup.sh requirements-dev.lock
wait "$installing"
if [ $# -eq 0 ]; then
    # The checks and three groups at once, as the tests of faults wait more than they compute; what waits for little has
    # the lowest priority. A whole run takes long enough.
    # tests/commands and tests/client are with tests/http, whose cluster they use; a load generator needs its CPU.
    computing=(tests/model tests/unit tests/ports tests/docs tests/upgrade tests/abuse/test_parsers.py)
    waiting=(tests/cluster tests/faults tests/history)
    rest=("${computing[@]/#/--ignore=}" "${waiting[@]/#/--ignore=}")
    said=$(mktemp -d)
    trap 'rm -rf "$said"' EXIT
    (renice -n 10 "$BASHPID" >/dev/null && check) >"$said/check" 2>&1 &
    groups=("$!")
    nice -n 10 .venv/bin/pytest -p no:cacheprovider "${computing[@]}" >"$said/computing" 2>&1 &
    groups+=("$!")
    .venv/bin/pytest -p no:cacheprovider "${rest[@]}" >"$said/rest" 2>&1 &
    groups+=("$!")
    status=0
    .venv/bin/pytest -p no:cacheprovider "${waiting[@]}" 2>&1 | tee "$said/waiting" || status=$?
    for group in "${groups[@]}"; do
        wait "$group" || status=$?
    done
    cat "$said/computing" "$said/rest" "$said/check"
    tail -n 1 "$said/waiting"
    exit "$status"
fi
exec .venv/bin/pytest "$@"
