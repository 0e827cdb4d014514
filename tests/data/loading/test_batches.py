"""Batches of an evaluation: order, padding, views, processes."""

import multiprocessing

import numpy as np
import pytest
from small_batches import NUM_CLIPS, config

from avt_jax import axes
from avt_jax.data.loading import pipeline, sampling


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
