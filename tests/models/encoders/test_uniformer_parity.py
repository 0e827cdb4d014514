"""UniFormer with official weights against activations, losses and gradients of the original."""

from __future__ import annotations

import ast as literals
import functools

import chex
import jax
import numpy as np
import official
import optax
import pytest

from avt_jax import tree
from avt_jax.models.encoders.uniformer import UniFormerConfig

# float32 sums in another order than the original's, through six blocks.
ATOL = 5e-5
# Relative, for what a training step computes.
RTOL = 1e-4


@pytest.fixture(scope="module")
def golden():
    return official.golden("uniformer_tiny_a")


def config_of(golden):
    cfg = literals.literal_eval(str(golden["cfg"]))
    return UniFormerConfig(
        depth=tuple(cfg["depth"]),
        dim=tuple(cfg["embed_dim"]),
        head_dim=cfg["head_dim"],
        mlp_ratio=cfg["mlp_ratio"],
        qkv_bias=cfg["qkv_bias"],
        split=cfg["split"],
        std=cfg["std"],
        drop_path=cfg["drop_path"],
    )


def load(golden, dtype=np.float32):
    state_dict = official.under(golden, "sd/")
    return official.load("uniformer", config_of(golden), state_dict, dtype)


def channels_last(x_bcthw):
    return x_bcthw.transpose(0, 2, 3, 4, 1)


def test_activations_features_and_logits(golden):
    skeleton, params, stats = load(golden)

    @jax.jit
    def run(params, stats, video_bthwc):
        model = skeleton.merge(params, stats)
        stages = model.stages(video_bthwc)
        return stages, model.norm(stages[-1], train=False), model(video_bthwc)

    stages, features, logits = run(params, stats, channels_last(golden["x"]))
    want = {
        "stage1": (stages[0][:1], golden["act/stage1_sample0"]),
        "stage2": (stages[1], golden["act/stage2"]),
        "stage3": (stages[2], golden["act/stage3"]),
        "stage4": (stages[3], golden["act/stage4"]),
        "features": (features, golden["features"]),
    }
    for name, (ours, theirs) in want.items():
        np.testing.assert_allclose(ours, channels_last(theirs), atol=ATOL, rtol=0, err_msg=name)
    np.testing.assert_allclose(logits, golden["logits"], atol=ATOL, rtol=0)


def test_logits_in_float64(golden):
    with jax.enable_x64(True):
        skeleton, params, stats = load(golden, np.float64)
        run = jax.jit(lambda p, s, video_bthwc: skeleton.merge(p, s)(video_bthwc))
        logits = run(params, stats, channels_last(golden["x"]).astype(np.float64))
        assert logits.dtype == np.float64
        np.testing.assert_allclose(logits, golden["logits_f64"], atol=1e-9, rtol=0)


def test_a_training_step(golden):
    skeleton, params, stats = load(golden)
    labels_b = golden["labels"].astype(np.int32)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def step(params, stats, video_bthwc):
        model = skeleton.merge(params, stats)
        logits_by = model(video_bthwc, train=True)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits_by, labels_b).mean()
        return loss, (logits_by, tree.split(model)[1])

    (loss, (logits_by, after)), gradient = step(params, stats, channels_last(golden["x"]))
    np.testing.assert_allclose(loss, golden["train/loss"], rtol=RTOL)
    norms = official.under(golden, "train/gradnorm/")
    assert len(norms) == len(params)
    for name, want in norms.items():
        path = official.path_of("uniformer", config_of(golden), name)
        # The last bias before the final BatchNorm has no gradient but rounding: hence the atol.
        np.testing.assert_allclose(
            np.linalg.norm(gradient[path]), want, rtol=RTOL, atol=1e-6, err_msg=path
        )

    np.testing.assert_allclose(logits_by, golden["train/logits"], rtol=RTOL, atol=ATOL)
    seen = 0
    for name, want in official.under(golden, "train/sd/").items():
        path = official.path_of("uniformer", config_of(golden), name)
        if path is None:
            continue
        seen += 1
        ours = after[path]
        chex.assert_shape(ours, want.shape)
        # A mean near 0 is exact relative to the largest of its layer.
        np.testing.assert_allclose(
            ours, want, rtol=RTOL, atol=RTOL * np.abs(want).max(), err_msg=name
        )
    assert seen == len(stats) > 0
