"""The two kinds of classification head, by their definitions."""

from __future__ import annotations

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from avt_jax.models.heads import ClassificationHead

CLASSES = {"verb": 3, "noun": 5}
BOTH = ("video", "audio")


def make(kind, modalities=BOTH):
    return ClassificationHead(4, CLASSES, modalities=modalities, kind=kind, rngs=nnx.Rngs(0))


@pytest.fixture
def tokens(rng):
    draw = {"video": (2, 6, 4), "audio": (2, 3, 4)}
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in draw.items()}


def test_pooling_is_the_mean_of_normalised_tokens(tokens):
    pooled = make("concat").pool(tokens)
    for name, value in tokens.items():
        value = np.asarray(value, np.float64)
        normal = value - value.mean(-1, keepdims=True)
        normal /= np.sqrt(value.var(-1, keepdims=True) + 1e-6)
        np.testing.assert_allclose(pooled[name], normal.mean(1), atol=1e-5)


def test_concat_is_one_layer_over_both(tokens):
    head = make("concat")
    pooled = head.pool(tokens)
    logits = head(pooled)
    joint = np.concatenate([pooled["video"], pooled["audio"]], -1)
    for name, classes in CLASSES.items():
        layer = head.layers["joint"][name]
        chex.assert_shape(logits[name], (2, classes))
        np.testing.assert_allclose(
            logits[name], joint @ layer.kernel[...] + layer.bias[...], atol=1e-6
        )


def test_average_is_the_mean_of_a_layer_for_each(tokens):
    head = make("average")
    pooled = head.pool(tokens)
    logits = head(pooled)
    for name in CLASSES:
        each = [head.layers[modality][name](pooled[modality]) for modality in BOTH]
        np.testing.assert_allclose(logits[name], (each[0] + each[1]) / 2, atol=1e-6)


def test_without_one_modality(tokens):
    for kind in ("concat", "average"):
        head = make(kind)
        pooled = head.pool({"audio": tokens["audio"]})
        assert list(pooled) == ["audio"]
        logits = head(pooled)
        if kind == "concat":
            want = head({"video": jnp.zeros((2, 4)), "audio": pooled["audio"]})
        else:
            want = {name: layer(pooled["audio"]) for name, layer in head.layers["audio"].items()}
        chex.assert_trees_all_close(logits, want)


@pytest.mark.parametrize("kind", ("concat", "average"))
def test_of_a_single_modality(kind, tokens):
    head = make(kind, modalities=("video",))
    logits = head(head.pool({"video": tokens["video"]}))
    chex.assert_shape([logits["verb"], logits["noun"]], [(2, 3), (2, 5)])
    assert not hasattr(head, "audio_norm")


def test_logits_are_float32_for_bfloat16_tokens(tokens):
    head = make("concat")
    half = {name: value.astype(jnp.bfloat16) for name, value in tokens.items()}
    chex.assert_trees_all_equal_dtypes(head(head.pool(half)), head(head.pool(tokens)))
