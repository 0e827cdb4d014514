"""Intervals of mAP and AUC beside brute force, and the baseline of multi-label sets."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from avt_jax.evaluation.baseline import Baseline, Features
from avt_jax.evaluation.clips import Keeper
from avt_jax.evaluation.multi_label import intervals, one_vs_rest
from avt_jax.evaluation.multi_label.ranking import d_prime
from avt_jax.evaluation.multi_label.scores import Scores
from avt_jax.evaluation.standing import Reference, standings, verdict


def ranked(seed, count=60, shares=(0.3, 0.05, 0.0, 0.5, 1.0)):
    """Scores with many ties, classes: common, rare, absent, common, of every clip; 20 sources."""
    rng = np.random.default_rng(seed)
    is_ny = rng.random((count, len(shares))) < shares
    score_ny = np.round(rng.random(is_ny.shape) + 0.3 * is_ny, 1).astype(np.float32)
    return score_ny, is_ny, rng.integers(20, size=count)


def brute_force(score_ny, is_ny, group_n, draws):
    """Every drawing's rows, judged by scikit-learn."""
    _, group_n = np.unique(group_n, return_inverse=True)
    number = group_n.max() + 1
    weights = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), draws)
    maps, aucs = [], []
    for weight_g in weights:
        rows = np.concatenate([np.repeat(np.flatnonzero(group_n == g), weight_g[g])
                               for g in range(number)])  # fmt: skip
        true, score = is_ny[rows], score_ny[rows]
        some = [y for y in range(true.shape[1]) if true[:, y].any()]
        both = [y for y in some if not true[:, y].all()]
        maps.append(np.mean([average_precision_score(true[:, y], score[:, y]) for y in some]))
        aucs.append(np.mean([roc_auc_score(true[:, y], score[:, y]) for y in both]))
    return maps, aucs


@pytest.mark.parametrize("seed", range(3))
def test_drawings_equal_brute_force(seed, monkeypatch):
    score_ny, is_ny, group_n = ranked(seed)
    monkeypatch.setattr(intervals, "_BLOCK", 16)  # several blocks, the last one smaller
    found = intervals.draw(score_ny, is_ny, group_n, draws=40)
    maps, aucs = brute_force(score_ny, is_ny, group_n, 40)
    np.testing.assert_allclose(found.map_b, maps, rtol=1e-9)
    np.testing.assert_allclose(found.auc_b, aucs, rtol=1e-9)


def test_a_class_that_is_not_drawn_is_left_out():
    # Of two sources one has the only clip of class 1: a quarter of the drawings lack it.
    score_ny = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.05]], np.float32)
    is_ny = np.array([[1, 0], [0, 0], [1, 1]])
    found = intervals.draw(score_ny, is_ny, np.array([0, 0, 1]), draws=400)
    # Source 0 twice: AP 1, class 1 absent. Source 1 twice: both are 1. Each once: 5/6 and 1/3.
    assert {round(value, 6) for value in found.map_b.tolist()} == {1.0, round(7 / 12, 6)}
    # Source 1 twice: no class has others, so there is no AUC.
    assert 0.15 < np.isnan(found.auc_b).mean() < 0.35


def kept(score_ny, is_ny):
    names = {"label": [f"c{y}" for y in range(is_ny.shape[1])]}
    keeper = Keeper()
    for part in np.array_split(np.arange(len(is_ny)), 4):
        keeper.add({"label": score_ny[part]}, {"label": is_ny[part]}, part)
    return keeper.gather(names, count=len(is_ny), multi_label=("label",)), names


def test_standing_of_a_set():
    score_ny, is_ny, group_n = ranked(0)
    found, names = kept(score_ny, is_ny)
    scores = Scores(names["label"])
    scores.add(score_ny, is_ny)
    report = scores.report()
    worse_ny = np.random.default_rng(5).random(is_ny.shape)
    reference = Reference({"label": {"mAP": 0.9}}, {}, {"label": worse_ny})
    stand = standings(found, names, reference, group_n)["label"]
    assert stand.mean_ap.value == pytest.approx(report["mAP"])
    assert stand.auc.value == pytest.approx(report["auc"])
    assert stand.hits["1"].value == report["hits"]["1"]
    assert stand.chance == pytest.approx(is_ny.mean(0)[is_ny.any(0)].mean())
    for one in (stand.mean_ap, stand.auc, stand.baseline_map, stand.ahead, stand.hits["1"]):
        assert one.low < one.value < one.high and one.groups == 19
    # The same drawings are subtracted.
    pair = [intervals.draw(s, is_ny, group_n, draws=2000).map_b for s in (score_ny, worse_ny)]
    difference_b = pair[0] - pair[1]
    middle = difference_b - difference_b.mean() + stand.ahead.value
    assert stand.ahead.low == pytest.approx(np.quantile(middle, 0.025))
    written = stand.to_dict()
    assert written["draws"] == 2000 and written["sources"] == 19 and written["train_mAP"] == 0.9
    assert written["d_prime_interval"] == [d_prime(stand.auc.low), d_prime(stand.auc.high)]


@pytest.mark.parametrize(
    ("lift", "other", "words"),
    [
        (0.5, 0.0, "the model beats the baseline by"),
        (0.25, 1.0, "the model does NOT beat the baseline, it is"),
        (0.4, 0.4, "NOT shown to beat the baseline"),
        (0.0, None, "not shown to rank better than scores that say nothing"),
        (0.5, None, "label: better than scores that say nothing (mAP"),
    ],
)
def test_verdicts(lift, other, words):
    rng = np.random.default_rng(1)
    is_ny = rng.random((200, 4)) < 0.2
    noisy = rng.random((2, *is_ny.shape))
    found, names = kept((noisy[0] + lift * is_ny).astype(np.float32), is_ny)
    baseline = {} if other is None else {"label": noisy[1] + other * is_ny}
    stand = standings(found, names, Reference({}, {}, baseline))["label"]
    said = verdict("label", stand)
    assert words in said and said.endswith(".")


def test_no_class_at_all():
    score_ny, is_ny, _ = ranked(0)
    found, names = kept(score_ny, np.zeros_like(is_ny))
    stand = standings(found, names, Reference({}, {}, {}))["label"]
    assert stand.mean_ap is None and "mAP_interval" not in stand.to_dict()
    assert "no clip here has a class" in verdict("label", stand)


def test_fewer_drawings_for_many_clips():
    assert intervals.num_draws(100, 10) == 2000
    assert 200 < intervals.num_draws(17_000, 527) < 2000
    assert intervals.num_draws(10**6, 527) == 200


def test_regressions_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    inputs_nd = rng.normal(size=(80, 6))
    is_ny = (inputs_nd[:, :4] + rng.normal(size=(80, 4))) > [0, 1, 5, -9]
    found_ny = one_vs_rest.fit(inputs_nd, is_ny, strength=0.3, tol=1e-9)(inputs_nd)
    for y in range(2):
        model = LogisticRegression(C=0.3, tol=1e-8, max_iter=1000).fit(inputs_nd, is_ny[:, y])
        np.testing.assert_allclose(found_ny[:, y], model.predict_proba(inputs_nd)[:, 1], atol=1e-4)
    # None and all of the clips.
    assert is_ny[:, 2:].mean(0).tolist() == [0, 1] == found_ny[0, 2:].tolist()


def test_baseline_ranks_what_it_can_see():
    rng = np.random.default_rng(0)
    is_ny = rng.random((160, 3)) < 0.3
    seen = is_ny @ np.eye(3, 40) + 0.15 * rng.normal(size=(160, 40))
    blocks = {"video": seen, "audio": rng.normal(size=(160, 12))}
    group_n = np.repeat(np.arange(40), 4)
    halves = [
        Features(
            {k: v[h] for k, v in blocks.items()}, {"label": is_ny[h]}, group_n[h], np.arange(80)
        )  # fmt: skip
        for h in (slice(80), slice(80, None))
    ]
    of = {name: Baseline(halves[0], [name]).predict(halves[1])["label"] for name in blocks}
    maps = {k: intervals.mean_average_precision(v, is_ny[80:]) for k, v in of.items()}
    assert maps["video"] > 0.9 > 0.6 > maps["audio"]
