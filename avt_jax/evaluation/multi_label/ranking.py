"""How well scores rank clips: average precision, area under the ROC curve, d', F1 of the k best."""

from __future__ import annotations

import math
import statistics

import numpy as np


def average_precision(score_n: np.ndarray, is_true_n: np.ndarray) -> float | None:
    """Average precision of one class.

    Args:
      score_n: [n] float; equal ones are taken together, so that their order plays no part.
      is_true_n: [n] bool, the clips of the class.

    Returns:
      The sum over distinct scores of (recall gained) x (precision there), in [0, 1], as
      scikit-learn's `average_precision_score`; None where no clip is of the class.
    """
    number = int(is_true_n.sum())
    if not number:
        return None
    true_t, chosen_t = _at_thresholds(score_n, is_true_n)
    return float(np.sum(np.diff(true_t, prepend=0) * (true_t / chosen_t)) / number)


def roc_auc(score_n: np.ndarray, is_true_n: np.ndarray) -> float | None:
    """Area under the ROC curve of one class.

    Args:
      score_n: [n] float.
      is_true_n: [n] bool, the clips of the class.

    Returns:
      How often a clip of the class has a higher score than another clip, equal scores counting
      half, in [0, 1]; None where all clips are of the class, or none is.
    """
    number, others = int(is_true_n.sum()), int((~is_true_n).sum())
    if not (number and others):
        return None
    true_t, chosen_t = _at_thresholds(score_n, is_true_n)
    gained_t = np.diff(true_t, prepend=0)
    false_t = chosen_t - true_t
    # Others that come later are below, those at the same score count half.
    below_t = others - false_t + 0.5 * np.diff(false_t, prepend=0)
    return float(np.sum(gained_t * below_t) / (number * others))


def d_prime(auc: float | None) -> float | None:
    """Distance between two normal distributions of equal variance with that area.

    Args:
      auc: in [0, 1], or None.

    Returns:
      sqrt(2) times the normal quantile of `auc`; None for None, 0 and 1, where it is not finite.

    Source: Gemmeke et al., "Audio Set", ICASSP 2017; AST gives it of the mean area.
    """
    if auc is None or not 0 < auc < 1:
        return None
    return math.sqrt(2) * statistics.NormalDist().inv_cdf(auc)


def best_k(p_by: np.ndarray, k: int) -> np.ndarray:
    """[b, k] the classes of the k highest scores; of equal ones the lower index comes first."""
    return np.argsort(-p_by, axis=1, kind="stable")[:, :k]


def _at_thresholds(score_n: np.ndarray, is_true_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(clips of the class, all clips) that score at least as much, for each distinct score."""
    order = np.argsort(-score_n, kind="stable")
    sorted_n, true_n = score_n[order], np.cumsum(is_true_n[order])
    last = np.append(np.flatnonzero(np.diff(sorted_n)), len(sorted_n) - 1)
    return true_n[last].astype(np.float64), (last + 1).astype(np.float64)
