"""Finds the video files of annotated clips by the names that usual downloads give them."""

from __future__ import annotations

import collections
import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from avt_jax.data.manifests.catalog.annotations import Row
from avt_jax.data.manifests.media_files import VIDEO_SUFFIXES, Listing, is_text
from avt_jax.errors import UserError
from avt_jax.host.progress import progress_bar

# <id>_<start> and <id>_<start>_<end>, with or without zeros in front, in seconds or milliseconds.
_NUMBER = r"([0-9]{1,9}(?:\.[0-9]{1,6})?)"
_START_END = re.compile(f"(.+)_{_NUMBER}_{_NUMBER}", re.DOTALL)
_START = re.compile(f"(.+)_{_NUMBER}", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Folder:
    """The video files below a folder.

    Attributes:
      paths: relative to the folder, with slashes, sorted.
      unusable: those whose path is not UTF-8, which a manifest cannot hold; not in `paths`.
      num_links: links to folders that were not followed.
    """

    paths: tuple[str, ...]
    unusable: tuple[str, ...]
    num_links: int


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A file for a row.

    Attributes:
      path: relative to the folder.
      trimmed: the file was cut to the clip; otherwise it is the whole source video.
    """

    path: str
    trimmed: bool


def index_videos(folder: Path, *, follow_links: bool = False) -> Folder:
    """Lists all video files below a folder, with a counter on stderr when that takes long.

    Args:
      folder: what to list; see `media_files.Listing`.
      follow_links: also enter links to folders, wherever they lead.

    Raises:
      UserError: no folder, or one that may not be read.
    """
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}; give the folder of the downloaded videos.")
    listing = Listing(folder, suffixes=VIDEO_SUFFIXES, follow_links=follow_links)
    paths = []
    with progress_bar(None, "listing videos", "file", delay=2.0) as bar:
        for path in listing.walk():
            paths.append(path)
            bar.update()
    paths.sort()
    return Folder(
        paths=tuple(filter(is_text, paths)),
        unusable=tuple(path for path in paths if not is_text(path)),
        num_links=len(listing.passed.linked_folders),
    )


def match_videos(
    rows: Sequence[Row], paths: Sequence[str], *, trimmed: bool = False
) -> tuple[list[list[Found]], list[str]]:
    """Assigns files to rows by their exact names.

    A file named like the clip, `<id>_<start>` or `<id>_<start>_<end>` was cut to the clip; one
    named `<id>` is the whole source video. Numbers are seconds or milliseconds, with or without
    zeros in front. Ids are compared as they are, so that one that holds or begins with `-` or `_`
    is never taken for another.

    Args:
      rows: the annotations.
      paths: of the video files, with slashes.
      trimmed: files named `<id>` were cut to the clip too; one whose id has several clips
        belongs to none of them, for its name does not say which one it is.

    Returns:
      (per row the files that fit, per path that fits no row the path).
    """
    names = _Names(rows, trimmed)
    found: list[list[Found]] = [[] for _ in rows]
    unmatched = []
    for path in paths:
        numbers, is_trimmed = names.find(PurePosixPath(path).stem)
        for number in numbers:
            found[number].append(Found(path, is_trimmed))
        if not numbers:
            unmatched.append(path)
    return found, unmatched


class _Names:
    """Row numbers by what their files may be called."""

    def __init__(self, rows: Sequence[Row], trimmed: bool):
        self._rows, self._trimmed = rows, trimmed
        self._by_clip: dict[str, list[int]] = collections.defaultdict(list)
        self._by_video: dict[str, list[int]] = collections.defaultdict(list)
        for number, row in enumerate(rows):
            if row.clip_name:
                self._by_clip[row.clip_name].append(number)
            self._by_video[row.video_id].append(number)

    def find(self, stem: str) -> tuple[list[int], bool]:
        """(rows that a file of this name belongs to, whether it was cut to the clip)."""
        if stem in self._by_clip:
            return self._by_clip[stem], True
        if stem in self._by_video:
            numbers = self._by_video[stem]
            spans = {(self._rows[n].start_sec, self._rows[n].end_sec) for n in numbers}
            if self._trimmed and len(spans) > 1:
                return [], True
            return numbers, self._trimmed
        for pattern in (_START_END, _START):
            match = pattern.fullmatch(stem)
            if match is None:
                continue
            # Seconds before milliseconds: 12000 s into a video are rarer than 12 s.
            for scale in (1000, 1):
                start, *end = (round(float(text) * scale) for text in match.groups()[1:])
                numbers = [
                    number
                    for number in self._by_video.get(match[1], ())
                    if _milliseconds(self._rows[number].start_sec) == start
                    and (not end or _milliseconds(self._rows[number].end_sec) == end[0])
                ]
                if numbers:
                    return numbers, True
        return [], False


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def choose(found: Sequence[Found], root: Path) -> Found:
    """The file that a row takes of several.

    Those with content come before empty ones (failed downloads), cut ones before whole videos
    (there is less to read), .mp4 before other containers; then the alphabet decides.
    """
    if len(found) == 1:
        return found[0]

    def rank(item: Found) -> tuple[bool, bool, bool, str]:
        try:
            is_empty = os.stat(root / item.path).st_size == 0
        except OSError:
            is_empty = True
        return is_empty, not item.trimmed, not item.path.lower().endswith(".mp4"), item.path

    return min(found, key=rank)
