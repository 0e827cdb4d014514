"""Counts of what was found, and the CSV files that list it."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import IO

from avt_jax.data.manifests.catalog.annotations import UNLISTED, Row
from avt_jax.data.manifests.label_columns import split_names
from avt_jax.data.records import SPLITS
from avt_jax.host.output.cells import CellWriter

FOUND, MISSING, DUPLICATE, SKIPPED = "found", "missing", "duplicate", "skipped"
UNMATCHED, UNUSABLE = "unmatched", "unusable_name"

REPORT_COLUMNS = ("label_set", "class", "split", "annotated", FOUND, MISSING, DUPLICATE, SKIPPED)
PROBLEM_COLUMNS = ("problem", "split", "video_id", "start_sec", "end_sec", "path", "row", "message")


@dataclasses.dataclass
class Counts:
    """Rows of a class or a split.

    Attributes:
      found: rows with a file.
      missing: rows without one.
      duplicate: found rows with more than one file.
      skipped: rows that were left out whether there is a file or not.
    """

    found: int = 0
    missing: int = 0
    duplicate: int = 0
    skipped: int = 0

    @property
    def annotated(self) -> int:
        """All rows."""
        return self.found + self.missing + self.skipped


class Tally:
    """Adds up rows per split and per class of every label set.

    Attributes:
      splits: {split: Counts}, in the order train, val, test.
      classes: {label set: {class: {split: Counts}}}, classes in index order.
      reasons: {reason of a row that was left out: number}.
    """

    def __init__(self, names: dict[str, tuple[str, ...]]):
        self.splits: dict[str, Counts] = {split: Counts() for split in SPLITS}
        self.classes = {
            label_set: {name: {split: Counts() for split in SPLITS} for name in classes}
            for label_set, classes in names.items()
        }
        self.reasons: collections.Counter[str] = collections.Counter()

    def add(self, row: Row, labels: Sequence[str], num_files: int) -> None:
        """Counts one row.

        Args:
          row: the annotation.
          labels: its class names; see `Row.labels` for several.
          num_files: how many files fit it.
        """
        if row.problem:
            self.reasons[row.problem] += 1
        if row.problem in UNLISTED:
            return
        kind = SKIPPED if row.problem else FOUND if num_files else MISSING
        places = [self.splits[row.split]]
        for classes, label in zip(self.classes.values(), labels, strict=True):
            # A name with a bar in it is one class, unless the set is multi-label.
            named = [label] if label in classes else split_names(label)
            places += [classes[name][row.split] for name in named if name in classes]
        for counts in places:
            counts.missing += kind == MISSING
            counts.skipped += kind == SKIPPED
            counts.found += kind == FOUND
            counts.duplicate += kind == FOUND and num_files > 1

    def write(self, file: IO[str]) -> None:
        """Writes a line per split, then one per class and split, as CSV."""
        writer = CellWriter(file)
        writer.row(REPORT_COLUMNS)
        for split, counts in self.splits.items():
            _write_counts(writer, ["", "", split], counts)
        for label_set, classes in self.classes.items():
            for name, splits in classes.items():
                for split, counts in splits.items():
                    _write_counts(writer, [label_set, name, split], counts)


def _write_counts(writer: CellWriter, head: list[str], counts: Counts) -> None:
    if counts.annotated or not head[0]:
        kinds = (FOUND, MISSING, DUPLICATE, SKIPPED)
        writer.row([*head, counts.annotated, *(getattr(counts, kind) for kind in kinds)])


@dataclasses.dataclass(frozen=True)
class Problem:
    """A line of the list of problems: a row without a clip, or a file without a row.

    Attributes:
      problem: MISSING, DUPLICATE, UNMATCHED, UNUSABLE, or why a row was left out.
      row: the annotation, None for a file.
      path: of the file, or of the one that was taken; "" if there is none.
      message: more about it, or "".
    """

    problem: str
    row: Row | None = None
    path: str = ""
    message: str = ""


def write_problems(problems: Iterable[Problem], file: IO[str]) -> None:
    """Writes problems as CSV, one a line."""
    writer = CellWriter(file)
    writer.row(PROBLEM_COLUMNS)
    for item in problems:
        row, path = item.row, item.path.encode("utf-8", "backslashreplace").decode()
        if row is None:
            writer.row([item.problem, "", "", "", "", path, "", item.message])
            continue
        start, end = format_sec(row.start_sec), format_sec(row.end_sec)
        where = f"{row.file}:{row.line}"
        writer.row([item.problem, row.split, row.video_id, start, end, path, where, item.message])


def format_sec(seconds: float) -> str:
    """Seconds as in a manifest, to a millisecond: "12", "0.14"."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")
