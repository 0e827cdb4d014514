"""Early stopping: a training ends when its validation score no longer rises."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from avt_jax.training.processes import agree


class Patience:
    """Counts the evaluations since the best one.

    Args:
      most: so many in a row without a better score end the training; 0 = none does.
      scores: of the evaluations so far, in their order.
    """

    def __init__(self, most: int = 0, scores: Iterable[float] = ()):
        self.most = most
        self._best, self._waited = -math.inf, 0
        for score in scores:
            self.saw(score)

    def saw(self, score: float) -> None:
        """Takes the score of an evaluation; one as good as the best is no better."""
        self._waited = 0 if score > self._best else self._waited + 1
        self._best = max(self._best, score)

    @property
    def is_over(self) -> bool:
        """Whether the training is to end."""
        return 0 < self.most <= self._waited

    def as_the_first(self) -> Patience:
        """The same in every process: as the first one, which has the metrics, counts."""
        mine = np.array([self._waited, np.float64(self._best).view(np.int64)])
        waited, best = agree.total(mine if agree.is_first() else np.zeros_like(mine))
        shared = Patience(self.most)
        shared._waited, shared._best = int(waited), float(np.int64(best).view(np.float64))
        return shared
