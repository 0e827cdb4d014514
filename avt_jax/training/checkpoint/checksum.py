"""Sums over arrays that tell whether they are what was saved."""

from __future__ import annotations

import functools
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from avt_jax.training.mesh import quick_to_compile

_WORD = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}
_SMALL_WORDS = 2**18


def checksums(state: Mapping[str, Any]) -> dict[str, int]:
    """{part: sum of its arrays}; the same on every mesh.

    Args:
      state: {part: tree of arrays}.
    """
    jitted = _jitted_checksum(jax.default_backend())
    return {name: int(jitted(part)) for name, part in state.items()}


def checksum(tree: Any) -> jax.Array:
    """The sum of a tree of arrays, uint32."""
    # Small arrays of one size are summed up together: there are hundreds, and each sum on its own
    # is a loop to compile.
    groups: dict[Any, list[tuple[int, jax.Array]]] = defaultdict(list)
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        leaf = jnp.asarray(leaf)
        words = jax.lax.bitcast_convert_type(leaf, _WORD[leaf.dtype.itemsize]).reshape(-1)
        name = jax.tree_util.keystr(key_path)
        together = words.size if words.size <= _SMALL_WORDS else name
        groups[together].append((zlib.crc32(name.encode()), words.astype(jnp.uint32)))
    total = jnp.uint32(0)
    for group in groups.values():
        names = jnp.array([name for name, _ in group], jnp.uint32)
        stacked = jnp.stack([words for _, words in group])
        # Odd weights by position, so that swapped or moved values are noticed; sums of integers
        # wrap around and do not depend on the order, so every mesh gives the same number.
        weights = jnp.arange(stacked.shape[1], dtype=jnp.uint32) * jnp.uint32(2654435762) + 1
        sums = (stacked * weights).sum(1, dtype=jnp.uint32)
        total += (sums ^ names).sum(dtype=jnp.uint32)
    return total


@functools.cache
def _jitted_checksum(platform: str) -> Callable[[Any], jax.Array]:
    return jax.jit(checksum, compiler_options=quick_to_compile(platform))
