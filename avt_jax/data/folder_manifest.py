"""From a folder of class folders to a manifest with train, val and test splits."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from avt_jax.data.manifest import DEFAULT_LABEL_SET
from avt_jax.data.records import SPLITS
from avt_jax.errors import UserError

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()
)


@dataclasses.dataclass(frozen=True)
class SplitFractions:
    """Share of each class's files that is held out; the rest is for training.

    Attributes:
      val: in [0, 1), share for validation.
      test: in [0, 1), share for testing; val + test < 1.
    """

    val: float = 0.1
    test: float = 0.1

    def __post_init__(self):
        if not (0 <= self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise UserError(
                f"fractions val {self.val:g} and test {self.test:g} must each be in [0, 1) and add "
                "up to less than 1, so that something is left to train on."
            )


def manifest_from_folder(
    folder: str | os.PathLike,
    out: str | os.PathLike,
    *,
    fractions: SplitFractions | None = None,
    seed: int = 0,
) -> dict[str, dict[str, int]]:
    """Writes a manifest for `folder/<class>/**/<video>`, one whole file per line.

    Every class is divided by the same fractions. Byte-identical copies of a file always share a
    split, so that no video is both trained and tested on.

    Args:
      folder: its sub-folders are the classes; hidden files and links to folders are skipped.
      out: the manifest to write; must not exist. Paths in it are relative to its folder where the
        videos lie below that, else absolute.
      fractions: held-out shares.
      seed: another seed, another division; the same seed, the same one on every machine.

    Returns:
      Number of clips as {class: {split: count}}.

    Raises:
      UserError: no folder, fewer than two classes with videos, or `out` exists.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}; give the folder that holds one folder per class.")
    if out.exists():
        raise UserError(f"{out} exists; delete it or choose another name with --out.")
    if not out.absolute().parent.is_dir():
        raise UserError(f"the folder of {out} does not exist; create it first.")
    fractions = fractions or SplitFractions()
    files = {
        entry.name: found
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not entry.name.startswith(".") and (found := list(_videos(entry)))
    }
    if len(files) < 2:
        raise UserError(
            f"{folder} has {len(files)} sub-folder(s) with videos, but needs one per class, at "
            "least two: folder/class_a/1.mp4, folder/class_b/2.mp4."
        )
    splits = _assign_splits(folder, files, fractions, seed)
    _write(out, files, splits)
    return {
        name: {split: sum(splits[path] == split for path in paths) for split in SPLITS}
        for name, paths in files.items()
    }


def _videos(folder: Path) -> Iterable[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            hidden = name.startswith(".")
            if not hidden and path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
                yield path


def _assign_splits(
    root: Path, files: dict[str, list[Path]], fractions: SplitFractions, seed: int
) -> dict[Path, str]:
    first_copy = _first_copies([path for paths in files.values() for path in paths])
    splits: dict[Path, str] = {}
    for paths in files.values():
        # A hash orders the files instead of a generator: no file system order, no library version
        # can change the division.
        own = sorted(
            (path for path in paths if first_copy[path] == path),
            key=lambda path: hashlib.sha256(
                f"{seed}:{path.relative_to(root).as_posix()}".encode("utf-8", "surrogateescape")
            ).digest(),
        )
        num_test, num_val = (_share(len(own), part) for part in (fractions.test, fractions.val))
        for rank, path in enumerate(own):
            held_out = "test" if rank < num_test else "val"
            splits[path] = held_out if rank < num_test + num_val else "train"
    return {path: splits[first_copy[path]] for path in first_copy}


def _share(count: int, fraction: float) -> int:
    """At least one file where a share is asked for and two others remain."""
    return max(round(count * fraction), int(fraction > 0 and count >= 3))


def _first_copies(paths: list[Path]) -> dict[Path, Path]:
    """Maps each file to the first one with the same bytes. Only equal sizes are read."""
    by_size: dict[int, list[Path]] = {}
    for path in paths:
        by_size.setdefault(path.stat().st_size, []).append(path)
    first: dict[Path, Path] = {}
    for same_size in by_size.values():
        seen: dict[bytes, Path] = {}
        for path in same_size:
            key = _digest(path) if len(same_size) > 1 else b""
            first[path] = seen.setdefault(key, path)
    return {path: first[path] for path in paths}


def _digest(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        # The extraction reports files that cannot be read; here they are just unlike any other.
        return os.fsencode(path)


def _write(out: Path, files: dict[str, list[Path]], splits: dict[Path, str]) -> None:
    base = out.absolute().parent.resolve()
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "start_sec", "end_sec", DEFAULT_LABEL_SET, "split"])
            for name, paths in files.items():
                for path in paths:
                    where = path.absolute()
                    resolved = where.parent.resolve() / where.name
                    if resolved.is_relative_to(base):
                        where = resolved.relative_to(base)
                    writer.writerow([where.as_posix(), "", "", name, splits[path]])
        os.replace(partial, out)
    except UnicodeEncodeError as error:
        raise UserError(
            f"the file name {error.object.strip()!r} is not valid Unicode; rename the file."
        ) from error
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}.") from error
    finally:
        partial.unlink(missing_ok=True)
