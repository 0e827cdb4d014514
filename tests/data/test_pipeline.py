"""Batches are exactly the same for any threads, workers and processes, from any position."""

import contextlib
import dataclasses
import gc
import itertools
import json
import multiprocessing
import pickle
from multiprocessing import shared_memory

import numpy as np
import pytest
from clip_records import noise_record

from avt_jax import axes
from avt_jax.data import records
from avt_jax.data.loading import pipeline, sampling
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.records.writer import RecordWriter
from avt_jax.errors import UserError

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


@pytest.fixture(scope="module")
def source():
    return [
        noise_record(i, num_frames=8, duration_sec=1.0, has_audio=i != 4) for i in range(NUM_CLIPS)
    ]


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


def test_batch_layout(source):
    [batch] = taken(source, 1)
    shapes = {key: (value.shape, value.dtype) for key, value in batch.items() if key != axes.LABELS}
    assert shapes.pop(axes.ID)[0] == (4,)
    assert shapes == {
        axes.VIDEO: ((4, 2, 16, 16, 3), np.uint8),
        axes.AUDIO: ((4, 50, 128), np.float32),
        axes.HAS_AUDIO: ((4,), bool),
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


def position(batches, **changes):
    identity = {"seed": 3, "num_clips": NUM_CLIPS, "global_batch_size": 4}
    return {"batches": batches, "damaged": [], **identity, **changes}


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
        (position(1, num_clips=8), "num_clips"),
        (position(1, global_batch_size=8), "global_batch_size"),
        (position(-1), "damaged"),
        (position(1.5), "damaged"),
        (position(True), "damaged"),
        (position(1, damaged=[NUM_CLIPS]), "list of damaged records"),
        (position(1, damaged=[True]), "list of damaged records"),
        (position(1, damaged=None), "list of damaged records"),
        ({}, "damaged"),
        (None, "damaged"),
        ({"batches": 1}, "seed"),
    ],
)
def test_foreign_position_is_refused(source, state, word):
    batches = pipeline.make_train_iterator(source, config(), batch_size=4, seed=3)
    next(batches)
    with pytest.raises(UserError, match=word):
        batches.set_state(state)
    assert batches.get_state() == position(1)


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


class Damaged:
    """A source whose clip 2 cannot be read; picklable, so that workers can have it."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            raise self.error
        return noise_record(index, num_frames=4, duration_sec=0.5)


@pytest.mark.parametrize("threads,workers", [(0, 0), (2, 0), (1, 1)])
def test_damaged_record_is_named_and_the_position_stays(threads, workers):
    broken = Damaged(RuntimeError("Corrupted Riegeli/records file\nmore"))
    settings = config(num_threads=threads, num_workers=workers, train_split="fit", max_damaged=0)
    batches = pipeline.make_train_iterator(broken, settings, batch_size=1, seed=0)
    with contextlib.closing(batches):
        seen = 0
        with pytest.raises(UserError, match=r"clip 2 of split 'fit' in shards .*Corrupted"):
            for _ in batches:
                seen += 1
        assert batches.get_state()["batches"] == seen < 4
        with pytest.raises(UserError, match="clip 2"):
            next(batches)
    assert not multiprocessing.active_children()


class Holes:
    """A source some of whose clips have a frame that is no JPEG, or cannot be read at all."""

    def __init__(self, clips, holes):
        self.clips, self.holes = clips, holes

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        if self.holes.get(index) == "record":
            raise UserError(f"clip {index} is damaged; extract again.")
        if self.holes.get(index) == "frame":
            return self.clips[index] | {"frames": [b"text"]}
        return self.clips[index]


HOLES = {2: "record", 3: "frame", 6: "frame"}


@pytest.mark.parametrize("threads,workers", [(0, 0), (2, 0), (1, 2)])
def test_damaged_records_are_replaced_alike_and_counted_once(source, threads, workers):
    holed = Holes(source, HOLES)
    settings = config(num_threads=threads, num_workers=workers, max_damaged=3)
    batches = pipeline.make_train_iterator(holed, settings, batch_size=4, seed=3)
    with contextlib.closing(batches):
        got = list(itertools.islice(batches, 7))
        assert batches.num_damaged == 3
        assert batches.get_state() == position(7, damaged=[2, 3, 6])
    # Four epochs: the clip after a damaged one takes its place, and is drawn as often.
    wanted = [int(clip.removeprefix("clip-")) for clip in clip_ids(taken(source, 7))]
    taken_instead = {2: 4, 3: 4, 6: 0}
    assert clip_ids(got) == [f"clip-{taken_instead.get(index, index)}" for index in wanted]
    assert all(batch.keys() == taken(source, 1)[0].keys() for batch in got)
    assert_same(got, taken(holed, 7))
    # Where there is no damage nothing changes.
    rows = [index not in taken_instead for index in wanted[:4]]
    first = taken(source, 1)[0]
    np.testing.assert_array_equal(got[0][axes.VIDEO][rows], first[axes.VIDEO][rows])


def test_damage_met_survives_a_restart(source):
    holed = Holes(source, HOLES)
    expected = taken(holed, 7)
    batches = pipeline.make_train_iterator(holed, config(), batch_size=4, seed=3)
    for _ in range(3):
        next(batches)
    state = json.loads(json.dumps(batches.get_state()))
    assert batches.num_damaged > 0
    again = pipeline.make_train_iterator(holed, config(num_threads=2), batch_size=4, seed=3)
    with contextlib.closing(again):
        again.set_state(state)
        assert again.num_damaged == batches.num_damaged
        assert_same(list(itertools.islice(again, 4)), expected[3:])
        assert again.num_damaged == 3
        # Positions of earlier versions have no such list.
        again.set_state({key: value for key, value in state.items() if key != "damaged"})
        assert again.num_damaged == 0


@pytest.mark.parametrize("threads,workers", [(0, 0), (1, 1)])
def test_more_damage_than_allowed_is_an_error(source, threads, workers):
    holed = Holes(source, HOLES)
    settings = config(num_threads=threads, num_workers=workers, max_damaged=2)
    batches = pipeline.make_train_iterator(holed, settings, batch_size=1, seed=3)
    with contextlib.closing(batches):
        with pytest.raises(UserError, match="met 3 damaged.*max_damaged is 2.*clip [236] "):
            for _ in range(2 * NUM_CLIPS):
                next(batches)
        state = batches.get_state()
        assert batches.num_damaged == 2 and state["batches"] < NUM_CLIPS
        with pytest.raises(UserError, match="met 3 damaged"):
            next(batches)
        assert batches.get_state() == state


def test_nothing_but_damage_is_an_error_whatever_is_allowed(source):
    holed = Holes(source, dict.fromkeys(range(NUM_CLIPS), "frame"))
    with pytest.raises(UserError, match="met 7 damaged"):
        taken(holed, 1, changes={"max_damaged": 1000})


def test_damaged_frame_and_readers_own_words():
    broken = [noise_record(0, num_frames=4, duration_sec=0.5) | {"frames": [b"text"]}]
    with pytest.raises(UserError, match="clip 0 of split 'val' in shards"):
        list(pipeline.eval_batches(broken, config(), batch_size=2))
    said = Damaged(UserError("clip 2 is damaged; extract again."))
    with pytest.raises(UserError, match=r"^clip 2 is damaged; extract again\."):
        list(pipeline.eval_batches(said, config(num_threads=2), batch_size=2))


class Deadly(Damaged):
    """A source whose clip 2 takes the process down, as running out of memory does."""

    def __getitem__(self, index):
        if index == 2:
            import os

            os._exit(9)
        return super().__getitem__(index)


def test_dead_worker_is_told(source):
    batches = pipeline.eval_batches(Deadly(None), config(num_workers=1), batch_size=1)
    with pytest.raises(UserError, match="worker process of the input pipeline died"):
        list(batches)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    "batch_size,processes,threads,workers",
    [(4, 1, 0, 0), (7, 1, 2, 0), (10, 1, 0, 0), (2, 2, 2, 0), (2, 2, 0, 2), (3, 4, 0, 0)],
)
def test_evaluation_shows_every_clip_once(source, batch_size, processes, threads, workers):
    settings = config(num_threads=threads, num_workers=workers)
    lengths, seen = set(), []
    for p in range(processes):
        batches = list(
            pipeline.eval_batches(
                source, settings, batch_size=batch_size, process_index=p, process_count=processes
            )
        )
        lengths.add(len(batches))
        for batch in batches:
            assert batch[axes.VIDEO].shape == (batch_size, 2, 16, 16, 3)
            seen += batch[axes.ID][batch[axes.VALID]].tolist()
    assert lengths == {-(-NUM_CLIPS // (batch_size * processes))}
    assert sorted(seen) == [record["id"] for record in source]


def test_evaluation_order_and_padding(source):
    one, two = pipeline.eval_batches(source, config(), batch_size=4)
    assert one[axes.ID].tolist() == [f"clip-{i}" for i in range(4)]
    assert one[axes.VALID].all()
    assert two[axes.VALID].tolist() == [True, True, True, False]
    assert two[axes.ID].tolist() == ["clip-4", "clip-5", "clip-6", "clip-6"]
    np.testing.assert_array_equal(two[axes.VIDEO][3], two[axes.VIDEO][2])
    assert one[axes.HAS_AUDIO].all() and two[axes.HAS_AUDIO].tolist() == [False, True, True, True]


def test_a_process_without_clips_gets_invalid_batches(source):
    [batch] = pipeline.eval_batches(
        source[:1], config(), batch_size=2, process_index=1, process_count=2
    )
    assert not batch[axes.VALID].any() and batch[axes.VIDEO].shape[0] == 2


def test_evaluation_of_nothing_is_no_batch():
    assert list(pipeline.eval_batches([], config(), batch_size=2)) == []


def test_evaluation_left_early_leaves_no_process(source):
    batches = pipeline.eval_batches(source, config(num_workers=1), batch_size=1)
    next(batches)
    batches.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("batch_size,processes", [(4, 1), (5, 1), (40, 1), (4, 2), (3, 3)])
def test_views_of_a_clip_follow_each_other(source, batch_size, processes):
    settings = config(eval_clips=3, eval_crops=2)
    lengths, seen = set(), []
    for p in range(processes):
        batches = list(
            pipeline.eval_batches(
                source, settings, batch_size=batch_size, process_index=p, process_count=processes
            )
        )
        lengths.add(len(batches))
        ids = [i for batch in batches for i in batch[axes.ID][batch[axes.VALID]].tolist()]
        assert ids == [source[i]["id"] for i in range(p, NUM_CLIPS, processes) for _ in range(6)]
        seen += ids
        videos = np.concatenate([batch[axes.VIDEO][batch[axes.VALID]] for batch in batches])
        wanted = [
            sampling.eval_example(source[i], settings, view=view)[axes.VIDEO]
            for i in range(p, NUM_CLIPS, processes)
            for view in range(6)
        ]
        np.testing.assert_array_equal(videos, np.stack(wanted))
    assert len(lengths) == 1 and len(seen) == 6 * NUM_CLIPS


@pytest.fixture(scope="module")
def shards(tmp_path_factory, source):
    folder = tmp_path_factory.mktemp("shards")
    writer = RecordWriter(
        folder, label_sets={"label": ("a", "b", "c")}, frame_rate_hz=8.0, short_side_px=24
    )
    for record in source:
        writer.add("train", record | {"frame_rate_hz": np.float32(record["frame_rate_hz"])})
    writer.close()
    return folder


@pytest.mark.parametrize("threads,workers", [(2, 0), (1, 2)])
def test_shards_give_what_memory_gives(shards, source, threads, workers):
    changes = dict(num_threads=threads, num_workers=workers)
    stored = records.open_split(shards, "train")
    assert_same(taken(stored, 4, changes=changes), taken(source, 4))


def test_damaged_shard_is_named(shards, source, tmp_path, caplog):
    for path in shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    [shard] = tmp_path.glob("*array_record*")
    data = bytearray(shard.read_bytes())
    data[30_000:30_008] = bytes(8)  # inside one record of the first of the blocks
    shard.write_bytes(data)
    settings = config(path=str(tmp_path), eval_split="train", num_threads=2)
    stored = records.open_split(tmp_path, "train")
    with pytest.raises(UserError) as told_directly:
        list(stored)
    named = rf"record \d of shard {shard.name}: clip \d of split 'train' in .* is damaged"
    with pytest.raises(UserError, match=named) as told:
        list(pipeline.eval_batches(stored, settings, batch_size=2))
    assert str(told_directly.value) in str(told.value)
    strict = dataclasses.replace(settings, max_damaged=0)
    batches = pipeline.make_train_iterator(stored, strict, batch_size=NUM_CLIPS, seed=0)
    with contextlib.closing(batches), pytest.raises(UserError, match=f"last one: {named}"):
        next(batches)
    with caplog.at_level("WARNING"):
        batches = pipeline.make_train_iterator(stored, settings, batch_size=NUM_CLIPS, seed=0)
        with contextlib.closing(batches):
            for _ in range(3):
                next(batches)
            assert batches.num_damaged == 1
    [warning] = caplog.messages
    assert f"of shard {shard.name}" in warning


def test_errors_travel_between_processes():
    error = UserError("one sentence")
    assert str(pickle.loads(pickle.dumps(error))) == "one sentence"
