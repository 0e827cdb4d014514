"""`config.init`: converted encoders and whole models as the start of a training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import official
import pytest
from avt_blocks import block
from flax import nnx

from avt_jax import tree
from avt_jax.conversion.initial import InitConfig, encoder_variables, model_variables
from avt_jax.conversion.store import Converted
from avt_jax.errors import UserError
from avt_jax.models.build import build_model
from avt_jax.models.encoders.vit import ViT, ViTConfig
from avt_jax.models.inputs import InputSpec
from avt_jax.models.mbt import MBTConfig
from avt_jax.models.posemb import adapt_ast_grid

VIT_TINY = ViTConfig(dim=8, depth=2, num_heads=2, mlp_ratio=2.0, patch_px=16, tubelet_frames=1)
SPEC = InputSpec(num_frames=4, frame_size_px=32, fbank_frames=120, mel_bins=128)


@pytest.fixture(scope="module")
def vit_weights():
    model = ViT(VIT_TINY, num_frames=1, frame_size_px=48, num_classes=5, rngs=nnx.Rngs(3))
    variables = {path: np.asarray(value) for path, value in tree.split(model)[0].items()}
    source = {"file": "B_16.npz", "sha256": ""}
    return Converted("vit", dataclasses.asdict(VIT_TINY), (1, 3, 3), variables, source, [])


def avt(spec=SPEC, **changes):
    """An AVT with the encoders of the golden files."""
    encoders = {
        "video_encoder": {
            "name": "uniformer",
            "variant": "tiny",
            "depth": (1, 2, 2, 1),
            "mlp_ratio": 4.0,
        },
        "audio_encoder": {
            "name": "ast",
            "variant": "tiny",
            "depth": 3,
            "mlp_ratio": 4.0,
            "stride": 10,
        },
    }
    fields = block(**(encoders | changes))
    return built(fields, spec)


def built(fields, spec):
    """A model without arrays; shapes are all that the functions under test look at."""
    return nnx.eval_shape(
        lambda: build_model(fields, num_classes={"label": 3}, input=spec, rngs=nnx.Rngs(0))
    )


def mbt(**changes):
    fields = dict(dim=8, depth=2, num_heads=2, mlp_ratio=2.0, fusion_layer=1, tubelet_frames=2)
    config = dataclasses.asdict(MBTConfig(**(fields | changes))) | {"name": "mbt"}
    return built(config, SPEC)


def merged(model, variables):
    """The model with these variables; the others are zeros."""
    skeleton = tree.Skeleton(lambda: model)
    assert variables.keys() <= (skeleton.params | skeleton.stats).keys()
    params, stats = (
        {
            path: jnp.asarray(variables.get(path, np.zeros(leaf.shape)))
            for path, leaf in group.items()
        }
        for group in (skeleton.params, skeleton.stats)
    )
    return skeleton.merge(params, stats)


def test_uniformer_in_an_avt_computes_what_it_did(uniformer_weights):
    golden = official.golden("uniformer_tiny_a")
    model = avt()
    variables, said = encoder_variables(uniformer_weights, model, "video", SPEC)
    assert "their head left out" in said
    video_bthwc = golden["x"].transpose(0, 2, 3, 4, 1)
    features = jax.jit(merged(model, variables).video_encoder.features)(video_bthwc)
    np.testing.assert_allclose(
        features, golden["features"].transpose(0, 2, 3, 4, 1), atol=5e-5, rtol=0
    )


@pytest.mark.parametrize("num_frames", [204, 120, 300])
def test_ast_in_an_avt_gets_adapted_positions(ast_weights, num_frames):
    spec = dataclasses.replace(SPEC, fbank_frames=num_frames)
    model = avt(spec)
    variables, said = encoder_variables(ast_weights, model, "audio", spec)
    columns = (num_frames - 16) // 10 + 1
    assert (f"adapted from (12, 19) to (12, {columns})" in said) == (num_frames != 204)
    old = ast_weights.variables["pos_embed"][0]
    new = variables["audio_encoder/pos_embed"][0]
    np.testing.assert_array_equal(new[:2], old[:2])
    np.testing.assert_array_equal(new[2:], adapt_ast_grid(old[2:], (12, 19), (12, columns)))
    fbank_bsf = np.zeros((1, num_frames, 128), np.float32)
    assert np.isfinite(merged(model, variables).audio_encoder.tokens(fbank_bsf)).all()


def test_vit_goes_into_both_towers_of_mbt(vit_weights):
    model = mbt()
    found = {}
    for modality in ("video", "audio"):
        variables, said = encoder_variables(vit_weights, model, modality, SPEC)
        assert "positions adapted from (1, 3, 3)" in said
        found |= variables
    new = tree.split(merged(model, found))[0]
    assert new.keys() - found.keys() == {"bottleneck", "heads/label/kernel", "heads/label/bias"}
    old = vit_weights.variables
    for name in ("video", "audio"):
        np.testing.assert_array_equal(
            new[f"{name}/blocks/1/attn/qkv/kernel"], old["blocks/1/attn/qkv/kernel"]
        )
    # The central frame of a tubelet sees what the image model saw, the other nothing.
    kernel = np.asarray(new["video/embed/proj/kernel"]).reshape(2, -1, 8)
    np.testing.assert_array_equal(kernel[1], old["embed/proj/kernel"])
    assert not kernel[0].any()
    # 2 x 2 patches on each of 2 tubelets; 7 x 8 on the spectrogram; and the class token.
    assert new["video/embed/pos_embed"].shape[1] == 1 + 2 * 2 * 2
    assert new["audio/embed/pos_embed"].shape[1] == 1 + 7 * 8
    positions = np.asarray(new["video/embed/pos_embed"])[0]
    np.testing.assert_array_equal(positions[1:5], positions[5:])
    np.testing.assert_array_equal(positions[1], old["embed/pos_embed"][0, 1])


def test_vit_for_a_shared_encoder_without_class_tokens(vit_weights):
    model = mbt(share_encoder=True, classifier="gap")
    variables, said = encoder_variables(vit_weights, model, "audio", SPEC)
    assert "blocks left out, as the encoder is shared" in said and "class token left out" in said
    merged(model, variables)


def test_vit_as_the_video_encoder_of_avt(vit_weights):
    fields = dict(dim=8, depth=2, num_heads=2, mlp_ratio=2.0, patch_px=16, tubelet_frames=2)
    model = avt(video_encoder={"name": "vit", "variant": "tiny"} | fields)
    variables, _ = encoder_variables(vit_weights, model, "video", SPEC)
    video = np.ones((1, 4, 32, 32, 3), np.float32)
    assert merged(model, variables).video_encoder.tokens(video).shape == (1, 8, 8)


def test_what_does_not_fit(ast_weights, uniformer_weights, vit_weights):
    with pytest.raises(UserError, match="of kind ast, the video encoder takes uniformer"):
        encoder_variables(ast_weights, avt(), "video", SPEC)
    with pytest.raises(UserError, match="of kind uniformer, the video encoder takes vit"):
        encoder_variables(uniformer_weights, mbt(), "video", SPEC)
    with pytest.raises(UserError, match="no video encoder; leave config.init.video empty"):
        encoder_variables(uniformer_weights, avt(modalities="audio"), "video", SPEC)
    deeper = {"name": "uniformer", "variant": "tiny", "depth": (1, 2, 3, 1), "mlp_ratio": 4.0}
    with pytest.raises(UserError, match="nothing fills .*blocks3/2/"):
        encoder_variables(uniformer_weights, avt(video_encoder=deeper), "video", SPEC)
    with pytest.raises(UserError, match="give the whole model or its encoders"):
        InitConfig(video="a", audio="", model="b")


def test_a_whole_model_with_other_classes():
    new = mbt()
    variables = {
        path: np.zeros(leaf.shape, np.float32) for path, leaf in tree.split(new)[0].items()
    }
    found, said = model_variables(variables, new)
    assert found.keys() == variables.keys() and said == "all weights"
    variables["heads/label/kernel"] = np.zeros((8, 9), np.float32)
    variables["heads/label/bias"] = np.zeros(9, np.float32)
    found, said = model_variables(variables, new)
    assert said == "all weights but new heads: heads/label"
    assert variables.keys() - found.keys() == {"heads/label/kernel", "heads/label/bias"}
    variables["norm/scale"] = np.zeros(9, np.float32)
    with pytest.raises(UserError, match=r"wrong shape norm/scale \(9,\) for \(8,\)"):
        model_variables(variables, new)
