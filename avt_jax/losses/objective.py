"""The training objective: named terms, each with its own weight.

A new loss is a module beside this one and a line in `TERMS`. A term whose weight is 0 is not
called, so neither its computation nor what only it needs of the model is traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from avt_jax import axes
from avt_jax.errors import UserError, nearest
from avt_jax.losses.classification import classification_loss
from avt_jax.losses.contrastive import contrastive_loss

Metrics = dict[str, tuple[jax.Array, jax.Array]]
Batch = Mapping[str, Any]


class Forward(Protocol):
    """What a term may read of the model's work on a batch; each is computed on first use."""

    @property
    def logits(self) -> dict[str, jax.Array]:
        """{label set: [b, y]} after fusion."""

    @property
    def modality_logits(self) -> Sequence[dict[str, jax.Array]]:
        """Logits of each modality by itself; empty for a model that only has joint ones."""

    @property
    def embeddings(self) -> tuple[jax.Array, jax.Array]:
        """(video, audio) [b, d] L2-normalised projections before fusion."""

    @property
    def log_temperature(self) -> jax.Array:
        """Scalar, learned."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """The config block `losses`.

    Attributes:
      weights: {term: weight >= 0}; 0 switches a term off.
      label_smoothing: in [0, 1).
      temperature_min: lower bound of the contrastive temperature.
      temperature_max: upper bound.
    """

    weights: Mapping[str, float]
    label_smoothing: float
    temperature_min: float
    temperature_max: float

    def __post_init__(self):
        for name, weight in self.weights.items():
            if name not in TERMS:
                raise UserError(
                    f"config.losses.weights.{name} is not a known loss{nearest(name, TERMS)}; "
                    f"known: {', '.join(TERMS)}."
                )
            if not weight >= 0:
                raise UserError(
                    f"config.losses.weights.{name} is {weight}; give 0 (off) or a positive number."
                )
        if not 0 <= self.label_smoothing < 1:
            raise UserError(
                f"config.losses.label_smoothing is {self.label_smoothing}; give a number in [0, 1)."
            )
        if not 0 < self.temperature_min <= self.temperature_max:
            raise UserError(
                f"config.losses.temperature_min {self.temperature_min} and temperature_max "
                f"{self.temperature_max} must satisfy 0 < min <= max."
            )


def _classification(forward: Forward, batch: Batch, config: ObjectiveConfig) -> Metrics:
    def score(logits: dict[str, jax.Array]) -> Metrics:
        return classification_loss(
            logits,
            batch[axes.LABELS],
            batch[axes.VALID],
            label_smoothing=config.label_smoothing,
        )

    metrics = score(forward.logits)
    # A model that classifies each modality (MBT) is trained on the mean of their losses; what it
    # predicts, and is counted by, is the mean of their logits.
    apart = [score(logits)["classification"][0] for logits in forward.modality_logits]
    if apart:
        metrics["classification"] = (sum(apart) / len(apart), metrics["classification"][1])
    return metrics


def _contrastive(forward: Forward, batch: Batch, config: ObjectiveConfig) -> Metrics:
    return contrastive_loss(
        *forward.embeddings,
        forward.log_temperature,
        batch[axes.GROUP],
        batch[axes.VALID] & batch[axes.HAS_AUDIO],
        temperature_min=config.temperature_min,
        temperature_max=config.temperature_max,
    )


TERMS: dict[str, Callable[[Forward, Batch, ObjectiveConfig], Metrics]] = {
    "classification": _classification,
    "contrastive": _contrastive,
}
_NEEDS_BOTH_MODALITIES = ("contrastive",)


class Objective:
    """Weighted sum of the active terms.

    Args:
      config: weights and the terms' settings.
      modalities: "av", "audio" or "video"; terms that compare the two modalities are left out
        when one is missing (`skipped` names them).
      projects: the model has the projections that the contrastive term compares.

    Raises:
      UserError: no term is left to train on, or one that the model has nothing for.
    """

    def __init__(
        self, config: ObjectiveConfig, *, modalities: str = "av", projects: bool = True
    ):
        self.config = config
        wanted = {name: weight for name, weight in config.weights.items() if weight > 0}
        self.skipped = tuple(
            name for name in wanted if modalities != "av" and name in _NEEDS_BOTH_MODALITIES
        )
        self.weights = {n: float(w) for n, w in wanted.items() if n not in self.skipped}
        if "contrastive" in self.weights and not projects:
            raise UserError(
                f"config.losses.weights.contrastive is {self.weights['contrastive']:g}, but this "
                "model has no projections to compare; give 0."
            )
        if not self.weights:
            raise UserError(
                f"no loss is left for modalities={modalities!r} with config.losses.weights = "
                f"{dict(config.weights)}; give at least one term that applies a positive weight."
            )

    def __call__(self, forward: Forward, batch: Batch) -> tuple[jax.Array, Metrics]:
        """Computes the total loss and every term's metrics.

        Args:
          forward: the model's work on the batch, computed lazily.
          batch: see `avt_jax.axes`.

        Returns:
          (loss, metrics): float32 scalar; {name: (sum, count)} with "loss" for the total.
        """
        total = jnp.float32(0)
        metrics: Metrics = {}
        for name, weight in self.weights.items():
            term = TERMS[name](forward, batch, self.config)
            loss_sum, count = term[name]
            total += weight * loss_sum / jnp.maximum(count, 1)
            metrics |= term
        return total, metrics | {"loss": (total, jnp.float32(1))}
