"""What flows between the modalities through bottleneck tokens, and what does not."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from fusion_inputs import DIM, changed

from avt_jax import tree
from avt_jax.models.fusions.bottleneck import AVBottleneck


def make(**options):
    return AVBottleneck(DIM, 2, rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize(("blocks", "tokens"), ((1, 1), (2, 4), (3, 2)))
def test_k_blocks_per_modality_and_l_tokens(blocks, tokens, video_bnd, audio_bmd):
    fusion = make(num_blocks=blocks, num_bottleneck=tokens)
    chex.assert_shape(fusion.bottleneck[...], (1, tokens, DIM))
    assert len(fusion.video_blocks) == len(fusion.audio_blocks) == blocks
    one = tree.parameter_count(tree.split(fusion.video_blocks[0])[0])
    assert tree.parameter_count(tree.split(fusion)[0]) == 2 * blocks * one + tokens * DIM
    chex.assert_trees_all_equal_shapes(fusion(video_bnd, audio_bmd), (video_bnd, audio_bmd))


def test_the_next_bottleneck_is_the_mean_of_both_copies(video_bnd, audio_bmd):
    fusion = make(num_blocks=2, num_bottleneck=3)
    tokens = jnp.broadcast_to(fusion.bottleneck[...], (2, 3, DIM))
    video, audio = video_bnd, audio_bmd
    for i in range(2):
        joint_video = fusion.video_blocks[i](jnp.concatenate([video, tokens], 1))
        joint_audio = fusion.audio_blocks[i](jnp.concatenate([audio, tokens], 1))
        tokens = (joint_video[:, 5:] + joint_audio[:, 7:]) / 2
        video, audio = joint_video[:, :5], joint_audio[:, :7]
    chex.assert_trees_all_close(fusion(video_bnd, audio_bmd), (video, audio), atol=1e-5)


def test_average_exchanges_between_blocks_only(video_bnd, audio_bmd):
    inputs = video_bnd, audio_bmd
    assert changed(make(num_blocks=1), *inputs, what="video") == (True, False)
    assert changed(make(num_blocks=1), *inputs, what="audio") == (False, True)
    assert changed(make(num_blocks=2), *inputs, what="video") == (True, True)
    assert changed(make(num_blocks=2), *inputs, what="audio") == (True, True)


def test_sequential_lets_audio_see_video_at_once(video_bnd, audio_bmd):
    fusion = make(num_blocks=1, exchange="sequential")
    assert changed(fusion, video_bnd, audio_bmd, what="video") == (True, True)
    assert changed(fusion, video_bnd, audio_bmd, what="audio") == (False, True)


@pytest.mark.parametrize("exchange", ("average", "sequential"))
def test_a_missing_modality_leaves_the_other_with_the_bottleneck(exchange, video_bnd, audio_bmd):
    fusion = make(num_blocks=2, exchange=exchange)
    inputs = {"video": video_bnd, "audio": audio_bmd}
    for name, value in inputs.items():
        given = {key: value if key == name else None for key in inputs}
        out = dict(zip(inputs, fusion(given["video"], given["audio"]), strict=True))
        joint = jnp.concatenate([value, jnp.broadcast_to(fusion.bottleneck[...], (2, 4, DIM))], 1)
        for block in getattr(fusion, f"{name}_blocks"):
            joint = block(joint)
        np.testing.assert_allclose(out.pop(name), joint[:, : value.shape[1]], atol=1e-5)
        assert list(out.values()) == [None]


def test_a_modality_switched_off_has_no_parameters(audio_bmd):
    fusion = make(modalities=("audio",))
    assert not any("video" in path for path in tree.split(fusion)[0])
    video, audio = fusion(None, audio_bmd)
    assert video is None
    chex.assert_equal_shape([audio, audio_bmd])


def test_every_parameter_learns(video_bnd, audio_bmd):
    skeleton = tree.Skeleton(lambda: make(num_blocks=2))
    params, _ = tree.split(make(num_blocks=2))

    @jax.jit
    @jax.grad
    def gradient(params):
        video, audio = skeleton.merge(params, {})(video_bnd, audio_bmd)
        return jnp.sin(video).sum() + jnp.sin(audio).sum()

    for path, value in gradient(params).items():
        assert jnp.isfinite(value).all() and (value != 0).any(), path


def test_bfloat16_is_finite(video_bnd, audio_bmd):
    fusion = AVBottleneck(DIM, 2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    out = fusion(video_bnd.astype(jnp.bfloat16), audio_bmd.astype(jnp.bfloat16))
    assert [tokens.dtype for tokens in out] == [jnp.bfloat16] * 2
    chex.assert_tree_all_finite(out)
