"""The training step: one pure function, jitted once over the mesh."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from avt_jax import tree
from avt_jax.losses.interface import Metrics
from avt_jax.losses.objective import Objective
from avt_jax.models.forward import Forward, Hide, Normalisation
from avt_jax.training import mesh as meshes
from avt_jax.training.mixing import Mix
from avt_jax.training.optimizer.hold import Hold
from avt_jax.training.processes.agree import read_notes
from avt_jax.training.state import TrainState
from avt_jax.training.step.accumulate import MIXING, Accumulated, Divide, Gradient
from avt_jax.training.step.held import until_release
from avt_jax.tree.stacks import Packing

TrainStep = Callable[[TrainState, dict[str, Any], jax.Array], tuple[TrainState, Metrics]]


def make_train_step(
    skeleton: tree.Skeleton[Any],
    objective: Objective,
    optimizer: optax.GradientTransformation,
    normalisation: Normalisation,
    *,
    ema_decay: float,
    hide: Mapping[str, Hide] | None = None,
    shared_pass: bool = False,
    mix: Mix | None = None,
    accumulate: int = 1,
    hold: Hold | None = None,
) -> TrainStep:
    """Builds the pure (not yet jitted) function (state, batch, key) -> (state, metrics).

    The key is folded with the state's step, so a resumed run draws what the uninterrupted one did.
    BatchNorm sees the whole batch, or micro-batch: under `jit` on a mesh its statistics are global.

    Args:
      skeleton: the model's structure.
      objective: named, weighted loss terms.
      optimizer: optax transformation over the flat parameters that are trained.
      normalisation: how raw pixels and log-mels become model input.
      ema_decay: in [0, 1); 0 = no averaged parameters.
      hide: {modality: how to choose what is hidden}, for the reconstruction terms.
      shared_pass: see `models.forward.Forward`.
      mix: mixes the clips of a batch with each other, from `training.mixing.make_mix`.
      accumulate: micro-batches that a batch is cut into, see `step.accumulate`.
      hold: what is not trained at first; the optimiser's, too.
    """
    packing = skeleton.packing
    gradient: Gradient = functools.partial(
        _at_once, skeleton, objective, normalisation, hide, shared_pass, mix
    )
    if accumulate > 1:
        more: dict[str, Any] = dict(hide=hide, shared_pass=shared_pass, mix=mix)
        gradient = Accumulated(skeleton, objective, normalisation, number=accumulate, **more)
    if hold:
        gradient = until_release(gradient, hold)

    def train_step(
        state: TrainState, batch: dict[str, Any], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        own_key = jax.random.fold_in(key, state.step)
        grads, metrics, stats = gradient(state, batch, own_key, packing.divide)
        grads = packing.masked(grads)
        trained, frozen = packing.divide(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        params = frozen | optax.apply_updates(trained, updates)
        ema = _averaged(state.ema, params, ema_decay, skeleton.packing)
        metrics |= {"grad_norm": (optax.tree.norm(grads), jnp.float32(1))} | read_notes(batch)
        state = replace(
            state, step=state.step + 1, params=params, stats=stats, ema=ema, opt_state=opt_state
        )
        return state, metrics

    return train_step


def _averaged(ema: tree.Flat, params: tree.Flat, decay: float, packing: Packing) -> tree.Flat:
    """The new average of the parameters; of what is frozen it is what it was, to the bit."""
    if not ema:
        return {}
    (before, frozen), (trained, _) = packing.divide(ema), packing.divide(params)
    found: tree.Flat = optax.incremental_update(trained, before, 1 - decay)
    return frozen | found


def _at_once(
    skeleton: tree.Skeleton[Any],
    objective: Objective,
    normalisation: Normalisation,
    hide: Mapping[str, Hide] | None,
    shared_pass: bool,
    mix: Mix | None,
    state: TrainState,
    batch: Mapping[str, Any],
    key: jax.Array,
    divide: Divide,
) -> tuple[tree.Flat, Metrics, tree.Flat]:
    """(gradient, metrics, new running statistics) of a batch; `key` is the step's."""
    if mix:
        batch = mix(batch, jax.random.fold_in(key, MIXING))

    trained, frozen = divide(state.params)

    def loss_fn(trained: tree.Flat) -> tuple[jax.Array, tuple[Metrics, tree.Flat]]:
        model = skeleton.merge(trained | frozen, state.stats)
        forward = Forward(
            model,
            batch,
            normalisation,
            train=True,
            key=key,
            hide=hide,
            shared_pass=shared_pass,
        )
        loss, metrics = objective(forward, batch, state.step)
        return loss, (metrics, skeleton.statistics(model, like=state.params))

    grads, (metrics, stats) = jax.grad(loss_fn, has_aux=True)(trained)
    return grads, metrics, stats


def jit_train_step(train_step: TrainStep, shardings: TrainState, mesh: Mesh) -> TrainStep:
    """Jits a train step with its shardings; the old state's memory is reused for the new one."""
    everywhere = meshes.replicated(mesh)
    return jax.jit(
        meshes.within(mesh, train_step),
        in_shardings=(shardings, meshes.batch_sharding(mesh), everywhere),
        out_shardings=(shardings, everywhere),
        donate_argnums=0,
    )


class PackedStep:
    """A jitted training step that keeps the state packed between its calls.

    Towers of equal layers are one array for each of a layer's parameters, and run as a loop; small
    arrays are one: there is less to trace, to compile and to hand to the device. A state goes in
    and comes out packed; `pack` and `unpack` change its form.

    Args:
      train_step: from `make_train_step`.
      packing: `skeleton.packing` of the same skeleton.
      shardings: of the state as it is saved.
      abstract: shapes of the state as it is saved.
      mesh: from `make_mesh`.
      config: of the mesh.
    """

    def __init__(
        self,
        train_step: TrainStep,
        packing: Packing,
        shardings: TrainState,
        abstract: TrainState,
        mesh: Mesh,
        config: meshes.MeshConfig,
    ):
        pack, unpack = (_on_dictionaries(f) for f in (packing.pack, packing.unpack))
        packed = jax.eval_shape(pack, abstract)
        self.shardings = meshes.variable_shardings(mesh, packed, config, packing)
        self.pack = meshes.run_once(pack, mesh, self.shardings)
        self.unpack = meshes.run_once(unpack, mesh, shardings)
        self.jitted = jit_train_step(train_step, self.shardings, mesh)

    def __call__(
        self, state: TrainState, batch: dict[str, Any], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """(packed state, batch, key) -> (packed state, metrics)."""
        return self.jitted(state, batch, key)


def as_it_is(state: TrainState) -> TrainState:
    """The same state: of a step that takes it in the form in which it is saved."""
    return state


def _on_dictionaries(
    function: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> Callable[[TrainState], TrainState]:
    """Applied to every flat dictionary in a state, the optimiser's moments among them."""

    def is_flat(node: Any) -> bool:
        return isinstance(node, dict)

    def apply(state: TrainState) -> TrainState:
        return jax.tree.map(lambda n: function(n) if is_flat(n) else n, state, is_leaf=is_flat)

    return apply
