"""What all tests share: eight simulated CPU devices, one compilation cache, seeded generators."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling is most of what the tests do, and takes a fifth of the time without LLVM's optimisations
# and XLA's newer way of emitting loops. launch/test_torch.sh repeats the comparisons with the
# originals as users compile.
_FLAGS = {
    "xla_force_host_platform_device_count": 8,
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": "false",
}
_given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join(
    [_given, *(f"--{name}={value}" for name, value in _FLAGS.items() if name not in _given)]
).strip()

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
