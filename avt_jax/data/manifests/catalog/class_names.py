"""Which classes a data set has, and in which order."""

from __future__ import annotations

import collections
import dataclasses
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from avt_jax.data.manifests.catalog.annotations import OTHER_CLASS, Row, read_table
from avt_jax.data.manifests.catalog.entries import DataSet, LabelSet
from avt_jax.data.manifests.fields import clean_label
from avt_jax.data.manifests.manifest import read_classes
from avt_jax.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of a data set.

    Attributes:
      names: per label set, in the order of the class indices.
      rows: the annotations; those of a class that is not in a given list have a `problem`.
      warnings: what a user should know about the lists, a sentence each.
    """

    names: dict[str, tuple[str, ...]]
    rows: list[Row]
    warnings: list[str]

    def of(self, row: Row) -> tuple[str, ...]:
        """The row's class names, one per label set."""
        return tuple(
            names[index] if index >= 0 else label
            for names, label, index in zip(
                self.names.values(), row.labels, row.indices, strict=True
            )
        )


def order_classes(entry: DataSet, rows: Sequence[Row], files: Mapping[str, Path]) -> Classes:
    """Finds the class names of every label set.

    A label set with official indices keeps them: its names come from the given file, or else each
    class is called by the word its rows use most, and by its number when it has none. Other label
    sets are restricted to and ordered by the given file or the entry's own list, or else sorted.

    Args:
      entry: the data set.
      rows: its annotations.
      files: per label set, a text file with one name per line or a CSV with the columns id and key.

    Raises:
      UserError: a file for an unknown label set, or one that does not fit the data set.
    """
    for name in files:
        if name not in entry.label_sets:
            raise UserError(
                f"--classes {name}={files[name]}: {entry.title} has the label sets "
                f"{', '.join(entry.label_sets)}{nearest(name, entry.label_sets)}."
            )
    names, warnings, rows = {}, [], list(rows)
    for position, (name, label_set) in enumerate(entry.label_sets.items()):
        listed = _listed(entry, files.get(name), label_set)
        if label_set.index_column:
            names[name] = listed or _words(rows, position, label_set.num_classes)
            continue
        seen = {row.labels[position] for row in rows if row.labels[position]}
        names[name] = listed or tuple(sorted(seen))
        if listed:
            rows = _restrict(rows, position, set(listed))
        warnings += _compare(entry, label_set, names[name], seen, bool(listed))
    return Classes(names, rows, warnings)


def _listed(entry: DataSet, path: Path | None, label_set: LabelSet) -> tuple[str, ...] | None:
    """The names in the user's file or the entry's; None when there is neither."""
    if path is None:
        if not entry.class_list:
            return None
        package = importlib.resources.files(__package__)
        with importlib.resources.as_file(package / entry.class_list) as own:
            return read_classes(own)
    if path.suffix.lower() != ".csv":
        names = read_classes(path)
    else:
        names = _numbered(path)
    if label_set.index_column and len(names) != label_set.num_classes:
        raise UserError(
            f"class list {path} has {len(names)} classes, {entry.title} has "
            f"{label_set.num_classes} in column {label_set.index_column}; give the list of all."
        )
    return names


def _numbered(path: Path) -> tuple[str, ...]:
    """Names of a CSV with the columns id (0, 1, 2 ... in any order) and key."""
    names: dict[int, str] = {}
    seen: set[str] = set()
    for line, fields in read_table(path, "class list"):
        number, name = fields.get("id", ""), clean_label(fields.get("key", ""))
        if not re.fullmatch("[0-9]{1,6}", number) or not name:
            raise UserError(
                f"class list {path}, line {line}: needs a number in id and a name in key."
            )
        if int(number) in names or name in seen:
            raise UserError(f"class list {path}, line {line}: {number} or {name!r} appears twice.")
        names[int(number)] = name
        seen.add(name)
    if sorted(names) != list(range(len(names))) or not names:
        raise UserError(f"class list {path}: the column id must run from 0 without a gap.")
    return tuple(names[index] for index in range(len(names)))


def _words(rows: Sequence[Row], position: int, num_classes: int) -> tuple[str, ...]:
    """The most frequent word of every class, made unique with its number."""
    counts: dict[int, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for row in rows:
        if row.indices[position] >= 0:
            counts[row.indices[position]][row.labels[position]] += 1
    names = [
        min(counts[index], key=lambda word: (-counts[index][word], word))
        if index in counts
        else str(index)
        for index in range(num_classes)
    ]
    used = collections.Counter(names)
    return tuple(
        f"{name} ({index})" if used[name] > 1 else name for index, name in enumerate(names)
    )


def _restrict(rows: Sequence[Row], position: int, names: set[str]) -> list[Row]:
    return [
        row
        if not row.labels[position] or row.labels[position] in names
        else row._replace(problem=OTHER_CLASS)
        for row in rows
    ]


def _compare(
    entry: DataSet, label_set: LabelSet, names: Sequence[str], seen: set[str], listed: bool
) -> list[str]:
    unseen = [name for name in names if name not in seen]
    if unseen:
        shown = ", ".join(f"{name!r}{nearest(name, seen)}" for name in unseen[:3])
        more = f" and {len(unseen) - 3} more" if len(unseen) > 3 else ""
        return [f"no row is labelled {shown}{more}, which the class list names"]
    if not listed and label_set.num_classes not in (0, len(names)):
        return [
            f"the annotation names {len(names)} classes, {entry.title} has "
            f"{label_set.num_classes}: class indices will differ from those of the whole data set"
        ]
    return []
