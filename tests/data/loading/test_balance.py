"""Classes drawn equally often: exact counts, coverage, processes, resume, damage, multi-label."""

import collections
import pickle

import numpy as np
import pytest
from small_batches import NUM_CLIPS, assert_same, clip_ids, config, position, taken

from avt_jax.data.loading.balance import BalancedClips, clips_by_class, read_labels
from avt_jax.errors import UserError

SIZES = (12, 5, 1, 3)
NUM_DRAWS = sum(SIZES)


def groups_of(sizes=SIZES):
    ends = np.cumsum(sizes)
    return [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def draws(number, *, seed=0, sizes=SIZES):
    """The clips drawn at the first positions, each epoch's numbers in order."""
    clips = BalancedClips(groups_of(sizes), sum(sizes), seed)
    return [clips(place, place % sum(sizes)) for place in range(number)]


@pytest.mark.parametrize("epochs", [1, 2, 3, 7])
def test_two_classes_never_differ_by_more_than_one_draw(epochs):
    class_of = np.repeat(range(len(SIZES)), SIZES)
    counts = np.bincount(class_of[draws(epochs * NUM_DRAWS)], minlength=len(SIZES))
    assert counts.sum() == epochs * NUM_DRAWS and counts.max() - counts.min() <= 1


def test_a_class_is_gone_through_before_any_of_it_comes_again_and_in_new_orders():
    found = draws(40 * NUM_DRAWS)
    for group in groups_of():
        mine = [clip for clip in found if clip in group]
        rounds = [tuple(mine[i : i + len(group)]) for i in range(0, len(mine), len(group))]
        rounds = [one for one in rounds if len(one) == len(group)]
        assert all(set(one) == set(group) for one in rounds)
        assert len(group) == 1 or len(set(rounds)) > 1


def test_the_seed_decides_and_it_can_be_sent_to_a_worker():
    assert draws(50) == draws(50) and draws(50) != draws(50, seed=1)
    sent = pickle.loads(pickle.dumps(BalancedClips(groups_of(), NUM_DRAWS, 0)))
    assert [sent(place, place % NUM_DRAWS) for place in range(50)] == draws(50)


@pytest.fixture(scope="module")
def balanced(source):
    """Groups of the seven clips, and {clip's id: its class}; the classes are made unequal."""
    records = [{**one, "labels": {"label": int(i > 4)}} for i, one in enumerate(source)]
    labels = read_labels(records, config())
    return records, clips_by_class(labels, "label")


def test_batches_hold_the_classes_equally_often_in_a_shuffled_order(balanced):
    records, groups = balanced
    assert [group.tolist() for group in groups] == [[0, 1, 2, 3, 4], [5, 6]]
    rare = {records[5]["id"], records[6]["id"]}
    ids = clip_ids(taken(records, 2 * NUM_CLIPS, batch_size=1, groups=groups))
    is_rare = [one in rare for one in ids]
    assert sum(is_rare) == NUM_CLIPS
    assert is_rare[:NUM_CLIPS] != is_rare[NUM_CLIPS:] and len(set(ids)) == NUM_CLIPS


@pytest.mark.parametrize("threads,workers", [(2, 0), (0, 2)])
def test_threads_workers_and_a_resume_change_nothing(balanced, threads, workers):
    records, groups = balanced
    changes = dict(num_threads=threads, num_workers=workers)
    expected = taken(records, 6, groups=groups)
    assert_same(taken(records, 6, changes=changes, groups=groups), expected)
    resumed = taken(records, 4, changes=changes, start=position(2), groups=groups)
    assert_same(resumed, expected[2:])


def test_processes_together_draw_what_one_would(balanced):
    records, groups = balanced
    whole = clip_ids(taken(records, 6, groups=groups))
    parts = [
        clip_ids(
            taken(
                records, 6, batch_size=2, process_index=index, process_count=2, groups=groups
            )
        )
        for index in range(2)
    ]  # fmt: skip
    assert [one for pair in zip(*parts, strict=True) for one in pair] == whole


def test_multi_label_clips_are_among_each_of_their_classes_and_none_is_a_class():
    hot = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]]
    records = [{"labels": {"tags": np.array(row, np.uint8)}} for row in hot]
    groups = clips_by_class(read_labels(records, config()), "tags")
    assert [group.tolist() for group in groups] == [[0, 1, 3], [1], [2]]
    found = collections.Counter(draws_of(groups, 30))
    # Ten draws for each of the three: clip 1 gets all of its own class, and a third of the first's.
    assert found[2] == 10 and found[1] == 10 + 10 - found[0] - found[3] and found[1] >= 13


def draws_of(groups, number):
    clips = BalancedClips(groups, 4, 0)
    return [clips(place, place % 4) for place in range(number)]


class Damaged:
    def __init__(self, records, bad):
        self.records, self.bad = records, bad

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        if index in self.bad:
            raise UserError(f"clip {index} is damaged.")
        return self.records[index]


def test_damaged_records_are_of_no_class_and_too_many_are_an_error(balanced, caplog):
    records, _ = balanced
    labels = read_labels(Damaged(records, {1, 6}), config(max_damaged=2))
    assert labels[1] is None
    assert [group.tolist() for group in clips_by_class(labels, "label")] == [[0, 2, 3, 4], [5]]
    assert "clip 6 is damaged" in caplog.text
    with pytest.raises(UserError, match=r"2 damaged record.*max_damaged is 1.*clip 6"):
        read_labels(Damaged(records, {1, 6}), config(max_damaged=1))
