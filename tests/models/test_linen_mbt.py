"""The tests' own MBT against stored results of the original: names, tokens, logits."""

from __future__ import annotations

import jax
import linen_mbt
import numpy as np
import official
import pytest

TINY = dict(
    dim=32,
    depth=4,
    num_heads=2,
    hidden=64,
    num_classes=7,
    patch_px=16,
    tubelet_frames=2,
    fusion_layer=2,
    num_bottleneck=4,
)
# float32 sums in another order than the original's, through four layers.
ATOL = 5e-5


@pytest.mark.parametrize(
    ("name", "fusion"), [("mbt_tiny_a", "bottleneck"), ("mbt_tiny_d_concat", "concat")]
)
def test_linen_mbt_is_the_original(name, fusion):
    golden = official.golden(name)
    model = linen_mbt.LinenMBT(**TINY, fusion=fusion)
    inputs = golden["rgb"], golden["spectrogram"]
    arrays = official.under(golden, "params/")
    assert linen_mbt.shapes_of(model, *inputs) == {n: a.shape for n, a in arrays.items()}

    variables = {"params": linen_mbt.unflat(arrays)}
    apply = jax.jit(model.apply, static_argnames="exchange")
    out = apply(variables, *inputs)
    np.testing.assert_allclose(out["tokens"], golden["tokens"], atol=ATOL)
    np.testing.assert_allclose(out["logits"], golden["logits"], atol=ATOL)
    np.testing.assert_allclose(out["logits"], golden["logits_f64"], atol=ATOL)
    for modality, logits in official.under(golden, "train_logits/").items():
        np.testing.assert_allclose(out["logits_of"][modality], logits, atol=ATOL)
    alone = "logits_test_without_bottlenecks"
    if alone in golden:
        found = apply(variables, *inputs, exchange=False)["logits"]
        np.testing.assert_allclose(found, golden[alone], atol=ATOL)
        assert np.abs(found - golden["logits"]).max() > 100 * ATOL, "the exchange matters"
