"""Cross-attention against a naive reference, and what each direction sees."""

from __future__ import annotations

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from fusion_inputs import DIM, changed

from avt_jax import tree
from avt_jax.models.fusions.cross_attention import CrossModalAttention

HEADS = 2


def make(**options):
    return CrossModalAttention(DIM, HEADS, rngs=nnx.Rngs(0), **options)


def random_params(fusion, rng):
    """Not the initial ones, which start every branch at next to 0."""
    return {path: rng.normal(0, 0.5, leaf.shape) for path, leaf in tree.split(fusion)[0].items()}


def naive_block(params, x_nd, other_md):
    """One block of one modality, one clip, head by head."""

    def norm(name, x):
        normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return normal * params[f"{name}/scale"] + params[f"{name}/bias"]

    def dense(name, x):
        return x @ params[f"{name}/kernel"] + params[f"{name}/bias"]

    def attend(query, key, value):
        heads = []
        for i in range(HEADS):
            part = slice(i * DIM // HEADS, (i + 1) * DIM // HEADS)
            logits = query[:, part] @ key[:, part].T / np.sqrt(DIM // HEADS)
            weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
            heads.append(weights @ value[:, part])
        return np.concatenate(heads, -1)

    query = dense("cross/q", norm("query_norm", x_nd))
    key, value = np.split(dense("cross/kv", norm("other_norm", other_md)), 2, -1)
    x_nd = x_nd + dense("cross/proj", attend(query, key, value))
    parts = np.split(dense("attn/qkv", norm("norm1", x_nd)), 3, -1)
    x_nd = x_nd + dense("attn/proj", attend(*parts))
    hidden = dense("mlp/fc1", norm("norm2", x_nd))
    gelu = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    return x_nd + dense("mlp/fc2", gelu)


def test_two_blocks_equal_a_naive_implementation(rng):
    with jax.enable_x64(True):
        fusion = make(num_blocks=2, mlp_ratio=2.0, dtype=jnp.float64)
        params = random_params(fusion, rng)
        video_bnd, audio_bmd = rng.normal(size=(2, 5, DIM)), rng.normal(size=(2, 7, DIM))
        got = tree.Skeleton(lambda: fusion).merge(params, {})(video_bnd, audio_bmd)

    def of(block):
        return {k.removeprefix(block): v for k, v in params.items() if k.startswith(block)}

    for b in range(2):
        video, audio = video_bnd[b], audio_bmd[b]
        for i in range(2):
            # Both read what the block is given, not what the other has just become.
            video, audio = (
                naive_block(of(f"video_blocks/{i}/"), video, audio),
                naive_block(of(f"audio_blocks/{i}/"), audio, video),
            )
        np.testing.assert_allclose(got[0][b], video, atol=1e-12)
        np.testing.assert_allclose(got[1][b], audio, atol=1e-12)


def test_each_direction_sees_the_other_in_the_first_block(video_bnd, audio_bmd):
    fusion = make(num_blocks=1)
    assert changed(fusion, video_bnd, audio_bmd, what="video") == (True, True)
    assert changed(fusion, video_bnd, audio_bmd, what="audio") == (True, True)


def test_the_order_of_the_others_tokens_does_not_matter(video_bnd, audio_bmd):
    fusion = make(num_blocks=2)
    video, audio = fusion(video_bnd, audio_bmd)
    order = jnp.array([3, 0, 6, 1, 5, 2, 4])
    other_video, other_audio = fusion(video_bnd, audio_bmd[:, order])
    np.testing.assert_allclose(other_video, video, atol=1e-5)
    np.testing.assert_allclose(other_audio, audio[:, order], atol=1e-5)


def test_a_missing_modality_leaves_self_attention_and_mlp(video_bnd, audio_bmd):
    fusion = make(num_blocks=2)
    for name, value in (("video", video_bnd), ("audio", audio_bmd)):
        given = {key: value if key == name else None for key in ("video", "audio")}
        out = dict(zip(given, fusion(*given.values()), strict=True))
        # The transformer block within, without what stands before it.
        alone = value
        for block in getattr(fusion, f"{name}_blocks"):
            alone = alone + block.attn(block.norm1(alone))
            alone = alone + block.mlp(block.norm2(alone))
        np.testing.assert_allclose(out.pop(name), alone, atol=1e-6)
        assert list(out.values()) == [None]


def test_a_model_of_one_modality_has_nothing_to_attend_to(audio_bmd):
    params = tree.split(make(modalities=("audio",)))[0]
    assert not any("video" in path or "cross" in path or "other" in path for path in params)
    assert set(params) < set(tree.split(make())[0])
    video, audio = make(modalities=("audio",))(None, audio_bmd)
    assert video is None
    chex.assert_equal_shape([audio, audio_bmd])


def test_every_parameter_learns_from_both_modalities(video_bnd, audio_bmd, rng):
    fusion = make(num_blocks=2)
    skeleton, params = tree.Skeleton(lambda: fusion), random_params(fusion, rng)

    @jax.jit
    @jax.grad
    def gradient(params):
        video, audio = skeleton.merge(params, {})(video_bnd, audio_bmd)
        return jnp.sin(video).sum() + jnp.sin(audio).sum()

    for path, value in gradient(params).items():
        # A bias of the keys shifts all of a query's logits alike, which softmax takes out.
        used = value[:DIM] if "kv/bias" in path else value
        assert jnp.isfinite(value).all() and (used != 0).any(), path


def test_drop_path_drops_all_three_branches(video_bnd, audio_bmd):
    fusion = make(num_blocks=2, drop_path=0.999999)
    first = make(num_blocks=1)
    for block, other in zip(fusion.video_blocks, first.video_blocks, strict=False):
        nnx.update(other, nnx.state(block))
    for block, other in zip(fusion.audio_blocks, first.audio_blocks, strict=False):
        nnx.update(other, nnx.state(block))
    # The rate grows from 0: the first block is whole, the last one passes its input on.
    dropped = fusion(video_bnd, audio_bmd, train=True, rngs=nnx.Rngs(dropout=0))
    chex.assert_trees_all_close(dropped, first(video_bnd, audio_bmd), atol=1e-6)
    kept = fusion(video_bnd, audio_bmd)
    assert all(jnp.abs(a - b).max() > 1e-4 for a, b in zip(kept, dropped, strict=True))


@pytest.mark.parametrize("dtype", (jnp.bfloat16, jnp.float32))
def test_shapes_and_types(dtype, video_bnd, audio_bmd):
    given = video_bnd.astype(dtype), audio_bmd.astype(dtype)
    out = make(dtype=dtype)(*given)
    chex.assert_trees_all_equal_shapes_and_dtypes(out, given)
    chex.assert_tree_all_finite(out)
