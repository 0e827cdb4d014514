"""What a model says about a file, window by window."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avt_jax.inference.windows import Preview

JOINT = "action"
"""Name under which several label sets are scored together, by the product of probabilities."""


@dataclass(frozen=True)
class Window:
    """What the model says about one stretch of a file.

    Attributes:
      start_sec: from the start of the file.
      end_sec: its end.
      probabilities: {label set: [y] float32}.
    """

    start_sec: float
    end_sec: float
    probabilities: dict[str, np.ndarray]


@dataclass(frozen=True)
class FilePrediction:
    """What the model says about a file.

    Attributes:
      path: as given.
      duration_sec: length of the file.
      has_audio: False when there was no sound to listen to.
      label_sets: {label set: class names}, in the order of the probabilities.
      windows: in order of time.
      overall: {label set: [y] float32} mean over the windows.
      preview: a small picture of the file.
    """

    path: str
    duration_sec: float
    has_audio: bool
    label_sets: dict[str, tuple[str, ...]]
    windows: tuple[Window, ...]
    overall: dict[str, np.ndarray]
    preview: Preview

    def top(self, number: int = 5) -> dict[str, list[tuple[str, float]]]:
        """The most probable classes of the whole file.

        Args:
          number: how many; fewer when there are fewer classes.

        Returns:
          {label set: [(class name, probability), ...]}, best first. With several label sets also
          `JOINT`: the classes of all sets together, joined by " + ".
        """
        return top_classes(self.overall, self.label_sets, number)

    def to_dict(self, number: int = 5) -> dict[str, Any]:
        """The prediction as JSON-able values: `number` classes for the file and each window."""

        def named(probabilities: Mapping[str, np.ndarray]) -> dict[str, list[dict[str, Any]]]:
            top = top_classes(probabilities, self.label_sets, number)
            return {
                name: [{"class": label, "probability": p} for label, p in found]
                for name, found in top.items()
            }

        return {
            "path": self.path,
            "duration_sec": self.duration_sec,
            "has_audio": self.has_audio,
            "top": named(self.overall),
            "windows": [
                {"start_sec": w.start_sec, "end_sec": w.end_sec, "top": named(w.probabilities)}
                for w in self.windows
            ],
        }


def top_classes(
    probabilities: Mapping[str, np.ndarray], label_sets: Mapping[str, Sequence[str]], number: int
) -> dict[str, list[tuple[str, float]]]:
    """The most probable classes of each label set, and of all together.

    Args:
      probabilities: {label set: [y] float}.
      label_sets: {label set: class names}.
      number: how many of each.

    Returns:
      As `FilePrediction.top`.
    """
    found = {}
    for name, names in label_sets.items():
        best = np.argsort(-probabilities[name], kind="stable")[:number]
        found[name] = [(names[i], float(probabilities[name][i])) for i in best]
    if len(label_sets) > 1 and JOINT not in label_sets:
        # The best combinations consist of classes that are among the best of their own set.
        combined = [
            (" + ".join(label for label, _ in parts), math.prod(p for _, p in parts))
            for parts in itertools.product(*found.values())
        ]
        found[JOINT] = sorted(combined, key=lambda entry: -entry[1])[:number]
    return found
