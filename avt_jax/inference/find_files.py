"""Which files a command line means: files, folders and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from avt_jax.data.manifests.media_files import MEDIA_SUFFIXES, media_files
from avt_jax.errors import UserError


def find_files(words: Sequence[str]) -> list[str]:
    """Lists the files that words stand for, each once.

    Args:
      words: a folder stands for all video and sound files below it; what holds *, ? or [...] and is
        no file itself for the video and sound files that it matches (** for any folders), and
        others where it ends with their suffix; anything else is a file, which need not exist.

    Returns:
      Paths in the order of the words, those of a folder or pattern sorted. A file that is named
      again, whichever way, is left out the second time; a link is a file of its own.

    Raises:
      UserError: a folder without such files, one that cannot be read, or a pattern that matches
        nothing.
    """
    found: dict[str, str] = {}
    for word in words:
        for path in _meant_by(word):
            found.setdefault(os.path.abspath(path), path)
    return list(found.values())


def _meant_by(word: str) -> Iterator[str]:
    if glob.has_magic(word) and not os.path.lexists(word):
        paths = list(_matches(word))
        if not paths:
            raise UserError(f"no video or sound file matches {word!r}; correct the pattern.")
    elif os.path.isdir(word):
        paths = list(_below(word))
        if not paths:
            raise UserError(f"the folder {word!r} has no video or sound file; give another one.")
    else:
        paths = [word]
    yield from paths


def _matches(pattern: str) -> Iterator[str]:
    suffixes = MEDIA_SUFFIXES | {Path(pattern).suffix.lower()}
    for match in sorted(glob.glob(pattern, recursive=True)):
        if os.path.isdir(match):
            yield from _below(match)
        elif Path(match).suffix.lower() in suffixes:
            yield match


def _below(folder: str) -> Iterator[str]:
    return (os.fspath(path) for path in media_files(Path(folder)))
