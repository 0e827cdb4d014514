"""Collects the scores of a multi-label set over a split, and judges them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np

from avt_jax.evaluation.multi_label.ranking import average_precision, best_k, d_prime, roc_auc

KS = (1, 3, 5, 10)
"""For these numbers of best classes there are a hit rate and F1, as far as there are so many."""

Total = Callable[[np.ndarray], np.ndarray]
_LOSS_UNIT = 2.0**-20
_LEAST_P = 1e-12
_LABEL = np.int64(1) << 32


class ClassScores(TypedDict):
    """One class; None where it cannot be computed, as for a class without clips."""

    name: str
    ap: float | None
    auc: float | None
    d_prime: float | None
    count: int


class MultiLabelReport(TypedDict, total=False):
    """What is known of a multi-label set after an evaluation.

    Keys:
      count: clips judged.
      mAP: mean average precision over the classes with clips; None without any.
      auc: mean area under the ROC curve over the classes that have clips, and clips without them.
      d_prime: of `auc`.
      num_absent: classes without a clip, which no mean counts.
      hits: {k: share of the clips of which one of the k most probable classes applies}.
      f1: {k: micro F1 of the k most probable classes of each clip, taken as predicted}.
      loss: mean binary cross-entropy over classes and clips, in nats, to 1e-6.
      classes: one `ClassScores` for each class.
      fusion: see `evaluation.fusion`.
    """

    count: int
    mAP: float | None
    auc: float | None
    d_prime: float | None
    num_absent: int
    hits: dict[str, float]
    f1: dict[str, float]
    loss: float
    classes: list[ClassScores]
    fusion: Any


class Scores:
    """One multi-label set's scores.

    Args:
      class_names: in the order of the model's outputs.
    """

    def __init__(self, class_names: Sequence[str]):
        self._names = tuple(class_names)
        self._scores: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._counts = np.zeros(2 + 2 * len(self._ks), np.int64)

    @property
    def _ks(self) -> list[int]:
        return [k for k in KS if k <= len(self._names)]

    def add(self, probabilities_by: np.ndarray, labels_by: np.ndarray) -> np.ndarray:
        """Adds real examples (leave padding out).

        Args:
          probabilities_by: [b, y] float.
          labels_by: [b, y] of 0 and 1.

        Returns:
          [b] bool: the most probable class applies.
        """
        p_by, is_by = np.asarray(probabilities_by, np.float32), np.asarray(labels_by) > 0
        self._scores.append(p_by)
        self._labels.append(is_by)
        wide_by = p_by.astype(np.float64)
        likely_by = np.where(is_by, wide_by, 1 - wide_by)
        loss_b = -np.log(np.maximum(likely_by, _LEAST_P)).mean(axis=1)
        found = [int(np.round(loss_b / _LOSS_UNIT).astype(np.int64).sum()), int(is_by.sum())]
        best = best_k(p_by, max(self._ks))
        for k in self._ks:
            right_bk = np.take_along_axis(is_by, best[:, :k], axis=1)
            found += [int(right_bk.any(axis=1).sum()), int(right_bk.sum())]
        self._counts += np.array(found, np.int64)
        right_b: np.ndarray = np.take_along_axis(is_by, best[:, :1], axis=1)[:, 0]
        return right_b

    def combine(self, total: Total, index: int, processes: int) -> None:
        """Puts the parts of several processes together; afterwards all know everything.

        Args:
          total: the sum of integers over them.
          index: number of this process.
          processes: how many there are.
        """
        if processes == 1:
            return
        self._counts = total(self._counts)
        mine_ny, is_ny = self._all()
        sizes = np.zeros(processes, np.int64)
        sizes[index] = len(mine_ny)
        ends = np.cumsum(total(sizes))
        everything = np.zeros((int(ends[-1]), len(self._names)), np.int64)
        # Bits of float32 numbers that are not negative, and the label above them: sums are exact.
        bits = mine_ny.view(np.int32).astype(np.int64) + _LABEL * is_ny
        everything[ends[index] - len(mine_ny) : ends[index]] = bits
        everything = total(everything)
        self._labels = [everything >= _LABEL]
        self._scores = [(everything % _LABEL).astype(np.int32).view(np.float32)]

    def _all(self) -> tuple[np.ndarray, np.ndarray]:
        if not self._scores:
            empty = np.zeros((0, len(self._names)), np.float32)
            return empty, empty > 0
        return np.ascontiguousarray(np.concatenate(self._scores)), np.concatenate(self._labels)

    def report(self) -> MultiLabelReport:
        """The report so far; at least one example must have been added."""
        score_ny, is_ny = self._all()
        count = len(score_ny)
        classes = []
        for y, name in enumerate(self._names):
            auc = roc_auc(score_ny[:, y], is_ny[:, y])
            ap = average_precision(score_ny[:, y], is_ny[:, y])
            number = int(is_ny[:, y].sum())
            classes.append(
                ClassScores(name=name, ap=ap, auc=auc, d_prime=d_prime(auc), count=number)
            )
        auc = _mean([one["auc"] for one in classes])
        loss, num_true = (int(value) for value in self._counts[:2])
        hits, f1 = {}, {}
        for k, (hit, right) in zip(self._ks, self._counts[2:].reshape(-1, 2), strict=True):
            hits[str(k)] = float(hit / count)
            # Micro: 2 right / (predicted + true), of all clips and classes.
            f1[str(k)] = float(2 * right / (k * count + num_true))
        return MultiLabelReport(
            count=count,
            mAP=_mean([one["ap"] for one in classes]),
            auc=auc,
            d_prime=d_prime(auc),
            num_absent=sum(not one["count"] for one in classes),
            hits=hits,
            f1=f1,
            loss=round(loss * _LOSS_UNIT / count, 6),
            classes=classes,
        )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
