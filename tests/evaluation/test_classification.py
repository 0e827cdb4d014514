import itertools

import numpy as np
import pytest

from avt_jax.errors import UserError
from avt_jax.evaluation import classification
from avt_jax.evaluation.classification import (
    class_ranks,
    evaluate,
    evaluate_variants,
    top_combinations,
)
from avt_jax.evaluation.fusion import silence_audio, silence_video

NAMES = {"label": ("a", "b", "c")}


def make_batch(labels, valid=None, **more):
    size = len(next(iter(labels.values())))
    return {
        "labels": {name: np.asarray(values, np.int32) for name, values in labels.items()},
        "valid": np.ones(size, bool) if valid is None else np.asarray(valid),
        "id": np.asarray([f"clip {i}" for i in range(size)]),
        **more,
    }


def softmax(rng, *shape):
    logits = rng.normal(0, 2, shape)
    return (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).astype(np.float32)


def test_hand_computed_case():
    probabilities = np.array(
        [[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.6, 0.3, 0.1], [0.2, 0.1, 0.7]], np.float32
    )
    batch = make_batch({"label": [0, 1, 1, 1]})
    report = evaluate(lambda _: {"label": probabilities}, [batch], NAMES)["label"]
    assert report["count"] == 4
    assert report["top1"] == 0.5
    assert report["top5"] == 1.0  # three classes only: any order has the true one in it
    np.testing.assert_array_equal(report["confusion"], [[1, 0, 0], [1, 1, 1], [0, 0, 0]])
    assert report["classes"] == [
        {"name": "a", "accuracy": 1.0, "count": 1},
        {"name": "b", "accuracy": pytest.approx(1 / 3), "count": 3},
        {"name": "c", "accuracy": None, "count": 0},
    ]
    assert report["mean_class_accuracy"] == pytest.approx((1 + 1 / 3) / 2)


def test_top5_equals_sorting(rng):
    p_by, labels_b = softmax(rng, 50, 12), rng.integers(12, size=50)
    names = {"label": [f"class {i}" for i in range(12)]}
    report = evaluate(lambda _: {"label": p_by}, [make_batch({"label": labels_b})], names)["label"]
    hits = [label in np.argsort(-row)[:5] for row, label in zip(p_by, labels_b, strict=True)]
    assert report["top5"] == np.mean(hits)
    assert report["top1"] == np.mean(p_by.argmax(1) == labels_b)


def test_padding_counts_nowhere(rng):
    p_by, labels_b = softmax(rng, 7, 3), rng.integers(3, size=7)
    whole = evaluate(lambda _: {"label": p_by}, [make_batch({"label": labels_b})], NAMES)["label"]
    padded = p_by[[0, 1, 2, 3, 4, 5, 6, 6]].copy()
    padded[7] = np.nan  # what the model says about padding does not matter
    last = make_batch({"label": labels_b[[4, 5, 6, 6]]}, [True, True, True, False])
    parts = [
        make_batch({"label": labels_b[:4]}) | {"p": padded[:4]},
        last | {"p": padded[4:]},
    ]
    split = evaluate(lambda batch: {"label": batch["p"]}, parts, NAMES)["label"]
    np.testing.assert_array_equal(split.pop("confusion"), whole.pop("confusion"))
    assert split == whole


def test_constant_prediction_earns_nothing_by_ties():
    p_by = np.full((12, 12), 1 / 12, np.float32)
    ranks_b = class_ranks(p_by, np.arange(12))
    np.testing.assert_array_equal(ranks_b, np.arange(12))
    labels = {"verb": np.arange(12), "noun": np.arange(12)}
    sets = {name: [str(i) for i in range(12)] for name in labels}
    reports = evaluate(lambda _: {"verb": p_by, "noun": p_by}, [make_batch(labels)], sets)
    # The pair (0, 0) comes first of all pairs, then (0, 1) ...: only clip 0 is met by the first 5.
    assert reports["verb"]["top1"] == reports["action"]["top1"] == 1 / 12
    assert reports["action"]["top5"] == 1 / 12


@pytest.mark.parametrize("sizes", [(7, 9), (2, 3), (4, 3, 6)])
def test_top_combinations_equal_all_products(rng, sizes):
    tables = [softmax(rng, 11, size) for size in sizes]
    classes_bkl, scores_bk = top_combinations(tables, 5)
    every = list(itertools.product(*map(range, sizes)))
    for b in range(11):
        products = [
            np.prod([np.float64(t[b, i]) for t, i in zip(tables, combination, strict=True)])
            for combination in every
        ]
        order = np.argsort(-np.asarray(products), kind="stable")[:5]
        assert [tuple(row) for row in classes_bkl[b]] == [every[i] for i in order]
        np.testing.assert_allclose(scores_bk[b], np.asarray(products)[order], rtol=1e-12)


def test_action_needs_verb_and_noun(rng):
    verbs, nouns = softmax(rng, 40, 6), softmax(rng, 40, 8)
    labels = {"verb": rng.integers(6, size=40), "noun": rng.integers(8, size=40)}
    labels["verb"][:20], labels["noun"][:20] = verbs[:20].argmax(1), nouns[:20].argmax(1)
    sets = {"verb": [str(i) for i in range(6)], "noun": [str(i) for i in range(8)]}
    reports = evaluate(lambda _: {"verb": verbs, "noun": nouns}, [make_batch(labels)], sets)
    both = (verbs.argmax(1) == labels["verb"]) & (nouns.argmax(1) == labels["noun"])
    assert reports["action"]["top1"] == both.mean()
    pairs = (verbs[:, :, None].astype(np.float64) * nouns[:, None]).reshape(40, -1)
    true = labels["verb"] * 8 + labels["noun"]
    hits = [t in np.argsort(-row)[:5] for row, t in zip(pairs, true, strict=True)]
    assert reports["action"]["top5"] == np.mean(hits) > reports["action"]["top1"]


def test_own_action_labels_are_not_overwritten(rng):
    p_by = softmax(rng, 4, 3)
    labels = {"verb": [0, 1, 2, 0], "action": p_by.argmax(1)}
    sets = {"verb": "abc", "action": "xyz"}
    reports = evaluate(lambda _: {"verb": p_by, "action": p_by}, [make_batch(labels)], sets)
    assert reports["action"]["top1"] == 1 and "classes" in reports["action"]


def test_not_finite_probability_names_the_clip():
    p_by = np.array([[0.5, 0.3, 0.2], [np.nan] * 3], np.float32)
    with pytest.raises(UserError, match="'label' of clip clip 1 are not finite"):
        evaluate(lambda _: {"label": p_by}, [make_batch({"label": [0, 1]})], NAMES)


@pytest.mark.parametrize("batches", [[], [make_batch({"label": [0]}, [False])]])
def test_nothing_to_evaluate(batches):
    with pytest.raises(UserError, match="no clip to evaluate"):
        evaluate(lambda _: {"label": np.full((1, 3), 1 / 3)}, batches, NAMES)


def test_silencing_changes_one_modality_of_a_copy(rng):
    video = rng.integers(0, 256, (2, 3, 4, 4, 3), np.uint8)
    audio = rng.normal(size=(2, 5, 128)).astype(np.float32)
    has = {name: np.ones(2, bool) for name in ("has_audio", "has_video")}
    batch = make_batch({"label": [0, 1]}, video=video, audio=audio, **has)
    mute = silence_audio(batch, -15.942385)
    assert (mute["audio"] == np.float32(-15.942385)).all() and not mute["has_audio"].any()
    assert mute["audio"].dtype == np.float32 and mute["video"] is video and mute["has_video"].all()
    blind = silence_video(batch, (0.45, 0.5, 0.25))
    assert blind["video"].shape == video.shape and blind["video"].dtype == np.uint8
    assert (blind["video"] == [115, 128, 64]).all() and not blind["has_video"].any()
    assert blind["audio"] is audio and batch["video"] is video and blind["has_audio"].all()
    assert batch["has_audio"].all() and batch["has_video"].all()


def test_variants_read_every_batch_once_and_report_apart():
    seen = []
    batches = ({**make_batch({"label": [0, 1]}), "x": i} for i in range(3))
    variants = {"": dict, "wrong": lambda batch: batch | {"x": -1}}

    def predict(batch):
        right = np.eye(3)[batch["labels"]["label"]]
        return {"label": np.roll(right, 1, axis=1) if batch["x"] < 0 else right}

    reports = evaluate_variants(predict, batches, NAMES, variants, on_batch=seen.append)
    assert reports[""]["label"]["top1"] == 1 and reports["wrong"]["label"]["top1"] == 0
    assert reports["wrong"]["label"]["count"] == 6 and seen == [2, 2, 2]
    assert classification.JOINT not in reports[""]
