"""Views of a record become one prediction, wherever the batches end."""

import numpy as np
import pytest

from avt_jax.evaluation.classification import evaluate
from avt_jax.evaluation.multiview import ViewAverage

NAMES = {"verb": ("a", "b"), "noun": ("x", "y", "z")}


def views_of(num_records, num_views, rng):
    """Probabilities [records, views, classes] per label set and labels [records]."""
    probabilities = {
        name: rng.dirichlet(np.ones(len(classes)), (num_records, num_views)).astype(np.float32)
        for name, classes in NAMES.items()
    }
    labels = {name: rng.integers(len(c), size=num_records) for name, c in NAMES.items()}
    return probabilities, labels


def batches_of(probabilities, labels, batch_size, num_views):
    """The views in padded batches, each with its probabilities in it."""
    rows = {name: p.reshape(-1, p.shape[-1]) for name, p in probabilities.items()}
    total = len(next(iter(rows.values())))
    for first in range(0, total, batch_size):
        place = np.minimum(np.arange(first, first + batch_size), total - 1)
        yield {
            "labels": {name: values[place // num_views] for name, values in labels.items()},
            "valid": np.arange(first, first + batch_size) < total,
            "id": np.array([f"clip {i}" for i in place // num_views]),
            "p": {name: values[place] for name, values in rows.items()},
        }


def predict(batch):
    # Whatever a padded row gives must not matter.
    return {name: np.where(batch["valid"][:, None], p, np.nan) for name, p in batch["p"].items()}


def test_hand_computed_case():
    # Alone the views say a, b, b; their mean is (0.9 + 0.4 + 0.4) / 3 = 0.567 for a.
    p = np.array([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6]], np.float32)
    batch = {"labels": {"label": np.zeros(3, int)}, "valid": np.ones(3, bool)}
    merged, records = ViewAverage(3).add({"label": p}, batch)
    np.testing.assert_allclose(merged["label"], [[1.7 / 3, 1.3 / 3]], rtol=1e-6)
    assert records["labels"]["label"].tolist() == [0] and records["valid"].tolist() == [True]
    names = {"label": ("a", "b")}
    assert evaluate(lambda _: {"label": p}, [batch], names, num_views=3)["label"]["top1"] == 1.0
    assert evaluate(lambda _: {"label": p}, [batch], names)["label"]["top1"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("num_views", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 40])
def test_batches_may_end_anywhere(num_views, batch_size, rng):
    probabilities, labels = views_of(7, num_views, rng)
    batches = batches_of(probabilities, labels, batch_size, num_views)
    found = evaluate(predict, batches, NAMES, num_views=num_views)
    means = {name: p.mean(1, keepdims=True) for name, p in probabilities.items()}
    expected = evaluate(predict, batches_of(means, labels, 7, 1), NAMES)
    for name in (*NAMES, "action"):
        assert found[name]["count"] == expected[name]["count"] == 7
        assert found[name]["top1"] == expected[name]["top1"]
    np.testing.assert_array_equal(found["noun"]["confusion"], expected["noun"]["confusion"])


def test_missing_and_foreign_views_are_errors(rng):
    probabilities, labels = views_of(2, 3, rng)
    [batch] = batches_of(probabilities, labels, 6, 3)
    with pytest.raises(ValueError, match="views of one record"):
        ViewAverage(2).add(predict(batch), batch)
    batch["valid"][-1] = False
    with pytest.raises(ValueError, match="lacks views: 2 came"):
        evaluate(predict, [batch], NAMES, num_views=3)
    with pytest.raises(ValueError, match="num_views=0"):
        ViewAverage(0)
