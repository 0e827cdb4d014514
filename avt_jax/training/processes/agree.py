"""Numbers and errors that all processes of a job share, so that they decide the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from avt_jax import axes
from avt_jax.errors import UserError

# A message that goes to all processes, in bytes of UTF-8.
_MESSAGE_BYTES = 2048

T = TypeVar("T")


class SharedError(UserError):
    """A mistake that all processes know of."""


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return jax.process_index() == 0


def total(values: np.ndarray) -> np.ndarray:
    """The sum of all processes' integers, exact.

    Args:
      values: int64, of the same shape in every process.
    """
    if jax.process_count() == 1:
        return values
    # JAX has 32 bits for an integer.
    as_bytes = np.frombuffer(np.ascontiguousarray(values, np.int64).tobytes(), np.uint8)
    gathered = np.asarray(multihost_utils.process_allgather(as_bytes))
    everyone = np.frombuffer(gathered.tobytes(), np.int64).reshape(-1, *values.shape)
    return everyone.sum(0)


def notes(asked: int, num_damaged: int, rows: int) -> np.ndarray:
    """What this process has to tell all others, to travel with its part of a batch.

    Args:
      asked: number of the signal that asks it to stop, 0 without one.
      num_damaged: records.
      rows: examples of the part.

    Returns:
      [rows, 2] int32, see `avt_jax.axes`.
    """
    found = np.zeros((rows, 2), np.int32)
    found[0] = asked, num_damaged
    return found


def read_notes(batch: Mapping[str, Any]) -> dict[str, tuple[jax.Array, jax.Array]]:
    """{NOTES: (the highest signal, the sum of damaged records) of all processes}, if it has any."""
    if axes.NOTES not in batch:
        return {}
    asked, damaged = batch[axes.NOTES][:, 0], batch[axes.NOTES][:, 1]
    return {axes.NOTES: (asked.max(), damaged.sum())}


def as_the_first(flag: bool) -> bool:
    """What the first process says."""
    return bool(total(np.array([flag and is_first()], np.int64))[0])


def together(function: Callable[[], T]) -> T:
    """Runs a function in every process; all go on, or all fail.

    Args:
      function: may raise a UserError in some processes.

    Raises:
      UserError: as in the first of the processes that failed, which is named.
    """
    if jax.process_count() == 1:
        return function()
    found: T | None = None
    message = ""
    try:
        found = function()
    except UserError as error:
        message = str(error)
    _raise_first(message)
    assert found is not None or not message
    return found  # type: ignore[return-value]


def by_the_first(function: Callable[[], None]) -> None:
    """Runs a function in the first process while the others wait; all go on, or all fail.

    Raises:
      UserError: that of the first process.
    """
    together(function if is_first() else lambda: None)


def _raise_first(message: str) -> None:
    encoded = message.encode()[:_MESSAGE_BYTES]
    mine = np.frombuffer(encoded.ljust(_MESSAGE_BYTES, b"\0"), np.uint8)
    everyone = np.asarray(multihost_utils.process_allgather(mine))
    for index, one in enumerate(everyone):
        text = one.tobytes().rstrip(b"\0").decode(errors="ignore")
        if text and index == jax.process_index():
            raise SharedError(text)
        if text:
            raise SharedError(f"process {index} of {len(everyone)}: {text}")
