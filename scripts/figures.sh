#!/usr/bin/env bash
# Makes the table of figures in README.md and docs/performance.md: scripts/figures.sh [--rounds 3] [--cluster]
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh requirements.lock
PYTHONPATH=. exec .venv/bin/python -m benchmarks.figures "$@"
