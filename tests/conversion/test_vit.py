"""ViT from published names: the same network as a tower of MBT, and 2-D kernels in time."""

import jax.numpy as jnp
import numpy as np
import official

from avt_jax.conversion import from_state_dict
from avt_jax.models.encoders.vit import ViTConfig
from avt_jax.models.mbt import MBTConfig


def test_vit_computes_what_mbts_video_tower_does():
    """MBT's tower is held to the original in test_mbt_parity."""
    golden = official.golden("mbt_tiny_a")
    params = official.under(golden, "params/")
    video = {k: v for k, v in params.items() if "spectrogram" not in k and k != "bottleneck"}
    config = MBTConfig(
        modalities="video", dim=32, depth=4, num_heads=2, mlp_ratio=2.0, fusion_layer=4
    )
    mbt = from_state_dict("mbt", video, config)
    tokens = mbt.fuse(mbt.encode(golden["rgb"], None)[0], None)["tokens"]["video"]
    renamed = official.augreg(params) | {
        k: v
        for k, v in params.items()
        if k in ("embedding/kernel", "Transformer/posembed_input/pos_embedding")
    }
    vit = from_state_dict("vit", renamed)
    assert vit.config.tubelet_frames == 2
    np.testing.assert_allclose(vit.all_tokens(golden["rgb"]), tokens, atol=1e-6)


def test_a_2d_kernel_sees_the_central_frame_of_a_tubelet():
    golden = official.golden("mbt_tiny_a")
    params = official.under(golden, "params/")
    positions = "Transformer/posembed_input/pos_embedding"
    weights = official.augreg(params) | {positions: params[positions]}
    config = ViTConfig(dim=32, depth=4, num_heads=2, mlp_ratio=2.0, tubelet_frames=2)
    vit = from_state_dict("vit", weights, config)
    tokens = vit.all_tokens(golden["rgb"])
    other_frames = jnp.asarray(golden["rgb"]).at[:, ::2].set(9.0)
    np.testing.assert_allclose(tokens, vit.all_tokens(other_frames), atol=1e-6)
    seen = jnp.asarray(golden["rgb"]).at[:, 1::2].set(9.0)
    assert jnp.abs(tokens - vit.all_tokens(seen)).max() > 0.1
