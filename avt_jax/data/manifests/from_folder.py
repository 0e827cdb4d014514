"""From a folder of class folders to a manifest with train, val and test splits."""

from __future__ import annotations

import dataclasses
import difflib
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from avt_jax.data.manifests.fields import clean_label, near_split, split_named
from avt_jax.data.manifests.group_splits import Divided, Division, SplitFractions, divide
from avt_jax.data.manifests.manifest import DEFAULT_LABEL_SET, path_prefix
from avt_jax.data.manifests.media_files import Listing, PassedOver, is_text
from avt_jax.data.manifests.name_groups import find_grouping
from avt_jax.data.manifests.table import write_rows
from avt_jax.data.records import SPLITS
from avt_jax.errors import UserError
from avt_jax.host.new_files import check_new, write_new

# A name as close as this to that of a split is meant to be one, where another folder is.
_ALIKE = 0.75


@dataclasses.dataclass(frozen=True)
class _File:
    """A media file: its path below the folder, its class, and the split that its folder says."""

    path: str
    label: str
    split: str = ""


def manifest_from_folder(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    fractions: SplitFractions | None = None,
    seed: int = 0,
    group_by: str | None = None,
    follow_links: bool = False,
) -> Divided:
    """Writes a manifest for `folder/<class>/**/<video or sound>`, one whole file per line.

    Every class is divided by the same fractions. Byte-identical copies of a file always share a
    split, so that no video is both trained and tested on; so do the files of a group, and a sound
    file with the video of the same name beside it. A folder `folder/<split>/<class>/**` is divided
    already, and stays so.

    Args:
      folder: its sub-folders are the classes, or the splits; see `media_files.Listing`.
      out: the manifest to write; must not exist. Paths in it are relative to its folder where the
        videos lie below that, else absolute.
      fractions: held-out shares; None = those of `SplitFractions`.
      seed: another seed, another division; the same seed, the same one on every machine.
      group_by: regular expression, searched for in every path below `folder` (with slashes). Files
        in which its groups, or without groups the whole match, read the same share a split.
      follow_links: enter links to folders.

    Returns:
      Numbers of clips and groups; without `group_by`, how the names look grouped.

    Raises:
      UserError: no folder, fewer than two classes with videos, `out` exists, `group_by` is no
        regular expression or is not found in some path, or a folder that is divided already is to
        be divided in another way.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}; give the folder that holds one folder per class.")
    check_new([out])
    passed = PassedOver()
    files = _find(folder, passed, follow_links=follow_links)
    labels = dict.fromkeys(file.label for file in files)
    if len(labels) < 2:
        raise UserError(_too_few(folder, len(labels), passed))
    notes = tuple(_merged(files))
    num_groups = None
    if any(file.split for file in files):
        splits = _given_splits(folder, files, bool(fractions or group_by))
    else:
        division = _divide(folder, files, fractions or SplitFractions(), seed, group_by)
        splits = {file.path: division.splits[folder / file.path] for file in files}
        num_groups = division.num_groups() if group_by else None
    _write(folder, out, files, splits)
    counts = {label: dict.fromkeys(SPLITS, 0) for label in labels}
    for file in files:
        counts[file.label][splits[file.path]] += 1
    grouping = None
    if not group_by:
        grouping = find_grouping({file.path: {file.label} for file in files}, folders=True)
    return Divided(counts, num_groups, grouping, passed, notes)


def _given_splits(folder: Path, files: Iterable[_File], is_to_divide: bool) -> dict[str, str]:
    if is_to_divide:
        raise UserError(
            f"the folders in {folder} are splits, which stay as they are: leave out "
            "--val-fraction, --test-fraction and --group-by; 'avt manifest --split' divides the "
            "manifest anew."
        )
    return {file.path: file.split for file in files}


def _divide(
    folder: Path,
    files: Iterable[_File],
    fractions: SplitFractions,
    seed: int,
    group_by: str | None,
) -> Division:
    paths: dict[str, list[Path]] = {}
    for file in files:
        paths.setdefault(file.label, []).append(folder / file.path)
    names = {folder / file.path: file.path for file in files}
    return divide(paths, names, fractions, seed=seed, group_by=group_by)


def _find(folder: Path, passed: PassedOver, *, follow_links: bool) -> list[_File]:
    """The media files of classes, in order; the rest is noted in `passed`."""
    found = list(Listing(folder, follow_links=follow_links, passed=passed).walk())
    passed.no_text += [path for path in found if not is_text(path)]
    found = [path for path in found if is_text(path)]
    # Of which class or split a file is, its folders say.
    depth = 2 if _are_splits(folder, found) else 1
    files = []
    for path in found:
        parts = path.split("/", depth)
        if len(parts) <= depth:
            passed.beside.append(path)
            continue
        split = (split_named(parts[0]) or "") if depth == 2 else ""
        files.append(_File(path, clean_label(parts[depth - 1]), split))
    return files


def _are_splits(folder: Path, paths: Sequence[str]) -> bool:
    """Whether the sub-folders are splits.

    One that is called like a split may be a class (a train); two are not.

    Raises:
      UserError: some are and some are not, or there are no classes in them.
    """
    tops = list(dict.fromkeys(path.split("/")[0] for path in paths if "/" in path))
    known = {top: split for top in tops if (split := split_named(top))}
    others = [top for top in tops if top not in known]
    close = [top for top in others if difflib.get_close_matches(top.lower(), SPLITS, 1, _ALIKE)]
    is_deep = all(path.count("/") > 1 for path in paths if "/" in path)
    if len(set(known.values())) < 2:
        if len(tops) == 1 and known and is_deep:
            (top,) = tops
            raise UserError(
                f"{folder} has {top!r} alone, which is a split; divide its classes with avt "
                f"manifest {shlex.quote(str(folder / top))}, or put val or test beside it."
            )
        if not (known and is_deep and close and len(close) == len(others)):
            return False
    first = ", ".join(known)
    if others:
        name = (close or others)[0]
        raise UserError(
            f"{folder} has the splits {first}, and {name!r}, which is none{near_split(name)}; "
            "rename it, or move it away."
        )
    if not any(path.count("/") > 1 for path in paths):
        raise UserError(
            f"{folder} has the splits {first}, but no class folders in them; expected "
            f"{folder}/{tops[0]}/class_a/1.mp4."
        )
    return True


def _too_few(folder: Path, number: int, passed: PassedOver) -> str:
    said = "; ".join(passed.sentences())
    return (
        f"{folder} has {number} sub-folder(s) with videos or sound, but needs one per class, at "
        "least two: folder/class_a/1.mp4, folder/class_b/2.mp4"
        + (f" (passed over: {said})." if said else ".")
    )


def _merged(files: Iterable[_File]) -> Iterable[str]:
    """A sentence for each class that has several folders whose names are stored alike."""
    spelt: dict[str, dict[str, None]] = {}
    for file in files:
        parts = file.path.split("/")
        spelt.setdefault(file.label, {})[parts[1 if file.split else 0]] = None
    for label, names in spelt.items():
        if len(names) > 1:
            shown = " and ".join(ascii(name) for name in names)
            yield f"the folders {shown} differ in form alone: they are one class, {label!r}"


def _write(root: Path, out: Path, files: Iterable[_File], splits: dict[str, str]) -> None:
    prefix = path_prefix(root, out)
    columns = ["path", "start_sec", "end_sec", DEFAULT_LABEL_SET, "split"]

    def write(file: IO[str]) -> None:
        rows = ([prefix + one.path, "", "", one.label, splits[one.path]] for one in files)
        write_rows(file, columns, rows)

    write_new({out: write})
