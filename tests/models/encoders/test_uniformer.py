"""UniFormer's sizes and options; the parity with the original is in test_uniformer_parity."""

from __future__ import annotations

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from avt_jax import tree
from avt_jax.errors import UserError
from avt_jax.models.encoders.uniformer import (
    VARIANTS,
    PatchEmbed,
    SABlock,
    SplitSABlock,
    UniFormer,
    UniFormerConfig,
)
from avt_jax.models.layers.norms import BatchNorm

SMALL = UniFormerConfig(depth=(1, 1, 1, 1), dim=(4, 4, 8, 8), head_dim=4, mlp_ratio=2.0)


def make(**options):
    return UniFormer(dataclasses.replace(SMALL, **options), rngs=nnx.Rngs(0))


@pytest.mark.parametrize(("variant", "count"), (("S", 21_400_400), ("B", 49_813_200)))
def test_parameter_counts_of_the_paper(variant, count):
    skeleton = tree.Skeleton(
        lambda: UniFormer(VARIANTS[variant], num_classes=400, rngs=nnx.Rngs(0))
    )
    assert tree.parameter_count(skeleton.params) == count


def test_tokens_of_the_full_size_input():
    video = jax.ShapeDtypeStruct((1, 16, 224, 224, 3), jnp.float32)

    def run(video):
        return UniFormer(VARIANTS["S"], rngs=nnx.Rngs(0)).tokens(video)

    chex.assert_shape(jax.eval_shape(run, video), (1, 8 * 7 * 7, 512))


@pytest.mark.parametrize("std", (False, True))
def test_only_the_stem_shrinks_time(std):
    # 5 frames to 3; 70 px to 17, 8, 4 and 2: what does not fill a patch is left out.
    video = jax.ShapeDtypeStruct((1, 5, 70, 64, 3), jnp.float32)
    stages = jax.eval_shape(lambda video: make(std=std).stages(video), video)
    sizes = [(17, 16), (8, 8), (4, 4), (2, 2)]
    for stage, dim, size in zip(stages, SMALL.dim, sizes, strict=True):
        chex.assert_shape(stage, (1, 3, *size, dim))
    kernel = tree.Skeleton(lambda: make(std=std)).params["patch_embed2/proj/kernel"]
    chex.assert_shape(kernel, ((3 if std else 1) * 2 * 2 * 4, 4))


def test_std_patch_embedding_equals_a_convolution(rng):
    embed = PatchEmbed(4, 8, kernel=(3, 2), stride=1, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = rng.normal(size=(2, 4, 6, 6, 4)).astype(np.float32)
    kernel = embed.proj.kernel[...].reshape(3, 2, 2, 4, 8)
    want = jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 2, 2),
        [(1, 1), (0, 0), (0, 0)],
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )
    want += embed.proj.bias[...]
    np.testing.assert_allclose(embed(x), embed.norm(want), atol=1e-5)


def wake(split):
    """Gives the attention over time weights that do something."""
    for layer in (split.t_attn.qkv, split.t_attn.proj):
        layer.kernel.set_value(jax.random.normal(jax.random.key(0), layer.kernel.shape))


def test_split_attention_is_space_attention_until_time_attention_learns(rng):
    split = SplitSABlock(8, SMALL, drop_path=0.0, dtype=jnp.float32, rngs=nnx.Rngs(0))
    whole = SABlock(8, SMALL, drop_path=0.0, dtype=jnp.float32, rngs=nnx.Rngs(0))
    for block in (split, whole):
        block.pos_embed.kernel.set_value(jnp.zeros((3, 3, 3, 8)))
    for name in ("norm1", "attn", "norm2", "mlp"):
        nnx.update(getattr(whole, name), nnx.state(getattr(split, name)))
    x = jnp.asarray(rng.normal(size=(2, 3, 2, 2, 8)), jnp.float32)
    quiet = dict(train=False, rngs=None)
    frames = x.reshape(6, 1, 2, 2, 8)
    want = whole(frames, **quiet).reshape(x.shape)
    np.testing.assert_allclose(split(x, **quiet), want, atol=1e-5)
    # Once it has, frames see each other.
    wake(split)
    assert np.abs(split(x, **quiet) - want).max() > 1e-3


def test_split_attention_keeps_the_residual_from_before_time_attention(rng):
    split = SplitSABlock(8, SMALL, drop_path=0.0, dtype=jnp.float32, rngs=nnx.Rngs(0))
    wake(split)
    for layer in (split.attn.proj, split.mlp.fc2):
        layer.kernel.set_value(jnp.zeros(layer.kernel.shape))
    x = jnp.asarray(rng.normal(size=(2, 3, 2, 2, 8)), jnp.float32)
    want = x + split.pos_embed(x)
    np.testing.assert_allclose(split(x, train=False, rngs=None), want, atol=1e-6)


def training_pass(video, **options):
    """(gradients, statistics after, statistics before) of a training pass with drop path."""
    skeleton = tree.Skeleton(lambda: make(**options))
    # Drawn here: initialisers compile for longer than this takes.
    rng = np.random.default_rng(0)
    params = {
        path: jnp.asarray(rng.normal(0, 0.2, leaf.shape), jnp.float32)
        for path, leaf in skeleton.params.items()
    }
    stats = {path: jnp.ones(leaf.shape) for path, leaf in skeleton.stats.items()}

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def step(params, stats):
        model = skeleton.merge(params, stats)
        tokens = model.tokens(video, train=True, rngs=nnx.Rngs(dropout=1))
        return jnp.sin(tokens).sum(), tree.split(model)[1]

    return *step(params, stats), stats


def run(model, video, **options):
    """The model's tokens, compiled."""
    graph, state = nnx.split(model)
    return jax.jit(lambda state: nnx.merge(graph, state).tokens(video, **options))(state)


def test_training_updates_statistics_and_recomputing_activations_changes_nothing(rng):
    video = jnp.asarray(rng.normal(size=(4, 4, 32, 32, 3)), jnp.float32)
    gradient, after, before = training_pass(video, split=True, drop_path=0.5)
    assert len(before) == 2 * (2 + 2 + 1)
    assert all((after[path] != before[path]).any() for path in before)
    again = training_pass(video, split=True, drop_path=0.5, remat="blocks")
    chex.assert_trees_all_close((gradient, after, before), again, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("freeze_bn", (False, True))
def test_freezing_reaches_every_batch_norm(freeze_bn):
    model = nnx.eval_shape(lambda: make(freeze_bn=freeze_bn))
    norms = [module for _, module in nnx.iter_modules(model) if isinstance(module, BatchNorm)]
    assert [norm.frozen for norm in norms] == [freeze_bn] * 5


def test_bfloat16_is_finite_and_near_float32(rng):
    video = jnp.asarray(rng.normal(size=(2, 4, 32, 32, 3)), jnp.float32)
    half = run(UniFormer(SMALL, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)), video)
    assert half.dtype == jnp.bfloat16
    want = run(make(), video)
    np.testing.assert_allclose(half.astype(np.float32), want, atol=0.15)


@pytest.mark.parametrize(
    ("options", "words"),
    (
        (dict(depth=(1, 1, 1)), "give 4 whole numbers of 1 or more"),
        (dict(dim=(4, 4, 8, 0)), "give 4 whole numbers of 1 or more"),
        (dict(head_dim=3, dim=(4, 4, 8, 7)), "head_dim 3 does not divide the width 7"),
        (dict(head_dim=16), "head_dim 16"),
        (dict(drop_path=1.0), "drop_path is 1.0"),
    ),
)
def test_bad_values(options, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(SMALL, **options)
