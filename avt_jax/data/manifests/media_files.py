"""Which files of a folder are videos and sounds, by their suffix."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from avt_jax.errors import UserError

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()
)
SOUND_SUFFIXES = frozenset(".aac .flac .m4a .mp3 .ogg .opus .wav".split())
MEDIA_SUFFIXES = VIDEO_SUFFIXES | SOUND_SUFFIXES


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
            if not hidden and has_suffix(path, MEDIA_SUFFIXES) and path.is_file():
                yield path


def has_suffix(path: Path, suffixes: frozenset[str]) -> bool:
    """Whether a file's suffix, in any case, is one of these."""
    return path.suffix.lower() in suffixes
