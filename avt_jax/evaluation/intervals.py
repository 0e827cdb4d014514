"""How sure an accuracy is: bootstrap intervals over sources.

Clips of one source (cut from one video, or takes of one thing) are right or wrong together, so the
sources are drawn anew, not the clips: treated as independent, 400 clips of 100 videos would look
twice as sure as they are.

Source: the cluster bootstrap, Field and Welsh, "Bootstrapping clustered data", JRSS B 69 (2007).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
DRAWS = 2000
# Values of one drawing's weights that are held at once.
_MAX_WEIGHTS = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A share, or a difference of two, with its 95 % interval.

    Attributes:
      value: over the clips as they are.
      low: lower end.
      high: upper end.
      groups: sources that were drawn.
    """

    value: float
    low: float
    high: float
    groups: int


def mean_interval(values_n: np.ndarray, groups_n: np.ndarray, *, seed: int = 0) -> Interval:
    """The mean of a number of every clip, and its 95 % interval over sources.

    Args:
      values_n: [n] numbers, n >= 1: 1 for right and 0 for wrong give an accuracy; of two models
        the difference of these gives how much better one is, clip by clip.
      groups_n: [n] equal = of the same source; anything that can be sorted.
      seed: of the drawing.

    Returns:
      The interval. With one source it says nothing and spans [-1, 1], or [0, 1] where no value is
      negative. Where all values are equal the bootstrap has nothing to draw: then the ends are
      those of the rule of three, 3 / sources away from the value.
    """
    values_n = np.asarray(values_n, np.float64)
    _, group_n = np.unique(groups_n, return_inverse=True)
    sum_g, count_g = np.bincount(group_n, values_n), np.bincount(group_n)
    number = len(count_g)
    value = float(values_n.mean())
    lowest = -1.0 if (values_n < 0).any() else 0.0
    if np.ptp(values_n) == 0:
        return ends_around(value, np.full(1, value), number, lowest)
    at_once = max(1, _MAX_WEIGHTS // number)
    drawn = [
        (weight_bg @ sum_g) / (weight_bg @ count_g)
        for weight_bg in drawn_groups(number, DRAWS, seed=seed, at_once=at_once)
    ]
    return ends_around(value, np.concatenate(drawn), number, lowest)


def class_mean_interval(
    right_n: np.ndarray, label_n: np.ndarray, groups_n: np.ndarray, *, seed: int = 0
) -> Interval:
    """The mean of the classes' own accuracies, and its 95 % interval over sources.

    Args:
      right_n: [n] bool, n >= 1.
      label_n: [n] int true class; a class that is not drawn is left out of that drawing's mean.
      groups_n: [n] equal = of the same source.
      seed: of the drawing.
    """
    from scipy.sparse import csr_matrix

    _, group_n = np.unique(groups_n, return_inverse=True)
    _, class_n = np.unique(label_n, return_inverse=True)
    right_n = np.asarray(right_n, np.float64)
    number, shape = int(group_n.max()) + 1, (int(class_n.max()) + 1, int(group_n.max()) + 1)
    # Repeated places are added up.
    right_yg = csr_matrix((right_n, (class_n, group_n)), shape)
    count_yg = csr_matrix((np.ones(len(right_n)), (class_n, group_n)), shape)
    value = float(np.mean(right_yg.sum(axis=1) / count_yg.sum(axis=1)))
    drawn = []
    at_once = max(1, _MAX_WEIGHTS // sum(shape))
    for weight_bg in drawn_groups(number, DRAWS, seed=seed, at_once=at_once):
        count_yb = count_yg @ weight_bg.T
        share_yb = (right_yg @ weight_bg.T) / np.maximum(count_yb, 1)
        drawn.append(share_yb.sum(axis=0) / (count_yb > 0).sum(axis=0))
    return ends_around(value, np.concatenate(drawn), number, 0.0)


def drawn_groups(number: int, draws: int, *, seed: int, at_once: int) -> Iterator[np.ndarray]:
    """How often each source is drawn, [b, groups] int64; the same whatever `at_once` is.

    Args:
      number: of sources, of which as many are drawn.
      draws: rows altogether.
      seed: of the drawing.
      at_once: most rows of an array.
    """
    rng = np.random.default_rng(seed)
    for first in range(0, draws, at_once):
        size = min(at_once, draws - first)
        yield rng.multinomial(number, np.full(number, 1 / number), size=size)


def ends_around(value: float, drawn_b: np.ndarray, groups: int, lowest: float) -> Interval:
    """The interval that holds 95 % of what was drawn.

    Args:
      value: over the clips as they are.
      drawn_b: [draws] in every drawing. Where all are equal, the rule of three takes their place.
      groups: sources; of one nothing is known.
      lowest: that can be.
    """
    if groups == 1:
        return Interval(value, lowest, 1.0, groups)
    if np.ptp(drawn_b) == 0:
        away = min(3 / groups, 1.0)
        return Interval(value, max(value - away, lowest), min(value + away, 1.0), groups)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn_b, [tail, 1 - tail])
    return Interval(value, max(float(low), lowest), min(float(high), 1.0), groups)
