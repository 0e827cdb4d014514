from dataclasses import replace

import numpy as np
import pytest

from avt_jax.evaluation.clips import Keeper
from avt_jax.evaluation.standing import Reference, standings, verdict

SETS = {"verb": ("cut", "open"), "noun": ("a", "b", "c")}


def clips(right, count=60):
    """Predictions of which a share is right, from the first clip on; verbs are always right."""
    labels = {"verb": np.arange(count) % 2, "noun": np.arange(count) % 3}
    shown = np.where(np.arange(count) < right * count, labels["noun"], (labels["noun"] + 1) % 3)
    keeper = Keeper()
    p = {"verb": np.eye(2)[labels["verb"]], "noun": np.eye(3)[shown]}
    keeper.add(p, labels, np.arange(count))
    return keeper.gather(SETS, count=count), labels


def reference(labels, baseline, train_top1):
    other = (labels["noun"] + 1) % 3
    shown = np.where(np.arange(len(other)) < baseline * len(other), labels["noun"], other)
    return Reference(
        {"noun": {"top1": train_top1}},
        {"verb": np.array([1, 1, 0]), "noun": np.array([2, 2, 0])},
        {"verb": labels["verb"], "noun": shown},
    )


def test_beside_chance_majority_and_baseline():
    found, labels = clips(0.8)
    stand = standings(found, SETS, reference(labels, 0.5, 0.9))
    noun, action = stand["noun"], stand["action"]
    assert noun.top1.value == action.top1.value == 0.8
    assert (noun.chance, action.chance) == pytest.approx((1 / 3, 1 / 6))
    # The most frequent class in training is the one that is always given.
    assert (noun.majority, noun.majority_class) == (pytest.approx(1 / 3), "c")
    assert (action.majority, action.majority_class) == (pytest.approx(1 / 6), "open c")
    assert noun.baseline_top1.value == 0.5 and noun.ahead.value == pytest.approx(0.3)
    assert stand["verb"].ahead.value == 0 and stand["verb"].train_top1 is None
    written = noun.to_dict()
    assert written["ahead_of_baseline"] == pytest.approx(0.3) and written["sources"] == 60
    assert written["train_top1"] == 0.9


def test_every_accuracy_has_an_interval():
    found, labels = clips(0.8)
    alone, _ = clips(0.4)
    known = Reference({"noun": {"top1": 0.8}}, {}, {}, found)
    stand = standings(replace(found, silenced={"audio": alone}), SETS, known)
    noun, action = stand["noun"], stand["action"]
    assert noun.train == noun.top1 and stand["verb"].train is None
    assert noun.silenced["audio"].value == pytest.approx(0.4)
    right_n = labels["noun"] == labels["noun"]
    right_n[48:] = False
    for y, one in enumerate(noun.classes):
        assert one.value == pytest.approx(right_n[labels["noun"] == y].mean())
        assert one.low < one.value < one.high and one.groups == 20
    assert noun.class_mean.value == pytest.approx(0.8) and action.class_mean is None
    # Fewer than five classes: all are among the five best; of six pairs, five are.
    assert noun.top5.value == 1 and action.top5.low <= action.top5.value <= 1
    assert action.classes == () and action.silenced["audio"].value == pytest.approx(0.4)
    written = noun.to_dict()
    assert len(written["classes_interval"]) == 3 and written["train_top1_interval"]
    ends = written["top1_audio_silenced_interval"]
    assert ends[0] < 0.4 < ends[1]


def test_groups_widen_the_interval():
    found, labels = clips(0.5)
    alone = standings(found, SETS, Reference({}, {}, {}))["noun"].top1
    grouped = standings(found, SETS, Reference({}, {}, {}), np.arange(60) // 10)["noun"].top1
    assert grouped.groups == 6
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


@pytest.mark.parametrize(
    ("right", "baseline", "train_top1", "words"),
    [
        (0.9, 0.3, 0.95, "beats the baseline by 60.0 points"),
        (0.5, 0.9, 1.0, "does NOT beat the baseline, it is 40.0 points behind"),
        (0.5, 0.9, 1.0, "knows them by heart"),
        (0.6, 0.6, 0.55, "has not learned these yet"),
        (0.6, 0.58, 0.65, "NOT shown to beat the baseline: +1.7 points"),
        (0.6, 0.6, 0.65, "points wide: evaluate on more"),
        (0.35, 0.1, 0.4, "better than one that always gives the same answer (33.3 %)"),
    ],
)
def test_verdicts(right, baseline, train_top1, words):
    found, labels = clips(right)
    said = verdict("noun", standings(found, SETS, reference(labels, baseline, train_top1))["noun"])
    assert words in said and said.startswith("noun: ") and said.endswith(".")


def test_verdict_without_a_baseline():
    found, _ = clips(0.9)
    said = verdict("noun", standings(found, SETS, Reference({}, {}, {}))["noun"])
    assert said == "noun: better than always giving the same answer (33.3 %)."
