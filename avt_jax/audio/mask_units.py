"""Chooses whole units to hide (activities, patches, chunks, bands) within a limit; fixed shapes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

_NEVER = np.iinfo(np.int32).max


def most_of(ratio: float, count: int) -> jax.Array:
    """[count + 1] int32: how many of 0, 1 .. count units are `ratio` of them, at least one.

    A table made in float64: 0.7 of 10 is 7, which float32 on some device may see differently.
    """
    counts = np.arange(count + 1)
    share = np.maximum(np.floor(ratio * counts + 1e-9), 1)
    return jnp.asarray(np.minimum(share, counts), jnp.int32)


def windows(count: int, stride: int, size: int) -> np.ndarray:
    """[count, size] positions that each patch covers along one axis."""
    return np.arange(count)[:, None] * stride + np.arange(size)


def choose_units(
    key: jax.Array,
    ids_cw: jax.Array,
    num_ids: int,
    allowed_c: jax.Array,
    most: jax.Array | int,
    *,
    at_least_one: bool = True,
) -> jax.Array:
    """Takes whole units in random order until the next one would pass a limit.

    Args:
      key: PRNG key.
      ids_cw: [c, w] int32 unit of each position that a patch column covers; 0 = of none.
      num_ids: no id is higher.
      allowed_c: [c] bool, columns that may be hidden.
      most: columns that may be hidden in all.
      at_least_one: take the first unit even if it passes the limit.

    Returns:
      [c] bool: columns of which at least one position belongs to a unit that was taken.
    """
    # A column goes with the earliest of its units, so that the columns in order of their ranks are
    # hidden from the front; the first that does not fit tells which unit to stop at.
    # Random ranks need no sorting; the id in the low bits keeps any two apart.
    low_bits = int(num_ids).bit_length()
    random_bits = jax.random.bits(key, (num_ids + 1,)) >> (low_bits + 2) << low_bits
    rank_of_id = random_bits.astype(jnp.int32) | jnp.arange(num_ids + 1)
    rank_c = jnp.where(ids_cw > 0, rank_of_id[ids_cw], _NEVER).min(-1)
    rank_c = jnp.where(allowed_c, rank_c, _NEVER)
    ordered_c = jnp.append(jnp.sort(rank_c), _NEVER)
    hidden_c = rank_c < ordered_c[most]
    if at_least_one:
        hidden_c |= (rank_c == ordered_c[0]) & (rank_c < _NEVER)
    return hidden_c


def random_span(key: jax.Array, allowed_c: jax.Array, length: jax.Array) -> jax.Array:
    """[c] bool: `length` allowed columns in a row, anywhere."""
    place_c = jnp.cumsum(allowed_c) - 1
    first = jax.random.randint(key, (), 0, allowed_c.sum() - length + 1)
    return allowed_c & (place_c >= first) & (place_c < first + length)


def chunks(key: jax.Array, count: int, stride: int, width: int) -> jax.Array:
    """[count] int32 ids, up to count + 1, of units of one width, end to end.

    The first is cut at a random place, so that borders fall anywhere; at a whole number of strides,
    so that units as wide as a few patches stay on them.
    """
    phase = jax.random.randint(key, (), 0, max(1, width // stride)) * stride
    return 1 + (jnp.arange(count) + phase) // width
