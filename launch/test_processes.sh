#!/usr/bin/env bash
# Runs the tests that start several processes, or one again and again: jobs of several processes,
# kills, restarts on other devices. launch/test.sh leaves them out: they take minutes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env
cd "$ROOT"
say "Running the tests of several processes"
JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}" exec .venv/bin/python -m pytest -m processes \
    --numprocesses auto --maxprocesses 2 --dist loadfile --no-loadscope-reorder tests/integration "$@"
