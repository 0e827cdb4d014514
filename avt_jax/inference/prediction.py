"""What a model says about a file, window by window."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avt_jax.inference.windows import Preview

JOINT = "action"
"""Name under which several label sets are scored together, by the product of probabilities."""

_Entry = tuple[tuple[int, ...], str, float]  # class indices, name, probability


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
      has_video: False when there was no picture to look at.
      label_sets: {label set: class names}, in the order of the probabilities.
      windows: in order of time.
      overall: {label set: [y] float32} mean over the windows.
      preview: a small picture of the file.
      multi_label: the label sets whose classes have independent probabilities.
    """

    path: str
    duration_sec: float
    has_audio: bool
    has_video: bool
    label_sets: dict[str, tuple[str, ...]]
    windows: tuple[Window, ...]
    overall: dict[str, np.ndarray]
    preview: Preview
    multi_label: tuple[str, ...] = ()

    def top(self, number: int = 5) -> dict[str, list[tuple[str, float]]]:
        """The most probable classes of the whole file.

        Args:
          number: how many; fewer when there are fewer classes.

        Returns:
          {label set: [(class name, probability), ...]}, best first. With several label sets, none
          of them multi-label, also `JOINT`: the classes of all sets together, joined by " + ".
        """
        return top_classes(self.overall, self.label_sets, number, self.multi_label)

    def to_dict(self, number: int = 5) -> dict[str, Any]:
        """The prediction as JSON-able values: `number` classes for the file and each window.

        A class has its "index", "class" (the name) and "probability"; under `JOINT` the index is a
        list, one for each label set.
        """

        def named(probabilities: Mapping[str, np.ndarray]) -> dict[str, list[dict[str, Any]]]:
            return {
                name: [
                    {
                        "index": indices[0] if name in self.label_sets else list(indices),
                        "class": label,
                        "probability": p,
                    }
                    for indices, label, p in found
                ]
                for name, found in _ranked(
                    probabilities, self.label_sets, number, self.multi_label
                ).items()
            }

        return {
            "path": self.path,
            "duration_sec": self.duration_sec,
            "has_audio": self.has_audio,
            "has_video": self.has_video,
            **({"multi_label": list(self.multi_label)} if self.multi_label else {}),
            "top": named(self.overall),
            "windows": [
                {"start_sec": w.start_sec, "end_sec": w.end_sec, "top": named(w.probabilities)}
                for w in self.windows
            ],
        }


def top_classes(
    probabilities: Mapping[str, np.ndarray],
    label_sets: Mapping[str, Sequence[str]],
    number: int,
    multi_label: Collection[str] = (),
) -> dict[str, list[tuple[str, float]]]:
    """The most probable classes of each label set, and of all together.

    Args:
      probabilities: {label set: [y] float}.
      label_sets: {label set: class names}.
      number: how many of each.
      multi_label: the label sets whose classes have independent probabilities.

    Returns:
      As `FilePrediction.top`.
    """
    ranked = _ranked(probabilities, label_sets, number, multi_label)
    return {name: [(label, p) for _, label, p in found] for name, found in ranked.items()}


def has_joint(label_sets: Collection[str], multi_label: Collection[str] = ()) -> bool:
    """Whether there is something to score under `JOINT`."""
    return len(label_sets) > 1 and JOINT not in label_sets and not multi_label


def _ranked(
    probabilities: Mapping[str, np.ndarray],
    label_sets: Mapping[str, Sequence[str]],
    number: int,
    multi_label: Collection[str],
) -> dict[str, list[_Entry]]:
    """As `top_classes`, with the class index of each label set that has a part in it."""
    found: dict[str, list[_Entry]] = {}
    for name, names in label_sets.items():
        best = np.argsort(-probabilities[name], kind="stable")[:number]
        found[name] = [((int(i),), names[i], float(probabilities[name][i])) for i in best]
    if has_joint(label_sets, multi_label):
        # The best combinations consist of classes that are among the best of their own set.
        combined = [
            (
                tuple(i for indices, _, _ in parts for i in indices),
                " + ".join(label for _, label, _ in parts),
                float(math.prod(p for _, _, p in parts)),
            )
            for parts in itertools.product(*found.values())
        ]
        found[JOINT] = sorted(combined, key=lambda entry: -entry[2])[:number]
    return found
