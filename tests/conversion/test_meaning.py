"""Weights that fit by shape and not by meaning are refused; what is near enough is not."""

import dataclasses

import numpy as np
import pytest
from flax import nnx
from test_initial import SPEC, VIT_TINY, avt, mbt

from avt_jax import tree
from avt_jax.conversion.initial import check_whole, encoder_variables
from avt_jax.conversion.store import Converted
from avt_jax.errors import UserError
from avt_jax.models.encoders.vit import ViT
from avt_jax.models.mbt import MBTConfig


def audio(**changes):
    """An AVT whose audio encoder is that of the golden file but for some fields."""
    fields = {"name": "ast", "variant": "tiny", "depth": 3, "mlp_ratio": 4.0, "stride": 10}
    return avt(audio_encoder=fields | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_heads": 8}, r"num_heads 4, not 8: .*--config.model.audio_encoder.num_heads=4"),
        ({"stride": 16}, r"stride 10, not 16: .*--config.model.audio_encoder.stride=10"),
        ({"stride": (10, 12)}, r"stride 10, not \(10,12\)"),
        ({"norm_eps": 1e-5}, r"norm_eps 1e-06, not 1e-05: .*norm_eps=1e-06"),
        ({"num_heads": 2, "stride": 16}, r"num_heads 4, not 2 and stride 10, not 16"),
    ],
)
def test_ast_of_another_meaning(ast_weights, changes, words):
    model = audio(**changes)
    with pytest.raises(UserError, match=words) as caught:
        encoder_variables(ast_weights, model, "audio", SPEC)
    assert "fit by their shapes alone" in str(caught.value)


def test_what_is_the_same_is_taken(ast_weights):
    # transformers writes 1e-12 where AST was trained with 1e-6; a pair is a stride, too.
    encoder_variables(ast_weights, audio(norm_eps=1e-12, stride=(10, 10)), "audio", SPEC)


def test_positions_of_pictures_are_for_any_stride(ast_weights):
    positions = np.zeros((1, 2 + 14 * 14, 64), np.float32)
    pictures = dataclasses.replace(
        ast_weights,
        grid=(14, 14),
        config=ast_weights.config | {"stride": 16},
        variables=ast_weights.variables | {"pos_embed": positions},
    )
    encoder_variables(pictures, audio(stride=12), "audio", SPEC)
    # Speech Commands' are square, too, and those of a stride.
    speech = dataclasses.replace(pictures, grid=(12, 12), config=ast_weights.config)
    with pytest.raises(UserError, match="stride 10, not 16"):
        encoder_variables(speech, audio(stride=16), "audio", SPEC)


def test_uniformer_with_other_heads(uniformer_weights):
    fields = {"name": "uniformer", "variant": "tiny", "depth": (1, 2, 2, 1), "mlp_ratio": 4.0}
    with pytest.raises(UserError, match=r"head_dim 16, not 32: .*video_encoder.head_dim=16"):
        model = avt(video_encoder=fields | {"head_dim": 32})
        encoder_variables(uniformer_weights, model, "video", SPEC)
    with pytest.raises(UserError, match=r"std False, not True"):
        model = avt(video_encoder=fields | {"std": True})
        encoder_variables(uniformer_weights, model, "video", SPEC)


def test_vit_with_other_heads_in_either_model():
    model = ViT(VIT_TINY, num_frames=1, frame_size_px=48, num_classes=5, rngs=nnx.Rngs(3))
    variables = {path: np.asarray(value) for path, value in tree.split(model)[0].items()}
    source = {"file": "B_16.npz", "sha256": ""}
    weights = Converted("vit", dataclasses.asdict(VIT_TINY), (1, 3, 3), variables, source, [])
    with pytest.raises(UserError, match=r"num_heads 2, not 4: .*--config.model.num_heads=2"):
        encoder_variables(weights, mbt(num_heads=4), "video", SPEC)
    fields = dict(dim=8, depth=2, num_heads=4, mlp_ratio=2.0, patch_px=16, tubelet_frames=2)
    with pytest.raises(UserError, match="--config.model.video_encoder.num_heads=2"):
        encoder_variables(
            weights, avt(video_encoder={"name": "vit", "variant": "tiny"} | fields), "video", SPEC
        )


def test_a_whole_mbt_of_another_meaning():
    config = dict(dim=8, depth=2, num_heads=2, mlp_ratio=2.0, fusion_layer=1, tubelet_frames=2)
    stored = dataclasses.asdict(MBTConfig(**config))
    weights = Converted("mbt", stored, (), {}, {"file": "x", "sha256": ""}, [])
    check_whole(weights, mbt())
    with pytest.raises(UserError, match=r"fusion_layer 1, not 0: .*config.model.fusion_layer=1"):
        check_whole(weights, mbt(fusion_layer=0))
