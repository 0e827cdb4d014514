"""A model with cached tokens in place of its encoders, and what it refuses."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from avt_jax import UserError
from avt_jax.models.build import build_model
from avt_jax.models.forward import Forward, Normalisation
from avt_jax.models.inputs import InputSpec
from avt_jax.training.mixing import MixingConfig, make_mix

SPEC = InputSpec(4, 32, 48, 32, (3, 4), (5, 2))
CACHED = {f"{name}_encoder": {"name": "tokens"} for name in ("video", "audio")}
BLOCK = dict(dim=8, num_heads=2, num_blocks=1, decoders=(), precision="float32", **CACHED)


def make(block=BLOCK, spec=SPEC):
    return build_model(block, num_classes={"label": 3}, input=spec, rngs=nnx.Rngs(0))


def test_tokens_go_to_the_projection_as_they_are():
    model, rng = make(), np.random.default_rng(0)
    video, audio = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 5, 2))
    batch = {"video": jnp.float32(video), "audio": jnp.float32(audio)}
    constants = Normalisation((0.5,) * 3, (0.1,) * 3, 7.0, 3.0, is_tokens=True)
    forward = Forward(model, batch, constants, train=False)
    for name, value, found in zip(("video", "audio"), (video, audio), forward.tokens, strict=True):
        layer = getattr(model, f"{name}_proj")
        expected = value @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert forward.logits["label"].shape == (2, 3)
    assert not [path for path, _ in nnx.to_flat_state(nnx.state(model)) if "encoder" in path[0]]


def test_one_modality():
    spec = dataclasses.replace(SPEC, video_tokens=(0, 0))
    model = make(BLOCK | {"modalities": "audio"}, spec)
    batch = {"video": jnp.zeros((2, 0, 0)), "audio": jnp.ones((2, 5, 2))}
    constants = Normalisation((0.5,) * 3, (0.1,) * 3, 7.0, 3.0, is_tokens=True)
    assert Forward(model, batch, constants, train=False).logits["label"].shape == (2, 3)
    labels = {"label": jnp.array([0, 1])}
    mix = make_mix(MixingConfig(mixup_alpha=1.0), ["classification"])
    mixed = mix(batch | {"labels": labels, "valid": jnp.ones(2, bool)}, nnx.Rngs(0).params())
    assert np.isfinite(mixed["own_share"]).all() and mixed["audio"].shape == (2, 5, 2)


@pytest.mark.parametrize(
    ("block", "spec", "words"),
    [
        (BLOCK | {"decoders": ("audio",)}, SPEC, "no patches to reconstruct"),
        (BLOCK, dataclasses.replace(SPEC, video_tokens=(0, 0)), "video_tokens gives no shape"),
        (BLOCK, InputSpec(4, 32, 48, 32), "own:tokens has it"),
        (BLOCK | {"audio_encoder": {"variant": "smoke"}}, SPEC, "tokens for video, ast for audio"),
        (dict(name="mbt", dim=8, num_heads=2, depth=2, fusion_layer=1), SPEC, "mbt for av"),
    ],
)
def test_what_does_not_go_together(block, spec, words):
    with pytest.raises(UserError, match=words):
        make(block, spec)
