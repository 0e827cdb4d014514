"""Contrastive loss against hand-computed values and degenerate batches."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from avt_jax.losses.contrastive import contrastive_loss

LOG_ONE_HALF = jnp.log(0.5)


def unit(rng, shape):
    z = rng.normal(size=shape)
    return jnp.asarray(z / np.linalg.norm(z, axis=-1, keepdims=True), jnp.float32)


def mean(metrics):
    total, count = metrics["contrastive"]
    return total / jnp.maximum(count, 1)


def test_hand_computed():
    # Orthogonal clips, temperature 1/2: every row of the logits is (2, 0) or (0, 2).
    z = jnp.eye(2)
    metrics = contrastive_loss(z, z, LOG_ONE_HALF, jnp.array([0, 1]), jnp.ones(2, bool))
    np.testing.assert_allclose(mean(metrics), np.log(np.exp(2) + 1) - 2, rtol=1e-6)
    assert metrics["contrastive_top1"] == (2, 2)
    np.testing.assert_allclose(metrics["temperature"][0], 0.5, rtol=1e-6)


def test_two_directions_are_averaged():
    # Video 0 is like audio 1 too; audio 0 is like video 0 only.
    z_video = jnp.array([[1.0, 0], [0, 1]])
    z_audio = jnp.array([[1.0, 0], [1, 0]])
    value = mean(contrastive_loss(z_video, z_audio, LOG_ONE_HALF, jnp.arange(2), jnp.ones(2, bool)))
    # logits [[2, 2], [0, 0]]: rows give ln 2 and ln 2; columns give ln(e^2+1) - 2 and ln(e^2+1).
    columns = np.log(np.exp(2) + 1) * 2 - 2
    np.testing.assert_allclose(value, (2 * np.log(2) + columns) / 4, rtol=1e-6)


def test_clips_of_one_source_are_no_negatives(rng):
    z_video, z_audio = unit(rng, (3, 4)), unit(rng, (3, 4))
    grouped = contrastive_loss(
        z_video, z_audio, LOG_ONE_HALF, jnp.array([7, 7, 8]), jnp.ones(3, bool)
    )
    logits = 2 * np.asarray(z_video @ z_audio.T, np.float64)
    expected = 0
    for i, others in ((0, [2]), (1, [2]), (2, [0, 1])):
        keep = [i, *others]
        expected += np.log(np.exp(logits[i, keep]).sum()) / 2
        expected += np.log(np.exp(logits[keep, i]).sum()) / 2 - logits[i, i]
    np.testing.assert_allclose(grouped["contrastive"][0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "group,valid",
    [
        ([0], [True]),
        ([5, 5, 5], [True, True, True]),
        ([0, 1, 2], [False, False, False]),
        ([0, 1, 2], [False, True, False]),
    ],
    ids=["one clip", "one source", "nothing valid", "one valid"],
)
def test_no_negative_gives_zero_loss_and_gradient(rng, group, valid):
    z_video, z_audio = unit(rng, (len(group), 4)), unit(rng, (len(group), 4))

    def total(z_video, z_audio, log_tau):
        return mean(contrastive_loss(z_video, z_audio, log_tau, jnp.array(group), jnp.array(valid)))

    value, grads = jax.value_and_grad(total, argnums=(0, 1, 2))(z_video, z_audio, LOG_ONE_HALF)
    chex.assert_trees_all_close(value, 0.0, atol=1e-6)
    chex.assert_trees_all_close(grads, jax.tree.map(jnp.zeros_like, grads), atol=1e-6)


def test_padding_changes_nothing(rng):
    z_video, z_audio = unit(rng, (4, 8)), unit(rng, (4, 8))
    group, valid = jnp.arange(4), jnp.array([True, True, True, False])
    short = contrastive_loss(z_video[:3], z_audio[:3], LOG_ONE_HALF, group[:3], valid[:3])
    padded = contrastive_loss(z_video, z_audio, LOG_ONE_HALF, group, valid)
    chex.assert_trees_all_close(short, padded, rtol=1e-6)


def test_permutation_invariant(rng):
    z_video, z_audio = unit(rng, (5, 8)), unit(rng, (5, 8))
    group, valid = jnp.array([0, 0, 1, 2, 3]), jnp.array([True, True, True, False, True])
    order = rng.permutation(5)
    chex.assert_trees_all_close(
        contrastive_loss(z_video, z_audio, LOG_ONE_HALF, group, valid),
        contrastive_loss(z_video[order], z_audio[order], LOG_ONE_HALF, group[order], valid[order]),
        rtol=1e-5,
    )


def test_temperature_stays_within_its_bounds():
    z = jnp.eye(2)
    for log_tau, bound in ((-10.0, 0.01), (10.0, 0.5)):
        metrics = contrastive_loss(z, z, jnp.float32(log_tau), jnp.arange(2), jnp.ones(2, bool))
        np.testing.assert_allclose(metrics["temperature"][0], bound, rtol=1e-6)


def test_gradient(rng):
    z_video, z_audio = unit(rng, (4, 3)), unit(rng, (4, 3))
    group, valid = jnp.array([0, 0, 1, 2]), jnp.array([True, True, True, False])
    check_grads(
        lambda v, a, t: mean(contrastive_loss(v, a, t, group, valid)),
        (z_video, z_audio, jnp.float32(-1.0)),
        order=1,
        modes=["rev"],
        eps=1e-2,
        rtol=5e-3,
    )


def test_bfloat16_is_finite(rng):
    z = unit(rng, (4, 8)).astype(jnp.bfloat16)
    metrics = contrastive_loss(z, z, jnp.float32(-5.0), jnp.arange(4), jnp.ones(4, bool))
    chex.assert_tree_all_finite(metrics)
    assert metrics["contrastive"][0].dtype == jnp.float32


def test_sigmoid_form_by_hand():
    z = jnp.eye(2)
    metrics = contrastive_loss(
        z, z, LOG_ONE_HALF, jnp.arange(2), jnp.ones(2, bool), form="sigmoid", bias=-1.0
    )
    # Each clip has its own pair with logit 2 - 1 and one other with 0 - 1.
    expected = np.log1p(np.exp(-1)) + np.log1p(np.exp(-1))
    np.testing.assert_allclose(mean(metrics), expected, rtol=1e-6)


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
def test_each_form_on_padding_groups_and_single_clips(rng, form):
    def value(z_video, z_audio, group, valid):
        return contrastive_loss(
            z_video,
            z_audio,
            LOG_ONE_HALF,
            jnp.asarray(group),
            jnp.asarray(valid),
            form=form,
            bias=-2.0,
        )

    z_video, z_audio = unit(rng, (4, 8)), unit(rng, (4, 8))
    whole = value(z_video, z_audio, [0, 0, 1, 2], [True] * 4)
    bad = jnp.full((1, 8), jnp.nan)
    padded = value(
        jnp.concatenate([z_video, bad]),
        jnp.concatenate([z_audio, bad]),
        [0, 0, 1, 2, 9],
        [True] * 4 + [False],
    )
    chex.assert_trees_all_close(whole, padded, rtol=1e-6)
    alone, gradient = jax.value_and_grad(
        lambda z: value(z, z_audio[:2], [3, 3], [True, True])["contrastive"][0]
    )(z_video[:2])
    assert alone == 0 and not gradient.any()


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
def test_gradients_in_float64(rng, form):
    with jax.enable_x64(True):
        z_video, z_audio = (jnp.asarray(rng.normal(size=(4, 5))) for _ in range(2))
        check_grads(
            lambda v, a, tau, bias: contrastive_loss(
                v, a, tau, jnp.array([0, 0, 1, 2]), jnp.ones(4, bool), form=form, bias=bias
            )["contrastive"][0],
            (z_video, z_audio, jnp.log(jnp.float64(0.3)), jnp.float64(-1.0)),
            order=1,
            modes=["rev"],
            rtol=1e-6,
        )
