#!/usr/bin/env bash
# Runs the tests that compile for TPUs that are not here, in the checkout's own environment.
# launch/test.sh skips them: the compiler, libtpu, takes 640 MB.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env
cd "$ROOT"
say "Installing libtpu"
.venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -q -e ".[test,aot]"
say "Running the tests of the ahead-of-time compilation"
JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}" exec .venv/bin/python -m pytest \
    tests/profiling/test_ahead_of_time.py "$@"
