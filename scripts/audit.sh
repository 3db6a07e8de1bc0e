#!/usr/bin/env bash
# Writes a CycloneDX bill of materials of the service, and lists known vulnerabilities with pip-audit.
# Usage: scripts/audit.sh [FILE]   FILE gets the bill of materials (default: sbom.json)
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh requirements-dev.lock
.venv/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible --of JSON -o "${1:-sbom.json}"
echo "Wrote ${1:-sbom.json}."
exec .venv/bin/pip-audit --strict --disable-pip --require-hashes -r requirements.lock
