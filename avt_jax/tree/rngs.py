"""Keys for random numbers while a model is traced."""

from __future__ import annotations

import jax
from flax import nnx


class CountedRngs(nnx.Rngs):
    """The keys of `nnx.Rngs(key)`, drawn from one stream; the count is Python's, not an array.

    Tracing an initialisation or a step is several times faster: each draw from `nnx.Rngs` updates
    an array, for which JAX looks through all that has been traced so far.

    Args:
      key: PRNG key, or a seed.
    """

    def __init__(self, key: jax.Array | int):
        self._key = nnx.data(jax.random.key(key) if isinstance(key, int) else key)
        self._count = 0

    def __call__(self) -> jax.Array:
        """The next key."""
        key = jax.random.fold_in(self._key, self._count)
        self._count += 1
        return key

    def params(self) -> jax.Array:
        """The next key, for an initial weight."""
        return self()

    def dropout(self) -> jax.Array:
        """The next key, for a drop path."""
        return self()
