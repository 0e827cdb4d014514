"""Ways to go through any records by index."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def lazy_reader(source: Any) -> Callable[[int], Mapping[str, Any]]:
    """Index -> record, of which a frame is copied only when it is asked for, where that is known.

    Args:
      source: `open_split`'s, or any object with `len()` and `[i]`.
    """
    read: Callable[[int], Mapping[str, Any]] = getattr(source, "read_lazily", source.__getitem__)
    return read


def label_reader(source: Any) -> Callable[[int], Mapping[str, Any]]:
    """Index -> {label set: label}, for which no more is read than must be, where that is known.

    Args:
      source: as for `lazy_reader`.
    """
    read = lazy_reader(source)
    labels: Callable[[int], Mapping[str, Any]] = getattr(
        source, "read_labels", lambda index: read(index)["labels"]
    )
    return labels


def evenly_spread(count: int, most: int | None = None) -> list[int]:
    """Indices below `count`, all of them, or `most` in even distances from the first on."""
    used = count if most is None else min(count, most)
    return [number * count // used for number in range(used)]
