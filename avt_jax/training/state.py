"""The training state, and how it is born on the mesh."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from avt_jax import tree
from avt_jax.training import mesh as meshes


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["step", "params", "stats", "ema", "opt_state"],
    meta_fields=[],
)
@dataclass(frozen=True)
class TrainState:
    """All that a training step reads and writes; a plain pytree.

    Attributes:
      step: int32 scalar, optimiser steps done.
      params: {path: array} trained parameters, float32.
      stats: {path: array} BatchNorm running statistics.
      ema: {path: array} averaged parameters; {} when averaging is off.
      opt_state: optax state.
    """

    step: Any
    params: dict[str, Any]
    stats: dict[str, Any]
    ema: dict[str, Any]
    opt_state: Any


def create_state(
    build: Callable[[jax.Array], nnx.Module],
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    *,
    with_ema: bool,
) -> TrainState:
    """Makes the initial state.

    Args:
      build: PRNG key -> model.
      optimizer: optax transformation over flat parameters.
      key: PRNG key for the initial parameters.
      with_ema: start an average of the parameters.
    """
    params, stats = tree.split(build(key))
    return TrainState(
        step=jnp.int32(0),
        params=params,
        stats=stats,
        # A copy: the step donates its input, and one buffer cannot be donated twice.
        ema=jax.tree.map(jnp.copy, params) if with_ema else {},
        opt_state=optimizer.init(params),
    )


@dataclass(frozen=True)
class Birth:
    """How the initial state is made, directly in its place on the mesh.

    Attributes:
      build: PRNG key -> model.
      optimizer: optax transformation over flat parameters.
      with_ema: start an average of the parameters.
      mesh: whose devices hold it.
      config: of the mesh.
    """

    build: Callable[[jax.Array], nnx.Module]
    optimizer: optax.GradientTransformation
    with_ema: bool
    mesh: Mesh
    config: meshes.MeshConfig

    def _create(self, key: jax.Array) -> TrainState:
        return create_state(self.build, self.optimizer, key, with_ema=self.with_ema)

    @cached_property
    def shapes(self) -> TrainState:
        """Its shapes; nothing is computed for them."""
        found: TrainState = jax.eval_shape(self._create, jax.random.key(0))
        return found

    @cached_property
    def shardings(self) -> TrainState:
        """Where its arrays go."""
        found: TrainState = meshes.variable_shardings(self.mesh, self.shapes, self.config)
        return found

    def state(self, key: jax.Array) -> TrainState:
        """The state with random weights; `key` is for these."""
        made: TrainState = meshes.run_once(self._create, self.mesh, self.shardings)(key)
        return made


def with_variables(
    state: TrainState, shardings: TrainState, variables: Mapping[str, Any]
) -> TrainState:
    """Replaces parameters and statistics by given ones; an average of parameters starts there too.

    Args:
      state: a fresh state on the mesh.
      shardings: its shardings.
      variables: {path: array} on the host; what is not among them stays.
    """

    def replaced(group: str) -> dict[str, Any]:
        places = getattr(shardings, group)
        # Never the host's own memory: the step donates the state, and parameters and their average
        # would be one buffer.
        given = {
            path: jax.device_put(
                np.asarray(variables[path], old.dtype), places[path], may_alias=False
            )
            for path, old in getattr(state, group).items()
            if path in variables
        }
        return getattr(state, group) | given

    return replace(state, **{group: replaced(group) for group in ("params", "stats", "ema")})
