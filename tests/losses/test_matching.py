"""Matching loss and the mining of its negatives, by hand and on degenerate batches."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from avt_jax.errors import UserError
from avt_jax.losses.matching import matching_loss, sample_hard_negatives
from avt_jax.losses.objective import ObjectiveConfig

ALL = jnp.ones(2, bool)


def softplus(x):
    return np.log1p(np.exp(x))


def test_hand_computed():
    metrics = matching_loss(
        jnp.array([2.0, -1.0]), jnp.array([-3.0, 0.5]), jnp.array([0.0, 1.0]), ALL, ALL, ALL
    )
    expected = softplus(-2) + softplus(1) + softplus(-3) + softplus(0.5) + np.log(2) + softplus(1)
    np.testing.assert_allclose(metrics["matching"], (expected, 6), rtol=1e-6)
    # Right: the first true pair, the first other audio, and 0 is a no.
    np.testing.assert_allclose(metrics["matching_accuracy"], (3, 6))
    np.testing.assert_allclose(metrics["matching_no_negative"], (0, 2))


def test_a_clip_without_negatives_is_left_out_with_its_true_pair():
    found = jnp.array([True, False])
    metrics = matching_loss(
        jnp.array([2.0, jnp.nan]),
        jnp.array([1.0, jnp.nan]),
        jnp.array([3.0, 4.0]),
        found,
        jnp.array([False, False]),
        ALL,
    )
    np.testing.assert_allclose(metrics["matching"], (softplus(-2) + softplus(1), 2), rtol=1e-6)
    np.testing.assert_allclose(metrics["matching_no_negative"], (1, 2))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_nothing_to_compare_gives_zero_loss_and_gradient(dtype):
    none = jnp.zeros(1, bool)

    def loss(logits):
        metrics = matching_loss(logits, logits, logits, none, none, jnp.ones(1, bool))
        assert metrics["matching"][1] == 0
        return metrics["matching"][0]

    value, gradient = jax.value_and_grad(loss)(jnp.ones(1, dtype))
    assert value == 0 and gradient == 0


def test_gradient_in_float64(rng):
    with jax.enable_x64(True):
        logits = [jnp.asarray(rng.normal(size=4)) for _ in range(3)]
        found = jnp.array([True, True, False, True])
        check_grads(
            lambda *logits: matching_loss(*logits, found, found, jnp.ones(4, bool))["matching"][0],
            logits,
            order=1,
            modes=["rev"],
            rtol=1e-6,
        )


def test_permuting_and_padding_the_batch_change_nothing(rng):
    logits = [jnp.asarray(rng.normal(size=5), jnp.float32) for _ in range(3)]
    flags = [jnp.asarray(rng.random(5) < 0.7) for _ in range(3)]
    order = rng.permutation(5)
    whole = matching_loss(*logits, *flags)
    permuted = matching_loss(*(x[order] for x in logits), *(x[order] for x in flags))
    chex.assert_trees_all_close(whole, permuted, rtol=1e-6)
    padded = matching_loss(
        *(jnp.append(x, jnp.inf) for x in logits),
        *(jnp.append(x, True) for x in flags[:2]),
        jnp.append(flags[2], False),
    )
    chex.assert_trees_all_close(whole, padded, rtol=1e-6)


def mine(sim, group, valid=None, label=None, temperature=0.1, seed=0):
    valid = jnp.ones(len(group), bool) if valid is None else jnp.array(valid)
    label = None if label is None else jnp.array(label)
    return sample_hard_negatives(
        jnp.asarray(sim, jnp.float32),
        jnp.array(group),
        valid,
        jax.random.gumbel(jax.random.key(seed), np.shape(sim)),
        temperature=temperature,
        label_bl=label,
    )


def test_source_label_and_padding_are_excluded():
    sim = np.zeros((4, 4))
    # Row 0 may take neither itself, nor 1 (same source), nor 3 (padding): 2 is left.
    index, found = mine(sim, [7, 7, 8, 9], valid=[True, True, True, False])
    assert index[0] == index[1] == 2 and index[2] in (0, 1)
    np.testing.assert_array_equal(found, [True, True, True, False])
    # Rows agree in both label sets: no negatives. In one set only: they are.
    index, found = mine(sim[:3, :3], [1, 2, 3], label=[[0, 5], [0, 5], [0, 6]])
    assert index[0] == index[1] == 2 and found.all()
    _, found = mine(sim[:3, :3], [1, 2, 3], label=[[0], [0], [0]])
    assert not found.any()


@pytest.mark.parametrize("group", [[0], [5, 5, 5]])
def test_no_negative_is_said(group):
    index, found = mine(np.eye(len(group)), group)
    assert not found.any() and index.shape == found.shape
    assert ((index >= 0) & (index < len(group))).all()


def test_similar_clips_are_drawn_as_often_as_the_formula_says():
    sim = np.array([[0.9, 0.2, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    noise = jax.random.gumbel(jax.random.key(1), (4000, 3, 3))
    draw = jax.vmap(
        lambda noise: sample_hard_negatives(
            jnp.asarray(sim), jnp.arange(3), jnp.ones(3, bool), noise, temperature=0.2
        )[0]
    )
    share = float((draw(noise)[:, 0] == 1).mean())
    assert abs(share - np.exp(1) / (np.exp(1) + 1)) < 0.03


def test_negatives_come_from_the_clips_own_group():
    sim = jnp.zeros((7, 7)).at[0, 6].set(1.0)  # the most similar one is in another group
    group = jnp.arange(7)
    for seed in range(20):
        noise = jax.random.gumbel(jax.random.key(seed), (7, 7))
        index, found = sample_hard_negatives(
            sim, group, jnp.ones(7, bool), noise, temperature=0.1, group_size=3
        )
        # Groups of 3, 3 and 1: the last clip has nobody to be mistaken for.
        np.testing.assert_array_equal(found, [True] * 6 + [False])
        np.testing.assert_array_equal(index[:6] // 3, [0, 0, 0, 1, 1, 1])
        assert (index[:6] != jnp.arange(6)).all()


def test_a_group_of_one_is_refused():
    with pytest.raises(UserError, match="matching_group is 1"):
        ObjectiveConfig(matching_group=1)


def test_similarities_must_be_square():
    with pytest.raises(ValueError, match="square"):
        mine(np.zeros((2, 3)), [0, 1])
