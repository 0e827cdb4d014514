"""Manifests: the CSV file that says which span of which video shows what.

Columns: `path`, `start_sec`, `end_sec`, `label` and/or `label_<set>`, `split`. See docs/data.md,
and docs/multi_label.md for sets of which a clip may have several classes.
Everything is checked before any video is opened, so that a typo in line 40 000 costs a second.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from avt_jax.data.manifests.clips import Clips, Columns
from avt_jax.data.manifests.fields import (
    clean_label,
    near_split,
    parse_seconds,
    read_path,
    split_named,
)
from avt_jax.data.manifests.label_columns import (
    DEFAULT_LABEL_SET,
    LabelColumns,
    OneClass,
    SeveralClasses,
    find_label_columns,
)
from avt_jax.data.manifests.repeated import settle
from avt_jax.data.manifests.table import Rows, open_text
from avt_jax.data.records import SPLITS
from avt_jax.errors import UserError, nearest
from avt_jax.host import collecting

COLUMNS = ("path", "start_sec", "end_sec", "label", "split")

__all__ = [
    "COLUMNS",
    "DEFAULT_LABEL_SET",
    "Manifest",
    "path_prefix",
    "read_classes",
    "read_manifest",
    "read_rows",
    "write_classes",
]
# A comment of a class list, or a name that would be one but for the backslashes before it.
_LIKE_A_COMMENT = re.compile(r"\\*#(?:\s|$)")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A checked manifest.

    Attributes:
      path: the file it came from.
      clips: one entry per line, in file order.
      label_sets: class names per label set, in the order of their indices.
      has_splits: some line says which split its clip is in.
      warnings: what a user should know, a sentence each.
      multi_label: the label sets of which a clip may have any number of classes.
    """

    path: Path
    clips: Clips
    label_sets: dict[str, tuple[str, ...]]
    has_splits: bool = True
    warnings: tuple[str, ...] = ()
    multi_label: tuple[str, ...] = ()


def read_classes(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Reads a class list: one name per line, `# ` starts a comment line, blank ones are skipped.

    A name may begin with `#`, as `#tag` does; where a space follows, the line is written `\\# tag`.

    Args:
      path: a text file.

    Returns:
      The names in file order; position = class index.

    Raises:
      UserError: missing, unreadable or empty file, or a name that appears twice.
    """
    with open_text(Path(path), "class list") as file:
        lines = [line.strip() for line in file]
    names = [
        clean_label(line[1:] if line[0] == "\\" and _LIKE_A_COMMENT.match(line) else line)
        for line in lines
        if line and not (line[0] == "#" and _LIKE_A_COMMENT.match(line))
    ]
    if not names:
        raise UserError(f"class list {path} names no class; write one name per line.")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"class list {path} names {name!r} twice; keep it once.")
        seen.add(name)
    return tuple(names)


def write_classes(file: IO[str], names: Iterable[str]) -> None:
    """Writes class names as `read_classes` reads them."""
    for name in names:
        file.write(f"\\{name}\n" if _LIKE_A_COMMENT.match(name) else f"{name}\n")


@collecting.put_off()
def read_manifest(
    path: str | os.PathLike[str],
    classes: Mapping[str, Sequence[str]] | None = None,
    *,
    multi_label: Collection[str] = (),
    join: bool = True,
) -> Manifest:
    """Reads and checks a manifest. Whether the videos exist is left to the extraction.

    Args:
      path: CSV file with a header line; see `table.Rows` for what it may be like.
      classes: class names per label set; a label set that is not in it gets the sorted names that
        occur in the manifest.
      multi_label: label sets that are multi-label, whatever their columns are called; see
        `label_columns.find_label_columns`.
      join: rows of one clip are joined where a set is multi-label; False leaves every row a clip.

    Returns:
      The clips with their labels as class indices.

    Raises:
      UserError: any mistake in the file; the message names the line.
    """
    path = Path(path)
    classes = dict(classes or {})
    with open_text(path, "manifest") as file:
        rows = Rows(file, path, "manifest", COLUMNS)
        found = find_label_columns(path, rows.header, COLUMNS, multi_label)
        for name in classes:
            if name not in found:
                raise UserError(
                    f"there is a class list for label set {name!r}{nearest(name, found)}, "
                    f"but manifest {path} has the label sets {', '.join(found)}."
                )
        readers = _readers(path, rows.header, found, classes)
        columns = Columns(path.parent, tuple(found))
        has_splits = _fill(columns, rows, tuple(readers.values()), path)
    if not columns.sources:
        raise UserError(f"manifest {path} has a header but no clips; add one line per clip.")
    _join_spellings(columns, path)
    warnings = [warning for reader in readers.values() for warning in reader.warnings]
    if join:
        warnings += settle(columns, readers)
    label_sets = {}
    for place, (name, reader) in enumerate(readers.items()):
        label_sets[name], codes, combinations = reader.finish(columns.labels[place])
        columns.labels = (*columns.labels[:place], codes, *columns.labels[place + 1 :])
        if not label_sets[name]:
            raise UserError(f"manifest {path}: no clip has a class of the set {name!r}; add some.")
        if combinations is not None:
            columns.combinations[name] = combinations
    return Manifest(
        path, Clips(columns), label_sets, has_splits, tuple(warnings), tuple(columns.combinations)
    )


def _readers(
    path: Path,
    header: Sequence[str],
    found: Mapping[str, LabelColumns],
    classes: Mapping[str, Sequence[str]],
) -> dict[str, OneClass | SeveralClasses]:
    """What reads each label set."""
    place = {name: number for number, name in enumerate(header)}
    try:
        return {
            name: (SeveralClasses if own.is_several else OneClass)(own, place, classes.get(name))
            for name, own in found.items()
        }
    except ValueError as error:
        raise UserError(f"manifest {path}, line 1: {error}.") from None


def _fill(
    columns: Columns, rows: Rows, readers: Sequence[OneClass | SeveralClasses], path: Path
) -> bool:
    """Takes all rows; returns whether one of them names a split."""
    place = {name: number for number, name in enumerate(rows.header)}
    at_path, at_split = place["path"], place.get("split")
    at_times = [place.get(name) for name in ("start_sec", "end_sec")]
    read_labels = [(one.code, to.append) for one, to in zip(readers, columns.labels, strict=True)]
    decimal_comma = rows.delimiter != ","
    codes: dict[str, int] = {"": 0}
    for line, fields in rows:
        try:
            start_sec, end_sec = (
                None
                if at is None or not fields[at]
                else parse_seconds(fields[at], rows.header[at], decimal_comma=decimal_comma)
                for at in at_times
            )
            start_sec = start_sec or 0.0
            if end_sec is not None and end_sec <= start_sec:
                raise ValueError(f"end_sec {end_sec:g} is not after start_sec {start_sec:g}")
            source = read_path(fields[at_path])
            for code, append in read_labels:
                append(code(fields))
            split = "" if at_split is None else fields[at_split]
            if split not in codes:
                codes[split] = _split_code(split)
        except ValueError as error:
            raise UserError(f"manifest {path}, line {line}: {error}.") from None
        columns.sources.append(source)
        columns.starts.append(start_sec)
        columns.ends.append(math.nan if end_sec is None else end_sec)
        columns.splits.append(codes[split])
        columns.lines.append(line)
    return len(codes) > 1


def _split_code(text: str) -> int:
    split = split_named(text)
    if split is None:
        raise ValueError(
            f"split {text!r} is unknown{near_split(text)}; splits are {', '.join(SPLITS)}"
        )
    return SPLITS.index(split)


def _join_spellings(columns: Columns, path: Path) -> None:
    """A file that is named in full and below the manifest's folder is one source."""
    sources = columns.sources
    absolute = [row for row, source in enumerate(sources) if source.startswith("/")]
    if not absolute or len(absolute) == len(sources):
        return
    relative = {source for source in sources if not source.startswith("/")}
    bases = {f"{base.rstrip('/')}/" for base in (columns.base, os.path.realpath(path.parent))}
    for row in absolute:
        for base in bases:
            inside = sources[row].removeprefix(base)
            if inside in relative:
                sources[row] = inside
                break


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


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Reads a manifest as it is written, without asking whether it makes sense.

    Args:
      path: CSV file with a header line.

    Returns:
      The header and the stripped fields by column of each line that is not empty.

    Raises:
      UserError: no such file, not CSV.
    """
    with open_text(path, "manifest") as file:
        rows = Rows(file, path, "manifest", COLUMNS)
        return rows.header, [dict(zip(rows.header, fields, strict=True)) for _, fields in rows]
