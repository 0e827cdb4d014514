"""Python's search for unreachable objects, put off while a command starts.

Importing and tracing make millions of objects, nearly all of which stay. To go through them again
and again takes nearly a fifth of a second start (docs/performance.md).
"""

from __future__ import annotations

import gc

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
