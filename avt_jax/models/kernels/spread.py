"""Calls that XLA cannot divide between devices: each device gets its part of the batch.

XLA cannot spread a Pallas call. A sharded program must be traced under its mesh (`jax.set_mesh` or
`jax.sharding.use_abstract_mesh`), and the call then runs on each device's part of the batch.
Without that context XLA refuses to compile a program for several devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P


def _free_axes() -> dict[str, int]:
    """{name: devices} of the axes of the mesh under which a program is traced."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return {name: mesh.shape[name] for name, kind in kinds if kind != AxisType.Manual}


def can_divide(x: jax.Array) -> bool:
    """Whether the batch, the first axis, is known and divides over the devices."""
    b = x.shape[0]
    return isinstance(b, int) and b % math.prod(_free_axes().values()) == 0


def on_each_device(
    function: Callable[..., Any], *arrays: jax.Array, shared: Sequence[jax.Array] = ()
) -> Any:
    """Runs a function on each device's part of the batch.

    Args:
      function: of the arrays and what is shared; gives arrays [b, ...].
      *arrays: [b, ...].
      shared: arrays that every device needs whole.
    """
    axes = _free_axes()
    if math.prod(axes.values()) == 1:
        return function(*arrays, *shared)
    by_example = P(tuple(axes))
    return jax.shard_map(
        function,
        in_specs=(by_example,) * len(arrays) + (P(),) * len(shared),
        out_specs=by_example,
        axis_names=set(axes),
        check_vma=False,
    )(*arrays, *shared)
