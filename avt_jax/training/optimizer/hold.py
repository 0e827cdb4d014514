"""Parameters that are held in the first part of a training, and let go after it.

While they are held their gradient is 0 (`training.step.held`), so their moments stay 0. What is
here sees to it that they begin, when they are let go, as in a training that begins then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from avt_jax.tree.stacks import Packing

_ADAM_EPS = 1e-8  # Optax's


@dataclass(frozen=True)
class Hold:
    """What is held, and how long; a function of the step alone, so a run goes on exactly.

    Attributes:
      held: {flat path: 1 for what is held, else 0} of all parameters.
      still: the same, with 1 for what is frozen, too.
      packing: of the same model.
      steps: of the part in which it is held, 1 or more.
      ramp_steps: after it, until its learning rate is that of all else; 0 = at once.
    """

    held: Mapping[str, float]
    still: Mapping[str, float]
    packing: Packing
    steps: int
    ramp_steps: int

    def rate(self, step: Any) -> jax.Array:
        """What multiplies the learning rate of what is held, float32 scalar.

        Args:
          step: int scalar, optimiser steps done.
        """
        return jnp.clip((step + 1 - self.steps) / max(self.ramp_steps, 1), 0.0, 1.0)

    def begins(self) -> dict[str, int]:
        """{flat path: the step from which on a parameter is trained}."""
        return {path: self.steps if held else 0 for path, held in self.held.items()}

    def share(self, path: str, ndim: int) -> float | np.ndarray:
        """1 where an entry (flat, stacked or packed) of `ndim` dimensions is held, else 0."""
        return self.packing.spread(self.held, path, ndim)

    def is_still(self, path: str, ndim: int) -> bool:
        """Whether nothing of an entry is trained until the release."""
        return bool(np.all(self.packing.spread(self.still, path, ndim)))

    def choose(self, path: str, held: jax.Array, other: jax.Array) -> jax.Array:
        """An entry with the values of `held` where it is held, those of `other` elsewhere."""
        share = self.share(path, other.ndim)
        if isinstance(share, float):
            return held if share else other
        return jnp.where(share > 0, held, other)


def adam_from_release(
    adam: optax.GradientTransformation, hold: Hold, *, b1: float, b2: float
) -> optax.GradientTransformation:
    """`optax.scale_by_adam` whose moments are corrected from where they began to be more than 0.

    The count, and with it the form of the state, is one for all parameters. Corrected by it, the
    moments of the first steps after the release would be taken for means of many steps: with the
    usual decays the updates would be up to six times too large.

    Args:
      adam: with these decays and Optax's epsilon.
      hold: what is held, and how long.
      b1, b2: decays of the moments.
    """

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = adam.update(grads, state, params)
        since = jnp.maximum(state.count - hold.steps, 1)
        whole, own = 1 - b2**state.count, 1 - b2**since
        first = (1 - b1**state.count) / (1 - b1**since)

        def corrected(path: str, update: jax.Array) -> jax.Array:
            # The epsilon stands beside the root, so what the root should have been is made anew.
            nu = state.nu[path]
            ratio = (jnp.sqrt(nu / whole) + _ADAM_EPS) / (jnp.sqrt(nu / own) + _ADAM_EPS)
            return hold.choose(path, update * first * ratio, update)

        return {path: corrected(path, update) for path, update in updates.items()}, state

    return optax.GradientTransformation(adam.init, update)


def rate_from_release(
    by_rate: optax.GradientTransformation, hold: Hold
) -> optax.GradientTransformation:
    """`optax.scale_by_learning_rate` of a schedule, with the ramp of what is held, and 0 before it.

    What is added to the update before, such as decay, is held, too.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        rate = hold.rate(state.count)
        ramped = {path: hold.choose(path, rate * one, one) for path, one in updates.items()}
        return by_rate.update(ramped, state, params)

    return optax.GradientTransformation(by_rate.init, update)
