"""Arrays that come from a worker process through shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from grain.multiprocessing import SharedMemoryArray


def plain(value: Any) -> Any:
    """Arrays of a batch from a worker as plain ones, without a copy.

    Grain's array takes its memory with it. A view keeps that array, and whoever uses the view's
    memory, as JAX does on a CPU, keeps the view. The memory's name is taken away at once: then
    nothing is left over, however the program ends.

    Args:
      value: array, or mapping of them.
    """
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, SharedMemoryArray):
        value.shm.unlink()
        value._unlink_on_del = False  # Grain would do it when the array goes
    return value.view(np.ndarray)
