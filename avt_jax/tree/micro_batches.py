"""A batch in micro-batches: which clips each has, and what is drawn at random for them.

A clip draws the same numbers whichever micro-batch it is in: they are its part of what the whole
batch draws.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec


@dataclass(frozen=True)
class MicroBatch:
    """One of the parts of a batch.

    Runs of neighbouring clips are dealt out in turn: the first to the first micro-batch, the next
    to the next. So every device has as much of each micro-batch, and which clips meet in one does
    not depend on the devices.

    Attributes:
      index: int32 scalar, which of them.
      number: how many there are.
      clips: in the whole batch; a multiple of `number * run`.
      run: clips that stay together.
    """

    index: jax.Array
    number: int
    clips: int
    run: int = 1

    def take(self, x: jax.Array, axis: int = 0) -> jax.Array:
        """This part of an array of the whole batch, in the same order.

        Args:
          x: along `axis` one or several entries for each clip, those of a clip side by side.
          axis: that of the batch.
        """
        before, length, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
        run = length // self.clips * self.run
        dealt = x.reshape(*before, length // (self.number * run), self.number, run, *after)
        part = jax.lax.dynamic_index_in_dim(dealt, self.index, axis + 1, keepdims=False)
        return part.reshape(*before, length // self.number, *after)

    def place(self, x: jax.Array) -> jax.Array:
        """The same array, its first axis split over all devices of the mesh of the context."""
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty:
            return x
        return jax.lax.with_sharding_constraint(x, PartitionSpec(mesh.axis_names))


def together(x: jax.Array, clips: int, run: int) -> jax.Array:
    """What `MicroBatch.take` took apart: [micro-batches, part of the batch, ...] to [batch, ...].

    Args:
      x: the parts, one after another.
      clips: in the whole batch.
      run: clips that stay together.
    """
    number, length = x.shape[:2]
    entries = length * number // clips * run
    dealt = x.reshape(number, length // entries, entries, *x.shape[2:])
    return jnp.moveaxis(dealt, 0, 1).reshape(number * length, *x.shape[2:])


_CURRENT: ContextVar[MicroBatch | None] = ContextVar("micro-batch", default=None)


@contextlib.contextmanager
def drawing_for(part: MicroBatch) -> Iterator[None]:
    """What is traced within draws for this part of a batch."""
    token = _CURRENT.set(part)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def per_clip(draw: Callable[[int], jax.Array], length: int) -> jax.Array:
    """Random numbers with one or several entries for each clip.

    Args:
      draw: number of entries -> [entries, ...]; from a key that all micro-batches share.
      length: entries that are wanted.
    """
    part = _CURRENT.get()
    return draw(length) if part is None else part.take(draw(length * part.number))


def per_pair(draw: Callable[[int], jax.Array], length: int) -> jax.Array:
    """Random numbers for each pair of clips.

    Args:
      draw: number of clips -> [clips, clips].
      length: clips for which they are wanted.
    """
    part = _CURRENT.get()
    if part is None:
        return draw(length)
    return part.take(part.take(draw(length * part.number)), axis=1)
