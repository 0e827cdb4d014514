"""MBT with official weights against logits and tokens of the original."""

from __future__ import annotations

import jax
import numpy as np
import official
import pytest

from avt_jax.conversion import from_state_dict
from avt_jax.models.mbt import MBTConfig

# float32 sums in another order than the original's, through four layers.
ATOL = 5e-5
SIZES = dict(
    dim=32, depth=4, num_heads=2, mlp_ratio=2.0, fusion_layer=2, num_bottleneck=4, tubelet_frames=2
)
CONFIGS = {
    "mbt_tiny_a": MBTConfig(fusion="bottleneck", **SIZES),
    "mbt_tiny_d_concat": MBTConfig(fusion="merged", **SIZES),
}
# The original's names of the modalities.
NAMES = {"audio": "spectrogram", "video": "rgb"}


def load(name, **options):
    golden = official.golden(name)
    return golden, from_state_dict(
        "mbt", official.under(golden, "params/"), CONFIGS[name], **options
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_tokens_and_logits(name):
    golden, model = load(name)

    @jax.jit
    def run(video, spectrogram):
        tokens = model.encode(video, spectrogram)
        trained = model.fuse(*model.encode(video, spectrogram, train=True), train=True)
        return model.fuse(*tokens), trained["modality_logits"]

    out, trained = run(golden["rgb"], golden["spectrogram"])
    tokens = np.concatenate([out["tokens"][modality] for modality in NAMES], 1)
    np.testing.assert_allclose(tokens, golden["tokens"], atol=ATOL, rtol=0)
    np.testing.assert_allclose(out["logits"]["label"], golden["logits"], atol=ATOL, rtol=0)
    for modality, official_name in NAMES.items():
        np.testing.assert_allclose(
            trained[modality]["label"], golden[f"train_logits/{official_name}"], atol=ATOL, rtol=0
        )


def test_logits_without_bottlenecks():
    golden = official.golden("mbt_tiny_a")
    config = MBTConfig(test_with_bottlenecks=False, **SIZES)
    model = from_state_dict("mbt", official.under(golden, "params/"), config)
    np.testing.assert_allclose(
        model(golden["rgb"], golden["spectrogram"]),
        golden["logits_test_without_bottlenecks"],
        atol=ATOL,
        rtol=0,
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_in_float64(name):
    with jax.enable_x64(True):
        golden, model = load(name)
        logits = jax.jit(lambda v, a: model(v, a))(
            golden["rgb"].astype(np.float64), golden["spectrogram"].astype(np.float64)
        )
        assert logits.dtype == np.float64
        np.testing.assert_allclose(logits, golden["logits_f64"], atol=1e-9, rtol=0)
