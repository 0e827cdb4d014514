"""The loss of multi-label sets: by hand, padded, smoothed, mixed; and what it counts as a hit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avt_jax import axes
from avt_jax.losses.classification import classification_loss
from avt_jax.losses.matching import sample_hard_negatives
from avt_jax.training.mixing import MixingConfig, make_mix

LOGITS = jnp.log(jnp.array([[3.0, 1.0, 1 / 3], [1.0, 1.0, 1.0]]))  # sigmoids 3/4, 1/2, 1/4; 1/2
LABELS = jnp.array([[1, 0, 1], [0, 0, 0]])
BOTH = jnp.ones(2, bool)


def judged(labels=LABELS, valid_b=BOTH, **options):
    return classification_loss({"label": LOGITS}, {"label": labels}, valid_b, **options)


def test_hand_computed_mean_over_classes_and_clips():
    metrics = judged()
    first = (np.log(4 / 3) + np.log(2) + np.log(4)) / 3
    np.testing.assert_allclose(metrics["classification"][0], first + np.log(2), rtol=1e-6)
    assert metrics["classification"][1] == 2
    # The most probable class of the first applies; the second clip has none.
    assert metrics["hit1/label"] == (1, 2) and "top1/label" not in metrics


def test_padding_counts_nowhere_even_with_nan():
    alone = judged(valid_b=jnp.array([True, False]))
    logits = LOGITS.at[1].set(jnp.nan)
    padded = classification_loss({"label": logits}, {"label": LABELS}, jnp.array([True, False]))
    for name, value in alone.items():
        np.testing.assert_allclose(padded[name], value)
    assert alone["classification"][1] == 1


def test_smoothing_moves_each_target_towards_one_over_the_classes():
    smooth = judged(label_smoothing=0.3)["classification"][0]
    target_by = 0.7 * LABELS + 0.3 / 3
    p_by = jax.nn.sigmoid(LOGITS)
    expected = -(target_by * jnp.log(p_by) + (1 - target_by) * jnp.log(1 - p_by)).mean(1).sum()
    np.testing.assert_allclose(smooth, expected, rtol=1e-6)


def test_targets_are_mixed_linearly():
    mixed = judged(partner_labels={"label": LABELS[::-1]}, own_share_b=jnp.array([0.25, 0.75]))
    soft = judged(labels=jnp.array([[0.25, 0, 0.25], [0.25, 0, 0.25]]))
    np.testing.assert_allclose(mixed["classification"][0], soft["classification"][0], rtol=1e-6)
    # The larger part of both is the clip without a class.
    assert mixed["hit1/label"] == (0, 2)


@pytest.mark.parametrize("alphas", [{"mixup_alpha": 0.8}, {"cutmix_alpha": 1.0}])
def test_mixup_and_cutmix_hand_on_many_hot_labels(alphas):
    batch = {
        axes.VIDEO: jnp.zeros((2, 1, 4, 4, 3), jnp.uint8),
        axes.AUDIO: jnp.zeros((2, 4, 4)),
        axes.LABELS: {"label": LABELS},
        axes.VALID: BOTH,
    }
    mixed = make_mix(MixingConfig(**alphas), ("classification",))(batch, jax.random.key(0))
    np.testing.assert_array_equal(mixed[axes.PARTNER_LABELS]["label"], LABELS[::-1])


def test_beside_a_single_label_set():
    single = jnp.array([[2.0, 0.0], [0.0, 2.0]])
    metrics = classification_loss(
        {"label": LOGITS, "place": single}, {"label": LABELS, "place": jnp.array([0, 1])}, BOTH
    )
    apart = classification_loss({"place": single}, {"place": jnp.array([0, 1])}, BOTH)
    total = judged()["classification"][0] + apart["classification"][0]
    np.testing.assert_allclose(metrics["classification"][0], total, rtol=1e-6)
    assert metrics["top1/all"] == (1, 2) and metrics["top1/place"] == (2, 2)


def test_clips_with_the_same_classes_are_no_negatives():
    label_bl = jnp.array([[1, 0, 1], [1, 0, 1], [1, 0, 0]])
    index_b, found_b = sample_hard_negatives(
        jnp.eye(3), jnp.arange(3), jnp.ones(3, bool), jnp.zeros((3, 3)), temperature=1.0,
        label_bl=label_bl,
    )  # fmt: skip
    assert found_b.all() and index_b[:2].tolist() == [2, 2]
