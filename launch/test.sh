#!/usr/bin/env bash
# Sets up the checkout's own environment, then runs the linter, the type checker and the tests, the
# last in a process per core.
#
#   bash launch/test.sh              everything but whole runs, see launch/test_integration.sh
#   bash launch/test.sh tests/data   arguments go to pytest
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env
cd "$ROOT"
say "Linting"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
say "Checking the types"
.venv/bin/mypy
say "Running the tests"
[ $# -gt 0 ] || set -- --ignore tests/integration
# In the order of their names: the default leaves the files with the fewest tests for the end, and
# those take minutes, in one process while the others wait.
JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}" exec .venv/bin/python -m pytest \
    --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder "$@"
