"""Clips that lend their tokens to others of the same batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec


def take_clips(x: jax.Array, index_b: jax.Array, group_size: int) -> jax.Array:
    """`x[index_b]` for clips that take from their own group.

    Where a batch lies on several devices, which the mesh of the context tells, an index that could
    point anywhere would bring the whole batch to every device. Clips of a group lie on one device
    or on few, and only those few hand their part around, one after another.

    Args:
      x: [b, ...], the batch axis over all devices of the mesh.
      index_b: [b] int32; clip i takes from a clip of its group, those whose number divided by
        `group_size` gives the same.
      group_size: clips in a group; 0 = the batch is one group.

    Returns:
      [b, ...] of the type of `x`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    devices = 1 if mesh.empty else mesh.size
    batch = x.shape[0]
    local, group_size = batch // devices, min(group_size, batch)
    if devices == 1 or not group_size or batch % devices or batch % group_size:
        return x[index_b]
    if group_size % local and local % group_size:  # a device has parts of several groups
        return x[index_b]
    ring = max(1, group_size // local)
    spec = PartitionSpec(mesh.axis_names)

    def take(x: jax.Array, index_b: jax.Array) -> jax.Array:
        owner = jax.lax.axis_index(mesh.axis_names)
        first = owner - owner % ring
        onward = [(i, i - i % ring + (i + 1) % ring) for i in range(devices)]
        out = jnp.zeros_like(x)
        for turn in range(ring):
            index = index_b - owner * local
            here = (index >= 0) & (index < local)
            found = x[jnp.clip(index, 0, local - 1)]
            out = jnp.where(here.reshape(-1, *(1,) * (x.ndim - 1)), found, out)
            if turn < ring - 1:
                x = jax.lax.ppermute(x, mesh.axis_names, onward)
                owner = first + (owner - first - 1) % ring
        return out

    return jax.shard_map(take, in_specs=(spec, spec), out_specs=spec)(x, index_b)


def interleaved(first: jax.Array, second: jax.Array) -> jax.Array:
    """[b, ...] and [b, ...] to [2 b, ...], the two of a clip side by side.

    One after the other would move clips between devices that share the batch.
    """
    return jnp.stack([first, second], 1).reshape(-1, *first.shape[1:])
