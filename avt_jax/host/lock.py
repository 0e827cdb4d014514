"""A lock between processes that ends with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)
"""What file systems without locks answer."""


@contextlib.contextmanager
def locked(
    path: Path, *, create: bool = True, on_wait: Callable[[], None] | None = None
) -> Iterator[None]:
    """Holds the lock that a file stands for. Nothing is written to the file.

    Args:
      path: the file; whoever holds its lock may delete it.
      create: make the file where there is none.
      on_wait: called when another process holds the lock, which is then waited for; None = do not
        wait.

    Raises:
      BlockingIOError: another process holds it, or has just deleted the file.
      OSError: the file cannot be opened.
    """
    file = open(path, "ab" if create else "r+b")
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is None:
                raise
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        if not _is_there(path, file):
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(path))
        yield
    finally:
        # Nothing was written. A mount that has died is told of by who wrote to it.
        with contextlib.suppress(OSError):
            file.close()


def _is_there(path: Path, file: IO[Any]) -> bool:
    """Whether the file that was opened still has its name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
