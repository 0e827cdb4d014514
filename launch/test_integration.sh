#!/usr/bin/env bash
# Runs the tests of whole runs: every recipe, jobs of several processes, kills and restarts, restoring
# on other devices. launch/test.sh leaves them out: they take minutes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env
cd "$ROOT"
say "Running the tests of whole runs"
JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}" exec .venv/bin/python -m pytest --numprocesses auto \
    --maxprocesses 2 --dist loadfile --no-loadscope-reorder tests/integration "$@"
