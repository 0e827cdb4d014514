"""From a folder of class folders to a manifest with train, val and test splits."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import IO

from avt_jax.data.manifests.group_splits import Divided, SplitFractions, divide
from avt_jax.data.manifests.manifest import DEFAULT_LABEL_SET, path_prefix
from avt_jax.data.manifests.media_files import media_files
from avt_jax.data.manifests.name_groups import find_grouping
from avt_jax.data.records import SPLITS
from avt_jax.errors import UserError
from avt_jax.host.new_files import check_new, write_new


def manifest_from_folder(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    fractions: SplitFractions | None = None,
    seed: int = 0,
    group_by: str | None = None,
) -> Divided:
    """Writes a manifest for `folder/<class>/**/<video or sound>`, one whole file per line.

    Every class is divided by the same fractions. Byte-identical copies of a file always share a
    split, so that no video is both trained and tested on; so do the files of a group, and a sound
    file with the video of the same name beside it.

    Args:
      folder: its sub-folders are the classes; hidden files and links to folders are skipped.
      out: the manifest to write; must not exist. Paths in it are relative to its folder where the
        videos lie below that, else absolute.
      fractions: held-out shares.
      seed: another seed, another division; the same seed, the same one on every machine.
      group_by: regular expression, searched for in every path below `folder` (with slashes). Files
        in which its groups, or without groups the whole match, read the same share a split.

    Returns:
      Numbers of clips and groups; without `group_by`, how the names look grouped.

    Raises:
      UserError: no folder, fewer than two classes with videos, `out` exists, or `group_by` is no
        regular expression or is not found in some path.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}; give the folder that holds one folder per class.")
    check_new([out])
    files = {
        entry.name: found
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not entry.name.startswith(".") and (found := list(media_files(entry)))
    }
    if len(files) < 2:
        raise UserError(
            f"{folder} has {len(files)} sub-folder(s) with videos or sound, but needs one per "
            "class, at least two: folder/class_a/1.mp4, folder/class_b/2.mp4."
        )
    names = {
        path: path.relative_to(folder).as_posix() for found in files.values() for path in found
    }
    division = divide(files, names, fractions or SplitFractions(), seed=seed, group_by=group_by)
    _write(folder, out, files, division.splits)
    counts = {
        name: {split: sum(division.splits[path] == split for path in paths) for split in SPLITS}
        for name, paths in files.items()
    }
    if group_by:
        return Divided(counts, division.num_groups(), None)
    classes = {names[path]: {name} for name, paths in files.items() for path in paths}
    return Divided(counts, None, find_grouping(classes, folders=True))


def _write(root: Path, out: Path, files: dict[str, list[Path]], splits: dict[Path, str]) -> None:
    prefix = path_prefix(root, out)

    def write(file: IO[str]) -> None:
        writer = csv.writer(file)
        writer.writerow(["path", "start_sec", "end_sec", DEFAULT_LABEL_SET, "split"])
        for name, paths in files.items():
            for path in paths:
                where = prefix + path.relative_to(root).as_posix()
                writer.writerow([where, "", "", name, splits[path]])

    write_new({out: write})
