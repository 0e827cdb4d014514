"""Seeded division of groups of clips into train, val and test."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from avt_jax.data.manifests.media_files import (
    SOUND_SUFFIXES,
    VIDEO_SUFFIXES,
    PassedOver,
    has_suffix,
)
from avt_jax.data.manifests.name_groups import Grouping
from avt_jax.data.records import SPLITS
from avt_jax.errors import UserError
from avt_jax.host.checksum import sha256_of

Key = TypeVar("Key")


@dataclasses.dataclass(frozen=True)
class SplitFractions:
    """Share of each class's groups that is held out; the rest is for training.

    Attributes:
      val: in [0, 1), share for validation.
      test: in [0, 1), share for testing; val + test < 1.
    """

    val: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        if not (0 <= self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise UserError(
                f"fractions val {self.val:g} and test {self.test:g} must each be in [0, 1) and add "
                "up to less than 1, so that something is left to train on."
            )


@dataclasses.dataclass(frozen=True)
class Division:
    """Files in their splits.

    Attributes:
      splits: the split of every file.
      groups: the name of every file's group; a group lies in one split.
    """

    splits: dict[Path, str]
    groups: dict[Path, str]

    def num_groups(self) -> dict[str, int]:
        """{split: groups in it}."""
        split_of = {group: self.splits[path] for path, group in self.groups.items()}
        return {split: list(split_of.values()).count(split) for split in SPLITS}


@dataclasses.dataclass(frozen=True)
class Divided:
    """What was written.

    Attributes:
      counts: clips as {class: {split: number}}.
      num_groups: groups per split; None where files were not grouped.
      grouping: how the names look grouped, where they were not.
      passed: what of a folder was not taken.
      notes: what else a user should know, a sentence each.
    """

    counts: dict[str, dict[str, int]]
    num_groups: dict[str, int] | None
    grouping: Grouping | None
    passed: PassedOver = dataclasses.field(default_factory=PassedOver)
    notes: Sequence[str] = ()


def divide(
    files: Mapping[str, Sequence[Path]],
    names: Mapping[Path, str],
    fractions: SplitFractions,
    *,
    seed: int,
    group_by: str | None,
) -> Division:
    """Divides the files of every class by the same fractions, groups undivided.

    Byte-identical copies of a file belong to one group, and so do a sound file and the video of
    the same name beside it. A group of several classes is counted with
    the first one.

    Args:
      files: per class; a file may be in several classes. One that is not there has no copies.
      names: of every file, in which `group_by` is searched for.
      fractions: held-out shares.
      seed: another seed, another division.
      group_by: regular expression. Files in which its groups, or without groups the whole match,
        read the same are a group; None = each file is one.

    Raises:
      UserError: `group_by` is no regular expression, or is not found in some name.
    """
    paths = list(dict.fromkeys(path for found in files.values() for path in found))
    groups = group_names({path: names[path] for path in paths}, group_by)
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
    return Division({path: splits[groups[path]] for path in paths}, groups)


def assign_splits(
    classes: Mapping[str, Sequence[str]], fractions: SplitFractions, seed: int
) -> dict[str, str]:
    """Divides the groups of every class by the same fractions.

    A class with at least three groups gets at least one in every split that has a share. The
    division depends on the groups' names and the seed only.

    Args:
      classes: names of the groups per class; a name must not occur twice.
      fractions: held-out shares.
      seed: another seed, another division.

    Returns:
      The split of every group.
    """
    splits = {}
    for groups in classes.values():
        # A hash orders the groups instead of a generator: no file system order, no library
        # version can change the division.
        ordered = sorted(
            groups,
            key=lambda name: hashlib.sha256(
                f"{seed}:{name}".encode("utf-8", "surrogateescape")
            ).digest(),
        )
        num_test, num_val = (_share(len(ordered), part) for part in (fractions.test, fractions.val))
        for rank, name in enumerate(ordered):
            held_out = "test" if rank < num_test else "val"
            splits[name] = held_out if rank < num_test + num_val else "train"
    return splits


def _share(count: int, fraction: float) -> int:
    """At least one group where a share is asked for and two others remain."""
    return max(round(count * fraction), int(fraction > 0 and count >= 3))


def group_names(names: Mapping[Key, str], group_by: str | None) -> dict[Key, str]:
    """The group of each name: what the expression finds in it, or without one the name itself.

    Args:
      names: by whatever they are of.
      group_by: regular expression; its groups count, or without groups the whole match.

    Raises:
      UserError: it is no regular expression, or is not found in some name.
    """
    if not group_by:
        return dict(names)
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UserError(
            f"--group-by {group_by!r} is no regular expression ({error}); for "
            "dog/holiday_clip3.mp4 you could write '(.+)_clip'."
        ) from error
    matches = {key: pattern.search(name) for key, name in names.items()}
    lost = [names[key] for key, match in matches.items() if match is None]
    if lost:
        raise UserError(
            f"--group-by {group_by!r} is not found in {len(lost)} of {len(names)} paths, "
            f"such as {lost[0]!r}; write an expression that fits all of them."
        )
    return {
        key: "\0".join(group or "" for group in match.groups() or (match[0],))
        for key, match in matches.items()
        if match is not None
    }


def _root(joined: dict[str, str], name: str) -> str:
    while name in joined:
        name = joined[name]
    return name


def _first_copies(paths: list[Path]) -> dict[Path, Path]:
    """Maps each file to the first one with the same bytes. Only equal sizes are read."""
    by_size: dict[int, list[Path]] = {}
    first: dict[Path, Path] = {}
    for path in paths:
        first[path] = path
        # The extraction reports files that are not there.
        if path.is_file():
            by_size.setdefault(path.stat().st_size, []).append(path)
    for same_size in by_size.values():
        seen: dict[str, Path] = {}
        for path in same_size if len(same_size) > 1 else ():
            first[path] = seen.setdefault(_digest(path), path)
    return first


def _pictures(paths: list[Path]) -> dict[Path, Path]:
    """Maps a sound file to the video of the same name beside it: most likely it was cut from it."""
    videos = {path.with_suffix(""): path for path in paths if has_suffix(path, VIDEO_SUFFIXES)}
    return {
        path: videos[path.with_suffix("")]
        for path in paths
        if has_suffix(path, SOUND_SUFFIXES) and path.with_suffix("") in videos
    }


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:
        # The extraction reports files that cannot be read; here they are just unlike any other.
        return str(path)
