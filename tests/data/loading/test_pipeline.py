"""Batches are exactly the same for any threads, workers and processes, from any position."""

import contextlib
import gc
import itertools
import json
import multiprocessing
from multiprocessing import shared_memory

import numpy as np
import pytest
from small_batches import NUM_CLIPS, assert_same, clip_ids, config, position, taken

from avt_jax import axes
from avt_jax.data.loading import pipeline
from avt_jax.errors import UserError


def test_batch_layout(source):
    [batch] = taken(source, 1)
    shapes = {key: (value.shape, value.dtype) for key, value in batch.items() if key != axes.LABELS}
    assert shapes.pop(axes.ID)[0] == (4,)
    assert shapes == {
        axes.VIDEO: ((4, 2, 16, 16, 3), np.uint8),
        axes.AUDIO: ((4, 50, 128), np.float32),
        axes.HAS_AUDIO: ((4,), bool),
        axes.HAS_VIDEO: ((4,), bool),
        axes.GROUP: ((4,), np.int32),
        axes.VALID: ((4,), bool),
    }
    assert batch[axes.LABELS]["label"].dtype == np.int32
    assert batch[axes.VALID].all()
    assert all(type(value) is np.ndarray for key, value in batch.items() if key != axes.LABELS)
    by_id = {record["id"]: record["labels"]["label"] for record in source}
    assert batch[axes.LABELS]["label"].tolist() == [by_id[clip] for clip in batch[axes.ID]]


def test_every_epoch_holds_every_clip_once_in_another_order(source):
    ids = clip_ids(taken(source, NUM_CLIPS * 3, batch_size=4))
    epochs = [tuple(ids[i : i + NUM_CLIPS]) for i in range(0, len(ids), NUM_CLIPS)]
    assert len(epochs) == 12
    assert all(len(set(epoch)) == NUM_CLIPS for epoch in epochs)
    assert len(set(epochs)) > 6


def test_variation_differs_between_epochs_and_seeds(source):
    one, two = taken(source[:1], 2, batch_size=1)
    assert not np.array_equal(one[axes.VIDEO], two[axes.VIDEO])
    [other] = taken(source[:1], 1, batch_size=1, seed=4)
    assert not np.array_equal(one[axes.VIDEO], other[axes.VIDEO])
    assert clip_ids(taken(source, 3, seed=3)) != clip_ids(taken(source, 3, seed=4))


def test_a_seed_does_not_continue_where_another_left_off(source):
    # Epoch 1 of seed 3 must not be epoch 0 of seed 4.
    second = clip_ids(taken(source, 2 * NUM_CLIPS, batch_size=1, seed=3))[NUM_CLIPS:]
    first = clip_ids(taken(source, NUM_CLIPS, batch_size=1, seed=4))
    assert second != first


@pytest.mark.parametrize("threads,workers", [(2, 0), (0, 2), (2, 1)])
def test_threads_and_workers_change_nothing(source, threads, workers):
    changes = dict(num_threads=threads, num_workers=workers)
    expected = taken(source, 6)
    assert_same(taken(source, 6, changes=changes), expected)
    resumed = taken(source, 4, changes=changes, start=position(2))
    assert_same(resumed, expected[2:])
    assert not multiprocessing.active_children()


def test_batches_of_workers_outlive_them_and_leave_no_shared_memory(source):
    expected = taken(source, 3)
    batches = taken(source, 3, changes=dict(num_threads=1, num_workers=1))
    gc.collect()
    assert_same(batches, expected)
    for batch in batches:
        memory = batch[axes.VIDEO].base.shm
        with pytest.raises(FileNotFoundError):
            shared_memory.SharedMemory(memory.name)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_global_batch(source, processes):
    alone = taken(source, 4)
    shares = [
        taken(source, 4, batch_size=4 // processes, process_index=p, process_count=processes)
        for p in range(processes)
    ]
    for number, whole in enumerate(alone):
        for p, share in enumerate(shares):
            rows = slice(p, None, processes)
            np.testing.assert_array_equal(share[number][axes.ID], whole[axes.ID][rows])
            np.testing.assert_array_equal(share[number][axes.VIDEO], whole[axes.VIDEO][rows])
            np.testing.assert_array_equal(share[number][axes.AUDIO], whole[axes.AUDIO][rows])


def test_every_position_restores_exactly(source):
    expected = taken(source, 9)
    batches = pipeline.make_train_iterator(source, config(num_threads=2), batch_size=4, seed=3)
    states = []
    with contextlib.closing(batches):
        for batch in expected:
            states.append(json.loads(json.dumps(batches.get_state())))
            assert_same([next(batches)], [batch])
        # Backwards, on the same iterator and in the middle of its work.
        for number in reversed(range(9)):
            batches.set_state(states[number])
            assert batches.get_state() == states[number]
            assert_same(list(itertools.islice(batches, 9 - number)), expected[number:])


def test_position_moves_between_numbers_of_processes(source):
    expected = taken(source, 5)
    batches = pipeline.make_train_iterator(source, config(), batch_size=4, seed=3)
    for _ in range(3):
        next(batches)
    state = batches.get_state()
    share = taken(source, 2, start=state, batch_size=2, process_index=1, process_count=2)
    for got, whole in zip(share, expected[3:], strict=True):
        np.testing.assert_array_equal(got[axes.VIDEO], whole[axes.VIDEO][1::2])


@pytest.mark.parametrize(
    "state,word",
    [
        (position(1, seed=4), "seed"),
        (position(1, num_clips="7"), "damaged"),
        (position(1, clips=-4), "damaged"),
        (position(-1), "damaged"),
        (position(1.5), "damaged"),
        (position(True), "damaged"),
        (position(1, damaged=[NUM_CLIPS]), "list of damaged records"),
        (position(1, damaged=[True]), "list of damaged records"),
        (position(1, damaged=None), "list of damaged records"),
        ({}, "damaged"),
        (None, "damaged"),
        ({"batches": 1}, "damaged"),
        ({"batches": 1, "clips": 4, "num_clips": NUM_CLIPS}, "seed"),
    ],
)
def test_foreign_position_is_refused(source, state, word):
    batches = pipeline.make_train_iterator(source, config(), batch_size=4, seed=3)
    next(batches)
    with pytest.raises(UserError, match=word):
        batches.set_state(state)
    assert batches.get_state() == position(1)


def test_another_batch_size_goes_on_with_the_next_clip(source):
    expected = clip_ids(taken(source, 9, batch_size=4))
    for size, number in ((2, 4), (5, 3)):
        assert (
            clip_ids(taken(source, number, start=position(3), batch_size=size))
            == (expected[12 : 12 + size * number])
        )
    # Earlier versions counted batches only.
    state = {name: value for name, value in position(3).items() if name != "clips"}
    assert clip_ids(taken(source, 2, start=state, batch_size=5)) == expected[12:22]


def test_of_other_data_the_next_epoch_begins(source):
    fewer = source[:5]
    # Batch 2 of 4 ends in the second epoch of 7: the third one of 5 is next.
    got = taken(fewer, 2, start=position(2, damaged=[6]), batch_size=5)
    assert_same(got, taken(fewer, 4, batch_size=5)[2:])
    batches = pipeline.make_train_iterator(fewer, config(), batch_size=5, seed=3)
    [said] = batches.set_state(position(2, damaged=[6]))
    assert "has 5 clips now, not 7" in said
    assert batches.num_damaged == 0, "the indices were those of the other clips"
    assert batches.set_state(batches.get_state()) == []


def test_one_clip_and_batches_larger_than_the_data(source):
    for clips, size in ((1, 1), (1, 5), (3, 16)):
        batches = taken(source[:clips], 3, batch_size=size)
        assert all(batch[axes.VIDEO].shape[0] == size for batch in batches)
        assert all(batch[axes.VALID].all() for batch in batches)
        counts = np.unique(clip_ids(batches), return_counts=True)[1]
        assert len(counts) == clips and counts.max() - counts.min() <= 1


def test_closed_iterator_says_so(source):
    batches = pipeline.make_train_iterator(source, config(num_threads=2), batch_size=4, seed=3)
    next(batches)
    batches.close()
    batches.close()
    with pytest.raises(ValueError, match="closed"):
        next(batches)


def test_bad_arguments(source):
    make = pipeline.make_train_iterator
    with pytest.raises(UserError, match="'train' of shards is empty"):
        make([], config(), batch_size=4, seed=0)
    with pytest.raises(UserError, match="seed is -1"):
        make(source, config(), batch_size=4, seed=-1)
    for changes in ({"batch_size": 0}, {"process_index": 2}, {"process_index": -1}):
        options = {"batch_size": 4, "process_count": 2, **changes}
        with pytest.raises(ValueError):
            make(source, config(), seed=0, **options)
        with pytest.raises(ValueError):
            pipeline.eval_batches(source, config(), **options)
