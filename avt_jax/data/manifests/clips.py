"""The clips of a manifest, kept in columns: an object for each of a million would fill memory."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from array import array
from collections.abc import Iterator, Sequence
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any, overload

import numpy as np

from avt_jax.data.records import SPLITS
from avt_jax.data.records.labels import Label
from avt_jax.host.output.terminal import without_controls


@dataclasses.dataclass(frozen=True)
class Clip:
    """One line of a manifest.

    Attributes:
      id: unique in the manifest, ASCII: "<path>@<start>-<end>#<row>".
      source: the path as written, without "./"; clips with the same source share a video.
      path: where the file is.
      start_sec: >= 0, where the clip starts in the file.
      end_sec: > start_sec, or None for the end of the file.
      labels: per label set the class index, or the ascending indices of a multi-label set.
      split: "train", "val" or "test".
      line: line number in the manifest, from 1.
    """

    id: str
    source: str
    path: Path
    start_sec: float
    end_sec: float | None
    labels: dict[str, Label]
    split: str
    line: int


class Columns:
    """All that is known of the clips, a column each."""

    def __init__(self, folder: Path, label_sets: Sequence[str]):
        """Starts without clips.

        Args:
          folder: of the manifest.
          label_sets: their names.
        """
        self.base = os.fspath(folder.absolute())
        self.label_sets = tuple(label_sets)
        self.sources: list[str] = []
        self.starts, self.ends = array("d"), array("d")  # NaN: the end of the file
        self.labels = tuple(array("i") for _ in label_sets)
        self.splits = array("b")
        self.lines = array("q")
        # Of multi-label sets: what the numbers in `labels` stand for.
        self.combinations: dict[str, tuple[tuple[int, ...], ...]] = {}
        self._shared: dict[tuple[int, ...], dict[str, Label]] = {}

    def labels_of(self, row: int) -> dict[str, Label]:
        """The labels of a row; rows with the same labels share them."""
        indices = tuple([column[row] for column in self.labels])
        found = self._shared.get(indices)
        if found is None:
            found = self._shared[indices] = {
                name: self.combinations[name][code] if name in self.combinations else code
                for name, code in zip(self.label_sets, indices, strict=True)
            }
        return found

    def leave_out(self, rows: Sequence[int]) -> None:
        """Forgets some rows."""
        lost = set(rows)
        kept = [row for row in range(len(self.sources)) if row not in lost]
        self.sources = [self.sources[row] for row in kept]
        for name in ("starts", "ends", "splits", "lines"):
            column: array[Any] = getattr(self, name)
            setattr(self, name, array(column.typecode, (column[row] for row in kept)))
        self.labels = tuple(array("i", (codes[row] for row in kept)) for codes in self.labels)

    def path_of(self, source: str) -> str:
        """Where the file of a source is."""
        if source.startswith("/"):
            return source
        return self.base if source == "." else f"{self.base.rstrip('/')}/{source}"

    def id_of(self, row: int) -> str:
        """The id of a row's clip."""
        end_sec = self.ends[row]
        end = "end" if math.isnan(end_sec) else f"{end_sec:.3f}"
        source = self.sources[row]
        if not (source.isascii() and source.isprintable()):
            source = without_controls(source).encode("ascii", "backslashreplace").decode()
        return f"{source}@{self.starts[row]:.3f}-{end}#{row}"

    def clip(self, row: int) -> Clip:
        """The clip of a row."""
        end_sec = self.ends[row]
        return Clip(
            id=self.id_of(row),
            source=self.sources[row],
            path=Path(self.path_of(self.sources[row])),
            start_sec=self.starts[row],
            end_sec=None if math.isnan(end_sec) else end_sec,
            labels=self.labels_of(row),
            split=SPLITS[self.splits[row]],
            line=self.lines[row],
        )


class Clips(Sequence[Clip]):
    """Clips by position; each is made when it is asked for."""

    def __init__(self, columns: Columns, rows: np.ndarray | None = None):
        """Takes some rows.

        Args:
          columns: of all clips.
          rows: int [n], which; None = all.
        """
        self._columns = columns
        self._rows = np.arange(len(columns.sources)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Clip: ...

    @overload
    def __getitem__(self, index: slice) -> Clips: ...

    def __getitem__(self, index: int | slice) -> Clip | Clips:
        if isinstance(index, slice):
            return Clips(self._columns, self._rows[index])
        return self._columns.clip(int(self._rows[index]))

    def __iter__(self) -> Iterator[Clip]:
        return map(self._columns.clip, self._rows.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list's

    @property
    def sources(self) -> Iterator[str]:
        """The source of each clip."""
        return (self._columns.sources[row] for row in self._rows.tolist())

    @property
    def splits(self) -> Iterator[str]:
        """The split of each clip."""
        return (SPLITS[self._columns.splits[row]] for row in self._rows.tolist())

    @property
    def labels(self) -> Iterator[dict[str, Label]]:
        """The labels of each clip; not to be changed."""
        return map(self._columns.labels_of, self._rows.tolist())

    def of_split(self, split: str) -> Clips:
        """Those of one split."""
        codes = np.frombuffer(self._columns.splits, np.int8)[self._rows]
        return Clips(self._columns, self._rows[codes == SPLITS.index(split)])

    def json_lines(self) -> Iterator[str]:
        """Each clip as `json.dumps` writes its fields, several times quicker."""
        columns, text = self._columns, encode_basestring_ascii
        told: dict[int, str] = {}  # of each set of labels, which many clips share
        for row in self._rows.tolist():
            source, end_sec = columns.sources[row], columns.ends[row]
            shared = columns.labels_of(row)
            labels = told.get(id(shared)) or told.setdefault(id(shared), json.dumps(shared))
            end = "null" if math.isnan(end_sec) else repr(end_sec)
            yield (
                f'{{"id": {text(columns.id_of(row))}, "source": {text(source)}, '
                f'"path": {text(columns.path_of(source))}, "start_sec": {columns.starts[row]!r}, '
                f'"end_sec": {end}, "labels": {labels}, '
                f'"split": "{SPLITS[columns.splits[row]]}", "line": {columns.lines[row]}}}'
            )
