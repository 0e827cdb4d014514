"""From a folder of class folders to a manifest with train, val and test splits."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from avt_jax.data.manifests.group_splits import SplitFractions, assign_splits
from avt_jax.data.manifests.manifest import DEFAULT_LABEL_SET, path_prefix
from avt_jax.data.records import SPLITS
from avt_jax.errors import UserError
from avt_jax.host.checksum import sha256_of
from avt_jax.host.new_files import check_new, write_new

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()
)
SOUND_SUFFIXES = frozenset(".aac .flac .m4a .mp3 .ogg .opus .wav".split())
MEDIA_SUFFIXES = VIDEO_SUFFIXES | SOUND_SUFFIXES


def manifest_from_folder(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    fractions: SplitFractions | None = None,
    seed: int = 0,
    group_by: str | None = None,
) -> dict[str, dict[str, int]]:
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
      Number of clips as {class: {split: count}}.

    Raises:
      UserError: no folder, fewer than two classes with videos, `out` exists, or `group_by` is no
        regular expression or is not found in some path.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}; give the folder that holds one folder per class.")
    check_new([out])
    pattern = _compile(group_by)
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
    splits = _split_files(folder, files, fractions or SplitFractions(), seed, pattern)
    _write(folder, out, files, splits)
    return {
        name: {split: sum(splits[path] == split for path in paths) for split in SPLITS}
        for name, paths in files.items()
    }


def media_files(folder: Path) -> Iterator[Path]:
    """The video and sound files below a folder, in order; hidden ones and links to folders not.

    Raises:
      UserError: a folder may not be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(
            f"cannot read the folder {error.filename!r}: {error.strerror}; make it readable, or "
            "move it away."
        )

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            hidden = name.startswith(".")
            if not hidden and _has(path, MEDIA_SUFFIXES) and path.is_file():
                yield path


def _compile(group_by: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(group_by) if group_by else None
    except re.error as error:
        raise UserError(
            f"--group-by {group_by!r} is no regular expression ({error}); for "
            "dog/holiday_clip3.mp4 you could write '(.+)_clip'."
        ) from error


def _split_files(
    root: Path,
    files: dict[str, list[Path]],
    fractions: SplitFractions,
    seed: int,
    pattern: re.Pattern[str] | None,
) -> dict[Path, str]:
    paths = [path for found in files.values() for path in found]
    names = {path: path.relative_to(root).as_posix() for path in paths}
    groups = _group_names(names, pattern)
    first_copy, picture = _first_copies(paths), _pictures(paths)
    # A copy joins its group with that of the original: the same file in two groups makes them one.
    joined: dict[str, str] = {}
    for path in paths:
        for same in (first_copy[path], picture.get(path, path)):
            one, other = _root(joined, groups[same]), _root(joined, groups[path])
            if one != other:
                joined[other] = one
    groups = {path: _root(joined, name) for path, name in groups.items()}
    # A group belongs to the class that it is first seen in.
    first_class: dict[str, str] = {}
    for name, found in files.items():
        for path in found:
            first_class.setdefault(groups[path], name)
    classes: dict[str, list[str]] = {}
    for group, name in first_class.items():
        classes.setdefault(name, []).append(group)
    splits = assign_splits(classes, fractions, seed)
    return {path: splits[groups[path]] for path in paths}


def _group_names(names: dict[Path, str], pattern: re.Pattern[str] | None) -> dict[Path, str]:
    """The group of every file: what the pattern finds in its name, or without one the name."""
    if pattern is None:
        return names
    matches = {path: pattern.search(name) for path, name in names.items()}
    lost = [names[path] for path, match in matches.items() if match is None]
    if lost:
        raise UserError(
            f"--group-by {pattern.pattern!r} is not found in {len(lost)} of {len(names)} paths, "
            f"such as {lost[0]!r}; write an expression that fits all of them."
        )
    return {
        path: "\0".join(group or "" for group in match.groups() or (match[0],))
        for path, match in matches.items()
        if match is not None
    }


def _root(joined: dict[str, str], name: str) -> str:
    while name in joined:
        name = joined[name]
    return name


def _first_copies(paths: list[Path]) -> dict[Path, Path]:
    """Maps each file to the first one with the same bytes. Only equal sizes are read."""
    by_size: dict[int, list[Path]] = {}
    for path in paths:
        by_size.setdefault(path.stat().st_size, []).append(path)
    first: dict[Path, Path] = {}
    for same_size in by_size.values():
        seen: dict[str, Path] = {}
        for path in same_size:
            key = _digest(path) if len(same_size) > 1 else ""
            first[path] = seen.setdefault(key, path)
    return {path: first[path] for path in paths}


def _pictures(paths: list[Path]) -> dict[Path, Path]:
    """Maps a sound file to the video of the same name beside it: most likely it was cut from it."""
    videos = {path.with_suffix(""): path for path in paths if _has(path, VIDEO_SUFFIXES)}
    return {
        path: videos[path.with_suffix("")]
        for path in paths
        if _has(path, SOUND_SUFFIXES) and path.with_suffix("") in videos
    }


def _has(path: Path, suffixes: frozenset[str]) -> bool:
    return path.suffix.lower() in suffixes


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:
        # The extraction reports files that cannot be read; here they are just unlike any other.
        return str(path)


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
