"""One training at a time in a run folder."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from avt_jax.errors import UserError
from avt_jax.host.lock import NO_LOCKS, locked
from avt_jax.host.output.terminal import show

LOCK_FILE = ".avt-lock"


class RunLock:
    """Held by the first process of a training, from before it writes until it ends.

    It ends with its process, however that ends. The file stays in the folder.
    """

    def __init__(self, workdir: Path):
        self._workdir = workdir
        self._held = contextlib.ExitStack()
        self._is_asked = False

    def take_if_there(self) -> None:
        """As `take`, where an earlier training has left the file; writes nothing."""
        try:
            is_there = (self._workdir / LOCK_FILE).is_file()
        except OSError:  # told by who makes the folder
            return
        if is_there:
            self.take()

    def take(self) -> None:
        """Takes the lock, in a folder that is there; once.

        Raises:
          UserError: another training holds it, or the folder cannot be written.
        """
        if self._is_asked:
            return
        self._is_asked = True
        try:
            self._held.enter_context(locked(self._workdir / LOCK_FILE))
        except BlockingIOError as error:
            raise UserError(
                f"another training is running in {self._workdir}; stop it or wait for its end, or "
                "give another --workdir."
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise UserError(
                    f"--workdir {self._workdir} cannot be used: {error.strerror or error}; give a "
                    "folder that can be written."
                ) from error
            show(
                f"avt: the file system of {self._workdir} has no locks: see that no second "
                "training is started there while this one runs",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Gives the lock back."""
        self._held.close()
