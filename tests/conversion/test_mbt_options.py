"""MBT's options with random weights of any size, against the tests' own MBT in Linen."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import linen_mbt
import numpy as np
import pytest

from avt_jax.conversion import KINDS, from_state_dict
from avt_jax.models.mbt import MBTConfig

# float32 sums in another order, through up to three layers.
ATOL = 5e-5
SMALL = MBTConfig(
    dim=16,
    depth=2,
    num_heads=2,
    mlp_ratio=2.0,
    patch_px=8,
    tubelet_frames=2,
    fusion_layer=1,
    num_bottleneck=3,
)
# Sizes that no two axes share, so that none can be taken for another.
VIDEO, SPECTROGRAM = (2, 4, 16, 24, 3), (2, 40, 16, 3)
CASES = {
    "other sizes": dict(dim=24, depth=3, num_heads=3, mlp_ratio=3.0, num_bottleneck=1),
    "other patches, mean of all tokens": dict(
        patch_px=4, tubelet_frames=4, num_heads=4, depth=1, fusion_layer=0, classifier="gap"
    ),
    "shared, patches of each frame": dict(share_encoder=True, tubelet_frames=1),
    "shared concatenation": dict(share_encoder=True, fusion="merged"),
    "concatenation at 0": dict(fusion="merged", fusion_layer=0, tubelet_frames=1),
    "mean of all tokens, concatenation": dict(classifier="gap", fusion="merged"),
    "never fused": dict(fusion_layer=2, mlp_ratio=1.5),
    "tested without exchange": dict(test_with_bottlenecks=False, fusion_layer=0),
    "video only": dict(modalities="video", fusion_layer=0, classifier="gap"),
}


def linen_model(config, num_classes):
    return linen_mbt.LinenMBT(
        num_classes=num_classes,
        hidden=int(config.dim * config.mlp_ratio),
        fusion="concat" if config.fusion == "merged" else config.fusion,  # the original's word
        tubelet_frames=None if config.tubelet_frames == 1 else config.tubelet_frames,
        **{
            name: getattr(config, name)
            for name in (
                "dim",
                "depth",
                "num_heads",
                "patch_px",
                "fusion_layer",
                "num_bottleneck",
                "share_encoder",
                "classifier",
            )
        },
    )


def random_weights(rng, shapes):
    """Normal for every leaf, also for those that start at 0; products keep their size."""
    arrays = {}
    for name, shape in shapes.items():
        scale = 0.1
        if name.endswith("kernel"):
            inputs = math.prod(shape[:-1]) if "/out/" in name or "embed" in name else shape[0]
            scale = 1.5 / math.sqrt(inputs)
        array = rng.normal(size=shape, scale=scale) + name.endswith("/scale")
        arrays[name] = array.astype(np.float32)
    return arrays


@functools.cache
def example(case):
    """(config, the model in Linen, video, spectrogram, weights)."""
    config = dataclasses.replace(SMALL, **CASES[case])
    rng = np.random.default_rng(list(CASES).index(case))
    video, spectrogram = (rng.normal(size=s).astype(np.float32) for s in (VIDEO, SPECTROGRAM))
    if config.modalities == "video":
        spectrogram = None
    original = linen_model(config, num_classes=int(rng.integers(2, 9)))
    arrays = random_weights(rng, linen_mbt.shapes_of(original, video, spectrogram))
    return config, original, video, spectrogram, arrays


@pytest.mark.parametrize("case", CASES)
def test_tokens_and_logits_of_the_model_in_linen(case):
    config, original, *inputs, arrays = example(case)
    apply = functools.partial(original.apply, exchange=config.test_with_bottlenecks)
    weights = {"params": linen_mbt.unflat(arrays)}
    want = jax.jit(apply)(weights, *inputs)
    model = from_state_dict("mbt", arrays, config)
    tokens, logits = jax.jit(run)(model, *inputs)
    np.testing.assert_allclose(tokens, want["tokens"], atol=ATOL, rtol=0)
    np.testing.assert_allclose(logits, want["logits"], atol=ATOL, rtol=0)
    assert logits.shape == (2, original.num_classes)
    assert np.abs(logits[0] - logits[1]).max() > 1000 * ATOL, "the logits hang on the input"


def run(model, video, spectrogram):
    out = model.fuse(*model.encode(video, spectrogram))
    tokens = [out["tokens"][name] for name in ("audio", "video") if name in out["tokens"]]
    return jnp.concatenate(tokens, 1), out["logits"]["label"]


@pytest.mark.parametrize("case", CASES)
def test_the_config_is_read_off_the_weights(case):
    config, *_, arrays = example(case)
    found = KINDS["mbt"].infer(arrays)
    # What weights do not tell: where the fusion starts, whether it is left out, and all about
    # bottlenecks that are not there.
    unknown = ["fusion_layer", "test_with_bottlenecks"]
    if "bottleneck" not in arrays:
        unknown.append("num_bottleneck")
    changes = {name: getattr(config, name) for name in unknown}
    assert dataclasses.replace(found, **changes) == config
