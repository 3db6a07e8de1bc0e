#!/usr/bin/env bash
# Draws where the serving process spends its time under the standard load: scripts/flame-graph.sh OUT.svg
# HUBBUB_SOURCE is the src folder of another build to serve. py-spy, which reads the stacks, is set up beside the rest.
set -euo pipefail
out=$(realpath "${1:?scripts/flame-graph.sh OUT.svg}")
cd "$(dirname "$0")/.."
scripts/setup.sh requirements.lock
python=$PWD/.venv/bin/python
scratch=$(mktemp -d)
trap 'kill "${service:-}" "${load:-}" 2>/dev/null || true; wait; rm -rf "$scratch"' EXIT
"$python" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q --disable-pip-version-check py-spy==0.4.3

PYTHONPATH=${HUBBUB_SOURCE:-$PWD/src} "$python" -m hubbub serve --port 0 --data "$scratch/data" >"$scratch/out" 2>&1 &
service=$!
until url=$(grep -om1 'http://[0-9.:]*' "$scratch/out"); do sleep 0.1; done
"$python" -m hubbub perftest --url "$url" --keep --duration 15 >"$scratch/load" 2>&1 &
load=$!
until grep -q 'Phase 3' "$scratch/load"; do sleep 0.1; done
"$scratch/venv/bin/py-spy" record --pid "$service" --native --rate 400 --duration 10 --output "$out"
wait "$load" || true
