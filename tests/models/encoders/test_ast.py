"""AST's sizes and options; the parity with the original is in test_ast_parity."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from avt_jax import tree
from avt_jax.errors import UserError
from avt_jax.models.encoders.ast import AST, VARIANTS, ASTConfig, patch_grid

SMALL = ASTConfig(dim=8, depth=2, num_heads=2, mlp_ratio=2.0)


@pytest.mark.parametrize(
    ("stride", "num_frames", "count"),
    ((10, 1024, 86_594_063), (16, 1024, 86_056_463), (16, 400, 85_816_847)),
)
def test_parameter_counts_of_the_original(stride, num_frames, count):
    config = dataclasses.replace(VARIANTS["base"], stride=stride)
    skeleton = tree.Skeleton(
        lambda: AST(config, num_frames=num_frames, num_classes=527, rngs=nnx.Rngs(0))
    )
    assert tree.parameter_count(skeleton.params) == count


@pytest.mark.parametrize(
    ("num_frames", "stride", "grid"),
    (
        (1024, 10, (12, 101)),
        (1024, 16, (8, 64)),
        (400, 16, (8, 25)),
        (16, 16, (8, 1)),
        (100, (16, 10), (8, 9)),
    ),
)
def test_patch_grid(num_frames, stride, grid):
    assert patch_grid(num_frames, 128, dataclasses.replace(SMALL, stride=stride)) == grid


def test_a_spectrogram_of_another_size_is_refused():
    model = AST(SMALL, num_frames=48, mel_bins=32, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="makes 8 patches, but the model has positions for 6"):
        model.tokens(jnp.zeros((1, 64, 32)))


def test_patches_are_frequency_major(rng):
    model = AST(SMALL, num_frames=48, mel_bins=32, rngs=nnx.Rngs(0))
    fbank = rng.normal(size=(1, 48, 32)).astype(np.float32)
    other = fbank.copy()
    # The second patch in time of the second in frequency: 1 * 3 + 1.
    other[:, 16:32, 16:32] += 1
    changed = (np.asarray(model.patches(fbank)) != np.asarray(model.patches(other))).any(-1)
    np.testing.assert_array_equal(np.flatnonzero(changed), [4])


def test_tokens_are_the_patches_and_features_the_two_others(rng):
    model = AST(SMALL, num_frames=48, mel_bins=32, rngs=nnx.Rngs(0))
    fbank = jnp.asarray(rng.normal(size=(2, 48, 32)), jnp.float32)
    every = model.all_tokens(fbank)
    chex.assert_shape(every, (2, 2 + 2 * 3, 8))
    np.testing.assert_array_equal(model.tokens(fbank), every[:, 2:])
    np.testing.assert_allclose(model.features(fbank), (every[:, 0] + every[:, 1]) / 2, rtol=1e-6)
    assert not hasattr(model, "head")


def test_recomputing_activations_changes_nothing(rng):
    fbank = jnp.asarray(rng.normal(size=(4, 32, 32)), jnp.float32)

    def gradient(remat):
        config = dataclasses.replace(SMALL, remat=remat, drop_path=0.5)
        model = AST(config, num_frames=32, mel_bins=32, rngs=nnx.Rngs(0))
        skeleton = tree.Skeleton(lambda: model)

        @jax.jit
        @jax.grad
        def run(params):
            tokens = skeleton.merge(params, {}).tokens(fbank, train=True, rngs=nnx.Rngs(dropout=1))
            return jnp.sin(tokens).sum()

        return run(tree.split(model)[0])

    plain = gradient("none")
    for remat in ("attention", "blocks", "full"):
        chex.assert_trees_all_close(gradient(remat), plain, atol=1e-5)


def test_bfloat16_is_finite_and_near_float32(rng):
    fbank = jnp.asarray(rng.normal(size=(2, 32, 32)), jnp.float32)
    made = [
        AST(SMALL, num_frames=32, mel_bins=32, dtype=dtype, rngs=nnx.Rngs(0)).tokens(fbank)
        for dtype in (jnp.bfloat16, jnp.float32)
    ]
    assert made[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(made[0].astype(np.float32), made[1], atol=0.15)


@pytest.mark.parametrize(
    ("options", "words"),
    (
        (dict(num_heads=3), "num_heads 3 does not divide dim 8"),
        (dict(num_heads=0), "num_heads is 0; give a whole number of 1 or more"),
        (dict(stride=0), "stride is 0"),
        (dict(stride=(10, 17)), r"stride is \(10, 17\)"),
        (dict(drop_path=-0.1), "drop_path is -0.1"),
    ),
)
def test_bad_values(options, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(SMALL, **options)
