"""Mistakes a user can make, told in one sentence."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path


class UserError(Exception):
    """A mistake in what the user gave: input file, option, config field, folder.

    The message is one clear sentence: what was wrong, with the value and the file, and what to do.
    The command line prints it without a traceback and exits with code 2.
    """


def nearest(name: str, names: Iterable[str]) -> str:
    """Suggests the closest valid name.

    Args:
      name: what the user wrote.
      names: the valid names.

    Returns:
      " (did you mean 'x'?)" for the closest of `names`, "" when none is close.
    """
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def first_line(error: BaseException, limit: int = 160) -> str:
    """The beginning of an error's message, for a sentence of our own.

    Args:
      error: whatever was raised.
      limit: most characters.

    Returns:
      The first line of its text; the name of its class where it says nothing.
    """
    return (str(error).splitlines() or [""])[0][:limit] or type(error).__name__


@contextlib.contextmanager
def reading(path: Path, wrong: str, advice: str) -> Iterator[None]:
    """Turns what a library raises of a damaged file into a `UserError`.

    Args:
      path: of the file.
      wrong: what is wrong with it then, after its name.
      advice: what to do.
    """
    try:
        yield
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{path} needs more memory than there is; use a larger machine.") from error
    except Exception as error:
        # Given a damaged file, the libraries raise a good dozen types, no two of them alike.
        raise UserError(f"{path} {wrong} ({first_line(error)}); {advice}.") from error
