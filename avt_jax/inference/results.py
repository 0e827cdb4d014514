"""One file of results for many media files or clips, written as they come, continued after a kill.

Which files are done is read from the results alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from avt_jax.errors import UserError
from avt_jax.host.lock import NO_LOCKS, locked
from avt_jax.host.new_files import replacing_path
from avt_jax.inference.result_formats import (
    FORMATS,
    Entry,
    Format,
    Made,
    MadeOtherwiseError,
    NotOursError,
)

ADVICE = "make room or mend it, and give the same command again: what is written is kept"


class Results:
    """A file of results that is open to be continued.

    Attributes:
      failed: {key of a media file: whether it failed}, of all that are in the file.
    """

    def __init__(self, path: Path, form: Format, failed: dict[str, bool], file: IO[bytes]):
        """Takes what `open_results` has read."""
        self.failed = failed
        self._path, self._form, self._file = path, form, file

    def add(self, path: str, found: Any) -> None:
        """Writes what was found out about a media file; it is in the file when this returns.

        Args:
          path: as it was given.
          found: what the format stores, such as a `FilePrediction`, or the `UserError` that says
            why there is none.

        Raises:
          UserError: it cannot be written.
        """
        failed = isinstance(found, UserError)
        text = (
            self._form.error(path, str(found))
            if isinstance(found, UserError)
            else self._form.prediction(found)
        )
        _write(self._path, self._file, text)
        self.failed[key(path)] = failed


def key(path: str) -> str:
    """What two names of a media file have in common."""
    return os.path.abspath(path)


def check_file(path: Path) -> None:
    """Raises UserError for a name that says no format, or a place where no file can be."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(
            f"--out {path}: the file of results ends in .jsonl or .csv; a folder for pictures is "
            f"given with --pictures {path}."
        )
    if path.is_dir():
        raise UserError(f"--out {path} is a folder; give the name of a file.")
    if not path.absolute().parent.is_dir():
        raise UserError(f"the folder of --out {path} does not exist; create it first.")


@contextlib.contextmanager
def open_results(
    path: Path,
    made: Made,
    label_sets: Mapping[str, Sequence[str]],
    *,
    again: Collection[str] = (),
    multi_label: Collection[str] = (),
) -> Generator[Results, None, None]:
    """Opens a file of results, new or to be continued. Two processes cannot have the same one.

    Args:
      path: ends in .jsonl or .csv. A last entry that was cut off is removed.
      made: what makes the new results.
      label_sets: {label set: class names}.
      again: keys of media files whose entry is removed if they failed.
      multi_label: the label sets whose classes have independent probabilities.

    Yields:
      The open results.

    Raises:
      UserError: the file is another one, was made in another way, is damaged, is being written by
        another process, or cannot be written.
    """
    check_file(path)
    form = FORMATS[path.suffix.lower()](made, label_sets, multi_label)
    with continued(path, form, "avt predict", option="--out ", again=again) as results:
        yield results


@contextlib.contextmanager
def continued(
    path: Path, form: Format, command: str, *, option: str = "", again: Collection[str] = ()
) -> Generator[Results, None, None]:
    """Opens a file of any format, new or to be continued; see `open_results`.

    Args:
      path: of the file.
      form: how it is written.
      command: that writes it, for messages.
      option: that names it, for messages.
      again: as in `open_results`.

    Yields:
      The open results.

    Raises:
      UserError: as `open_results`.
    """
    with contextlib.ExitStack() as stack:
        try:
            _lock(stack, path, command)
            failed, end = _read(path, form, command, option)
            dropped = {one for one in again if failed.get(one)}
            if dropped:
                end = _rewrite(stack, path, form, dropped, command)
            file = stack.enter_context(open(path, "r+b", buffering=0))
            file.truncate(end)
            file.seek(end)
        except OSError as error:
            raise _cannot_write(path, error) from error
        if not end:
            _write(path, file, form.head)
        yield Results(path, form, {k: v for k, v in failed.items() if k not in dropped}, file)


def _lock(stack: contextlib.ExitStack, path: Path, command: str) -> None:
    try:
        stack.enter_context(locked(path))
    except BlockingIOError as error:
        raise UserError(
            f"another '{command}' is writing {path}; wait for its end, or give another --out."
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def _read(path: Path, form: Format, command: str, option: str) -> tuple[dict[str, bool], int]:
    """({key: whether it failed}, bytes up to the end of the last whole entry)."""
    failed: dict[str, bool] = {}
    end = 0
    try:
        for entry in entries(path, form):
            end += len(_encoded(entry.raw))
            if entry.path is not None:
                failed[key(entry.path)] = entry.failed
    except NotOursError as error:
        raise UserError(
            f"{option}{path} is there and no file of results that '{command}' can continue "
            f"({error}); give another name."
        ) from error
    except MadeOtherwiseError as error:
        raise UserError(
            f"the results in {option}{path} were made otherwise ({error}); give another name, or "
            "what they were made with."
        ) from error
    return failed, end


def entries(path: Path, form: Format) -> Iterator[Entry]:
    """The whole entries of a file; raises what `Format.read` does."""
    # A path need not be valid Unicode; its bytes are kept.
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        yield from form.read(iter(file))


def _rewrite(
    stack: contextlib.ExitStack, path: Path, form: Format, dropped: Collection[str], command: str
) -> int:
    """Writes the file anew without some entries; returns its size."""
    with replacing_path(path, advice=ADVICE) as partial:
        with open(partial, "wb") as file:
            for entry in entries(path, form):
                if entry.path is None or key(entry.path) not in dropped:
                    file.write(_encoded(entry.raw))
        # The lock is that of the file under the name, so the new one needs it before it has that.
        _lock(stack, partial, command)
        return partial.stat().st_size


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _write(path: Path, file: IO[bytes], text: str) -> None:
    rest = memoryview(_encoded(text))
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path}: {error.strerror or error}; {ADVICE}.")
