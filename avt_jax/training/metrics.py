"""Metrics as (sum, count) pairs, added up on the host."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


class Mean:
    """Adds up (sum, count) metrics and gives their means; padded examples never count."""

    def __init__(self) -> None:
        self._totals: dict[str, tuple[float, float]] = {}

    def add(self, metrics: Mapping[str, tuple[Any, Any]]) -> None:
        """Adds one step's {name: (sum, count)}."""
        for name, (value, count) in metrics.items():
            total, number = self._totals.get(name, (0.0, 0.0))
            self._totals[name] = (total + float(value), number + float(count))

    def pop(self) -> dict[str, float]:
        """The means since the last call; a metric that counted nothing is left out."""
        totals, self._totals = self._totals, {}
        return {name: value / count for name, (value, count) in totals.items() if count}


def not_finite(metrics: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Names of the metrics whose sum is NaN or infinite, the total "loss" last."""
    names = [name for name, (value, _) in metrics.items() if not math.isfinite(np.asarray(value))]
    return sorted(names, key=lambda name: name == "loss")
