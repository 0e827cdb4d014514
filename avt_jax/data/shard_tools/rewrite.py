"""New shard folders out of existing ones: several made one, or other sizes of shards."""

from __future__ import annotations

import csv
import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tqdm

from avt_jax.data import records
from avt_jax.data.records.labels import class_indices
from avt_jax.data.records.shards import list_shards, locate
from avt_jax.data.records.writer import RecordWriter
from avt_jax.data.shard_tools.verify import Problem, verify_folder
from avt_jax.errors import UserError
from avt_jax.host.new_folder import new_folder
from avt_jax.host.output.cells import CellWriter, cell_text
from avt_jax.host.progress import progress_bar

_FAILED_FILE = "failed.csv"
_FAILED_COLUMNS = ["path", "start_sec", "end_sec", "reason", "message"]


@dataclasses.dataclass(frozen=True)
class RewriteSummary:
    """What was written.

    Attributes:
      num_clips: records per split.
      num_dropped: damaged records that were left out.
      num_bytes: size of all records.
      elapsed_sec: wall-clock time.
    """

    num_clips: dict[str, int]
    num_dropped: int
    num_bytes: int
    elapsed_sec: float


@dataclasses.dataclass(frozen=True)
class _Input:
    """One folder to copy from, and how its records change."""

    folder: Path
    info: records.RecordsInfo
    class_index: Mapping[str, Sequence[int]]
    prefix: str = ""
    damaged: frozenset[tuple[str, int]] = frozenset()


def merge(
    out: str | os.PathLike[str],
    folders: Sequence[str | os.PathLike[str]],
    *,
    union_classes: bool = False,
    prefix_ids: bool = False,
    max_shard_mb: float = 256.0,
) -> RewriteSummary:
    """Writes the clips of several shard folders into a new one, with progress on stderr.

    Each split holds the clips of the first folder, then those of the second, and so on. The frame
    rate, short side and JPEG quality of the folders must be the same. Folders of an older minor
    schema version are brought up to this one.

    Args:
      out: folder to create; may exist if it is empty.
      folders: two or more shard folders.
      union_classes: allow class lists that differ. The result has the classes of the first folder,
        then those that the second adds, and so on; indices are changed to match. The names of the
        label sets must still be the same.
      prefix_ids: put the folder's name and a slash before each "id" and "source", for folders whose
        manifests name different videos by the same path.
      max_shard_mb: > 0, size in MiB at which a new shard is begun.

    Returns:
      What was written.

    Raises:
      UserError: the folders do not fit together, two clips have the same id, a record is damaged,
        or `out` cannot be written.
    """
    if len(folders) < 2:
        raise UserError("merging takes two shard folders or more.")
    paths = [Path(folder) for folder in folders]
    infos = [records.read_info(path) for path in paths]
    for path, info in zip(paths, infos, strict=True):
        _check_version(path, info)
        _check_alike(paths[0], infos[0], path, info)
    label_sets = _merged_classes(paths, infos, union_classes)
    prefixes = _prefixes(paths) if prefix_ids else [""] * len(paths)
    inputs = [
        _Input(
            path,
            info,
            {
                name: [label_sets[name].index(c) for c in classes]
                for name, classes in info.label_sets.items()
            },
            prefix,
        )
        for path, info, prefix in zip(paths, infos, prefixes, strict=True)
    ]
    writer_options = {"max_shard_bytes": _shard_bytes(max_shard_mb)}
    return _rewrite(out, inputs, label_sets, writer_options, "merging")


def reshard(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    max_shard_mb: float = 256.0,
    drop_damaged: bool = False,
    num_workers: int | None = None,
    on_dropped: Callable[[Problem], Any] = lambda problem: None,
) -> RewriteSummary:
    """Writes the clips of a shard folder into a new one with shards of another size.

    Args:
      path: shard folder.
      out: folder to create; may exist if it is empty.
      max_shard_mb: > 0, size in MiB at which a new shard is begun.
      drop_damaged: look at every record first, as `verify_folder` does, and leave damaged
        ones out.
      num_workers: processes that look; None is one per core, 0 none but this one.
      on_dropped: called with the `verify.Problem` of each record that is left out.

    Returns:
      What was written.

    Raises:
      UserError: not a shard folder, a record is damaged (without `drop_damaged`), a whole shard is
        missing or cannot be opened, or `out` cannot be written.
    """
    folder = Path(path)
    info = records.read_info(folder)
    _check_version(folder, info)
    max_shard_bytes = _shard_bytes(max_shard_mb)
    damaged: frozenset[tuple[str, int]] = frozenset()
    if drop_damaged:
        report = verify_folder(folder, num_workers=num_workers)
        found = [problem for problem in report.problems if problem.index is not None]
        for problem in found:
            on_dropped(problem)
        damaged = frozenset((p.file, p.index) for p in found if p.index is not None)
    same = {name: range(len(classes)) for name, classes in info.label_sets.items()}
    inputs = [_Input(folder, info, same, damaged=damaged)]
    options = {"max_shard_bytes": max_shard_bytes}
    return _rewrite(out, inputs, info.label_sets, options, "resharding")


def _shard_bytes(max_shard_mb: float) -> int:
    if not max_shard_mb > 0:
        raise UserError(f"--max-shard-mb {max_shard_mb:g} must be more than 0.")
    return int(min(max_shard_mb * 2**20, 2**62))


def _check_version(path: Path, info: records.RecordsInfo) -> None:
    if not records.can_rewrite(info.schema_version):
        raise UserError(
            f"{path} has record schema {info.schema_version}; this version writes "
            f"{records.SCHEMA_VERSION} and would lose fields; use a newer avt_jax."
        )


def _check_alike(
    first_path: Path, first: records.RecordsInfo, path: Path, info: records.RecordsInfo
) -> None:
    for name, what in (
        ("frame_rate_hz", "frames per second"),
        ("short_side_px", "px on the short side"),
        ("jpeg_quality", "as JPEG quality"),
    ):
        one, two = getattr(first, name), getattr(info, name)
        if one != two:
            raise UserError(
                f"{first_path} has {one:g} {what} and {path} {two:g}; extract them alike to merge "
                "them."
            )


def _merged_classes(
    paths: Sequence[Path], infos: Sequence[records.RecordsInfo], union_classes: bool
) -> dict[str, tuple[str, ...]]:
    result = dict(infos[0].label_sets)
    for path, info in zip(paths[1:], infos[1:], strict=True):
        if info.label_sets.keys() != result.keys():
            raise UserError(
                f"{paths[0]} has the label sets {', '.join(result)} and {path} "
                f"{', '.join(info.label_sets)}; only folders with the same ones can be merged."
            )
        if info.multi_label != infos[0].multi_label:
            name = next(iter({*info.multi_label} ^ {*infos[0].multi_label}))
            raise UserError(
                f"label set {name!r} is multi-label in one of {paths[0]} and {path} only; extract "
                "both from manifests with a column 'labels' to merge them (docs/multi_label.md)."
            )
        for name, classes in info.label_sets.items():
            if classes == infos[0].label_sets[name]:
                continue
            if not union_classes:
                raise UserError(
                    f"{paths[0]} and {path} have different classes in label set {name!r} "
                    f"({_difference(infos[0].label_sets[name], classes)}); "
                    "--union-classes merges them and renumbers."
                )
            new = [c for c in classes if c not in result[name]]
            result[name] = (*result[name], *new)
    return result


def _difference(one: tuple[str, ...], two: tuple[str, ...]) -> str:
    only = [*sorted(set(one) - set(two)), *sorted(set(two) - set(one))]
    return f"{only[0]!r} is in one only" if only else "their order"


def _prefixes(paths: Sequence[Path]) -> list[str]:
    names = [path.absolute().name for path in paths]
    if len(set(names)) < len(names):
        raise UserError(
            f"--prefix-ids needs folders of different names, got {', '.join(names)}; rename one."
        )
    return [f"{name}/" for name in names]


def _rewrite(
    out: str | os.PathLike[str],
    inputs: Sequence[_Input],
    label_sets: Mapping[str, tuple[str, ...]],
    writer_options: Mapping[str, Any],
    what: str,
) -> RewriteSummary:
    started = time.monotonic()
    info = inputs[0].info
    total = sum(sum(i.info.splits.values()) - len(i.damaged) for i in inputs)
    if not total:
        raise UserError(f"no usable record is left of {inputs[0].folder}; extract again.")
    with new_folder(out) as folder:
        writer = RecordWriter(
            folder,
            label_sets=label_sets,
            frame_rate_hz=info.frame_rate_hz,
            short_side_px=info.short_side_px,
            jpeg_quality=info.jpeg_quality,
            multi_label=info.multi_label,
            **writer_options,
        )
        splits = dict.fromkeys([*records.SPLITS, *(s for i in inputs for s in i.info.splits)])
        first_seen: dict[str, Path] = {}
        num_clips = {}
        with progress_bar(total, what, "clip") as bar:
            for split in splits:
                count = sum(_copy_split(i, split, writer, first_seen, bar) for i in inputs)
                if count:
                    num_clips[split] = count
        writer.close()
        _write_failures(folder / _FAILED_FILE, [i.folder / _FAILED_FILE for i in inputs])
    return RewriteSummary(
        num_clips=num_clips,
        num_dropped=sum(len(i.damaged) for i in inputs),
        num_bytes=writer.num_bytes,
        elapsed_sec=time.monotonic() - started,
    )


def _copy_split(
    source: _Input,
    split: str,
    writer: RecordWriter,
    first_seen: dict[str, Path],
    bar: tqdm.tqdm,
) -> int:
    """Copies one split of one folder; returns the number of records."""
    if split not in source.info.splits:
        return 0
    clips = records.open_split(source.folder, split)
    skipped = _split_indices(source, split)
    for index in range(len(clips)):
        if index in skipped:
            continue
        record = _read(clips, source.folder, split, index)
        for name in ("id", "source"):
            record[name] = source.prefix + record[name]
        record["labels"] = {
            name: tuple(source.class_index[name][index] for index in class_indices(value))
            if name in source.info.multi_label
            else source.class_index[name][value]
            for name, value in record["labels"].items()
        }
        if record["id"] in first_seen:
            raise _same_id(record["id"], first_seen[record["id"]], source.folder)
        first_seen[record["id"]] = source.folder
        writer.add(split, record)
        bar.update()
    return len(clips) - len(skipped)


def _same_id(clip_id: str, one: Path, two: Path) -> UserError:
    if one == two:
        return UserError(
            f"{one} has two clips {clip_id!r}; 'avt shards reshard' with --drop-damaged keeps the "
            "first."
        )
    return UserError(
        f"{one} and {two} both have a clip {clip_id!r}; leave one folder out if it is the same "
        "clip, or give --prefix-ids if it is another."
    )


def _split_indices(source: _Input, split: str) -> set[int]:
    """Indices in the split of the damaged records."""
    first = {s.path.name: s.first for s in list_shards(source.folder) if s.split == split}
    return {first[name] + index for name, index in source.damaged if name in first}


def _read(clips: records.RecordSource, folder: Path, split: str, index: int) -> dict[str, Any]:
    try:
        return clips[index]
    except UserError as error:
        shard, position = locate(folder, split, index)
        raise UserError(
            f"record {position} of shard {folder / shard} is damaged ({error}); "
            "'avt shards reshard' with --drop-damaged makes a folder without such records."
        ) from None


def _write_failures(path: Path, sources: Sequence[Path]) -> None:
    """One list of what the extractions could not decode."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = CellWriter(file)
        writer.row(_FAILED_COLUMNS)
        for source in sources:
            if source.is_file():
                with open(source, encoding="utf-8", errors="replace", newline="") as rows:
                    for row in csv.DictReader(rows):
                        writer.row(cell_text(row.get(name) or "") for name in _FAILED_COLUMNS)
