"""Reconstruction loss by hand, and on degenerate batches."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from avt_jax import axes
from avt_jax.losses import reconstruction
from avt_jax.losses.reconstruction import normalise_patches, reconstruction_loss


def loss(predicted, target, masked, valid=None, fallback=None):
    b = len(masked)
    return reconstruction_loss(
        "masked_audio",
        jnp.asarray(predicted),
        jnp.asarray(target),
        jnp.asarray(masked),
        jnp.zeros(b, bool) if fallback is None else jnp.asarray(fallback),
        jnp.ones(b, bool) if valid is None else jnp.asarray(valid),
    )


def test_patches_are_normalised_one_by_one():
    patches = jnp.array([[[1.0, 3.0], [5.0, 5.0]]])
    np.testing.assert_allclose(normalise_patches(patches), [[[-1, 1], [0, 0]]], atol=1e-5)


def test_hand_computed():
    # Two clips of two patches of two numbers; of the first clip both are hidden, of the other one.
    target = np.array([[[0.0, 2.0], [10.0, 14.0]], [[3.0, 3.0], [1.0, 2.0]]])
    predicted = np.array([[[0.0, 0.0], [-1.0, 2.0]], [[1.0, 2.0], [9.0, 9.0]]])
    masked = [[True, True], [True, False]]
    metrics = loss(predicted, target, masked, fallback=[False, True])
    # Normalised targets (-1, 1), (-1, 1), (0, 0): squares (1 + 1) / 2, (0 + 1) / 2, (1 + 4) / 2.
    np.testing.assert_allclose(metrics["masked_audio"], (1 + 0.5 + 2.5, 3), rtol=1e-4)
    np.testing.assert_allclose(metrics["masked_audio_hidden"], (3, 4))
    np.testing.assert_allclose(metrics["masked_audio_fallback"], (1, 2))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("content", [0.0, -15.94])
def test_nothing_hidden_gives_zero_loss_and_gradient(dtype, content):
    target = jnp.full((1, 3, 4), content, dtype)

    def total(predicted):
        return loss(predicted, target, jnp.zeros((1, 3), bool))["masked_audio"][0]

    value, gradient = jax.value_and_grad(total)(jnp.ones((1, 3, 4), dtype))
    assert value == 0 and not gradient.any()


def test_silence_and_everything_hidden_are_finite():
    target = jnp.full((2, 3, 4), -15.942385)
    metrics = loss(jnp.ones((2, 3, 4)), target, jnp.ones((2, 3), bool))
    np.testing.assert_allclose(metrics["masked_audio"], (6, 6), rtol=1e-5)


def test_padding_and_permutations_change_nothing(rng):
    predicted, target = rng.normal(size=(2, 3, 4, 5))
    masked = rng.random((3, 4)) < 0.5
    whole = loss(predicted, target, masked)
    order = rng.permutation(3)
    permuted = loss(predicted[order], target[order], masked[order])
    chex.assert_trees_all_close(whole, permuted, rtol=1e-5)
    bad = np.full((1, 4, 5), np.nan)
    padded = loss(
        np.concatenate([predicted, bad]),
        np.concatenate([target, bad]),
        np.concatenate([masked, np.ones((1, 4), bool)]),
        valid=[True, True, True, False],
        fallback=[False, False, False, True],
    )
    chex.assert_trees_all_close(whole, padded, rtol=1e-5)


def test_gradient_in_float64(rng):
    with jax.enable_x64(True):
        predicted, target = (jnp.asarray(x) for x in rng.normal(size=(2, 2, 3, 4)))
        masked = jnp.asarray(rng.random((2, 3)) < 0.6)
        check_grads(
            lambda predicted: loss(predicted, target, masked)["masked_audio"][0],
            (predicted,),
            order=1,
            modes=["rev"],
            rtol=1e-6,
        )


@pytest.mark.parametrize(
    ("term", "has"),
    [(reconstruction.AUDIO, axes.HAS_AUDIO), (reconstruction.VIDEO, axes.HAS_VIDEO)],
)
def test_a_clip_that_lacks_the_modality_counts_nowhere(term, has):
    class Hidden:
        predicted_bmp, target_bmp = jnp.ones((2, 3, 4)), jnp.zeros((2, 3, 4))
        masked_bm, fallback_b = jnp.ones((2, 3), bool), jnp.ones(2, bool)

    class Forward:
        def reconstruction(self, name):
            return Hidden

    both = {name: jnp.ones(2, bool) for name in (axes.VALID, axes.HAS_AUDIO, axes.HAS_VIDEO)}
    for batch, clips in ((both, 2), (both | {has: jnp.array([True, False])}, 1)):
        metrics = term.compute(Forward(), batch, None)
        name = f"masked_{term.hides}"
        np.testing.assert_allclose(metrics[name], (3 * clips, 3 * clips), rtol=1e-4)
        np.testing.assert_allclose(metrics[f"{name}_fallback"], (clips, clips))
