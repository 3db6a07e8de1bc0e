#!/usr/bin/env bash
# Installs the given packages, or else the servers of the cluster mode for its tests and for
# ./run-performance-test.sh --stack cluster. Needs Debian and root.
# The tests start the servers on free ports with scratch data. This script leaves none running, and none starts at boot.
set -euo pipefail
packages=("$@")
[ $# -gt 0 ] || packages=(rabbitmq-server mariadb-server redis-server)
wanted=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || wanted+=("$package")
done
[ ${#wanted[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "Install these first: ${wanted[*]} (this script does it, as root on Debian)" >&2
    exit 1
fi
echo "Installing ${wanted[*]} ..." >&2
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
apt-get update -qq >&2
apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
for package in "${wanted[@]}"; do
    service=${package/mariadb-server/mariadb}
    service=${service%-light}
    [ -d /run/systemd/system ] && systemctl disable --now "$service" >&2
done
exit 0
