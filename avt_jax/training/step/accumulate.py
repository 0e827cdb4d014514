"""The gradient of a batch that is gone through in micro-batches.

A first loop computes, without gradient, what a micro-batch cannot know: how many clips, pairs and
hidden patches each mean is over, and, for terms that compare all clips, every embedding. Their loss
gives the gradient at the embeddings. A second loop adds up the gradients of the micro-batches: of
the other terms, and of the product of their embeddings with that gradient.

Source: GradCache, arXiv:2101.06983.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from avt_jax import axes, tree
from avt_jax.errors import UserError
from avt_jax.losses.interface import Metrics
from avt_jax.losses.objective import Objective
from avt_jax.models.forward import Forward, Hide, Normalisation
from avt_jax.training.mixing import Mix
from avt_jax.training.state import TrainState
from avt_jax.tree.micro_batches import MicroBatch, drawing_for, together

# A use of the step's key like those of `models.forward.Forward.key`, and beyond them.
MIXING = 2**31 + 4

# Parameters -> (those to differentiate, the others).
Divide = Callable[[Mapping[str, Any]], tuple[tree.Flat, tree.Flat]]
# (state, batch, the step's key, how to divide its parameters) -> (gradient, metrics, new running
# statistics).
Gradient = Callable[
    [TrainState, Mapping[str, Any], jax.Array, Divide], tuple[tree.Flat, Metrics, tree.Flat]
]
_Embeddings = tuple[jax.Array, jax.Array]


def check_micro_batches(number: int, clips: int, devices: int, neighbours: int) -> None:
    """Makes sure that a batch can be cut into micro-batches.

    Args:
      number: of micro-batches.
      clips: in the batch, over all devices.
      devices: of the mesh.
      neighbours: clips that must stay together, from `Objective.neighbours`.

    Raises:
      UserError: it cannot.
    """
    field = f"config.train.accumulate is {number}"
    if number == 1:
        return
    if clips % number:
        raise UserError(
            f"{field}, which does not divide the batch of {clips} clips; set "
            "config.train.batch_size to a multiple of it."
        )
    part = clips // number
    if part % devices:
        raise UserError(
            f"{field}, and micro-batches of {part} clips do not divide over {devices} devices; set "
            f"config.train.batch_size to a multiple of {number * devices}, or accumulate less."
        )
    if not neighbours or part % neighbours:
        raise UserError(
            f"{field}, and matching mines among "
            f"{f'{neighbours} neighbouring' if neighbours else 'all'} clips, which micro-batches "
            f"of {part} would take apart; set config.losses.matching_group to a divisor of {part} "
            "that is 2 or more, or config.losses.weights.matching to 0."
        )


class Accumulated:
    """A `Gradient`.

    The same as of the whole batch at once, draws included, but for BatchNorm in training: each
    micro-batch is normalised by its own statistics, and the new running ones are the mean of what
    the micro-batches give.

    Args:
      skeleton, objective, normalisation, hide, shared_pass, mix: as for `make_train_step`.
      number: of micro-batches.
    """

    def __init__(
        self,
        skeleton: tree.Skeleton[Any],
        objective: Objective,
        normalisation: Normalisation,
        *,
        number: int,
        hide: Mapping[str, Hide] | None,
        shared_pass: bool,
        mix: Mix | None,
    ):
        self._skeleton, self._objective = skeleton, objective
        self._normalisation, self._number = normalisation, number
        self._hide, self._shared_pass, self._mix = dict(hide or {}), shared_pass, mix
        self._whole = objective.of_whole_batch
        self._own = tuple(name for name in objective.weights if name not in self._whole)

    def __call__(
        self, state: TrainState, batch: Mapping[str, Any], key: jax.Array, divide: Divide
    ) -> tuple[tree.Flat, Metrics, tree.Flat]:
        """Raises UserError where the batch cannot be cut."""
        clips, run = len(batch[axes.VALID]), self._objective.neighbours
        mesh = jax.sharding.get_abstract_mesh()
        check_micro_batches(self._number, clips, 1 if mesh.empty else mesh.size, run)
        parts = MicroBatch(jnp.int32(0), self._number, clips, run)
        trained, frozen = divide(state.params)
        whole = self._forward(None, batch, key, self._hide)
        hidden = {name: whole.hidden(name) for name in self._hide}

        def forward(trained: tree.Flat, index: jax.Array) -> tuple[Any, Forward, Mapping[str, Any]]:
            model = self._skeleton.merge(trained | frozen, state.stats)
            part = replace(parts, index=index)
            own = self._cut(part, batch, key)
            hide = {name: _chosen(part, found) for name, found in hidden.items()}
            return model, self._forward(model, own, key, hide), own

        counts, embeddings = self._look(forward, trained, parts)
        grads, at_embeddings, metrics = self._of_whole(state, batch, key, divide, embeddings)

        def loss_fn(
            trained: tree.Flat, index: jax.Array
        ) -> tuple[jax.Array, tuple[Metrics, tree.Flat]]:
            part = replace(parts, index=index)
            model, work, own = forward(trained, index)
            with drawing_for(part):
                found = self._objective.metrics(work, own, self._own)
                loss = self._objective.total(found, state.step, counts)
                if at_embeddings is not None:
                    pairs = zip(work.embeddings, at_embeddings, strict=True)
                    loss += sum(_product(z_md, part.take(grad_bd)) for z_md, grad_bd in pairs)
            return loss, (found, self._skeleton.statistics(model, like=state.params))

        def add(grads: tree.Flat, index: jax.Array) -> tuple[tree.Flat, tuple[Metrics, tree.Flat]]:
            more, found = jax.grad(loss_fn, has_aux=True)(trained, index)
            return jax.tree.map(jnp.add, grads, more), found

        grads, (found, stats) = jax.lax.scan(add, grads, jnp.arange(self._number))
        metrics = jax.tree.map(lambda x: x.sum(0), found) | metrics
        total = self._objective.total(metrics, state.step)
        metrics |= {"loss": (total, jnp.float32(1))}
        return grads, metrics, jax.tree.map(lambda x: x.mean(0), stats)

    def _forward(
        self, model: Any, batch: Mapping[str, Any], key: jax.Array, hide: Mapping[str, Hide]
    ) -> Forward:
        return Forward(
            model,
            batch,
            self._normalisation,
            train=True,
            key=key,
            hide=hide,
            shared_pass=self._shared_pass,
        )

    def _cut(self, part: MicroBatch, batch: Mapping[str, Any], key: jax.Array) -> Mapping[str, Any]:
        """A micro-batch, mixed if clips are to be mixed."""
        own = jax.tree.map(lambda x: part.place(part.take(x)), dict(batch))
        if self._mix is None:
            return own
        # The batch backwards: its last micro-batch is the first one's partner.
        other = replace(part, index=self._number - 1 - part.index)
        partners = jax.tree.map(lambda x: part.place(other.take(x)[::-1]), dict(batch))
        return self._mix(own, jax.random.fold_in(key, MIXING), partners=partners)

    def _look(
        self, forward: Callable[..., Any], trained: tree.Flat, parts: MicroBatch
    ) -> tuple[dict[str, jax.Array], _Embeddings | None]:
        """(counts of the batch, embeddings of the batch if a term needs them), without gradient.

        Only what these need of the model is left in the compiled program.
        """

        def look(nothing: None, index: jax.Array) -> tuple[None, Any]:
            _, work, own = forward(trained, index)
            with drawing_for(replace(parts, index=index)):
                found = self._objective.metrics(work, own, self._own)
                counts = {name: found[name][1] for name in self._own}
                return nothing, (counts, work.embeddings if self._whole else None)

        _, (counts, pieces) = jax.lax.scan(look, None, jnp.arange(self._number))
        counts = jax.tree.map(lambda x: x.sum(0), counts)
        joined = jax.tree.map(lambda x: parts.place(together(x, parts.clips, parts.run)), pieces)
        return counts, joined

    def _of_whole(
        self,
        state: TrainState,
        batch: Mapping[str, Any],
        key: jax.Array,
        divide: Divide,
        embeddings: _Embeddings | None,
    ) -> tuple[tree.Flat, _Embeddings | None, Metrics]:
        """(gradient at the parameters, at the embeddings, metrics) of the terms of all clips."""
        trained, frozen = divide(state.params)
        if embeddings is None:
            return jax.tree.map(jnp.zeros_like, trained), None, {}

        def loss_fn(trained: tree.Flat, embeddings: _Embeddings) -> tuple[jax.Array, Metrics]:
            model = self._skeleton.merge(trained | frozen, state.stats)
            work = self._forward(model, batch, key, {})
            work.embeddings = embeddings  # in place of computing them
            found = self._objective.metrics(work, batch, self._whole)
            return self._objective.total(found, state.step), found

        made = jax.grad(loss_fn, argnums=(0, 1), has_aux=True)(trained, embeddings)
        (grads, at_embeddings), metrics = made
        return grads, at_embeddings, metrics


def _chosen(part: MicroBatch, found: tuple[jax.Array, jax.Array]) -> Hide:
    """Hides in a micro-batch what was chosen for the whole batch: (masked [b, n], fallback [b])."""
    masked_bn, fallback_b = (part.take(x) for x in found)
    return lambda batch, key: (masked_bn, fallback_b)


def _product(z_md: jax.Array, grad_md: jax.Array) -> jax.Array:
    wide = jnp.promote_types(z_md.dtype, jnp.float32)
    return (z_md.astype(wide) * grad_md.astype(wide)).sum()
