"""Progress on stderr."""

from __future__ import annotations

import sys
from typing import Any

import tqdm


def progress_bar(total: int | None, what: str, unit: str, **options: Any) -> tqdm.tqdm:
    """A bar with rate and time left; in a log file a line every ten seconds is enough.

    Args:
      total: how many there are; None = not known.
      what: is done with them.
      unit: what one of them is called; "B" for bytes, which get prefixes.
      options: further ones of tqdm.
    """
    return tqdm.tqdm(
        total=total,
        desc=what,
        unit=unit,
        unit_scale=unit == "B",
        mininterval=0.2 if sys.stderr.isatty() else 10.0,
        **options,
    )
