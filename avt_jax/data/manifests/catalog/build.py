"""From annotation files and a folder of videos to a manifest, class lists and a report."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from avt_jax.data.manifests.catalog.annotations import UNLISTED, Row, read_annotations
from avt_jax.data.manifests.catalog.class_names import Classes, order_classes
from avt_jax.data.manifests.catalog.entries import DataSet
from avt_jax.data.manifests.catalog.report import (
    DUPLICATE,
    MISSING,
    UNMATCHED,
    UNUSABLE,
    Problem,
    Tally,
    format_sec,
    write_problems,
)
from avt_jax.data.manifests.catalog.videos import Folder, Found, choose, index_videos, match_videos
from avt_jax.data.manifests.group_splits import SplitFractions, assign_splits
from avt_jax.data.manifests.label_columns import split_names
from avt_jax.data.manifests.manifest import DEFAULT_LABEL_SET, path_prefix, write_classes
from avt_jax.data.manifests.table import write_rows
from avt_jax.errors import UserError
from avt_jax.host import collecting
from avt_jax.host.new_files import check_new, write_new


@dataclasses.dataclass(frozen=True)
class Options:
    """How the clips of a data set are looked for and divided.

    Attributes:
      class_files: per label set a class list; see `class_names.order_classes`.
      val_fraction: share of the training videos that becomes the validation split, in [0, 1).
      seed: of that division.
      trimmed: files named by the video's id alone were cut to the clip.
      follow_links: follow links below the folder of videos.
    """

    class_files: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    val_fraction: float = 0.0
    seed: int = 0
    trimmed: bool = False
    follow_links: bool = False


@dataclasses.dataclass(frozen=True)
class Written:
    """What was written and counted.

    Attributes:
      manifest: the manifest.
      class_lists: per label set the list that fixes the class indices.
      report: counts per split and class as CSV.
      problems: every missing, duplicate, unmatched and left-out item as CSV.
      tally: the counts.
      num_unmatched: video files that no row names.
      warnings: what a user should know, a sentence each.
    """

    manifest: Path
    class_lists: dict[str, Path]
    report: Path
    problems: Path
    tally: Tally
    num_unmatched: int
    warnings: list[str]


@collecting.put_off()
def manifest_from_annotations(
    entry: DataSet,
    annotations: Sequence[tuple[str, Path]],
    videos: Path,
    out: Path,
    options: Options | None = None,
) -> Written:
    """Writes the manifest of a known data set, and beside it class lists and reports.

    A row without a file is left out of the manifest and reported. The division into splits depends
    on the annotation, not on what was found.

    Args:
      entry: the data set.
      annotations: (split or "", annotation file); see `annotations.read_annotations`.
      videos: folder with the videos, in any sub-folders.
      out: the manifest. Neither it nor <out>.classes-*.txt, .report.csv, .problems.csv (without
        out's own suffix) may exist.
      options: see Options.

    Returns:
      What was written.

    Raises:
      UserError: a mistake in the files or options, or not one clip was found; nothing is written.
    """
    options = options or Options()
    if not out.name:
        raise UserError(f"--out {out} is no file name; give one such as clips.csv.")
    lists = {name: out.with_suffix(f".classes-{name}.txt") for name in entry.label_sets}
    counts, problems = out.with_suffix(".report.csv"), out.with_suffix(".problems.csv")
    check_new([*lists.values(), counts, problems, out])
    classes = order_classes(entry, read_annotations(entry, annotations), options.class_files)
    rows = _hold_out(classes.rows, options)
    folder = index_videos(videos, follow_links=options.follow_links)
    found, unmatched = match_videos(rows, folder.paths, trimmed=options.trimmed)
    taken = [choose(files, videos) if files else None for files in found]
    tally = Tally(classes.names)
    for row, files in zip(rows, found, strict=True):
        tally.add(row, classes.of(row), len(files))
    if not any(split.found for split in tally.splits.values()):
        raise UserError(_nothing_found(entry, rows, videos, folder))
    writers: dict[Path, Callable[[IO[str]], None]] = {
        path: functools.partial(_write_classes, names=classes.names[name], entry=entry)
        for name, path in lists.items()
    }
    writers[counts] = tally.write
    listed = _problems(rows, found, taken, unmatched, folder)
    writers[problems] = functools.partial(write_problems, listed)
    prefix = path_prefix(videos, out)
    writers[out] = functools.partial(
        _write_manifest, entry=entry, rows=rows, taken=taken, classes=classes, prefix=prefix
    )
    # The manifest comes last: where it is, the rest is.
    write_new(writers)
    warnings = [*classes.warnings, *_warnings(rows, folder)]
    return Written(out, lists, counts, problems, tally, len(unmatched), warnings)


def _hold_out(rows: list[Row], options: Options) -> list[Row]:
    """Moves a share of the training videos to the validation split."""
    fractions = SplitFractions(val=options.val_fraction, test=0.0)
    if not fractions.val:
        return rows
    if any(row.split == "val" for row in rows):
        raise UserError(
            f"--val-fraction {fractions.val:g}: the annotation has a validation split of its own; "
            "leave the option out, or the validation file."
        )
    classes: dict[tuple[str, ...], list[str]] = {}
    seen = set()
    for row in rows:
        if row.split == "train" and row.video_id not in seen:
            seen.add(row.video_id)
            # Of several classes the first decides: nearly every combination would stand alone.
            key = tuple(split_names(label)[0] for label in row.labels if label)
            classes.setdefault(key, []).append(row.video_id)
    splits = assign_splits({"\0".join(k): v for k, v in classes.items()}, fractions, options.seed)
    return [
        row._replace(split=splits[row.video_id]) if row.split == "train" else row for row in rows
    ]


def _nothing_found(entry: DataSet, rows: Sequence[Row], videos: Path, folder: Folder) -> str:
    wanted = [row for row in rows if not row.problem]
    if not wanted:
        return (
            f"none of the {len(rows)} rows is of a class in the list; write the names as the "
            f"annotation of {entry.title} does."
        )
    row = wanted[0]
    numbers = f"{int(row.start_sec):06d}_{int(row.end_sec):06d}"
    there = f"has {len(folder.paths)} videos, such as {folder.paths[0]!r}"
    return (
        f"none of the {len(wanted)} clips has a file below {videos}, which "
        f"{there if folder.paths else 'has no video'}; expected names such as "
        f"{row.video_id}_{numbers}.mp4 or {row.video_id}.mp4."
    )


def _problems(
    rows: Sequence[Row],
    found: Sequence[Sequence[Found]],
    taken: Sequence[Found | None],
    unmatched: Sequence[str],
    folder: Folder,
) -> list[Problem]:
    listed = []
    for row, files, own in zip(rows, found, taken, strict=True):
        if row.problem in UNLISTED:
            continue
        path = own.path if own else ""
        if row.problem:
            listed.append(Problem(row.problem, row, path))
        elif not own:
            listed.append(Problem(MISSING, row))
        elif len(files) > 1:
            others = ", ".join(sorted(item.path for item in files if item is not own))
            listed.append(Problem(DUPLICATE, row, path, f"also {others}"))
    listed += [Problem(UNMATCHED, path=path) for path in unmatched]
    listed += [Problem(UNUSABLE, path=path) for path in folder.unusable]
    return listed


def _warnings(rows: Sequence[Row], folder: Folder) -> list[str]:
    warnings = []
    splits: dict[str, str] = {}
    shared = sorted(
        {
            row.video_id
            for row in rows
            if not row.problem and splits.setdefault(row.video_id, row.split) != row.split
        }
    )
    if shared:
        warnings.append(
            f"{len(shared)} source videos have clips in more than one split, such as {shared[0]}"
        )
    if folder.num_links:
        warnings.append(
            f"{folder.num_links} links to folders below that of the videos were not entered; "
            "--follow-links enters them"
        )
    if folder.unusable:
        warnings.append(
            f"{len(folder.unusable)} files have names that a manifest cannot hold; rename them"
        )
    return warnings


def _write_classes(file: IO[str], names: Sequence[str], entry: DataSet) -> None:
    file.write(f"# Classes of {entry.title}; the first one has index 0.\n")
    write_classes(file, names)


def _write_manifest(
    file: IO[str],
    entry: DataSet,
    rows: Sequence[Row],
    taken: Sequence[Found | None],
    classes: Classes,
    prefix: str,
) -> None:
    sets = []
    for name in classes.names:
        column = "labels" if entry.label_sets[name].is_several else "label"
        sets.append(column if name == DEFAULT_LABEL_SET else f"{column}_{name}")

    def found() -> Iterator[list[str]]:
        for row, own in zip(rows, taken, strict=True):
            if own is None or row.problem:
                continue
            span = ("", "")
            if not own.trimmed:
                span = (format_sec(row.start_sec), format_sec(row.end_sec))
            yield [prefix + own.path, *span, *classes.of(row), row.split]

    write_rows(file, ["path", "start_sec", "end_sec", *sets, "split"], found())
