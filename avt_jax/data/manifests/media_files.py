"""Which files of a folder are videos and sounds, by their suffix, and what is passed over."""

from __future__ import annotations

import collections
import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from avt_jax.errors import UserError

VIDEO_SUFFIXES = frozenset(
    ".3gp .asf .avi .divx .f4v .flv .gif .m2ts .m2v .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv "
    ".qt .ts .vob .webm .wmv".split()
)
SOUND_SUFFIXES = frozenset(".aac .flac .m4a .mp3 .ogg .opus .wav".split())
MEDIA_SUFFIXES = VIDEO_SUFFIXES | SOUND_SUFFIXES

_SHOWN = 8
_MAX_SUFFIX = 12


@dataclasses.dataclass
class PassedOver:
    """What of a folder was not taken; hidden files and folders are not counted.

    Attributes:
      suffixes: files that are no media, by suffix.
      linked_folders: links to folders that were not entered.
      lost_links: links that lead nowhere.
      no_text: media files whose names are no text in UTF-8.
      beside: media files that lie where none is looked for.
    """

    suffixes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    linked_folders: list[str] = dataclasses.field(default_factory=list)
    lost_links: list[str] = dataclasses.field(default_factory=list)
    no_text: list[str] = dataclasses.field(default_factory=list)
    beside: list[str] = dataclasses.field(default_factory=list)

    def sentences(self) -> Iterator[str]:
        """What was passed over, a phrase for each kind."""
        if self.suffixes:
            shown = [f"{suffix} {n}" for suffix, n in self.suffixes.most_common(_SHOWN)]
            more = ", ..." if len(self.suffixes) > _SHOWN else ""
            total = sum(self.suffixes.values())
            yield f"{total} file(s) that are no video or sound by their suffix: " + (
                ", ".join(shown) + more
            )
        for names, what in (
            (self.beside, "file(s) beside the class folders, not in one"),
            (self.linked_folders, "link(s) to folders, not entered (--follow-links enters them)"),
            (self.lost_links, "link(s) that lead nowhere"),
            (self.no_text, "file(s) whose names are not UTF-8; rename them"),
        ):
            if names:
                yield f"{len(names)} {what}, such as {min(names)}"


class Listing:
    """Walks a folder once, in order. os.scandir spares a call to the file system per file.

    A link to a file is that file. A link to a folder is entered on request only, and a folder that
    links lead to again is entered once.

    Attributes:
      passed: what was not taken.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        suffixes: frozenset[str] = MEDIA_SUFFIXES,
        follow_links: bool = False,
        passed: PassedOver | None = None,
    ):
        """Names what to list.

        Args:
          root: a folder.
          suffixes: of the files that are wanted.
          follow_links: enter links to folders, wherever they lead.
          passed: to add to; None = a new one.
        """
        self.passed = PassedOver() if passed is None else passed
        self._root, self._suffixes, self._follow_links = Path(root), suffixes, follow_links

    def walk(self) -> Iterator[str]:
        """Yields the paths of media files relative to the root, with slashes.

        Raises:
          UserError: a folder may not be read.
        """
        pending = [""]
        entered = {_identity(self._root)} if self._follow_links else set()
        while pending:
            prefix = pending.pop()
            folders = []
            for entry in self._entries(prefix):
                kind = self._kind(entry, prefix + entry.name)
                if kind == "file":
                    yield prefix + entry.name
                elif kind == "folder":
                    if self._follow_links:
                        identity = _identity(entry.path)
                        if identity in entered:
                            continue
                        entered.add(identity)
                    folders.append(f"{prefix}{entry.name}/")
            pending += reversed(folders)

    def _entries(self, prefix: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self._root / prefix) as entries:
                found = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            raise UserError(
                f"cannot read the folder {os.fspath(self._root / prefix)!r}: {error.strerror}; "
                "make it readable, or move it away."
            ) from error
        return sorted(found, key=lambda entry: entry.name)

    def _kind(self, entry: os.DirEntry[str], path: str) -> str:
        """ "file" for what is wanted, "folder", or "" for what is passed over."""
        try:
            mode = os.stat(entry.path).st_mode if entry.is_symlink() else 0
        except OSError:  # leads nowhere, or round in a circle
            self.passed.lost_links.append(path)
            return ""
        if stat.S_ISDIR(mode) or entry.is_dir(follow_symlinks=False):
            if mode and not self._follow_links:
                self.passed.linked_folders.append(path)
                return ""
            return "folder"
        suffix = os.path.splitext(entry.name)[1].lower()
        if suffix in self._suffixes and (
            stat.S_ISREG(mode) or entry.is_file(follow_symlinks=False)
        ):
            return "file"
        # What is behind the last dot of "Dr. Smith's notes" is no suffix.
        known = suffix if 1 < len(suffix) <= _MAX_SUFFIX else "(none)"
        self.passed.suffixes[known] += 1
        return ""


def _identity(path: str | os.PathLike[str]) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def media_files(folder: Path) -> Iterator[Path]:
    """The video and sound files below a folder, in order; hidden ones and links to folders not.

    Raises:
      UserError: a folder may not be read.
    """
    return (folder / path for path in Listing(folder).walk())


def is_text(name: str) -> bool:
    """Whether a file name is text in UTF-8: no other one can stand in a manifest."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def has_suffix(path: Path, suffixes: frozenset[str]) -> bool:
    """Whether a file's suffix, in any case, is one of these."""
    return path.suffix.lower() in suffixes
