#!/usr/bin/env bash
# Builds Centrifugo and PocketBase with Go, installs wrk (Debian, root), and measures Hubbub beside them:
# scripts/peers.sh [--rounds 3] [--seconds 5]. What it builds stays in HUBBUB_PEERS, by default ~/.cache/hubbub-peers.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh requirements-dev.lock
command -v wrk >/dev/null || apt-get install -y -qq --no-install-recommends wrk >/dev/null
cache=${HUBBUB_PEERS:-$HOME/.cache/hubbub-peers}

# build NAME MODULE[/PACKAGE] VERSION: one core at the lowest priority, and no C, as in the projects' own releases.
build() {
    local folder=$cache/$1-$3
    PATH=$folder:$PATH
    [ -x "$folder/$1" ] && return
    echo "Building $1 $3 ..." >&2
    mkdir -p "$folder"
    if ! GOBIN=$folder/new GOMAXPROCS=1 GOFLAGS=-p=1 CGO_ENABLED=0 nice -n 19 go install "$2@$3" >"$folder/log" 2>&1; then
        echo "$1 $3 can't be built: $(tail -n 3 "$folder/log")" >&2
        return
    fi
    mv "$folder"/new/* "$folder/$1"
    rmdir "$folder/new"
}
build centrifugo github.com/centrifugal/centrifugo/v6 v6.9.1
build pocketbase github.com/pocketbase/pocketbase/examples/base v0.36.8
PYTHONPATH=$PWD/src:$PWD exec .venv/bin/python -m benchmarks.peers "$@"
