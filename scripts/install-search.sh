#!/usr/bin/env bash
# Fetches the jars of a search server with Maven:   scripts/install-search.sh [opensearch|elasticsearch]
# OpenSearch is for the tests and ./run-performance-test.sh --stack cluster, Elasticsearch only for the tests.
# The jars go to $HUBBUB_SEARCH_SERVERS, or ~/.cache/hubbub. Nothing is started.
set -euo pipefail
cd "$(dirname "$0")/.."
server=${1:-opensearch}
pom=src/hubbub/loadtest/search_servers/$server.xml
folder=${HUBBUB_SEARCH_SERVERS:-$HOME/.cache/hubbub}/$server
[ -f "$folder/complete" ] && cmp -s "$pom" "$folder/complete" && exit 0
if ! command -v mvn >/dev/null || ! command -v javac >/dev/null; then
    if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
        echo "Install Maven and a JDK of 17 or newer first (this script does it, as root on Debian)" >&2
        exit 1
    fi
    echo "Installing maven and a JDK ..." >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    apt-get install -y -qq --no-install-recommends maven openjdk-17-jdk-headless >/dev/null
fi
echo "Fetching $server ..." >&2
rm -rf "$folder"
mkdir -p "$folder"
mvn -q -B -f "$pom" org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies -DoutputDirectory="$folder" >&2
cp "$pom" "$folder/complete"
