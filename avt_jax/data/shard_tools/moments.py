"""Mean and standard deviation of more values than fit into memory."""

from __future__ import annotations

import numpy as np


class Moments:
    """Count, sum and sum of squares of each channel, in float64.

    For whole numbers, such as pixels, the sums are exact up to 2**53. For log-mels, whose mean is
    no larger than their spread, float64 leaves ten digits even after 10**12 values.
    """

    def __init__(self, num_channels: int = 1):
        """Starts without a value."""
        self.count = 0
        self._sum_c = np.zeros(num_channels)
        self._square_sum_c = np.zeros(num_channels)

    def add(self, values: np.ndarray) -> None:
        """Adds values.

        Args:
          values: any shape and number type with the channels last; with one channel, any shape.
        """
        wide_nc = values.astype(np.float64).reshape(-1, len(self._sum_c))
        self.count += len(wide_nc)
        self._sum_c += wide_nc.sum(axis=0)
        self._square_sum_c += np.einsum("nc,nc->c", wide_nc, wide_nc)

    def merge(self, other: Moments) -> None:
        """Adds the values that `other` was given."""
        self.count += other.count
        self._sum_c += other._sum_c
        self._square_sum_c += other._square_sum_c

    def mean_and_std(self) -> tuple[list[float], list[float]] | tuple[None, None]:
        """Mean and standard deviation (of the whole, not estimated) of each channel.

        Returns:
          Two lists with a number for each channel; None twice without a value.
        """
        if not self.count:
            return None, None
        mean_c = self._sum_c / self.count
        variance_c = np.maximum(0.0, self._square_sum_c / self.count - mean_c**2)
        return mean_c.tolist(), np.sqrt(variance_c).tolist()
