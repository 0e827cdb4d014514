"""What a record says of a label set: one class, or, in a multi-label set, any number of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

Label = int | tuple[int, ...]
"""A class index; of a multi-label set the indices of all classes that apply, ascending."""


def class_indices(label: Any) -> tuple[int, ...]:
    """The classes that a label names, ascending.

    Args:
      label: a class index; or, of a multi-label set, class indices, or an array [y] of 0 and 1.
    """
    if isinstance(label, np.ndarray) and label.ndim == 1:
        return tuple(np.flatnonzero(label).tolist())
    if isinstance(label, tuple | list):
        return tuple(sorted({int(index) for index in label}))
    return (int(label),)


def is_several(label: Any) -> bool:
    """Whether a label is one of a multi-label set."""
    return isinstance(label, tuple | list) or (isinstance(label, np.ndarray) and label.ndim == 1)


def many_hot(indices: Sequence[int], num_classes: int) -> np.ndarray:
    """uint8 [y], 1 for the classes that are named."""
    hot_y = np.zeros(num_classes, np.uint8)
    hot_y[list(indices)] = 1
    return hot_y


def compact(labels: Mapping[str, Any]) -> dict[str, Label]:
    """The same labels as values that can be compared and hashed."""
    return {
        name: class_indices(value) if is_several(value) else int(value)
        for name, value in labels.items()
    }


def named(label: Any, classes: Sequence[str]) -> str:
    """The names of a label's classes, with " | " between them; "none" of no class."""
    return " | ".join(classes[index] for index in class_indices(label)) or "none"


def check_sets(multi_label: Collection[str], label_sets: Mapping[str, Any]) -> tuple[str, ...]:
    """The multi-label sets in the order of the label sets.

    Raises:
      ValueError: one of them is no label set.
    """
    for name in multi_label:
        if name not in label_sets:
            raise ValueError(f"multi_label names {name!r:.80}, no label set")
    return tuple(name for name in label_sets if name in multi_label)
