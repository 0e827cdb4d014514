"""Batches of a few small clips, and what the tests ask of them."""

import contextlib
import itertools

import numpy as np

from avt_jax import axes
from avt_jax.data.loading import pipeline
from avt_jax.data.loading.config import DataConfig

NUM_CLIPS = 7


def config(**changes):
    return DataConfig(
        **{
            "path": "shards",
            "num_frames": 2,
            "clip_sec": 0.5,
            "frame_size_px": 16,
            "freq_mask_bins": 8,
            "time_mask_frames": 8,
            "num_threads": 0,
            **changes,
        }
    )


def taken(source, number, *, start=None, changes=None, **options):
    """The first `number` batches after the position `start`."""
    options = {"batch_size": 4, "seed": 3, **options}
    batches = pipeline.make_train_iterator(source, config(**changes or {}), **options)
    with contextlib.closing(batches):
        if start is not None:
            batches.set_state(start)
        return list(itertools.islice(batches, number))


def assert_same(one, two):
    assert len(one) == len(two)
    for left, right in zip(one, two, strict=True):
        assert left.keys() == right.keys()
        for key in left:
            pairs = (
                [(left[key][name], right[key][name]) for name in left[key]]
                if key == axes.LABELS
                else [(left[key], right[key])]
            )
            for a, b in pairs:
                assert a.dtype == b.dtype, key
                np.testing.assert_array_equal(a, b, err_msg=key)


def clip_ids(batches):
    return [clip for batch in batches for clip in batch[axes.ID].tolist()]


def position(batches, **changes):
    identity = {"seed": 3, "num_clips": NUM_CLIPS, "global_batch_size": 4}
    return {"batches": batches, "clips": 4 * batches, "damaged": [], **identity, **changes}
