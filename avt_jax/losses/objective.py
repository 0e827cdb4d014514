"""The training objective: named terms, each with its own weight.

A new loss is a module beside this one and a line in `TERMS`. A term whose weight is 0 is not
called, so neither its computation nor what only it needs of the model is traced.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from avt_jax import axes
from avt_jax.errors import UserError, nearest
from avt_jax.losses.classification import classification_loss
from avt_jax.losses.contrastive import FORMS, bounded_temperature, contrastive_loss
from avt_jax.losses.matching import matching_loss, sample_hard_negatives
from avt_jax.losses.reconstruction import reconstruction_loss

Metrics = dict[str, tuple[jax.Array, jax.Array]]
Batch = Mapping[str, Any]


class Reconstruction(Protocol):
    """What was hidden of a modality and what the model makes of it; see `models.forward`."""

    predicted_bmp: jax.Array
    target_bmp: jax.Array
    masked_bm: jax.Array
    fallback_b: jax.Array


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

    @property
    def contrastive_bias(self) -> jax.Array:
        """Scalar, learned."""

    @property
    def match_logits(self) -> jax.Array:
        """[b] of the true pairs."""

    def mismatch_logits(
        self, audio_index_b: jax.Array, video_index_b: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """[b] of each video with another audio, [b] of each audio with another video."""

    def reconstruction(self, name: str) -> Reconstruction:
        """Hides part of "audio" or "video" and reconstructs it."""

    def key(self, use: int) -> jax.Array:
        """A PRNG key of this batch for one use."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """The config block `losses`.

    Attributes:
      weights: {term: weight >= 0}; 0 switches a term off.
      label_smoothing: in [0, 1).
      temperature_min: lower bound of the contrastive temperature.
      temperature_max: upper bound.
      contrastive_form: "softmax" (InfoNCE) or "sigmoid" (SigLIP).
      matching_same_label: allow mined negatives of the same label; True is for training without
        labels.
      warmup_steps: steps in which the weights of all terms but classification grow from 0.
    """

    weights: Mapping[str, float]
    label_smoothing: float
    temperature_min: float
    temperature_max: float
    contrastive_form: str
    matching_same_label: bool
    warmup_steps: int

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
        if self.contrastive_form not in FORMS:
            raise UserError(
                f"config.losses.contrastive_form is {self.contrastive_form!r}; "
                f"give {' or '.join(map(repr, FORMS))}."
            )
        if self.warmup_steps < 0:
            raise UserError(
                f"config.losses.warmup_steps is {self.warmup_steps}; give 0 (none) or more."
            )


def _classification(forward: Forward, batch: Batch, config: ObjectiveConfig) -> Metrics:
    def score(logits: dict[str, jax.Array]) -> Metrics:
        return classification_loss(
            logits,
            batch[axes.LABELS],
            batch[axes.VALID],
            label_smoothing=config.label_smoothing,
            partner_labels=batch.get(axes.PARTNER_LABELS),
            own_share_b=batch.get(axes.OWN_SHARE),
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
        form=config.contrastive_form,
        bias=forward.contrastive_bias if config.contrastive_form == "sigmoid" else 0.0,
        temperature_min=config.temperature_min,
        temperature_max=config.temperature_max,
    )


def _matching(forward: Forward, batch: Batch, config: ObjectiveConfig) -> Metrics:
    z_video_bd, z_audio_bd = jax.lax.stop_gradient(forward.embeddings)
    sim_bb = z_video_bd @ z_audio_bd.T
    valid_b = batch[axes.VALID] & batch[axes.HAS_AUDIO]
    labels = [batch[axes.LABELS][name] for name in sorted(batch[axes.LABELS])]
    options = dict(
        temperature=jax.lax.stop_gradient(
            bounded_temperature(
                forward.log_temperature, config.temperature_min, config.temperature_max
            )
        ),
        label_bl=None if config.matching_same_label else jnp.stack(labels, -1),
    )
    mine = functools.partial(sample_hard_negatives, group_b=batch[axes.GROUP], valid_b=valid_b)
    audio_index_b, audio_found_b = mine(sim_bb, key=forward.key(_AUDIO_MINING), **options)
    video_index_b, video_found_b = mine(sim_bb.T, key=forward.key(_VIDEO_MINING), **options)
    return matching_loss(
        forward.match_logits,
        *forward.mismatch_logits(audio_index_b, video_index_b),
        audio_found_b,
        video_found_b,
        valid_b,
    )


def _masked(name: str) -> Callable[[Forward, Batch, ObjectiveConfig], Metrics]:
    def term(forward: Forward, batch: Batch, config: ObjectiveConfig) -> Metrics:
        found = forward.reconstruction(name)
        valid_b = batch[axes.VALID]
        if name == "audio":
            valid_b = valid_b & batch[axes.HAS_AUDIO]
        return reconstruction_loss(
            f"masked_{name}",
            found.predicted_bmp,
            found.target_bmp,
            found.masked_bm,
            found.fallback_b,
            valid_b,
        )

    return term


# Uses of the batch's key; 0 and 1 are taken by what is hidden (models.forward).
_AUDIO_MINING, _VIDEO_MINING = 2, 3

# A new loss is one line here and, if it asks something new of a model, one in _NEEDS.
TERMS: dict[str, Callable[[Forward, Batch, ObjectiveConfig], Metrics]] = {
    "classification": _classification,
    "contrastive": _contrastive,
    "matching": _matching,
    "masked_audio": _masked("audio"),
    "masked_video": _masked("video"),
}
# Term -> what the model has to be able to do; see `models.build.abilities`.
_NEEDS = {
    "contrastive": "project",
    "matching": "match",
    "masked_audio": "reconstruct audio",
    "masked_video": "reconstruct video",
}
_COMPARES_MODALITIES = ("contrastive", "matching")
_ADVICE = {
    "masked_audio": "put 'audio' into config.model.decoders or ",
    "masked_video": "put 'video' into config.model.decoders or ",
}


class Objective:
    """Weighted sum of the active terms.

    Args:
      config: weights and the terms' settings.
      modalities: "av", "audio" or "video"; terms that compare the two modalities, or hide one that
        is missing, are left out (`skipped` names them).
      abilities: what the model can do, of the values that `models.build.abilities` gives.

    Raises:
      UserError: no term is left to train on, or one that the model has nothing for.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        *,
        modalities: str = "av",
        abilities: Collection[str] = tuple(_NEEDS.values()),
    ):
        self.config = config
        wanted = {name: weight for name, weight in config.weights.items() if weight > 0}
        self.skipped = tuple(
            name
            for name in wanted
            if modalities != "av"
            and (name in _COMPARES_MODALITIES or name.startswith("masked_"))
            and name != f"masked_{modalities}"
        )
        self.weights = {n: float(w) for n, w in wanted.items() if n not in self.skipped}
        for name, weight in self.weights.items():
            if _NEEDS.get(name, "") not in ("", *abilities):
                raise UserError(
                    f"config.losses.weights.{name} is {weight:g}, but this model cannot "
                    f"{_NEEDS[name]}; {_ADVICE.get(name, '')}give 0."
                )
        if not self.weights:
            raise UserError(
                f"no loss is left for modalities={modalities!r} with config.losses.weights = "
                f"{dict(config.weights)}; give at least one term that applies a positive weight."
            )

    @property
    def hides(self) -> tuple[str, ...]:
        """Modalities of which an active term hides a part."""
        return tuple(name for name in ("audio", "video") if f"masked_{name}" in self.weights)

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
        ramp = 1.0
        if self.config.warmup_steps:
            ramp = jnp.minimum(step / self.config.warmup_steps, 1.0)
        total = jnp.float32(0)
        metrics: Metrics = {}
        for name, weight in self.weights.items():
            term = TERMS[name](forward, batch, self.config)
            loss_sum, count = term[name]
            weight *= 1.0 if name == "classification" else ramp
            total += weight * loss_sum / jnp.maximum(count, 1)
            metrics |= term
        return total, metrics | {"loss": (total, jnp.float32(1))}
