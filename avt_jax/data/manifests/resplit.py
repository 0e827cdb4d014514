"""Divides the clips of a manifest that exists, by groups of files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from avt_jax.data.manifests.group_splits import Divided, SplitFractions, divide
from avt_jax.data.manifests.manifest import Manifest, path_prefix, read_manifest, read_rows
from avt_jax.data.manifests.name_groups import find_grouping
from avt_jax.data.manifests.table import write_rows
from avt_jax.data.records import SPLITS
from avt_jax.data.records.labels import Label, class_indices
from avt_jax.errors import UserError
from avt_jax.host.new_files import check_new, write_new

_NO_CLASS = "(no class)"


def split_manifest(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    fractions: SplitFractions | None = None,
    seed: int = 0,
    group_by: str | None = None,
    replace: bool = False,
) -> Divided:
    """Writes a manifest again with a new column `split`; all other columns stay.

    The files of every class, of the first label set, are divided by the same fractions. Clips of
    one file always share a split, and so do copies of a file and the files of a group.

    Args:
      path: the manifest.
      out: the manifest to write; must not exist. Its relative paths lead to the same files.
      fractions: held-out shares.
      seed: another seed, another division.
      group_by: regular expression, searched for in every path as the manifest writes it; see
        `group_splits.divide`.
      replace: allow splits that are there to be replaced.

    Returns:
      Numbers of clips and groups; without `group_by`, how the names look grouped.

    Raises:
      UserError: a mistake in the manifest, it has splits already, `out` exists, or `group_by` is
        no regular expression or is not found in some path.
    """
    path, out = Path(path), Path(out)
    manifest = read_manifest(path, join=False)
    check_new([out])
    header, rows = read_rows(path)
    if manifest.has_splits and not replace:
        given = sum(bool(row.get("split")) for row in rows)
        raise UserError(
            f"{given} of {len(rows)} clips in {path} have a split already; --replace-splits makes "
            "new ones for all clips."
        )
    files = _files_of_classes(manifest)
    names = {clip.path: clip.source for clip in manifest.clips}
    division = divide(files, names, fractions or SplitFractions(), seed=seed, group_by=group_by)
    splits = [division.splits[clip.path] for clip in manifest.clips]
    prefix = path_prefix(path.absolute().parent, out)
    new_rows = [
        {**row, "split": split, "path": _moved(row["path"], prefix)}
        for row, split in zip(rows, splits, strict=True)
    ]
    _write(out, header if "split" in header else [*header, "split"], new_rows)
    counts = {name: dict.fromkeys(SPLITS, 0) for name in files}
    for clip, split in zip(manifest.clips, splits, strict=True):
        for name in _classes_of(manifest, clip.labels):
            counts[name][split] += 1
    if group_by:
        return Divided(counts, division.num_groups(), None)
    return Divided(counts, None, find_grouping(_classes_of_sources(manifest)))


def _write(out: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    def write(file: IO[str]) -> None:
        write_rows(file, columns, rows)

    write_new({out: write})


def _classes_of(manifest: Manifest, labels: Mapping[str, Label]) -> list[str]:
    """The class of a clip, or all of them, of the manifest's first label set."""
    name, classes = next(iter(manifest.label_sets.items()))
    return [classes[index] for index in class_indices(labels[name])] or [_NO_CLASS]


def _classes_of_sources(manifest: Manifest) -> dict[str, set[str]]:
    """{source: classes of its clips}, as `name_groups.find_grouping` takes it."""
    found: dict[str, set[str]] = {}
    for clip in manifest.clips:
        found.setdefault(clip.source, set()).update(_classes_of(manifest, clip.labels))
    return found


def _files_of_classes(manifest: Manifest) -> dict[str, list[Path]]:
    """Per class, in the order of their names: the division must not depend on that of the lines."""
    files: dict[str, dict[Path, None]] = {}
    for clip in manifest.clips:
        for name in _classes_of(manifest, clip.labels):
            files.setdefault(name, {})[clip.path] = None
    return {name: list(files[name]) for name in sorted(files)}


def _moved(path: str, prefix: str) -> str:
    """A path as it is written in the new manifest."""
    return path if PurePosixPath(path).is_absolute() else f"{prefix}{path}"
