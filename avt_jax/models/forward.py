"""From a raw batch to everything a loss or a prediction may ask of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
from flax import nnx

from avt_jax import axes, tree
from avt_jax.models.preprocess import normalise_video, standardise_audio


@dataclass(frozen=True)
class Normalisation:
    """Constants that turn raw input into model input.

    Attributes:
      video_mean: per RGB channel, on the [0, 1] scale.
      video_std: per RGB channel.
      audio_mean: of the log-mel over the data set.
      audio_std: of the log-mel over the data set; the model sees (x - mean) / (2 std), as AST does.
    """

    video_mean: tuple[float, float, float]
    video_std: tuple[float, float, float]
    audio_mean: float
    audio_std: float


class Forward:
    """A model's work on one batch, each part computed when first asked for.

    What nobody asks for is never traced: an objective without the contrastive term costs no
    projection.

    Args:
      model: an AVT or anything with its `encode`, `fuse` and `project`.
      batch: see `avt_jax.axes`.
      normalisation: constants for raw input.
      train: use dropout, drop path and batch statistics.
      key: PRNG key for them; needed only when `train`.
    """

    def __init__(
        self,
        model: nnx.Module,
        batch: Mapping[str, Any],
        normalisation: Normalisation,
        *,
        train: bool,
        key: jax.Array | None = None,
    ):
        self._model = model
        self._batch = batch
        self._normalisation = normalisation
        self._train = train
        self._rngs = nnx.Rngs(dropout=key) if train else None

    @cached_property
    def tokens(self) -> tuple[jax.Array | None, jax.Array | None]:
        """(video [b, n, d], audio [b, m, d]) before fusion; None for a modality switched off."""
        constants = self._normalisation
        video_bthwc = audio_bsf = None
        if self._model.modalities != "audio":
            video_bthwc = normalise_video(
                self._batch[axes.VIDEO], constants.video_mean, constants.video_std
            )
        if self._model.modalities != "video":
            audio_bsf = standardise_audio(
                self._batch[axes.AUDIO], constants.audio_mean, constants.audio_std
            )
        return self._model.encode(video_bthwc, audio_bsf, train=self._train, rngs=self._rngs)

    @cached_property
    def outputs(self) -> dict[str, Any]:
        """What `fuse` gives: logits per label set, fused tokens, pooled features."""
        return self._model.fuse(*self.tokens, train=self._train, rngs=self._rngs)

    @property
    def logits(self) -> dict[str, jax.Array]:
        """{label set: [b, y]}."""
        return self.outputs["logits"]

    @property
    def modality_logits(self) -> list[dict[str, jax.Array]]:
        """Logits of each modality by itself; empty for a model that only has joint ones."""
        return list(self.outputs.get("modality_logits", {}).values())

    @cached_property
    def embeddings(self) -> tuple[jax.Array, jax.Array]:
        """(video, audio) [b, d] L2-normalised projections of the tokens before fusion."""
        return self._model.project(*self.tokens)

    @property
    def log_temperature(self) -> jax.Array:
        """Scalar: log of the contrastive temperature."""
        return self._model.contrastive_log_tau[...]


Predict = Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], dict[str, jax.Array]]


def make_predict(skeleton: tree.Skeleton, normalisation: Normalisation) -> Predict:
    """Builds the pure function (params, stats, batch) -> {label set: probabilities [b, y]}."""

    def predict(params, stats, batch):
        forward = Forward(skeleton.merge(params, stats), batch, normalisation, train=False)
        return {
            name: jax.nn.softmax(logits_by.astype("float32"), axis=-1)
            for name, logits_by in forward.logits.items()
        }

    return predict
