"""AST with official weights against activations, losses and gradients of the original."""

from __future__ import annotations

import ast as literals

import jax
import numpy as np
import official
import optax
import pytest

from avt_jax.models.encoders.ast import ASTConfig

# float32 sums in another order than the original's, through three blocks.
ATOL = 5e-5
# Relative, for what a training step computes.
RTOL = 1e-4


@pytest.fixture(scope="module")
def golden():
    return official.golden("ast_tiny_a")


def config_of(golden):
    cfg = literals.literal_eval(str(golden["cfg"]))
    return ASTConfig(
        dim=cfg["embed_dim"],
        depth=cfg["depth"],
        num_heads=cfg["num_heads"],
        stride=(cfg["fstride"], cfg["tstride"]),
    )


def load(golden, dtype=np.float32):
    return official.load("ast", config_of(golden), official.under(golden, "sd/"), dtype)


def test_tokens_features_and_logits(golden):
    skeleton, params, stats = load(golden)

    @jax.jit
    def run(params, fbank_bsf):
        model = skeleton.merge(params, stats)
        return model.all_tokens(fbank_bsf), model.features(fbank_bsf), model(fbank_bsf)

    tokens, features, logits = run(params, golden["x"])
    np.testing.assert_allclose(tokens, golden["act/tokens_norm"], atol=ATOL, rtol=0)
    np.testing.assert_allclose(features, golden["features"], atol=ATOL, rtol=0)
    np.testing.assert_allclose(logits, golden["logits"], atol=ATOL, rtol=0)


def test_logits_in_float64(golden):
    with jax.enable_x64(True):
        skeleton, params, stats = load(golden, np.float64)
        run = jax.jit(lambda p, fbank_bsf: skeleton.merge(p, stats)(fbank_bsf))
        logits = run(params, golden["x"].astype(np.float64))
        assert logits.dtype == np.float64
        np.testing.assert_allclose(logits, golden["logits_f64"], atol=1e-9, rtol=0)


def test_loss_and_gradients(golden):
    skeleton, params, stats = load(golden)
    labels_b = golden["labels"].astype(np.int32)

    @jax.jit
    @jax.value_and_grad
    def loss_of(params):
        logits_by = skeleton.merge(params, stats)(golden["x"], train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits_by, labels_b).mean()

    loss, gradient = loss_of(params)
    np.testing.assert_allclose(loss, golden["train/loss"], rtol=RTOL)
    norms = official.under(golden, "train/gradnorm/")
    assert len(norms) == len(params)
    for name, want in norms.items():
        path = official.path_of("ast", config_of(golden), name)
        np.testing.assert_allclose(np.linalg.norm(gradient[path]), want, rtol=RTOL, err_msg=path)
