"""Files that appear complete or not at all, and never in place of another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from avt_jax.errors import UserError


def check_new(paths: list[Path]) -> None:
    """Checks that files can be created, before the work that fills them.

    Raises:
      UserError: one of them exists, or its folder does not.
    """
    for path in paths:
        if os.path.lexists(path):
            raise UserError(f"{path} exists; delete it or choose another name with --out.")
        if not path.absolute().parent.is_dir():
            raise UserError(f"the folder of {path} does not exist; create it first.")


def write_new(writers: Mapping[Path, Callable[[TextIO], None]]) -> None:
    """Writes UTF-8 text files beside their final names and renames all of them at the end.

    Args:
      writers: what fills each file; the files get their names in this order.

    Raises:
      UserError: a file exists, cannot be written, or would hold text that is not valid Unicode.
    """
    check_new(list(writers))
    partial = {path: path.with_name(f".{path.name}.{os.getpid()}.partial") for path in writers}
    named: list[Path] = []
    try:
        for path, write in writers.items():
            with open(partial[path], "w", encoding="utf-8", newline="") as file:
                write(file)
        for path in writers:
            os.replace(partial[path], path)
            named.append(path)
    except BaseException as error:
        for path in named:
            path.unlink(missing_ok=True)
        if isinstance(error, UnicodeEncodeError):
            text = error.object[max(0, error.start - 200) : error.end + 200]
            raise UserError(
                f"the file name {text.strip()!r} is not valid Unicode; rename the file."
            ) from error
        if isinstance(error, OSError):
            raise UserError(f"cannot write {next(iter(writers))}: {error.strerror}.") from error
        raise
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)


def path_prefix(folder: Path, out: Path) -> str:
    """What stands before the path of a file below `folder` in the manifest `out`.

    Args:
      folder: where the videos lie.
      out: the manifest.

    Returns:
      The way from the manifest's folder to `folder` with a slash at its end ("" if they are the
      same) when `folder` lies below that, else the absolute path.
    """
    # Resolved: a manifest may not hold "..", and "a/../b" is not always "b" where links are.
    base, folder = out.absolute().parent.resolve(), folder.resolve()
    if not folder.is_relative_to(base):
        return f"{folder.as_posix().rstrip('/')}/"
    inside = folder.relative_to(base).as_posix()
    return "" if inside == "." else f"{inside}/"
