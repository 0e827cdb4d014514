"""What a worker sent is used where it lies, and nothing of it is left over."""

import gc
import time
from multiprocessing import shared_memory

import numpy as np
from grain.multiprocessing import SharedMemoryArray

from avt_jax.data.loading.shared_arrays import plain


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


def test_received_arrays_are_views_of_memory_that_has_no_name_any_more():
    array = SharedMemoryArray((3, 2), np.int32)
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
