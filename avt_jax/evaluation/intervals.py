"""How sure an accuracy is: bootstrap intervals over sources.

Clips of one source (cut from one video, or takes of one thing) are right or wrong together, so the
sources are drawn anew, not the clips: treated as independent, 400 clips of 100 videos would look
twice as sure as they are.

Source: the cluster bootstrap, Field and Welsh, "Bootstrapping clustered data", JRSS B 69 (2007).
"""

from __future__ import annotations

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
    if number == 1:
        return Interval(value, lowest, 1.0, number)
    if np.ptp(values_n) == 0:
        away = min(3 / number, 1.0)
        return Interval(value, max(value - away, lowest), min(value + away, 1.0), number)
    rng = np.random.default_rng(seed)
    means: list[np.ndarray] = []
    at_once = max(1, _MAX_WEIGHTS // number)
    for first in range(0, DRAWS, at_once):
        draws = min(at_once, DRAWS - first)
        weight_bg = rng.multinomial(number, np.full(number, 1 / number), size=draws)
        means.append((weight_bg @ sum_g) / (weight_bg @ count_g))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(value, float(low), float(high), number)
