"""Several views of a record, several clips or crops of it, become one prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from avt_jax import axes

Batch = Mapping[str, Any]
_KEPT = (axes.ID, axes.GROUP, axes.HAS_AUDIO, axes.HAS_VIDEO)


class ViewAverage:
    """Averages the probabilities of a record's views, which follow each other.

    Views of one record may lie in different batches; padding may follow the last.

    Source: the mean of the softmax over clips and crops is how video classifiers are evaluated
      since Non-local Networks, arXiv:1711.07971, sec. 4.
    """

    def __init__(self, num_views: int):
        """Starts with nothing.

        Args:
          num_views: of every record, >= 1.
        """
        if num_views < 1:
            raise ValueError(f"num_views={num_views}, expected 1 or more")
        self._num_views = num_views
        self._rows: list[dict[str, Any]] = []

    @property
    def num_waiting(self) -> int:
        """Views of a record whose other views have not come yet."""
        return len(self._rows)

    def add(
        self, probabilities: Mapping[str, np.ndarray], batch: Batch
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Takes the predictions of a batch of views.

        Args:
          probabilities: {label set: [b, y] float} of each view.
          batch: the views, see `avt_jax.axes`; invalid rows are passed over.

        Returns:
          (probabilities, batch) of the records that are complete now, any number of them: {label
          set: [r, y]} and their labels, "valid" (all True) and what else of id, group,
          has_audio and has_video the batch holds.

        Raises:
          ValueError: views that follow each other are of different records.
        """
        kept = [key for key in _KEPT if key in batch]
        for row in np.flatnonzero(np.asarray(batch[axes.VALID], bool)):
            view = {key: batch[key][row] for key in kept}
            view["probabilities"] = {k: np.asarray(p_by)[row] for k, p_by in probabilities.items()}
            view[axes.LABELS] = {k: labels_b[row] for k, labels_b in batch[axes.LABELS].items()}
            self._rows.append(view)
        count = len(self._rows) // self._num_views
        split = count * self._num_views
        done, self._rows = self._rows[:split], self._rows[split:]
        records = [done[i : i + self._num_views] for i in range(0, len(done), self._num_views)]
        for views in records:
            ids = {str(view.get(axes.ID)) for view in views}
            if len(ids) > 1:
                raise ValueError(f"expected {self._num_views} views of one record, got {ids}")
        merged = {
            name: np.array(
                [np.mean([view["probabilities"][name] for view in views], 0) for views in records]
            ).reshape(count, np.shape(p_by)[1])
            for name, p_by in probabilities.items()
        }
        firsts = [views[0] for views in records]
        return merged, {
            axes.VALID: np.ones(count, bool),
            axes.LABELS: {
                name: np.array([first[axes.LABELS][name] for first in firsts], np.int64)
                for name in batch[axes.LABELS]
            },
            **{key: np.array([first[key] for first in firsts]) for key in kept},
        }
