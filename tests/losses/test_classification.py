"""Classification loss against hand-computed values and degenerate batches."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from avt_jax.losses.classification import classification_loss

ALL = jnp.ones(2, bool)


def loss(logits, labels, valid, **options):
    total, count = classification_loss(logits, labels, valid, **options)["classification"]
    return total / count


def test_hand_computed():
    # softmax of (0, ln 3) is (1/4, 3/4); of (0, 0) is (1/2, 1/2).
    logits = {"label": jnp.array([[0.0, np.log(3)], [0.0, 0.0]])}
    labels = {"label": jnp.array([1, 0])}
    metrics = classification_loss(logits, labels, ALL)
    np.testing.assert_allclose(metrics["classification"][0], np.log(4 / 3) + np.log(2), rtol=1e-6)
    assert metrics["classification"][1] == 2
    # argmax of a tie is the first class, so both clips are right.
    assert metrics["top1/label"] == (2, 2)


def test_label_smoothing_hand_computed():
    logits = {"label": jnp.array([[0.0, np.log(3)]] * 2)}
    labels = {"label": jnp.array([1, 1])}
    # Target (0.1, 0.9): 0.1 of the mass is spread over both classes, 0.2 / 2 each.
    expected = 0.1 * np.log(4) + 0.9 * np.log(4 / 3)
    np.testing.assert_allclose(loss(logits, labels, ALL, label_smoothing=0.2), expected, rtol=1e-6)


def test_loss_of_a_mixed_pair():
    logits = {"label": jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]]))}
    metrics = classification_loss(
        logits,
        {"label": jnp.array([0, 1])},
        jnp.ones(2, bool),
        partner_labels={"label": jnp.array([1, 2])},
        own_share_b=jnp.array([0.75, 0.25]),
    )
    expected = -(0.75 * np.log(0.7) + 0.25 * np.log(0.2)) - (
        0.25 * np.log(0.3) + 0.75 * np.log(0.4)
    )
    np.testing.assert_allclose(metrics["classification"][0], expected, rtol=1e-6)
    # Right is the label of the larger part: 0 of the first, 2 of the second.
    assert metrics["top1/label"] == (2, 2)


def test_label_sets_add_up_and_all_needs_every_set():
    logits = {"verb": jnp.array([[2.0, 0], [2, 0]]), "noun": jnp.array([[0.0, 1, 0], [0, 1, 0]])}
    labels = {"verb": jnp.array([0, 0]), "noun": jnp.array([1, 2])}
    metrics = classification_loss(logits, labels, ALL)
    parts = [
        classification_loss({n: logits[n]}, {n: labels[n]}, ALL)["classification"][0]
        for n in logits
    ]
    np.testing.assert_allclose(metrics["classification"][0], sum(parts), rtol=1e-6)
    assert [float(metrics[f"top1/{n}"][0]) for n in ("verb", "noun", "all")] == [2, 1, 1]


def test_padding_counts_nowhere_whatever_it_holds():
    logits = jnp.array([[1.0, 2.0], [3.0, -1.0]])
    labels = jnp.array([0, 1])
    padded = jnp.concatenate([logits, jnp.full((2, 2), jnp.nan)])
    valid = jnp.array([True, True, False, False])

    def total(logits, labels, valid):
        return loss({"label": logits}, {"label": labels}, valid)

    value, grad = jax.value_and_grad(total)(logits, labels, ALL)
    value_padded, grad_padded = jax.value_and_grad(total)(
        padded.at[2:].set(1e4), jnp.array([0, 1, 0, 0]), valid
    )
    np.testing.assert_array_equal(value, value_padded)
    np.testing.assert_array_equal(grad, grad_padded[:2])
    np.testing.assert_array_equal(grad_padded[2:], 0)
    assert np.isfinite(total(padded, jnp.array([0, 1, 0, 0]), valid))


def test_no_valid_clip_gives_zero():
    metrics = classification_loss(
        {"label": jnp.ones((2, 3))}, {"label": jnp.array([0, 1])}, jnp.zeros(2, bool)
    )
    assert metrics["classification"] == (0, 0)


def test_permutation_invariant(rng):
    logits, labels = rng.normal(size=(6, 5)), rng.integers(0, 5, 6)
    order = rng.permutation(6)
    valid = np.array([1, 1, 1, 1, 0, 1], bool)
    value = loss({"label": jnp.asarray(logits)}, {"label": jnp.asarray(labels)}, valid)
    moved = loss({"label": jnp.asarray(logits[order])}, {"label": labels[order]}, valid[order])
    np.testing.assert_allclose(value, moved, rtol=1e-6)


def test_gradient(rng):
    logits = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
    labels = {"label": jnp.array([0, 3, 2])}
    valid = jnp.array([True, False, True])
    check_grads(
        lambda x: loss({"label": x}, labels, valid, label_smoothing=0.1),
        (logits,),
        order=1,
        modes=["rev"],
        eps=1e-2,
        rtol=2e-3,
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_result_is_float32_and_finite(dtype):
    metrics = classification_loss(
        {"label": jnp.array([[100.0, -100.0]], dtype)},
        {"label": jnp.array([1])},
        jnp.ones(1, bool),
    )
    chex.assert_tree_all_finite(metrics)
    assert metrics["classification"][0].dtype == jnp.float32


def test_partners_and_shares_come_together(rng):
    logits = {"label": rng.normal(size=(2, 3)).astype(np.float32)}
    labels, valid_b = {"label": np.array([0, 1])}, np.ones(2, bool)
    with pytest.raises(ValueError, match="own_share_b"):
        classification_loss(logits, labels, valid_b, partner_labels=labels)
    with pytest.raises(ValueError, match="own_share_b"):
        classification_loss(logits, labels, valid_b, own_share_b=np.ones(2, np.float32))
