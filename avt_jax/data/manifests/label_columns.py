"""The label columns of a manifest: a class in a cell, several, or a column of 0 and 1 for each.

`label` and `label_<set>` hold the name of one class. `labels` and `labels_<set>` make the set
multi-label: a cell holds any number of names with `|` between them, and `labels:<class>` or
`labels_<set>:<class>` says 1 or 0 of one class.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from array import array
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from avt_jax.data.manifests.fields import clean_label
from avt_jax.errors import UserError, nearest

DEFAULT_LABEL_SET = "label"
BETWEEN = "|"
"""Stands between the classes of a cell; `\\|` is part of a name."""

_COLUMN = re.compile(r"(labels?)(?:_([a-z0-9_]{1,64}))?(?::(.+))?", re.DOTALL)
_BETWEEN = re.compile(r"(?<!\\)\|")
_TRUE, _FALSE = {"1", "true", "yes", "1.0"}, {"", "0", "false", "no", "0.0"}


def split_names(text: str) -> list[str]:
    """The class names of a cell of a multi-label set."""
    parts = [text] if BETWEEN not in text else _BETWEEN.split(text)
    return [part.replace(r"\|", BETWEEN).strip() for part in parts if part.strip()]


def join_names(names: Sequence[str]) -> str:
    """The cell that `split_names` takes apart."""
    return BETWEEN.join(name.replace(BETWEEN, r"\|") for name in names)


@dataclasses.dataclass
class LabelColumns:
    """The columns of one label set.

    Attributes:
      is_several: the set is multi-label.
      names: columns that hold class names.
      classes: {column: class} of those that hold 0 or 1.
    """

    is_several: bool
    names: list[str] = dataclasses.field(default_factory=list)
    classes: dict[str, str] = dataclasses.field(default_factory=dict)


def find_label_columns(
    path: Path, header: Sequence[str], others: Collection[str], multi_label: Collection[str]
) -> dict[str, LabelColumns]:
    """Sorts out which columns belong to which label set.

    Args:
      path: of the manifest, for messages.
      header: names of the columns.
      others: names of the other columns that there may be.
      multi_label: sets that are multi-label whatever their columns are called; of one that has no
        column, all columns that are nothing else are the classes.

    Returns:
      {label set: its columns}.

    Raises:
      UserError: two columns mean the same, there is no label column, or a column is unknown.
    """
    found: dict[str, LabelColumns] = {}
    unknown = []
    times = collections.Counter(header)
    for name in header:
        if times[name] > 1:
            raise UserError(f"manifest {path}: column {name!r} appears twice; keep it once.")
        match = _COLUMN.fullmatch(name)
        if match is None or (match[1] == "label" and match[3]):
            unknown += [] if name in others else [name]
            continue
        label_set = match[2] or DEFAULT_LABEL_SET
        is_several = match[1] == "labels" or label_set in multi_label
        own = found.setdefault(label_set, LabelColumns(is_several))
        if match[3]:
            own.classes[name] = match[3]
        elif own.names:
            raise UserError(
                f"manifest {path}: columns {own.names[0]!r} and {name!r} mean the same."
            )
        else:
            own.names.append(name)
        if own.is_several != is_several:
            raise UserError(
                f"manifest {path}: column {name!r} and those before it make the set {label_set!r} "
                "single-label and multi-label; keep the one or the others."
            )
    lacking = [name for name in multi_label if name not in found]
    if lacking and unknown:
        found[lacking[0]] = LabelColumns(True, classes={name: name for name in unknown})
        unknown, lacking = [], lacking[1:]
    if lacking:
        raise UserError(
            f"--multi-label {lacking[0]}: manifest {path} has no column of that set"
            f"{nearest(lacking[0], found)}; it has {', '.join(found) or 'no label set'}."
        )
    _check_known(path, header, unknown, others, found)
    return found


def _check_known(
    path: Path,
    header: Sequence[str],
    unknown: Sequence[str],
    others: Collection[str],
    found: Mapping[str, LabelColumns],
) -> None:
    if unknown:
        raise UserError(
            f"manifest {path}: unknown column {unknown[0]!r}{nearest(unknown[0], others)}; columns "
            f"are {', '.join(others)}, labels and label_<set> or labels_<set> (small letters, "
            "digits, _), with commas, semicolons or tabs between them."
        )
    if "path" not in header:
        raise UserError(f"manifest {path}: there is no column 'path'; it names the video files.")
    if not found:
        raise UserError(f"manifest {path}: there is no column 'label' or 'label_<set>'.")


class ClassNames:
    """The class names of one label set, numbered as they come or as a list has them."""

    def __init__(self, column: str, listed: Sequence[str] | None):
        """Starts without any, or with those of a list.

        Args:
          column: for messages.
          listed: the only names there may be, in their order; None = any.
        """
        self.column = column
        self.is_listed = bool(listed)
        self._listed = tuple(map(clean_label, listed or ()))
        self.index_of = {name: i for i, name in enumerate(self._listed)}
        self._spellings: dict[str, int] = {}
        self._first: dict[int, str] = {}
        self.warnings: list[str] = []

    def index(self, text: str) -> int:
        """The class index of what a manifest says.

        Raises:
          ValueError: nothing is said, or a class that is not in the list.
        """
        if (known := self._spellings.get(text)) is not None:
            return known
        name = clean_label(text)
        if not name:
            raise ValueError(f"{self.column} is empty; every clip needs one")
        if self.is_listed and name not in self.index_of:
            raise ValueError(
                f"{self.column} {text!r} is not in the class list{nearest(name, self.index_of)}; "
                "correct it or add it to the list"
            )
        number = self.index_of.setdefault(name, len(self.index_of))
        first = self._first.setdefault(number, text)
        if first != text:
            self.warnings.append(
                f"{self.column} {name!r} is written in two forms of Unicode, {ascii(first)} and "
                f"{ascii(text)}: they are taken for one class"
            )
        self._spellings[text] = number
        return number

    def order(self) -> tuple[tuple[str, ...], np.ndarray]:
        """(names in their final order, [y] the place there of each number so far)."""
        if self.is_listed:
            return self._listed, np.arange(len(self._listed), dtype=np.intc)
        names = sorted(self.index_of)
        place = np.empty(len(names), np.intc)
        place[[self.index_of[name] for name in names]] = np.arange(len(names))
        return tuple(names), place


class OneClass:
    """Reads the cells of a label set of which every clip has one class."""

    def __init__(
        self, columns: LabelColumns, place: Mapping[str, int], listed: Sequence[str] | None
    ):
        """Starts without clips.

        Args:
          columns: of the set.
          place: of every column of the manifest.
          listed: see `ClassNames`.
        """
        self._at = place[columns.names[0]]
        self._names = ClassNames(columns.names[0], listed)

    def code(self, fields: Sequence[str]) -> int:
        """The class index of a row.

        Raises:
          ValueError: there is none.
        """
        return self._names.index(fields[self._at])

    def finish(
        self, codes: array[int]
    ) -> tuple[tuple[str, ...], array[int], tuple[tuple[int, ...], ...] | None]:
        """(names in their final order, the codes that stand for them, None)."""
        names, place = self._names.order()
        if self._names.is_listed:
            return names, codes, None
        return names, array("i", place[np.frombuffer(codes, np.intc)].tobytes()), None

    @property
    def warnings(self) -> list[str]:
        """What a user should know."""
        warnings = list(self._names.warnings)
        barred = [] if self._names.is_listed else [n for n in self._names.index_of if BETWEEN in n]
        if barred:
            column = self._names.column
            warnings.append(
                f"{column} {barred[0]!r} is taken for the name of one class; if it names several, "
                f"call the column {column.replace('label', 'labels', 1)!r} (docs/multi_label.md)"
            )
        return warnings


class SeveralClasses:
    """Reads the cells of a multi-label set; a code stands for a combination of classes."""

    def __init__(
        self, columns: LabelColumns, place: Mapping[str, int], listed: Sequence[str] | None
    ):
        """Starts without clips; as `OneClass`."""
        self._names = ClassNames([*columns.names, *columns.classes][0], listed)
        self._at_names = [place[name] for name in columns.names]
        self._at_classes = [
            (place[column], self._names.index(name), column)
            for column, name in columns.classes.items()
        ]
        self._cells: dict[tuple[str, ...], int] = {}
        self._code_of: dict[tuple[int, ...], int] = {}
        self._combinations: list[tuple[int, ...]] = []

    def code(self, fields: Sequence[str]) -> int:
        """The code of a row's classes, of which there may be none.

        Raises:
          ValueError: a class that is not in the list, or a cell that is neither 0 nor 1.
        """
        cells = tuple([fields[at] for at in self._at_names])
        cells += tuple([fields[at] for at, _, _ in self._at_classes])
        if (known := self._cells.get(cells)) is not None:
            return known
        found = {self._names.index(n) for at in self._at_names for n in split_names(fields[at])}
        for at, index, column in self._at_classes:
            said = fields[at].lower()
            if said in _TRUE:
                found.add(index)
            elif said not in _FALSE:
                raise ValueError(f"{column} {fields[at]!r} is neither 0 nor 1")
        code = self._cells[cells] = self._coded(found)
        return code

    def joined(self, codes: Collection[int]) -> int:
        """The code of all classes of several codes together."""
        return self._coded({index for code in codes for index in self._combinations[code]})

    def _coded(self, indices: Collection[int]) -> int:
        combination = tuple(sorted(indices))
        code = self._code_of.setdefault(combination, len(self._combinations))
        if code == len(self._combinations):
            self._combinations.append(combination)
        return code

    def finish(
        self, codes: array[int]
    ) -> tuple[tuple[str, ...], array[int], tuple[tuple[int, ...], ...] | None]:
        """(names in their final order, the codes, for each code its ascending class indices)."""
        names, place = self._names.order()
        placed = [tuple(sorted(int(place[i]) for i in one)) for one in self._combinations]
        return names, codes, tuple(placed)

    @property
    def warnings(self) -> list[str]:
        """What a user should know."""
        return self._names.warnings
