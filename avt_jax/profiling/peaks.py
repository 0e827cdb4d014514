"""What devices can do at most, by the names that JAX has for them.

Sources: for TPUs `chips`; for GPUs NVIDIA's data sheets, tensor cores,
half of what is printed for sparse matrices.
"""

from __future__ import annotations

import re

from avt_jax.profiling.chips import CHIPS

_TPUS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
}
# (the whole name, FLOPs a second of bfloat16 products, of float32 products in TF32).
_GPUS = (
    (r"NVIDIA A100-.*", 312e12, 156e12),
    (r"NVIDIA H100 PCIe", 756e12, 378e12),
    (r"NVIDIA H100 80GB HBM3", 989.5e12, 494.5e12),
    (r"NVIDIA H200", 989.5e12, 494.5e12),
    (r"NVIDIA L4", 121e12, 60e12),
)


def peak_flops(device_kind: str, precision: str) -> float | None:
    """FLOPs a second of matrix products; None where it is not known.

    Args:
      device_kind: see `jax.Device.device_kind`.
      precision: of the computation, "float32" or "bfloat16". With float32 JAX lets a TPU multiply
        in bfloat16 and a GPU in TF32, so these are what counts.
    """
    if device_kind in _TPUS:
        return CHIPS[_TPUS[device_kind]].peak_flops
    for pattern, bfloat16, tf32 in _GPUS:
        if re.fullmatch(pattern, device_kind):
            return bfloat16 if precision == "bfloat16" else tf32
    return None
