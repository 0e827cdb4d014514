"""Towers unrolled, as a loop over stacked layers, and with activations computed again."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from avt_jax import tree
from avt_jax.models.encoders.uniformer import UniFormer, UniFormerConfig
from avt_jax.models.fusions.bottleneck import AVBottleneck
from avt_jax.models.fusions.cross_attention import CrossModalAttention
from avt_jax.models.fusions.merged import MergedAttention
from avt_jax.models.layers.towers import REMAT
from avt_jax.models.mbt import MBT, MBTConfig

DEPTH = 3
FUSIONS = {
    "average": functools.partial(AVBottleneck, exchange="average"),
    "sequential": functools.partial(AVBottleneck, exchange="sequential"),
    "cross": CrossModalAttention,
    "merged": MergedAttention,
}


def both_forms(build, run):
    """(loss, gradient, statistics) of a model with a list of layers, and with stacks of them.

    Args:
      build: makes the model.
      run: model -> array, in training.
    """
    skeleton, (params, stats) = tree.Skeleton(build), tree.split(build())
    packing = skeleton.packing
    assert len(packing.stack(params)) < len(params), "nothing is stacked"

    def loss(params, stats):
        model = skeleton.merge(params, stats)
        return jnp.sin(run(model)).sum(), tree.split(model)[1]

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, after), gradient = step(params, stats)
    (value_2, after_2), gradient_2 = step(packing.stack(params), packing.stack(stats))
    stacked = value_2, packing.unstack(gradient_2), packing.unstack(after_2)
    return (value, gradient, after), stacked


def with_batch_norm(remat):
    sizes = dict(depth=(DEPTH, 1, 1, 1), dim=(8, 8, 8, 8), head_dim=8, mlp_ratio=1.0)
    return UniFormer(UniFormerConfig(**sizes, drop_path=0.5, remat=remat), rngs=nnx.Rngs(0))


# "blocks" is what the towers that meet halfway have, below.
@pytest.mark.parametrize("remat", sorted({*REMAT} - {"blocks"}))
def test_a_loop_equals_an_unrolled_tower_with_batch_norm_and_drop_path(remat):
    video = jax.random.normal(jax.random.key(1), (4, 2, 32, 32, 3))

    def run(model):
        return model.tokens(video, train=True, rngs=nnx.Rngs(dropout=2))

    unrolled, looped = both_forms(lambda: with_batch_norm(remat), run)
    chex.assert_trees_all_close(looped, unrolled, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("remat", ("none", "full"))
def test_a_loop_equals_unrolled_fusions(fusion, remat):
    video, audio = (jax.random.normal(jax.random.key(i), (2, n, 8)) for i, n in ((1, 3), (2, 5)))

    def build():
        return FUSIONS[fusion](8, 2, num_blocks=DEPTH, drop_path=0.5, remat=remat, rngs=nnx.Rngs(0))

    def run(model):
        outputs = model(video, audio, train=True, rngs=nnx.Rngs(dropout=2))
        return jnp.concatenate(outputs, 1)

    unrolled, looped = both_forms(build, run)
    chex.assert_trees_all_close(looped, unrolled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("missing", ("video", "audio"))
def test_a_fusion_in_a_loop_takes_one_modality_alone(missing):
    tokens = jax.random.normal(jax.random.key(1), (2, 3, 8))
    given = (None, tokens) if missing == "video" else (tokens, None)

    def run(model):
        outputs = model(*given, train=True, rngs=nnx.Rngs(dropout=2))
        return next(x for x in outputs if x is not None)

    for fusion in (AVBottleneck, CrossModalAttention):
        build = functools.partial(fusion, 8, 2, num_blocks=DEPTH, drop_path=0.5)
        unrolled, looped = both_forms(lambda build=build: build(rngs=nnx.Rngs(0)), run)
        chex.assert_trees_all_close(looped, unrolled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", ("bottleneck", "merged"))
@pytest.mark.parametrize("share", (False, True))
def test_towers_that_meet_halfway(fusion, share):
    config = MBTConfig(
        dim=8,
        depth=DEPTH + 1,
        num_heads=2,
        mlp_ratio=1.0,
        patch_px=16,
        fusion=fusion,
        fusion_layer=2,
        share_encoder=share,
        drop_path=0.5,
        remat="blocks",
    )
    video = jax.random.normal(jax.random.key(1), (2, 2, 32, 32, 3))
    audio = jax.random.normal(jax.random.key(2), (2, 32, 32))

    def build():
        sizes = dict(num_frames=2, frame_size_px=32, fbank_frames=32, mel_bins=32)
        return MBT(config, num_classes={"label": 3}, **sizes, rngs=nnx.Rngs(0))

    def run(model):
        rngs = nnx.Rngs(dropout=2)
        tokens = model.encode(video, audio, train=True, rngs=rngs)
        return model.fuse(*tokens, train=True, rngs=rngs)["logits"]["label"]

    unrolled, looped = both_forms(build, run)
    chex.assert_trees_all_close(looped, unrolled, rtol=1e-4, atol=1e-5)


def test_blocks_side_by_side_draw_their_own_drop_path():
    # If both modalities drew the same, every clip would lose both branches or none.
    model = AVBottleneck(8, 2, num_blocks=2, drop_path=0.9, rngs=nnx.Rngs(0))
    video, audio = (jax.random.normal(jax.random.key(i), (64, 3, 8)) for i in (1, 2))
    whole = model(video, audio)
    dropped = model(video, audio, train=True, rngs=nnx.Rngs(dropout=3))
    # The first block drops nothing, so with both branches of the second gone its output remains.
    alone = [
        jnp.isclose(got, want, atol=1e-5).all((1, 2))
        for got, want in zip(dropped, AVBottleneckFirst(model)(video, audio), strict=True)
    ]
    assert not (alone[0] == alone[1]).all()
    assert all(not jnp.allclose(a, b) for a, b in zip(whole, dropped, strict=True))


class AVBottleneckFirst:
    """The first block of a fusion alone."""

    def __init__(self, model):
        graph, state = nnx.split(model)
        self.model = nnx.merge(graph, state)
        for name in ("video_blocks", "audio_blocks"):
            setattr(self.model, name, nnx.List([getattr(model, name)[0]]))

    def __call__(self, video, audio):
        return self.model(video, audio)


def test_recomputing_keeps_less():
    """Bytes between the forward and the backward pass shrink from policy to policy."""
    x = jnp.zeros((4, 2, 32, 32, 3))
    kept = {}
    for remat in REMAT:
        graph, state = nnx.split(with_batch_norm(remat))

        def run(state, graph=graph):
            model = nnx.merge(graph, state)
            return model.tokens(x, train=True, rngs=nnx.Rngs(dropout=0))

        _, pull = jax.eval_shape(lambda state, run=run: jax.vjp(run, state), state)
        kept[remat] = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull))
    assert kept["none"] > 1.1 * kept["attention"] > 1.3 * kept["blocks"] > kept["full"], kept
