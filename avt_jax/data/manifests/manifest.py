"""Manifests: the CSV file that says which span of which video shows what.

Columns: `path`, `start_sec`, `end_sec`, `label` and/or `label_<set>`, `split`. See docs/data.md.
Everything is checked before any video is opened, so that a typo in line 40 000 costs a second.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from avt_jax.data.records import SPLITS
from avt_jax.errors import UserError, nearest

COLUMNS = ("path", "start_sec", "end_sec", "label", "split")
DEFAULT_LABEL_SET = "label"
MAX_MANIFEST_BYTES = 2**30

_LABEL_PREFIX = "label_"
_SET_NAME = re.compile(r"[a-z0-9_]{1,64}")


@dataclasses.dataclass(frozen=True)
class Clip:
    """One line of a manifest.

    Attributes:
      id: unique in the manifest, ASCII: "<path>@<start>-<end>#<row>".
      source: the path as written, without "./"; clips with the same source share a video.
      path: where the file is.
      start_sec: >= 0, where the clip starts in the file.
      end_sec: > start_sec, or None for the end of the file.
      labels: class index per label set.
      split: "train", "val" or "test".
      line: line number in the manifest, from 1.
    """

    id: str
    source: str
    path: Path
    start_sec: float
    end_sec: float | None
    labels: dict[str, int]
    split: str
    line: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A checked manifest.

    Attributes:
      path: the file it came from.
      clips: one entry per line, in file order.
      label_sets: class names per label set, in the order of their indices.
      has_splits: some line says which split its clip is in.
    """

    path: Path
    clips: tuple[Clip, ...]
    label_sets: dict[str, tuple[str, ...]]
    has_splits: bool = True


def read_classes(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Reads a class list: one name per line, `#` starts a comment line, blank lines are skipped.

    Args:
      path: a UTF-8 text file.

    Returns:
      The names in file order; position = class index.

    Raises:
      UserError: missing, unreadable or empty file, or a name that appears twice.
    """
    lines = _read_text(Path(path), "class list").splitlines()
    names = [line.strip() for line in lines]
    names = [name for name in names if name and not name.startswith("#")]
    if not names:
        raise UserError(f"class list {path} names no class; write one name per line.")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"class list {path} names {name!r} twice; keep it once.")
    return tuple(names)


def read_manifest(
    path: str | os.PathLike[str], classes: Mapping[str, Sequence[str]] | None = None
) -> Manifest:
    """Reads and checks a manifest. Whether the videos exist is left to the extraction.

    Args:
      path: CSV file in UTF-8 with a header line.
      classes: class names per label set; a label set that is not in it gets the sorted names that
        occur in the manifest.

    Returns:
      The clips with their labels as class indices.

    Raises:
      UserError: any mistake in the file; the message names the line.
    """
    path = Path(path)
    header, rows = read_rows(path)
    label_columns = _check_header(path, header)
    classes = dict(classes or {})
    for name in classes:
        if name not in label_columns:
            raise UserError(
                f"there is a class list for label set {name!r}{nearest(name, label_columns)}, but "
                f"manifest {path} has the label sets {', '.join(label_columns)}."
            )
    label_sets = {
        name: tuple(classes.get(name) or sorted({row[column] for _, row in rows}))
        for name, column in label_columns.items()
    }
    indices = {s: {name: i for i, name in enumerate(names)} for s, names in label_sets.items()}
    clips = []
    for number, (line, row) in enumerate(rows):
        try:
            labels = {
                name: _label_index(row[column], column, indices[name])
                for name, column in label_columns.items()
            }
            clips.append(_clip(row, labels, number=number, line=line, folder=path.parent))
        except ValueError as error:
            raise UserError(f"manifest {path}, line {line}: {error}.") from None
    has_splits = any(row.get("split") for _, row in rows)
    return Manifest(path, tuple(clips), label_sets, has_splits)


def path_prefix(folder: Path, out: Path) -> str:
    """What stands before the path of a file below `folder` in the manifest `out`.

    Args:
      folder: where the videos lie.
      out: the manifest.

    Returns:
      The way from the manifest's folder to `folder` with a slash at its end ("" if they are the
      same) when `folder` lies below that, else the absolute path.
    """
    # Resolved: a manifest may not hold "..", and "a/../b" is not always "b" where links are.
    base, folder = out.absolute().parent.resolve(), folder.resolve()
    if not folder.is_relative_to(base):
        return f"{folder.as_posix().rstrip('/')}/"
    inside = folder.relative_to(base).as_posix()
    return "" if inside == "." else f"{inside}/"


def _read_text(path: Path, what: str) -> str:
    if not path.exists():
        raise UserError(f"{what} {path} does not exist; check the path.")
    if not path.is_file():
        raise UserError(f"{what} {path} is not a file.")
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise UserError(f"{what} {path} is larger than 1 GiB; split it.")
        # Spreadsheet programs put a byte order mark in front, which must not become part of the
        # first column's name. newline="" leaves line ends inside quotes to the csv module.
        with open(path, encoding="utf-8-sig", newline="") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{what} {path} is not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {what} {path}: {error.strerror}.") from error


def read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Reads a manifest as it is written, without asking whether it makes sense.

    Args:
      path: CSV file in UTF-8 with a header line.

    Returns:
      The header and, for each line that is not empty, its number and its stripped fields by column.

    Raises:
      UserError: no such file, not CSV, or without clips.
    """
    text = _read_text(path, "manifest")
    if not text.strip():
        raise UserError(f"manifest {path} is empty; its first line names the columns.")
    reader = csv.reader(_lines(text), strict=True)
    rows = []
    try:
        header = [name.strip() for name in next(reader)]
        # A quoted field may span lines: a row's number is that of its first line.
        line = reader.line_num + 1
        for fields in reader:
            if any(field.strip() for field in fields):
                if len(fields) != len(header):
                    raise UserError(
                        f"manifest {path}, line {line}: {len(fields)} fields, but the header has "
                        f"{len(header)}; a field with a comma needs quotes."
                    )
                stripped = (field.strip() for field in fields)
                rows.append((line, dict(zip(header, stripped, strict=True))))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"manifest {path}, line {reader.line_num}: {error}.") from error
    if not rows:
        raise UserError(f"manifest {path} has a header but no clips; add one line per clip.")
    return header, rows


def _lines(text: str) -> Iterator[str]:
    return iter(re.split(r"(?<=\n)", text.replace("\r\n", "\n").replace("\r", "\n")))


def _check_header(path: Path, header: list[str]) -> dict[str, str]:
    """Checks the column names; returns {label set: column}."""
    label_columns = {}
    for name in header:
        if header.count(name) > 1:
            raise UserError(f"manifest {path}: column {name!r} appears twice; keep it once.")
        label_set = DEFAULT_LABEL_SET if name == "label" else name.removeprefix(_LABEL_PREFIX)
        if name == "label" or (name.startswith(_LABEL_PREFIX) and _SET_NAME.fullmatch(label_set)):
            if label_set in label_columns:
                raise UserError(f"manifest {path}: columns 'label' and {name!r} mean the same.")
            label_columns[label_set] = name
        elif name not in COLUMNS:
            raise UserError(
                f"manifest {path}: unknown column {name!r}{nearest(name, COLUMNS)}; columns are "
                f"{', '.join(COLUMNS)} and label_<set> (small letters, digits, _)."
            )
    if "path" not in header:
        raise UserError(f"manifest {path}: there is no column 'path'; it names the video files.")
    if not label_columns:
        raise UserError(f"manifest {path}: there is no column 'label' or 'label_<set>'.")
    return label_columns


def _label_index(value: str, column: str, indices: Mapping[str, int]) -> int:
    if not value:
        raise ValueError(f"{column} is empty; every clip needs one")
    if not value.isprintable():
        raise ValueError(f"{column} {value!r} contains control characters")
    if value not in indices:
        raise ValueError(
            f"{column} {value!r} is not in the class list{nearest(value, indices)}; "
            "correct it or add it to the list"
        )
    return indices[value]


def _clip(
    row: Mapping[str, str], labels: dict[str, int], *, number: int, line: int, folder: Path
) -> Clip:
    if not row["path"]:
        raise ValueError("path is empty")
    if not row["path"].isprintable():
        raise ValueError(f"path {row['path']!r} contains control characters")
    pure = PurePosixPath(row["path"])
    if ".." in pure.parts:
        raise ValueError(
            f"path {row['path']!r} contains '..'; write it below the manifest's folder, or in full"
        )
    start_sec = _seconds(row, "start_sec")
    end_sec = _seconds(row, "end_sec")
    start_sec = 0.0 if start_sec is None else start_sec
    if end_sec is not None and end_sec <= start_sec:
        raise ValueError(f"end_sec {end_sec:g} is not after start_sec {start_sec:g}")
    split = row.get("split") or SPLITS[0]
    if split not in SPLITS:
        raise ValueError(
            f"split {split!r} is unknown{nearest(split, SPLITS)}; splits are {', '.join(SPLITS)}"
        )
    source = pure.as_posix()
    end = "end" if end_sec is None else f"{end_sec:.3f}"
    ascii_source = source.encode("ascii", "backslashreplace").decode()
    return Clip(
        id=f"{ascii_source}@{start_sec:.3f}-{end}#{number}",
        source=source,
        path=(folder / source).absolute(),
        start_sec=start_sec,
        end_sec=end_sec,
        labels=labels,
        split=split,
        line=line,
    )


def _seconds(row: Mapping[str, str], column: str) -> float | None:
    text = row.get(column, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{column} {text!r} is not a number of seconds") from None
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{column} {text!r} must be a finite number of seconds, 0 or more")
    return value
