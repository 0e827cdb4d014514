"""The gradient of a training that holds a part of its parameters at first.

Both gradients are in one program, and the step decides which is computed. That of the first part
differentiates nothing that is held, so there is no backward pass through an encoder that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from avt_jax import tree
from avt_jax.losses.interface import Metrics
from avt_jax.training.optimizer.hold import Hold
from avt_jax.training.state import TrainState
from avt_jax.training.step.accumulate import Divide, Gradient

_Found = tuple[tree.Flat, Metrics, tree.Flat]


def until_release(gradient: Gradient, hold: Hold) -> Gradient:
    """The same gradient, but 0 for what is held while it is.

    Args:
      gradient: of what a division of the parameters gives first.
      hold: what is held, and how long.
    """
    packing = hold.packing

    def whole(state: TrainState, batch: Mapping[str, Any], key: jax.Array) -> _Found:
        return gradient(state, batch, key, packing.divide)

    def divide(params: Mapping[str, Any]) -> tuple[tree.Flat, tree.Flat]:
        trained, others = packing.divide(params)
        held = {path: x for path, x in trained.items() if hold.is_still(path, x.ndim)}
        return {path: x for path, x in trained.items() if path not in held}, others | held

    def of_others(state: TrainState, batch: Mapping[str, Any], key: jax.Array) -> _Found:
        # An entry of all small parameters would be differentiated as one: it is opened.
        packed = packing.is_packed(state.params)
        if packed:
            opened = (packing.open(state.params), packing.open(state.stats))
            state = replace(state, params=opened[0], stats=opened[1])
        grads, metrics, stats = gradient(state, batch, key, divide)
        for path, one in packing.divide(state.params)[0].items():
            # A tower may be held in part, and has one entry.
            nothing = jnp.zeros_like(one)
            grads[path] = hold.choose(path, nothing, grads[path]) if path in grads else nothing
        if packed:
            grads, stats = packing.close(grads), packing.close(stats)
        return grads, metrics, stats

    def found(state: TrainState, batch: Mapping[str, Any], key: jax.Array, _: Divide) -> _Found:
        is_held = state.step < hold.steps
        made: _Found = jax.lax.cond(is_held, of_others, whole, state, batch, key)
        return made

    return found
