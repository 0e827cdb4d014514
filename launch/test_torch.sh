#!/usr/bin/env bash
# Runs the tests that compare with PyTorch packages (marker live_torch), in the checkout's own
# environment. launch/test.sh skips them, as PyTorch is large and nothing else needs it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env
cd "$ROOT"
say "Installing PyTorch and transformers"
# The version that docs/performance.md was measured with, named before the extra asks for any.
.venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -q torch==2.13.0
.venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -q -e ".[test,convert]"
say "Running the tests against PyTorch"
JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}" exec .venv/bin/python -m pytest -m live_torch "$@"
