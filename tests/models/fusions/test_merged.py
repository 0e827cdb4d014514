"""Merged attention: one transformer over the tokens of both modalities."""

from __future__ import annotations

import chex
import jax.numpy as jnp
import numpy as np
from flax import nnx
from fusion_inputs import DIM, changed

from avt_jax.models.fusions.merged import MergedAttention


def test_merged_attention_is_one_transformer_over_both(video_bnd, audio_bmd):
    merged = MergedAttention(DIM, 2, num_blocks=1, rngs=nnx.Rngs(0))
    joint = merged.blocks[0](jnp.concatenate([video_bnd, audio_bmd], 1))
    got = merged(video_bnd, audio_bmd)
    chex.assert_trees_all_close(got, (joint[:, :5], joint[:, 5:]))
    assert changed(merged, video_bnd, audio_bmd, what="video") == (True, True)
    alone, none = merged(video_bnd, None)
    assert none is None
    np.testing.assert_allclose(alone, merged.blocks[0](video_bnd), atol=1e-6)
    none, alone = merged(None, audio_bmd)
    assert none is None
    np.testing.assert_allclose(alone, merged.blocks[0](audio_bmd), atol=1e-6)
