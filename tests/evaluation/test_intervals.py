import numpy as np
import pytest

from avt_jax.evaluation.intervals import mean_interval


def test_equal_to_a_bootstrap_written_as_a_loop():
    rng = np.random.default_rng(1)
    groups_n = rng.integers(40, size=200)
    right_n = (rng.random(200) < 0.6).astype(float)
    found = mean_interval(right_n, groups_n)
    assert found.value == right_n.mean() and found.groups == len(np.unique(groups_n))
    means = []
    sources = np.unique(groups_n)
    for _ in range(4000):
        drawn = rng.choice(sources, len(sources))
        means.append(np.concatenate([right_n[groups_n == g] for g in drawn]).mean())
    # Two drawings of some thousand differ in the third digit.
    ends = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], ends, atol=0.01)


def test_clips_of_one_source_count_as_one():
    right_n = (np.random.default_rng(0).random(50) < 0.5).astype(float)
    alone = mean_interval(right_n, np.arange(50))
    copied = mean_interval(np.repeat(right_n, 20), np.repeat(np.arange(50), 20))
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    taken_apart = mean_interval(np.repeat(right_n, 20), np.arange(1000))
    assert taken_apart.high - taken_apart.low < 0.3 * (alone.high - alone.low)


def test_it_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(300):
        share_g = rng.beta(3, 2, 60)  # 0.6 on average
        right_n = rng.random(240) < np.repeat(share_g, 4)
        found = mean_interval(right_n, np.repeat(np.arange(60), 4))
        hits += found.low <= 0.6 <= found.high
    # 0.95 of 300 with three standard deviations of a share, 0.013 each.
    assert 0.90 <= hits / 300 <= 0.99


def test_what_cannot_be_drawn():
    assert mean_interval(np.ones(8), np.zeros(8)).low == 0.0
    found = mean_interval(np.array([1.0, -1.0]), np.zeros(2))
    assert (found.value, found.low, found.high) == (0.0, -1.0, 1.0)
    # All right: three in a hundred could still be wrong unseen.
    assert mean_interval(np.ones(100), np.arange(100)).low == pytest.approx(0.97)
    assert mean_interval(np.zeros(100), np.arange(100)).high == pytest.approx(0.03)
    assert mean_interval(np.zeros(2), np.arange(2)).high == 1.0
