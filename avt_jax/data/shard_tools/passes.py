"""Going once through shards, in several processes, with a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tqdm

from avt_jax.errors import UserError
from avt_jax.host import worker_pool


def ranges(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Cuts [0, count) into (first, end) parts of `size`, the last one shorter."""
    for first in range(0, count, size):
        yield first, min(first + size, count)


def map_inputs(
    function: Callable[[Any], Any], inputs: Sequence[Any], *, num_workers: int | None
) -> Iterator[tuple[Any, Any]]:
    """As `worker_pool.ordered_map`; None is one worker per core, 0 none but this process.

    There are never more workers than inputs, for starting one takes a second or two.

    Raises:
      UserError: a negative number.
    """
    if num_workers is None:
        num_workers = worker_pool.default_num_workers()
    if num_workers < 0:
        raise UserError(f"{num_workers} workers cannot read anything; give 0 or more.")
    num_workers = min(num_workers, len(inputs))
    if not num_workers:
        return ((item, function(item)) for item in inputs)
    return worker_pool.ordered_map(function, inputs, num_workers=num_workers)


def progress(total: int, what: str, unit: str) -> tqdm.tqdm:
    """A bar on stderr with rate and time left; in a log file a line every ten seconds."""
    interval_sec = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm.tqdm(
        total=total,
        desc=what,
        unit=unit,
        unit_scale=unit == "B",
        mininterval=interval_sec,
        smoothing=0.1,
    )
