"""The training objective: named terms, each with its own weight.

A new loss is a module beside this one, which has a `Term`, and a line in `TERMS`. A term whose
weight is 0 is not called, so neither its computation nor what only it needs of the model is traced.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from avt_jax import axes
from avt_jax.errors import UserError, nearest
from avt_jax.losses import classification, contrastive, matching, reconstruction
from avt_jax.losses.interface import Batch, Forward, Metrics, Term
from avt_jax.settings import Block, setting

# {name: (term, default weight)}. A new loss is one line here.
TERMS: dict[str, tuple[Term, float]] = {
    "classification": (classification.TERM, 1.0),
    "contrastive": (contrastive.TERM, 0.5),
    "matching": (matching.TERM, 0.1),
    "masked_audio": (reconstruction.AUDIO, 0.01),
    "masked_video": (reconstruction.VIDEO, 0.0),
}
_WARMUP = "the weights of all terms but classification grow from 0"
_MODALITIES = {"av": ("video", "audio"), "video": ("video",), "audio": ("audio",)}


def _options() -> tuple[type[Block], ...]:
    """The terms' own fields, without a block that another one extends; the first term's last."""
    found = {term.options for term, _ in TERMS.values() if term.options is not None}
    extended = {one for one in found for other in found - {one} if issubclass(other, one)}
    order = [term.options for term, _ in TERMS.values()]
    return tuple(sorted(found - extended, key=order.index, reverse=True))


@dataclass(frozen=True)
class Weights(Block, where="config.losses"):
    """What all terms have: weights, and their growth at the start."""

    weights: Mapping[str, float] = setting(
        {name: weight for name, (_, weight) in TERMS.items()},
        "weight of each term; 0 switches it off, and one that is not given has its default",
        at_least=0,
    )
    warmup_steps: int = setting(0, f"{_WARMUP}, in steps; 0 = not given", at_least=0)
    warmup_examples: int = setting(0, f"{_WARMUP}, in clips seen; 0 = not given", at_least=0)
    warmup_epochs: float = setting(
        0.0, f"{_WARMUP}, in passes over the training split; 0 = not given", at_least=0
    )

    def check(self) -> None:
        """Refuses unknown terms and fills in what is not given."""
        for name in self.weights:
            if name not in TERMS:
                raise UserError(
                    f"config.losses.weights.{name} is not a known loss{nearest(name, TERMS)}; "
                    f"known: {', '.join(TERMS)}."
                )
        missing = {name: w for name, (_, w) in TERMS.items() if name not in self.weights}
        object.__setattr__(self, "weights", {**self.weights, **missing})


# The bases are whatever the registry names, which a type checker cannot know.
@dataclass(frozen=True)
class ObjectiveConfig(*_options(), Weights, where="config.losses"):  # type: ignore[misc]
    """The config block `losses`: weights, and the fields of every term."""

    def check(self) -> None:
        """What each of the parts refuses."""
        for part in ObjectiveConfig.__bases__:
            part.check(self)


def saved_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights that an earlier run has saved, for `ObjectiveConfig`.

    A term that it does not name did not exist then, so its weight was 0.
    """
    return dict.fromkeys(TERMS, 0.0) | dict(weights)


class Objective:
    """Weighted sum of the active terms.

    Args:
      config: weights and the terms' settings.
      modalities: "av", "audio" or "video"; terms that need one that is missing are left out
        (`skipped` names them).
      abilities: what the model can do, as `models.build.abilities` gives it; None = everything.
      warmup_steps: in which the weights of all terms but classification grow from 0.
      class_weights: {label set: [y]} for the classification, see `classification_loss`.

    Raises:
      UserError: no term is left to train on, or one that the model has nothing for.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        *,
        modalities: str = "av",
        abilities: Collection[str] | None = None,
        warmup_steps: int = 0,
        class_weights: Mapping[str, np.ndarray] | None = None,
    ):
        self.config = config
        self.class_weights = dict(class_weights or {})
        self.warmup_steps = warmup_steps
        wanted = {name: weight for name, weight in config.weights.items() if weight > 0}
        present = set(_MODALITIES[modalities])
        self.skipped = tuple(n for n in wanted if not set(TERMS[n][0].modalities) <= present)
        self.weights = {n: float(w) for n, w in wanted.items() if n not in self.skipped}
        for name, weight in self.weights.items():
            term, _ = TERMS[name]
            if term.needs and abilities is not None and term.needs not in abilities:
                raise UserError(
                    f"config.losses.weights.{name} is {weight:g}, but this model cannot "
                    f"{term.needs}; {term.advice}give 0."
                )
        if not self.weights:
            raise UserError(
                f"no loss is left for modalities={modalities!r} with config.losses.weights = "
                f"{dict(config.weights)}; give at least one term that applies a positive weight."
            )

    @property
    def hides(self) -> tuple[str, ...]:
        """Modalities of which an active term hides a part."""
        return tuple(sorted({TERMS[name][0].hides for name in self.weights} - {""}))

    @property
    def of_whole_batch(self) -> tuple[str, ...]:
        """Active terms that compare all clips of a batch."""
        return tuple(name for name in self.weights if TERMS[name][0].whole_batch)

    @property
    def neighbours(self) -> int:
        """Neighbouring clips of a batch that active terms compare with each other; 0 = all."""
        groups = (TERMS[name][0].neighbours for name in self.weights)
        return math.lcm(*(group(self.config) for group in groups if group is not None))

    def __call__(
        self, forward: Forward, batch: Batch, step: jax.Array | int = 0
    ) -> tuple[jax.Array, Metrics]:
        """Computes the total loss and every term's metrics.

        Args:
          forward: the model's work on the batch, computed lazily.
          batch: see `avt_jax.axes`.
          step: optimiser steps done, for the warm-up of the weights.

        Returns:
          (loss, metrics): float32 scalar; {name: (sum, count)} with "loss" for the total.
        """
        metrics = self.metrics(forward, batch, tuple(self.weights))
        total = self.total(metrics, step)
        return total, metrics | {"loss": (total, jnp.float32(1))}

    def metrics(self, forward: Forward, batch: Batch, terms: Collection[str]) -> Metrics:
        """What some of the active terms give.

        Args:
          forward: as for a call.
          batch: the same.
          terms: their names.
        """
        metrics: Metrics = {}
        if self.class_weights:
            batch = {**batch, axes.CLASS_WEIGHTS: jax.tree.map(jnp.asarray, self.class_weights)}
        for name in self.weights:
            if name in terms:
                metrics |= TERMS[name][0].compute(forward, batch, self.config)
        return metrics

    def total(
        self,
        sums: Metrics,
        step: jax.Array | int = 0,
        counts: Mapping[str, jax.Array] | None = None,
    ) -> jax.Array:
        """The weighted sum of those active terms that are given, float32.

        Args:
          sums: {name: (sum, count)}.
          step: optimiser steps done, for the warm-up of the weights.
          counts: {name: count} to divide by, where the sums are of a part of the batch.
        """
        ramp: jax.Array | float = 1.0
        if self.warmup_steps:
            ramp = jnp.minimum(step / self.warmup_steps, 1.0)
        total = jnp.float32(0)
        for name, weight in self.weights.items():
            if name in sums:
                loss_sum, count = sums[name]
                scale = weight if name == "classification" else weight * ramp
                number = counts[name] if counts else count
                # The weights of a batch's classes may add up to less than 1.
                total += scale * loss_sum / jnp.where(number > 0, number, 1)
        return total
