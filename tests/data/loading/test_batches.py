"""Batches: what stands in their rows, order, padding, views, processes."""

import multiprocessing

import numpy as np
import pytest
from small_batches import NUM_CLIPS, config

from avt_jax import axes
from avt_jax.data.loading import batches, damaged, pipeline, sampling
from avt_jax.errors import UserError


@pytest.mark.parametrize(
    "batch_size,processes,threads,workers",
    [(4, 1, 0, 0), (7, 1, 2, 0), (10, 1, 0, 0), (2, 2, 2, 0), (2, 2, 0, 2), (3, 4, 0, 0)],
)
def test_evaluation_shows_every_clip_once(source, batch_size, processes, threads, workers):
    settings = config(num_threads=threads, num_workers=workers)
    lengths, seen = set(), []
    for p in range(processes):
        made = list(
            pipeline.eval_batches(
                source, settings, batch_size=batch_size, process_index=p, process_count=processes
            )
        )
        lengths.add(len(made))
        for batch in made:
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
    made = pipeline.eval_batches(source, config(num_workers=1), batch_size=1)
    next(made)
    made.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("batch_size,processes", [(4, 1), (5, 1), (40, 1), (4, 2), (3, 3)])
def test_views_of_a_clip_follow_each_other(source, batch_size, processes):
    settings = config(eval_clips=3, eval_crops=2)
    lengths, seen = set(), []
    for p in range(processes):
        made = list(
            pipeline.eval_batches(
                source, settings, batch_size=batch_size, process_index=p, process_count=processes
            )
        )
        lengths.add(len(made))
        ids = [i for batch in made for i in batch[axes.ID][batch[axes.VALID]].tolist()]
        assert ids == [source[i]["id"] for i in range(p, NUM_CLIPS, processes) for _ in range(6)]
        seen += ids
        videos = np.concatenate([batch[axes.VIDEO][batch[axes.VALID]] for batch in made])
        wanted = [
            sampling.eval_example(source[i], settings, view=view)[axes.VIDEO]
            for i in range(p, NUM_CLIPS, processes)
            for view in range(6)
        ]
        np.testing.assert_array_equal(videos, np.stack(wanted))
    assert len(lengths) == 1 and len(seen) == 6 * NUM_CLIPS


class Counted:
    """A source that notes what is read, and how."""

    def __init__(self, clips):
        self.clips, self.read, self.lazily = clips, [], []

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        self.read.append(index)
        return self.clips[index]


class Lazy(Counted):
    """One that can leave out frames that are not used."""

    def read_lazily(self, index):
        self.lazily.append(index)
        return self.clips[index]


def test_records_are_read_lazily_where_the_source_can(source):
    plain, lazy = Counted(source), Lazy(source)
    for counted in (plain, lazy):
        made = batches.LazyRecords(counted)
        assert len(made) == NUM_CLIPS and made[3] is source[3]
    assert (plain.read, plain.lazily, lazy.read, lazy.lazily) == ([3], [], [], [3])


def test_a_draw_keeps_its_index_and_gets_a_seed_of_its_own():
    draws = [batches.draw_seed(5, np.random.default_rng(number)) for number in range(50)]
    assert {index for index, _ in draws} == {5}
    assert len({seed for _, seed in draws}) == 50
    assert all(0 <= seed < 2**63 for _, seed in draws)
    assert draws[7] == batches.draw_seed(5, np.random.default_rng(7))


def test_a_training_row_depends_on_its_draw_alone(source):
    settings = config()
    make = batches.MakeTrainBatch(source, settings)
    draws = [(4, 11), (0, 12), (4, 13)]
    batch = make(draws)
    for row, (index, seed) in enumerate(draws):
        rng = np.random.default_rng(seed)
        alone = sampling.train_example(source[index], settings, rng)
        for key in (axes.VIDEO, axes.AUDIO, axes.HAS_AUDIO, axes.GROUP, axes.ID):
            np.testing.assert_array_equal(batch[key][row], alone[key], err_msg=key)
        assert batch[axes.LABELS]["label"][row] == source[index]["labels"]["label"]
    assert not np.array_equal(batch[axes.VIDEO][0], batch[axes.VIDEO][2]), "two draws of a clip"
    assert batch[axes.VALID].tolist() == [True] * 3
    assert batch[damaged.KEY].tolist() == [""] * 3
    [again] = make(draws[1:2])[axes.VIDEO]
    np.testing.assert_array_equal(again, batch[axes.VIDEO][1])


def test_every_label_set_has_its_column(source):
    clips = [clip | {"labels": {"verb": i, "noun": 10 * i}} for i, clip in enumerate(source)]
    trained = batches.MakeTrainBatch(clips, config())([(2, 0), (5, 0)])
    evaluated = batches.EvalBatches(clips, config(), 4, 0, 1)[1]
    for batch, wanted in ((trained, [2, 5]), (evaluated, [4, 5, 6, 6])):
        assert {name: (v.tolist(), v.dtype) for name, v in batch[axes.LABELS].items()} == {
            "verb": (wanted, np.int32),
            "noun": ([10 * i for i in wanted], np.int32),
        }


@pytest.mark.parametrize(
    "num_clips,views,batch_size,processes,expected",
    [
        (0, 1, 4, 1, 0), (7, 1, 4, 1, 2), (8, 1, 4, 1, 2), (9, 1, 4, 1, 3), (1, 1, 4, 3, 1),
        (7, 1, 4, 2, 1), (7, 3, 4, 2, 3), (1, 6, 5, 1, 2),
    ],
)  # fmt: skip
def test_all_processes_have_as_many_batches(num_clips, views, batch_size, processes, expected):
    for process in range(processes):
        made = batches.EvalBatches(
            [None] * num_clips, config(eval_clips=views), batch_size, process, processes
        )
        assert len(made) == expected


def test_a_record_is_read_once_for_all_its_views_in_a_batch(source):
    counted = Counted(source)
    made = batches.EvalBatches(counted, config(eval_clips=3), 4, 1, 2)  # clips 1, 3 and 5
    batch = made[1]  # positions 4 to 7
    assert batch[axes.ID].tolist() == ["clip-3", "clip-3", "clip-5", "clip-5"]
    assert counted.read == [3, 5]


def test_padding_repeats_the_last_row_of_every_array(source):
    made = batches.EvalBatches(source[:3], config(), 8, 0, 1)
    [batch] = [made[number] for number in range(len(made))]
    assert batch[axes.VALID].tolist() == [True] * 3 + [False] * 5
    flat = [batch[key] for key in batch if key not in (axes.VALID, axes.LABELS)]
    for column in [*flat, *batch[axes.LABELS].values()]:
        assert len(column) == 8
        for row in range(3, 8):
            np.testing.assert_array_equal(column[row], column[2])


def test_a_clip_that_cannot_be_used_ends_an_evaluation(source):
    clips = [*source[:2], source[2] | {"frames": []}]
    made = batches.EvalBatches(clips, config(eval_split="test"), 2, 0, 1)
    assert made[0][axes.VALID].all()
    with pytest.raises(UserError, match="clip 2 of split 'test' .*it has no frames"):
        made[1]
