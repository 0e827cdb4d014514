"""What a model of two modalities gains and loses by having both.

Source: the modality confusion mu of VGGSounder, arXiv:2508.08237, here of one model that is judged
three times, with both modalities and with either of them silenced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from avt_jax import axes
from avt_jax.data.loading.sampling import blank_colour

Batch = dict[str, Any]

WHOLE = ""
ALONE = {"audio": "video", "video": "audio"}
"""{modality: the variant of `evaluate_variants` that leaves it alone, the other one silenced}."""

_ALONE_WORDS = {"audio": "the sound alone", "video": "the picture alone"}
_SURE = 1.96  # standard deviations


class FusionReport(TypedDict):
    """Shares of all clips.

    Keys:
      mu: at least one modality alone gets it right, both together get it wrong.
      mu_audio: the sound alone gets it right, both together get it wrong.
      mu_video: the same of the picture.
      mu_each: each of the two alone gets it right, both together get it wrong.
      gained: neither alone gets it right, both together do.
      right: both together get it right.
      right_audio: the sound alone does.
      right_video: the picture alone does.
      count: clips.
    """

    mu: float
    mu_audio: float
    mu_video: float
    mu_each: float
    gained: float
    right: float
    right_audio: float
    right_video: float
    count: int


class FusionTally:
    """Adds up which clips of a label set are right with both modalities and with either alone."""

    def __init__(self) -> None:
        """Starts with nothing."""
        # By (right with both, right with the sound, right with the picture).
        self._counts = np.zeros((2, 2, 2), np.int64)

    def add(self, right: Mapping[str, np.ndarray]) -> None:
        """Adds clips.

        Args:
          right: {variant: [b] bool}, of WHOLE and both of ALONE.
        """
        cases = [right[WHOLE], right[ALONE["audio"]], right[ALONE["video"]]]
        np.add.at(self._counts, tuple(np.asarray(case, np.int64) for case in cases), 1)

    def combine(self, total: Callable[[np.ndarray], np.ndarray]) -> None:
        """Adds what others have counted."""
        self._counts = total(self._counts.ravel()).reshape(2, 2, 2)

    def report(self) -> FusionReport:
        """The report so far; at least one clip must have been added."""
        counts, number = self._counts, int(self._counts.sum())
        wrong, right = counts

        def share(clips: np.ndarray | np.int64) -> float:
            return float(np.sum(clips) / number)

        return FusionReport(
            mu=share(wrong.sum() - wrong[0, 0]),
            mu_audio=share(wrong[1]),
            mu_video=share(wrong[:, 1]),
            mu_each=share(wrong[1, 1]),
            gained=share(right[0, 0]),
            right=share(right),
            right_audio=share(counts[:, 1]),
            right_video=share(counts[:, :, 1]),
            count=number,
        )


def sentence(name: str, found: FusionReport) -> str:
    """What is lost and gained, and whether one modality alone would be better.

    Args:
      name: of the label set.
      found: the shares.
    """
    said = (
        f"{name}: mu {_percent(found['mu'])}: so many clips one modality alone gets right and both "
        f"together get wrong (the sound {_percent(found['mu_audio'])}, the picture "
        f"{_percent(found['mu_video'])}); {_percent(found['gained'])} are right only with both."
    )
    alone = {"audio": found["right_audio"], "video": found["right_video"]}
    best = max(alone, key=alone.__getitem__)
    if alone[best] <= found["right"]:
        return said
    lost = found["mu_audio"] if best == "audio" else found["mu_video"]
    # Of the clips that only one of the two gets right, as in McNemar's test.
    ahead = (alone[best] - found["right"]) * found["count"]
    either = 2 * lost * found["count"] - ahead
    unsure = "" if ahead > _SURE * math.sqrt(either) else " (which may be chance)"
    return (
        f"{said} Fusion hurts{unsure}: {_ALONE_WORDS[best]} gets {_percent(alone[best])} right, "
        f"both together {_percent(found['right'])}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def silence_audio(batch: Batch, log_floor: float) -> Batch:
    """The batch as if no clip had sound.

    Args:
      batch: see `avt_jax.axes`.
      log_floor: log-mel of digital silence (`avt_jax.audio.melspec.LOG_FLOOR`).

    Returns:
      A changed copy; the arrays that stay the same are shared.
    """
    audio_bsf = np.full_like(batch[axes.AUDIO], log_floor)
    has_audio_b = np.zeros_like(batch[axes.HAS_AUDIO])
    return batch | {axes.AUDIO: audio_bsf, axes.HAS_AUDIO: has_audio_b}


def silence_video(batch: Batch, video_mean: Sequence[float]) -> Batch:
    """The batch as if every frame were one flat colour, the mean, so that the model sees zeros.

    Args:
      batch: see `avt_jax.axes`.
      video_mean: mean RGB colour that the model subtracts, on the [0, 1] scale.

    Returns:
      A changed copy; the arrays that stay the same are shared.
    """
    video_bthwc = np.empty_like(batch[axes.VIDEO])
    video_bthwc[:] = blank_colour(video_mean)
    has_video_b = np.zeros_like(batch[axes.HAS_VIDEO])
    return batch | {axes.VIDEO: video_bthwc, axes.HAS_VIDEO: has_video_b}
