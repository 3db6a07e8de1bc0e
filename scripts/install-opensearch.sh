#!/usr/bin/env bash
# Fetches the jars of an OpenSearch node with Maven, for the tests and for ./run-performance-test.sh --stack cluster.
# They go to $HUBBUB_OPENSEARCH, or ~/.cache/hubbub/opensearch-2.19.3; nothing is started.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${HUBBUB_OPENSEARCH:-$HOME/.cache/hubbub/opensearch-2.19.3}
[ -f "$folder/complete" ] && exit 0
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
echo "Fetching OpenSearch ..." >&2
mkdir -p "$folder"
mvn -q -B -f src/hubbub/loadtest/opensearch/pom.xml org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies \
    -DoutputDirectory="$folder" >&2
touch "$folder/complete"
