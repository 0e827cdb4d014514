#!/usr/bin/env bash
# Runs the tests that compare with the originals, compiled as for users (the other tests are compiled
# quickly instead): against stored numbers, and against PyTorch packages (marker live_torch), in the
# checkout's own environment. launch/test.sh skips the latter, as PyTorch is large and nothing else
# needs it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env
cd "$ROOT"
say "Installing PyTorch and transformers"
# The version that docs/performance.md was measured with, named before the extra asks for any.
.venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -q torch==2.13.0
.venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -q -e ".[test,convert]"
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
export XLA_FLAGS="--xla_backend_optimization_level=3"
say "Running the tests against stored numbers of the originals"
.venv/bin/python -m pytest tests/models/encoders/test_uniformer_parity.py tests/models/encoders/test_ast_parity.py \
    tests/conversion/test_mbt_parity.py
say "Running the tests against PyTorch"
exec .venv/bin/python -m pytest -m live_torch "$@"
