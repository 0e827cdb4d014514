"""Class weights in the loss: by hand, with smoothing, mixed, padded, multi-label, small sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_objective import BATCH, Answers, config

from avt_jax import axes
from avt_jax.losses.classification import classification_loss
from avt_jax.losses.objective import Objective

WEIGHTS = np.array([0.1, 2.0, 0.7], np.float32)
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 1, 0])
ALL = jnp.ones(5, bool)


def weighted(labels=LABELS, valid_b=ALL, logits=LOGITS, weights=WEIGHTS, **options):
    return classification_loss(
        {"label": jnp.asarray(logits)},
        {"label": jnp.asarray(labels)},
        valid_b,
        class_weights={"label": jnp.asarray(weights)},
        **options,
    )


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def mean(metrics):
    total, count = metrics["classification"]
    return float(total / count)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_weights_smoothing_and_mean_are_those_of_pytorch(smoothing):
    # The formula in the documentation of torch.nn.CrossEntropyLoss, clip by clip.
    log_by, classes = log_softmax(LOGITS), len(WEIGHTS)
    total = divisor = 0.0
    for log_y, label in zip(log_by, LABELS, strict=True):
        total -= (1 - smoothing) * WEIGHTS[label] * log_y[label]
        total -= smoothing / classes * (WEIGHTS * log_y).sum()
        divisor += WEIGHTS[label]
    metrics = weighted(label_smoothing=smoothing)
    np.testing.assert_allclose(metrics["classification"], (total, divisor), rtol=1e-5)
    # Accuracies count clips.
    assert metrics["top1/label"][1] == 5


def test_equal_weights_change_nothing_whatever_they_are():
    plain = classification_loss({"label": LOGITS}, {"label": LABELS}, ALL, label_smoothing=0.1)
    for weight in (1.0, 0.01):
        found = weighted(weights=np.full(3, weight, np.float32), label_smoothing=0.1)
        np.testing.assert_allclose(mean(found), mean(plain), rtol=1e-5)


def test_padding_counts_nowhere():
    logits = np.concatenate([LOGITS, np.full((2, 3), np.nan, np.float32)])
    padded = weighted(np.append(LABELS, [1, 1]), jnp.arange(7) < 5, logits)
    np.testing.assert_allclose(padded["classification"], weighted()["classification"], rtol=1e-6)


def test_a_mixed_clip_weighs_as_its_classes_do():
    share_b = np.array([1.0, 0.25, 0.5, 0.5, 0.0], np.float32)
    found = weighted(partner_labels={"label": LABELS[::-1]}, own_share_b=jnp.asarray(share_b))
    target_by = share_b[:, None] * np.eye(3)[LABELS]
    target_by = target_by + (1 - share_b[:, None]) * np.eye(3)[LABELS[::-1]]
    expected = -(WEIGHTS * target_by * log_softmax(LOGITS)).sum(), (WEIGHTS * target_by).sum()
    np.testing.assert_allclose(found["classification"], expected, rtol=1e-5)


def test_of_a_multi_label_set_the_mean_over_classes_is_weighted():
    hot_by = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1]])
    p_by = 1 / (1 + np.exp(-LOGITS))
    loss_by = -(hot_by * np.log(p_by) + (1 - hot_by) * np.log(1 - p_by))
    found = weighted(hot_by)
    expected = np.average(loss_by, axis=1, weights=WEIGHTS).sum()
    np.testing.assert_allclose(found["classification"], (expected, 5), rtol=1e-5)


def test_with_several_sets_a_clip_counts_as_the_mean_of_what_it_weighs():
    other = RNG.normal(size=(5, 2)).astype(np.float32)
    labels = {"label": LABELS, "place": np.array([0, 1, 1, 0, 0])}
    found = classification_loss(
        {"label": LOGITS, "place": other}, labels, ALL, class_weights={"label": WEIGHTS}
    )
    plain = classification_loss({"place": other}, {"place": labels["place"]}, ALL)
    total = weighted()["classification"][0] + plain["classification"][0]
    divisor = (WEIGHTS[LABELS].sum() + 5) / 2
    np.testing.assert_allclose(found["classification"], (total, divisor), rtol=1e-5)


def test_weights_that_add_up_to_less_than_one_are_divided_by():
    small = {"label": np.full(4, 0.01, np.float32)}
    alone = {"classification": 1.0}
    plain, _ = Objective(config(alone))(Answers(), BATCH)
    total, metrics = Objective(config(alone), class_weights=small)(Answers(), BATCH)
    assert metrics["classification"][1] < 1
    np.testing.assert_allclose(total, plain, rtol=1e-6)
    # A batch in which nothing weighs has no loss and no gradient.
    nothing = BATCH | {axes.VALID: jnp.zeros(2, bool)}
    grad = jax.grad(lambda scale: scale * Objective(config(alone), class_weights=small)(
        Answers(), nothing
    )[0])(1.0)  # fmt: skip
    assert grad == 0
