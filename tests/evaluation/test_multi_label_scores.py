"""mAP, AUC, d', F1 and hit rates: equal to scikit-learn, whatever the batches and processes."""

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn

from avt_jax.evaluation import clips, report
from avt_jax.evaluation.classification import evaluate, evaluate_variants
from avt_jax.evaluation.mistakes import worst_mistakes
from avt_jax.evaluation.multi_label import pictures, ranking
from avt_jax.evaluation.multi_label import report as tables
from avt_jax.evaluation.multi_label.scores import Scores

CLASSES = [f"class {y}" for y in range(12)]


def random_scores(seed, clips=60, classes=12, levels=8):
    """Scores with many ties; class 0 has no clip, class 1 every one, clips 0 and 1 no other."""
    rng = np.random.default_rng(seed)
    p_by = rng.integers(0, levels, (clips, classes)).astype(np.float32) / levels
    label_by = (rng.random((clips, classes)) < 0.25).astype(np.int64)
    label_by[:2] = 0
    label_by[:, 0], label_by[:, 1] = 0, 1
    return p_by, label_by


def batches_of(p_by, label_by, size, views=1):
    """Padded batches; padding holds nonsense. With views, each clip's scores are theirs' mean."""
    rows = np.repeat(np.arange(len(p_by)), views)
    for first in range(0, len(rows), size):
        own = rows[first : first + size]
        missing = size - len(own)
        noise = (-1.0) ** np.arange(first, first + size) * 0.01 if views == 2 else np.zeros(size)
        yield {
            "p": np.pad(p_by[own], ((0, missing), (0, 0)), constant_values=np.nan) + noise[:, None],
            "labels": {"label": np.pad(label_by[own], ((0, missing), (0, 0)), constant_values=1)},
            "valid": np.arange(size) < len(own),
            "id": np.array([*map(str, own), *[""] * missing]),
            "group": np.arange(size),
        }


def predict(batch):
    return {"label": batch["p"]}


def judge(p_by, label_by, size=7, **options):
    batches = batches_of(p_by, label_by, size, options.get("num_views", 1))
    sets = {"label": CLASSES[: p_by.shape[1]]}
    return evaluate(predict, batches, sets, multi_label=("label",), **options)["label"]


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_scikit_learn_with_ties_absent_classes_and_padding(seed):
    p_by, label_by = random_scores(seed)
    found = judge(p_by, label_by)
    aps, aucs = [], []
    for y, one in enumerate(found["classes"]):
        true_n = label_by[:, y]
        assert one["count"] == true_n.sum()
        if not true_n.any():
            assert one["ap"] is None and one["auc"] is None
            continue
        ap = sklearn.average_precision_score(true_n, p_by[:, y])
        np.testing.assert_allclose(one["ap"], ap, rtol=1e-12)
        aps.append(ap)
        if true_n.all():
            assert one["auc"] is None and one["d_prime"] is None
            continue
        aucs.append(sklearn.roc_auc_score(true_n, p_by[:, y]))
        np.testing.assert_allclose(one["auc"], aucs[-1], rtol=1e-12)
    assert found["num_absent"] == 1 and found["count"] == 60
    np.testing.assert_allclose([found["mAP"], found["auc"]], [np.mean(aps), np.mean(aucs)])
    wide_by = p_by.astype(np.float64)
    likely_by = np.maximum(np.where(label_by > 0, wide_by, 1 - wide_by), 1e-12)
    np.testing.assert_allclose(found["loss"], -np.log(likely_by).mean(), atol=2e-6)
    for k in (1, 3, 5, 10):
        best_bk = np.argsort(-p_by, axis=1, kind="stable")[:, :k]
        chosen_by = np.zeros_like(label_by)
        np.put_along_axis(chosen_by, best_bk, 1, axis=1)
        f1 = sklearn.f1_score(label_by, chosen_by, average="micro")
        np.testing.assert_allclose(found["f1"][str(k)], f1, rtol=1e-12)
        hits = (label_by & chosen_by).any(axis=1).mean()
        np.testing.assert_allclose(found["hits"][str(k)], hits, rtol=1e-12)


def test_hand_computed():
    is_n = np.array([True, False, True, False])
    # Of 0.9: 1 of 1; of 0.5 (two clips): 2 of 3.
    score_n = np.array([0.9, 0.5, 0.5, 0.1])
    assert ranking.average_precision(score_n, is_n) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # Pairs: 0.9 over both, 0.5 half over its like and over 0.1.
    assert ranking.roc_auc(score_n, is_n) == (2 + 0.5 + 1) / 4
    assert ranking.d_prime(0.5) == 0 and ranking.d_prime(1.0) is None
    # Two normal distributions one apart: the area is Phi(1 / sqrt 2).
    assert ranking.d_prime(0.5 * (1 + math.erf(0.5))) == pytest.approx(1.0)


def test_batches_views_and_processes_change_nothing():
    p_by, label_by = random_scores(1)
    whole = judge(p_by, label_by)
    assert judge(p_by, label_by, size=60) == whole
    viewed = judge(p_by, label_by, size=8, num_views=2)
    assert viewed["mAP"] == pytest.approx(whole["mAP"]) and viewed["count"] == 60
    # Four processes with a part each, the last with nothing: what each gives is added up.
    parts = [Scores(CLASSES) for _ in range(4)]
    for index, one in enumerate(parts[:3]):
        one.add(p_by[index::3], label_by[index::3])
    sent = [[] for _ in parts]
    sizes = np.array([20, 20, 20, 0])
    for index, one in enumerate(parts):

        def total(mine, index=index):
            sent[index].append(np.array(mine))
            # The second sum is that of the sizes.
            return sizes if len(sent[index]) == 2 else mine

        one.combine(total, index, 4)
    counts = sum(one[0] for one in sent)
    everything = sum(one[2] for one in sent)
    last = Scores(CLASSES)
    answers = iter([counts, sizes, everything])
    last.combine(lambda mine: next(answers), 3, 4)
    assert last.report() == whole


def test_no_clip_of_any_class_leaves_the_means_out():
    p_by, label_by = random_scores(2)
    found = judge(p_by, np.zeros_like(label_by))
    assert found["mAP"] is None and found["auc"] is None and found["hits"]["1"] == 0
    logged, score = report.validation({"label": found}, ["label"])
    assert score == 0 and "mAP/label" not in logged and "loss/label" in logged


def test_sets_of_both_kinds_and_what_is_logged():
    p_by, label_by = random_scores(3)
    place_b = np.arange(60) % 3
    batch = next(batches_of(p_by, label_by, 60))
    batch["labels"]["place"] = place_b
    place_by = np.eye(3)[np.roll(place_b, 1)] * 0.9 + 0.05
    sets = {"label": CLASSES, "place": ["x", "y", "z"]}
    found = evaluate(
        lambda batch: {"label": batch["p"], "place": place_by}, [batch], sets,
        multi_label=("label",),
    )  # fmt: skip
    assert found.keys() == sets.keys()  # nothing joint
    logged, score = report.validation(found, sets)
    assert score == pytest.approx((found["label"]["mAP"] + found["place"]["top1"]) / 2)
    assert {"mAP/label", "auc/label", "hit1/label", "top1/place", "loss/label"} <= logged.keys()


def test_files_tables_pictures_and_single_clips(tmp_path):
    p_by, label_by = random_scores(4, classes=11)
    keeper = clips.Keeper()
    variants = {"": dict, "audio": dict, "video": dict}
    found = evaluate_variants(
        predict, batches_of(p_by, label_by, 7), {"label": CLASSES[:11]}, variants,
        judged={"": keeper.add}, multi_label=("label",),
    )  # fmt: skip
    whole = found.pop("")
    about = {"run": "r", "step": 1, "split": "test"}
    evaluation = report.Evaluation(about, whole, found)
    (path, table) = report.write_results(evaluation, tmp_path)
    assert path.name == "results.json" and table.name == "classes_label.csv"
    assert table.read_text().splitlines()[1] == "class 0,0,,,"
    kept = report.results(evaluation)["label"]
    assert kept["fusion"]["mu"] == 0 and kept["audio_silenced"]["mAP"] == kept["mAP"]
    notes = report.notes(evaluation)
    assert notes[0] == "label: 1 of 11 classes have no clip here and count in no mean."
    assert len(report.tables(evaluation)) == 2
    one = whole["label"]
    assert pictures.draw_precisions(tmp_path / "a.png", one, title="t", subtitle="$s")
    assert len(tables.by_precision(one["classes"])) == 10

    sets = {"label": CLASSES[:11]}
    predicted = keeper.gather(sets, count=60, multi_label=("label",))
    np.testing.assert_array_equal(predicted.sets["label"].labels_ny, label_by)
    assert predicted.right_n("label").mean() == one["hits"]["1"]
    rows = list(clips.rows(predicted, sets, [{"id": str(i)} for i in range(60)]))
    assert rows[5]["label"] == "|".join(CLASSES[y] for y in np.flatnonzero(label_by[5]))
    assert len(worst_mistakes(predicted.sets["label"], np.arange(60)))
