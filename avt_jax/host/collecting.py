"""Python's search for unreachable objects, put off while many are made that stay.

Importing and tracing make millions of objects, nearly all of which stay. To go through them again
and again takes nearly a fifth of a second start (docs/performance.md); so do a million rows.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

_held: list[bool] = []


def hold() -> None:
    """Collects nothing from now on, until `resume`; for a process that is one command."""
    gc.disable()
    _held[:] = [True]


def resume() -> None:
    """Collects again, but nothing of what is there by now; does nothing where nobody has held it.

    Once the first programs are compiled: a cycle may hold arrays.
    """
    if _held:
        _held.clear()
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """Collects nothing in the meantime, for tables that are made and kept. Also a decorator."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
