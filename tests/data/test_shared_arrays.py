"""Memory that a worker fills reaches the main process, or goes away."""

import gc
import time
from multiprocessing import shared_memory

import numpy as np
from grain.multiprocessing import SharedMemoryArray

from avt_jax.data.shared_arrays import WorkerArray, plain


def is_gone(name):
    """Grain may let a thread of its own take memory away."""
    gc.collect()
    for _ in range(100):
        try:
            shared_memory.SharedMemory(name).close()
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_an_array_that_nobody_was_sent_goes_away():
    array = WorkerArray((3, 2), np.int32)
    name = array.shm.name
    array[:] = 1
    row = array.view(np.ndarray)[1]
    del array
    assert row.tolist() == [1, 1], "a view keeps the memory"
    del row
    assert is_gone(name)


def test_an_array_that_was_sent_is_the_receivers():
    array = WorkerArray((3, 2), np.int32)
    array[:] = [[1, 2], [3, 4], [5, 6]]
    metadata = array.metadata
    del array
    gc.collect()
    received = SharedMemoryArray.from_metadata(metadata)
    received.unlink_on_del()
    batch = plain({"video": received, "labels": {"label": np.arange(2)}})
    assert type(batch["video"]) is np.ndarray and type(batch["labels"]["label"]) is np.ndarray
    assert np.shares_memory(batch["video"], received)
    assert is_gone(metadata.name), "the name; the memory stays as long as it is used"
    del received
    gc.collect()
    assert batch["video"].tolist() == [[1, 2], [3, 4], [5, 6]]
