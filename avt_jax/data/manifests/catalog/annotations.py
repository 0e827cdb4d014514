"""Reads the annotation files of a data set as they are published."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from avt_jax.data.manifests.catalog.entries import DataSet, LabelSet
from avt_jax.data.manifests.fields import clean_label, parse_seconds
from avt_jax.data.manifests.label_columns import join_names, split_names
from avt_jax.data.manifests.table import open_text
from avt_jax.data.records import SPLITS
from avt_jax.errors import UserError, nearest

NO_LABEL, BAD_SPAN, REPEATED, OTHER_CLASS = "no_label", "bad_span", "repeated_row", "other_class"
NOT_TAKEN = "not_taken"
UNLISTED = (OTHER_CLASS, NOT_TAKEN)
"""Reasons that hold for most rows of a file, and are counted only."""

_NAME_AND_START = re.compile("(.+)_([0-9]{6})")


class Row(NamedTuple):
    """One line of an annotation file.

    Attributes:
      file: name of the file.
      line: line number in it, from 1.
      video_id: the source video.
      clip_name: name of the clip, "" if the data set has none.
      start_sec: >= 0, in the source video.
      end_sec: in the source video.
      split: "train", "val" or "test".
      labels: per label set, in the entry's order, what the label column says; of a multi-label set
        the names as `label_columns.join_names` joins them.
      indices: per label set the official class index, -1 where the set has none.
      problem: why the row is left out, "" if it is not: NO_LABEL, BAD_SPAN, REPEATED, OTHER_CLASS,
        NOT_TAKEN.
    """

    file: str
    line: int
    video_id: str
    clip_name: str
    start_sec: float
    end_sec: float
    split: str
    labels: tuple[str, ...]
    indices: tuple[int, ...]
    problem: str = ""


def read_annotations(entry: DataSet, files: Sequence[tuple[str, Path]]) -> list[Row]:
    """Reads and checks annotation files.

    Columns that are not needed are passed over: releases differ in them.

    Args:
      entry: the data set.
      files: (split, path); a split other than "" is that of all rows of the file.

    Returns:
      All rows in file order. Those of a test file without labels, with an end that is not after the
      start, and repetitions of a row have a `problem`.

    Raises:
      UserError: a file that is not in the published format; the message names the line.
    """
    rows: list[Row] = []
    seen: set[tuple[object, ...]] = set()
    for split, path in files:
        split = split or _split_of_file(entry, path)
        for line, fields in read_table(
            path,
            "annotation file",
            entry.columns,
            delimiter=entry.delimiter,
            quote=entry.quote,
            comment=entry.comment,
            spaced=entry.spaced,
        ):
            try:
                row = _row(entry, fields, split=split, file=path.name, line=line)
            except KeyError:
                absent = _absent_column(entry, fields, split)
                raise UserError(f"{path}, line {line}: {absent}.") from None
            except ValueError as error:
                raise UserError(f"{path}, line {line}: {error}.") from None
            key = (row.video_id, *row[4:9])
            if key in seen and not row.problem:
                row = row._replace(problem=REPEATED)
            seen.add(key)
            rows.append(row)
    rows = _join(entry, rows)
    if all(row.problem == NO_LABEL for row in rows):
        columns = [label_set.column for label_set in entry.label_sets.values()]
        raise UserError(
            f"no row of {', '.join(str(path) for _, path in files)} has a label (column "
            f"{' and '.join(columns)}); give the annotation files of {entry.title}."
        )
    return rows


def _join(entry: DataSet, rows: list[Row]) -> list[Row]:
    """Makes one row of those that name a class each of the same clip, where that is the format."""
    by_row = [one.is_several and not one.between for one in entry.label_sets.values()]
    if not any(by_row):
        return rows
    joined: dict[tuple[object, ...], Row] = {}
    for number, row in enumerate(rows):
        key = (row.video_id, *row[4:7]) if not row.problem else (number,)
        first = joined.setdefault(key, row)
        if first is not row:
            labels = tuple(
                join_names([*split_names(one), *split_names(two)]) if several else one
                for one, two, several in zip(first.labels, row.labels, by_row, strict=True)
            )
            joined[key] = first._replace(labels=labels)
    return list(joined.values())


def read_table(
    path: Path,
    what: str,
    columns: Sequence[str] = (),
    *,
    delimiter: str = ",",
    quote: str = '"',
    comment: str = "",
    spaced: bool = False,
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the line number and the stripped fields by column of every line that is not empty.

    Args:
      path: table as UTF-8 text.
      what: what messages call it.
      columns: of a file without a header; () = the first line names them. A comment or a header
        that somebody put in front is passed over.
      delimiter: the character between two fields.
      quote: the character around a field that holds a delimiter; "" = none.
      comment: begins lines that are passed over; "" = there are none.
      spaced: a space stands behind each delimiter, also before a quote.

    Raises:
      UserError: no such file, not UTF-8, or a line with another number of fields.
    """
    header = list(columns)
    with open_text(path, what) as file:
        reader = csv.reader(
            # An empty line in place of a comment: the numbers of the others stay.
            ("\n" if comment and text.startswith(comment) else text for text in file),
            skipinitialspace=spaced,
            delimiter=delimiter,
            quotechar=quote or None,
            quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
            strict=True,
        )
        # A quoted field may span lines: a row's number is that of its first line.
        line = 1
        try:
            for fields in reader:
                fields = [field.strip() for field in fields]
                if not any(fields):
                    pass
                elif not header:
                    header = fields
                elif not (line == 1 and _is_heading(fields, header)):
                    if len(fields) != len(header):
                        raise UserError(
                            f"{path}, line {line}: {len(fields)} fields, expected {len(header)} "
                            f"({', '.join(header)}); is this the published file?"
                        )
                    yield line, dict(zip(header, fields, strict=True))
                line = reader.line_num + 1
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}.") from error


def _is_heading(fields: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether a first line says what the columns are, in a file that needs no such line."""
    named = any(field.lower() == name for field, name in zip(fields, columns, strict=False))
    return named or fields[0].startswith("#")


def _split_of_file(entry: DataSet, path: Path) -> str:
    """The split that an official file stands for; "" where a column says it."""
    if entry.split:
        return ""
    for stem, split in entry.file_splits.items():
        if path.stem.lower() == stem.lower():
            return split
    raise UserError(
        f"the name of {path} does not say which split it is (as {', '.join(entry.file_splits)} "
        f"do); write it before the name: --csv train={path}."
    )


def _absent_column(entry: DataSet, fields: Mapping[str, str], split: str) -> str:
    columns = (entry.video, entry.start, entry.end, entry.clip, "" if split else entry.split)
    wanted = (*columns, *entry.only)
    name = next(name for name in wanted if name and name not in fields)
    return (
        f"the file has no column {name!r}{nearest(name, fields)}; a file of {entry.title} has "
        f"{', '.join(filter(None, wanted))}"
    )


def _row(entry: DataSet, fields: Mapping[str, str], *, split: str, file: str, line: int) -> Row:
    if not split:
        split = entry.splits.get(fields[entry.split].lower(), "")
        if split not in SPLITS:
            raise ValueError(
                f"split {fields[entry.split]!r} is unknown; expected {', '.join(entry.splits)}"
            )
    video_id, clip_name = fields[entry.video], fields[entry.clip] if entry.clip else ""
    start = "" if entry.name_has_start else fields[entry.start]
    if entry.name_has_start:
        match = _NAME_AND_START.fullmatch(video_id)
        if match is None:
            raise ValueError(
                f"{entry.video} {video_id!r} does not end in _ and a start of 6 digits"
            )
        video_id, start = match.groups()
    if not video_id or "/" in video_id or clean_label(video_id) != video_id:
        raise ValueError(f"{entry.video} {video_id!r} is no name of a video")
    start_sec = parse_seconds(start, entry.start or entry.video)
    if entry.end:
        end_sec = parse_seconds(fields[entry.end], entry.end)
    else:
        end_sec = start_sec + entry.clip_sec
    labels = tuple(_label(fields, label_set) for label_set in entry.label_sets.values())
    indices = tuple(_index(fields, label_set) for label_set in entry.label_sets.values())
    problem = BAD_SPAN if end_sec <= start_sec else ""
    if not all(labels):
        problem = NO_LABEL
    if any(fields[column] not in taken for column, taken in entry.only.items()):
        problem = NOT_TAKEN
    return Row(file, line, video_id, clip_name, start_sec, end_sec, split, labels, indices, problem)


def _label(fields: Mapping[str, str], label_set: LabelSet) -> str:
    label = clean_label(fields.get(label_set.column, ""))
    if label_set.is_several:
        parts = label.split(label_set.between) if label_set.between else [label]
        return join_names([part.strip() for part in parts if part.strip()])
    # Where the class has a number and the row none, the row has no label, whatever it is called.
    if label_set.index_column and not fields.get(label_set.index_column):
        return ""
    return label


def _index(fields: Mapping[str, str], label_set: LabelSet) -> int:
    text = fields.get(label_set.index_column, "")
    if not text:
        return -1
    if not re.fullmatch("[0-9]{1,6}", text) or int(text) >= label_set.num_classes:
        raise ValueError(
            f"{label_set.index_column} {text!r} is not a class index from 0 to "
            f"{label_set.num_classes - 1}"
        )
    return int(text)
