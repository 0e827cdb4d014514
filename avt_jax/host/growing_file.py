"""A file that grows for as long as a process runs, kept also where files count once closed."""

from __future__ import annotations

import os
from pathlib import Path


class GrowingFile:
    """Adds to the end of a file, without a buffer.

    Args:
      path: the file; made when missing.

    Raises:
      OSError: it cannot be opened.
    """

    def __init__(self, path: Path):
        self._path = path
        # Without a buffer nothing is left to be written when it is closed.
        self._file = open(path, "ab", buffering=0)

    def add(self, text: str) -> None:
        """Writes to the end, in UTF-8.

        Raises:
          OSError: it cannot be written.
        """
        left = text.encode()
        while left:
            left = left[self._file.write(left) :]

    def sync(self) -> None:
        """Makes what was added outlive the machine; other machines can read it from then on.

        A mounted bucket takes a file when it is closed, and what was added to an open one is lost
        with the machine; network file systems promise others no more. A file that somebody has
        deleted is not made anew.

        Raises:
          OSError: it cannot be written.
        """
        os.fsync(self._file.fileno())
        try:
            again = open(self._path, "ab", buffering=0, opener=_without_making)
        except FileNotFoundError:
            return
        before, self._file = self._file, again
        before.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _without_making(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_CREAT)
