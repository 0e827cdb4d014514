"""A folder that appears complete or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from avt_jax.errors import UserError
from avt_jax.host.lock import locked

_LOCK_FILE = ".avt-lock"


def check_new_folder(out: str | os.PathLike[str]) -> None:
    """Checks that a folder can be created, before the work that fills it.

    Args:
      out: the folder; may exist if it is empty.

    Raises:
      UserError: it is a file, or holds something.
    """
    out = Path(out)
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} exists and is not an empty folder; delete it or choose another.")


@contextlib.contextmanager
def new_folder(out: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary folder beside `out` that becomes `out` when the body ends without an error.

    What a killed process left behind is removed by the next one that writes the same `out`.

    Args:
      out: folder to create; may exist if it is empty.

    Yields:
      The temporary folder.

    Raises:
      UserError: `out` is in use, or cannot be written.
    """
    out = Path(out).absolute()
    check_new_folder(out)
    folder = out.with_name(f"{out.name}.partial-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(out)
        folder.mkdir()
    except OSError as error:
        raise UserError(f"cannot create {folder}: {error.strerror}.") from error
    try:
        # The lock tells living runs from dead ones.
        with locked(folder / _LOCK_FILE):
            yield folder
            (folder / _LOCK_FILE).unlink()
            os.rename(folder, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_behind(out: Path) -> None:
    for folder in list(out.parent.glob(f"{glob.escape(out.name)}.partial-*")):
        # Without a lock file it is not one of ours.
        with contextlib.suppress(OSError), locked(folder / _LOCK_FILE, create=False):
            shutil.rmtree(folder, ignore_errors=True)
