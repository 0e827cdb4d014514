#!/usr/bin/env bash
# Runs the tests of the extraction with Apache Beam in the checkout's own environment. launch/test.sh
# skips those that need Beam: it is large, and holds protobuf and pyarrow back at older versions.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env
cd "$ROOT"
say "Installing Apache Beam"
.venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -q -e ".[test,beam]"
say "Running the tests of the extraction"
JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}" exec .venv/bin/python -m pytest tests/data/extraction/test_beam.py \
    tests/data/extraction/test_extract.py tests/data/extraction/test_resume_extract.py "$@"
