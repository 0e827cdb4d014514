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
from avt_jax.data.manifests.label_columns import join_names, split_names
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
        """The row's class names, one per label set; see `Row.labels` for several."""
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
        if label_set.codes:
            rows = _named(entry, rows, position, name, files.get(name))
        cells = {row.labels[position] for row in rows if row.labels[position]}
        seen = {n for cell in cells for n in split_names(cell)} if label_set.is_several else cells
        names[name] = listed or tuple(sorted(seen))
        if listed:
            rows = _restrict(rows, position, set(listed), label_set.is_several)
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


def _named(
    entry: DataSet, rows: Sequence[Row], position: int, name: str, path: Path | None
) -> list[Row]:
    """Rows with the names of their codes, which a CSV with the columns mid and display_name has."""
    if path is None or path.suffix.lower() != ".csv":
        raise UserError(
            f"{entry.title} labels clips with codes such as {rows[0].labels[position][:40]!r}; "
            f"give its list of names: --classes {name}=class_labels_indices.csv."
        )
    names = {
        fields.get("mid", ""): clean_label(fields.get("display_name", ""))
        for _, fields in read_table(path, "class list")
    }
    found = []
    for row in rows:
        codes = split_names(row.labels[position])
        unknown = [code for code in codes if code not in names]
        if unknown:
            raise UserError(
                f"{row.file}, line {row.line}: {unknown[0]!r} is not in the column mid of the "
                f"class list {path}; are both of one release?"
            )
        labels = list(row.labels)
        labels[position] = join_names([names[code] for code in codes])
        found.append(row._replace(labels=tuple(labels)))
    return found


def _numbered(path: Path) -> tuple[str, ...]:
    """Names of a CSV with the columns id (0, 1, 2 ... in any order) and key.

    Or as AudioSet calls them, index and display_name.
    """
    names: dict[int, str] = {}
    seen: set[str] = set()
    for line, fields in read_table(path, "class list"):
        number = fields.get("id", fields.get("index", ""))
        name = clean_label(fields.get("key", fields.get("display_name", "")))
        if not re.fullmatch("[0-9]{1,6}", number) or not name:
            raise UserError(
                f"class list {path}, line {line}: needs a number in id (or index) and a name in "
                "key (or display_name)."
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


def _restrict(rows: Sequence[Row], position: int, names: set[str], is_several: bool) -> list[Row]:
    if is_several:
        return [_with_listed(row, position, names) for row in rows]
    return [
        row
        if not row.labels[position] or row.labels[position] in names
        else row._replace(problem=OTHER_CLASS)
        for row in rows
    ]


def _with_listed(row: Row, position: int, names: set[str]) -> Row:
    """A row with those of its classes that are listed; without any it is of another class."""
    kept = [name for name in split_names(row.labels[position]) if name in names]
    if not kept:
        return row if row.problem else row._replace(problem=OTHER_CLASS)
    labels = (*row.labels[:position], join_names(kept), *row.labels[position + 1 :])
    return row._replace(labels=labels)


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
