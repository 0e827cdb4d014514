"""Files that appear complete or not at all.

Everything is written beside its place, under a hidden name, and renamed when it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal

from avt_jax.errors import UserError

_PREFIX, _SUFFIX = ".avt-", ".partial"

# What file systems answer that can sync files only.
_NOT_OF_FOLDERS = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


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


@contextlib.contextmanager
def replacing_path(path: Path, *, durable: bool = False, advice: str = "") -> Iterator[Path]:
    """Gives a name to write to; what is written there becomes `path` when the body has ended.

    Args:
      path: where it goes; an older file there is replaced, or stays where the body raises.
      durable: the file is complete or absent even if the power fails.
      advice: what to do when it cannot be written, put at the end of the message.

    Yields:
      A name in the same folder that nobody else uses.

    Raises:
      UserError: it cannot be written.
    """
    partial = path.with_name(f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}")
    try:
        yield partial
        _rename(partial, path, durable=durable)
    except OSError as error:
        raise _cannot_write(path, error, advice) from error
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(
    path: Path, mode: Literal["w", "wb"] = "w", *, durable: bool = False, advice: str = ""
) -> Iterator[IO[Any]]:
    """Opens a file that appears under its name only when it is complete.

    Args:
      path: where it goes; an older file there is replaced.
      mode: "w" for text in UTF-8 or "wb".
      durable: as in `replacing_path`.
      advice: as in `replacing_path`.

    Yields:
      The open file.

    Raises:
      UserError: it cannot be written.
    """
    with replacing_path(path, durable=durable, advice=advice) as partial:
        with _open(partial, mode) as file:
            yield file


def write_text(path: Path, text: str, *, durable: bool = False, advice: str = "") -> None:
    """Writes a text file in UTF-8; the arguments and errors are those of `replacing`."""
    with replacing(path, durable=durable, advice=advice) as file:
        file.write(text)


def write_json(
    path: Path, content: Any, *, indent: int | None = 2, durable: bool = False, advice: str = ""
) -> None:
    """Writes JSON, with a line end where it is indented; as `write_text` otherwise."""
    end = "" if indent is None else "\n"
    write_text(path, json.dumps(content, indent=indent) + end, durable=durable, advice=advice)


def write_new(writers: Mapping[Path, Callable[[IO[str]], None]]) -> None:
    """Writes several UTF-8 text files, none in place of another, and names all of them at the end.

    Args:
      writers: what fills each file; the files get their names in this order.

    Raises:
      UserError: a file exists, cannot be written, or would hold text that is not valid Unicode.
    """
    check_new(list(writers))
    named: list[Path] = []
    try:
        with contextlib.ExitStack() as stack:
            # What is entered first is left last.
            files = {
                path: stack.enter_context(_naming(path, named)) for path in reversed(list(writers))
            }
            for path, write in writers.items():
                write(files[path])
    except BaseException as error:
        for path in named:
            path.unlink(missing_ok=True)
        if isinstance(error, UnicodeEncodeError):
            text = error.object[max(0, error.start - 200) : error.end + 200]
            raise UserError(
                f"the file name {text.strip()!r} is not valid Unicode; rename the file."
            ) from error
        raise


@contextlib.contextmanager
def _naming(path: Path, named: list[Path]) -> Iterator[IO[str]]:
    """As `replacing`; `named` is told when the file has its name."""
    with replacing(path) as file:
        yield file
    named.append(path)


def is_partial(path: Path) -> bool:
    """Whether a file is one that was never finished, or is being written now."""
    return path.name.startswith(_PREFIX) and path.name.endswith(_SUFFIX)


def remove_partial(folder: Path) -> None:
    """Removes what killed processes were writing. Only for who alone writes into the folder."""
    for path in folder.iterdir():
        if is_partial(path):
            path.unlink()


def _open(path: Path, mode: Literal["w", "wb"]) -> IO[Any]:
    return open(path, mode) if "b" in mode else open(path, mode, encoding="utf-8", newline="")


def _rename(partial: Path, path: Path, *, durable: bool) -> None:
    if durable:
        _sync(partial)
    os.replace(partial, path)
    if durable:
        try:
            _sync(path.parent)  # the name is in the folder
        except OSError as error:
            if error.errno not in _NOT_OF_FOLDERS:
                raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, error: OSError, advice: str) -> UserError:
    end = f"; {advice}" if advice else ""
    return UserError(f"cannot write {path}: {error.strerror or error}{end}.")
