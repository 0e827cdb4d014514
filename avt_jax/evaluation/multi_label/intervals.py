"""How sure mAP and AUC are: bootstrap intervals over sources, sorted once and weighted anew.

A drawing takes sources with replacement, as for accuracies (`evaluation.intervals`). A clip that
was drawn twice stands in the ranking twice, with equal scores: it has the weight 2 there. So the
scores are sorted once, and each drawing only adds up other weights along the order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from avt_jax.evaluation.intervals import DRAWS, Interval, drawn_groups, ends_around
from avt_jax.evaluation.multi_label.ranking import average_precision, roc_auc

LEAST_DRAWS = 200
# Clips x classes x drawings; see `num_draws`.
_MOST_STEPS = 1e10
# Drawings at once: rows that fit a processor's cache.
_BLOCK = 256


@dataclass(frozen=True)
class Drawn:
    """The means over classes in every drawing; NaN where no class can be judged.

    Attributes:
      map_b: [draws] float64 mAP.
      auc_b: [draws] float64 mean AUC.
    """

    map_b: np.ndarray
    auc_b: np.ndarray


def num_draws(num_clips: int, num_classes: int) -> int:
    """2,000, or fewer where these would take more than about a minute; 200 at least."""
    return int(np.clip(_MOST_STEPS / (num_clips * num_classes), LEAST_DRAWS, DRAWS))


def draw(
    score_ny: np.ndarray, is_ny: np.ndarray, groups_n: np.ndarray, *, draws: int, seed: int = 0
) -> Drawn:
    """Draws sources with replacement and judges the ranking of what was drawn.

    Args:
      score_ny: [n, y] float.
      is_ny: [n, y] of 0 and 1, the classes of each clip.
      groups_n: [n] equal = of the same source.
      draws: how often; the same `draws`, `groups_n` and `seed` draw the same sources, so what two
        models reach can be subtracted drawing by drawing.
      seed: of the drawing.

    Returns:
      What scikit-learn gives of the rows that were drawn, classes without positives left out (and
      of the AUC, classes without others); weights are exact below 2^24 clips.
    """
    _, group_n = np.unique(groups_n, return_inverse=True)
    number = int(group_n.max()) + 1
    columns = zip(score_ny.T, is_ny.T, strict=True)
    ones = np.ones(len(score_ny), np.float32)  # which all classes share
    rankings = [_Ranking(score_n, is_n, ones) for score_n, is_n in columns]
    rankings = [one for one in rankings if one.num_true]
    maps, aucs = [], []
    for weight_bg in drawn_groups(number, draws, seed=seed, at_once=_BLOCK):
        weight_nb = np.ascontiguousarray(weight_bg.T.astype(np.float32)[group_n])
        total_b = weight_nb.sum(axis=0, dtype=np.float64)
        found = [one.judge(weight_nb, total_b) for one in rankings]
        maps.append(_known_mean([ap_b for ap_b, _ in found], total_b))
        aucs.append(_known_mean([auc_b for _, auc_b in found], total_b))
    return Drawn(np.concatenate(maps), np.concatenate(aucs))


class _Ranking:
    """One class: which clips stand at and between the scores of its own."""

    def __init__(self, score_n: np.ndarray, is_true_n: np.ndarray, ones: np.ndarray):
        from scipy.sparse import csr_matrix

        is_true_n = np.asarray(is_true_n) > 0
        self.num_true = int(is_true_n.sum())
        if not self.num_true:
            return
        order = np.argsort(-np.asarray(score_n), kind="stable")
        sorted_n, true_n = np.asarray(score_n)[order], is_true_n[order]
        # Ranges of equal scores that hold a clip of the class, [begin, end) in the order.
        begins = np.append(0, np.flatnonzero(np.diff(sorted_n)) + 1)
        ends = np.append(begins[1:], len(order))
        holds = np.add.reduceat(true_n.astype(np.int64), begins) > 0
        begins, ends = begins[holds], ends[holds]
        # Row 2 t: what lies before range t and after t - 1; row 2 t + 1: the range.
        bounds = np.append(0, np.stack([begins, ends], axis=1).ravel())

        def rows(columns: np.ndarray, starts: np.ndarray) -> csr_matrix:
            places = (ones[: len(columns)], columns, starts)
            return csr_matrix(places, shape=(len(starts) - 1, len(order)), copy=False)

        self._all = rows(order[: bounds[-1]], bounds)
        before_n = np.append(0, np.cumsum(true_n))
        self._true = rows(order[true_n], np.append(0, before_n[ends]))

    def judge(self, weight_nb: np.ndarray, total_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """([b] average precision, [b] AUC), NaN where the class has no positives (or no others)."""
        true_tb = (self._true @ weight_nb).astype(np.float64)
        all_tb = np.cumsum(self._all @ weight_nb, axis=0, dtype=np.float64)
        before_tb, chosen_tb = all_tb[::2], all_tb[1::2]
        found_tb = np.cumsum(true_tb, axis=0)
        num_b = found_tb[-1]
        false_b = total_b - num_b
        # Of others, those at the same score count half.
        above_tb = (before_tb + chosen_tb - 2 * found_tb + true_tb) / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            ap_b = np.sum(true_tb * found_tb / np.maximum(chosen_tb, 1), axis=0) / num_b
            auc_b = np.sum(true_tb * (false_b - above_tb), axis=0) / (num_b * false_b)
        return ap_b, auc_b


def _known_mean(values: list[np.ndarray], like_b: np.ndarray) -> np.ndarray:
    """[b] the mean of what is no NaN."""
    if not values:
        return np.full(len(like_b), np.nan)
    value_yb = np.stack(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nansum(value_yb, axis=0) / np.sum(~np.isnan(value_yb), axis=0)


def mean_average_precision(score_ny: np.ndarray, is_ny: np.ndarray) -> float | None:
    """Mean average precision over the classes with clips, as `Scores` has it; None without any."""
    return _mean(average_precision(*one) for one in _columns(score_ny, is_ny))


def mean_auc(score_ny: np.ndarray, is_ny: np.ndarray) -> float | None:
    """Mean AUC over the classes that have clips, and clips without them; None without any."""
    return _mean(roc_auc(*one) for one in _columns(score_ny, is_ny))


def _columns(score_ny: np.ndarray, is_ny: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield from zip(score_ny.T, np.asarray(is_ny).T > 0, strict=True)


def _mean(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def interval(value: float, drawn_b: np.ndarray, groups: int, *, lowest: float = 0.0) -> Interval:
    """A mean, or a difference of two, with its 95 % interval.

    A clip that was drawn twice lifts its own precision, and that of rare classes most, so the
    drawings are too high by some amount. This is known (their mean minus the value) and taken off.

    Args:
      value: of the clips as they are.
      drawn_b: [draws] the same in every drawing; NaN where it has none.
      groups: sources.
      lowest: that can be: 0, or -1 for a difference.
    """
    drawn_b = drawn_b[~np.isnan(drawn_b)]
    if not len(drawn_b):
        return Interval(value, lowest, 1.0, groups)
    return ends_around(value, drawn_b - drawn_b.mean() + value, groups, lowest)
