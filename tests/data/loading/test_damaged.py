"""Damaged records: named, replaced alike in any process, counted, never more than allowed."""

import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import pickle

import numpy as np
import pytest
from clip_records import noise_record
from small_batches import NUM_CLIPS, assert_same, clip_ids, config, position, taken

from avt_jax import axes
from avt_jax.data import records
from avt_jax.data.loading import pipeline
from avt_jax.data.records.writer import RecordWriter
from avt_jax.errors import UserError


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
