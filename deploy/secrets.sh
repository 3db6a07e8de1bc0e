#!/usr/bin/env bash
# Makes .env, once, with a new password for each server. compose.yaml reads it.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -e .env ]; then
    echo ".env is there already; delete it (and the volumes that were made with it) for new passwords." >&2
    exit 1
fi
umask 077
for name in MYSQL_PASSWORD RABBITMQ_PASSWORD REDIS_PASSWORD GRAFANA_PASSWORD; do
    echo "$name=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"
done > .env
echo "Wrote .env" >&2
