"""What all tests share: eight simulated CPU devices, one compilation cache, seeded generators."""

import os

# pytest imports it where an exception is ignored. That may be while another thread imports
# tensorflow-datasets, which makes every import of that moment a lazy one, and breaks this module.
import tracemalloc  # noqa: F401
from pathlib import Path

from quick_flags import EIGHT_DEVICES, QUICK_FLAGS

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_GIVEN = os.environ.get("XLA_FLAGS", "")
_QUICK = "" if "xla_backend_optimization_level" in _GIVEN else QUICK_FLAGS
# Flags that are given come last, so they count.
os.environ["XLA_FLAGS"] = " ".join((_QUICK, EIGHT_DEVICES, _GIVEN)).strip()

# pytest-xdist tells its workers the width of the terminal; tables are to be as they are in a file.
os.environ.pop("COLUMNS", None)

# The tests start several processes that compile the same steps; the second one need not.
_CACHE = Path(__file__).parent.parent / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
# What `avt tune` has found on this machine is not the tests' affair.
os.environ["AVT_CACHE"] = str(_CACHE.parent / "avt")

import numpy as np  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture
def rng():
    """A seeded NumPy generator."""
    return np.random.default_rng(0)
