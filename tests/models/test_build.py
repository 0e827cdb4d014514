"""Config blocks: what builds, and what is refused with which words."""

from __future__ import annotations

import dataclasses

import pytest
from avt_blocks import CLASSES, SPEC, block
from flax import nnx

from avt_jax import tree
from avt_jax.errors import UserError
from avt_jax.models.ast import ASTConfig
from avt_jax.models.avt import AVT
from avt_jax.models.build import build_model
from avt_jax.models.uniformer import UniFormerConfig


def make(fields, spec=SPEC):
    return nnx.eval_shape(
        lambda: build_model(fields, num_classes=CLASSES, input=spec, rngs=nnx.Rngs(0))
    )


def encoder(name, /, **changes):
    """The block with one encoder's fields changed; None takes a field out."""
    fields = block()[name] | changes
    return block(**{name: {key: value for key, value in fields.items() if value is not None}})


def test_a_variant_with_fields_replaced():
    model = make(encoder("video_encoder", mlp_ratio=3.5, depth=[2, 1, 1, 1]))
    assert isinstance(model, AVT)
    config = model.video_encoder.config
    assert (config.mlp_ratio, config.depth, config.head_dim) == (3.5, (2, 1, 1, 1), 4)
    assert len(model.video_encoder.blocks1) == 2


@pytest.mark.parametrize(
    ("name", "config_class"), (("video_encoder", UniFormerConfig), ("audio_encoder", ASTConfig))
)
def test_every_field_can_be_replaced(name, config_class):
    config = getattr(make(block()), name).config
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config_class)}
    assert getattr(make(encoder(name, **fields)), name).config == config


def test_vit_as_the_video_encoder():
    fields = {"name": "vit", "variant": "tiny", "patch_px": 16}
    model = make(block(video_encoder=fields))
    assert model.video_encoder.width == 64 and model.video_proj.kernel.shape == (64, 8)
    # Two tubelets of 2 x 2 patches, and the class token.
    assert model.video_encoder.embed.pos_embed.shape == (1, 9, 64)
    with pytest.raises(UserError, match="frame_size_px is 32; ViT needs 64 or more"):
        make(block(video_encoder=fields | {"patch_px": 64}))
    with pytest.raises(UserError, match="ViT's tubelet_frames is 0; give 1 or more"):
        make(block(video_encoder=fields | {"tubelet_frames": 0}))


def test_the_size_of_the_input_decides_the_positions():
    longer = dataclasses.replace(SPEC, fbank_frames=80)
    counts = [make(block(), spec).audio_encoder.pos_embed.shape[1] for spec in (SPEC, longer)]
    assert counts == [2 + 2 * 3, 2 + 2 * 5]


@pytest.mark.parametrize("precision", ("float32", "bfloat16"))
def test_parameters_are_float32_whatever_the_precision(precision):
    params = tree.Skeleton(lambda: make(block(precision=precision))).params
    assert {leaf.dtype.name for leaf in params.values()} == {"float32"}


@pytest.mark.parametrize(
    ("fields", "words"),
    (
        (block(name="avtt"), r"config.model.name is 'avtt' \(did you mean 'avt'\?\)"),
        (block(fusoin="merged"), r"config.model.fusoin is not a field \(did you mean 'fusion'\?\)"),
        (block(fusion="late"), "config.model.fusion is 'late'; give 'bottleneck' or 'merged'"),
        (block(modalities="va"), "config.model.modalities is 'va'"),
        (block(head="mean"), "config.model.head is 'mean'"),
        (block(exchange="both"), "config.model.exchange is 'both'"),
        (block(precision="float8"), "config.model.precision is 'float8'"),
        (block(num_heads=3), "num_heads 3 does not divide dim 8"),
        (block(num_heads=0), "num_heads 0"),
        (block(num_bottleneck=0), "num_bottleneck is 0"),
        (block(drop_path=1.0), "config.model.drop_path is 1.0"),
        (
            encoder("video_encoder", name="uniformr"),
            r"video_encoder.name is 'uniformr' \(did you mean 'uniformer'\?\)",
        ),
        (encoder("video_encoder", variant="XL"), "video_encoder.variant is 'XL'.*give one of S, B"),
        (encoder("video_encoder", variant=None), "video_encoder.variant is None"),
        (
            encoder("video_encoder", droppath=0.1),
            r"video_encoder.droppath is not a field \(did you mean 'drop_path'\?\)",
        ),
        (
            encoder("audio_encoder", strides=10),
            r"audio_encoder.strides is not a field \(did you mean 'stride'\?\)",
        ),
        (encoder("audio_encoder", stride=0), "stride is 0"),
    ),
)
def test_mistakes_are_named(fields, words):
    with pytest.raises(UserError, match=words):
        make(fields)


def test_a_missing_field_is_named():
    fields = block()
    del fields["num_blocks"]
    with pytest.raises(UserError, match="config.model lacks num_blocks"):
        make(fields)


@pytest.mark.parametrize(
    ("changes", "words"),
    (
        (dict(frame_size_px=31), "frame_size_px is 31; UniFormer needs 32"),
        (dict(fbank_frames=15), "15 spectrogram frames; AST needs 16"),
    ),
)
def test_inputs_too_small_for_an_encoder(changes, words):
    with pytest.raises(UserError, match=words):
        make(block(), dataclasses.replace(SPEC, **changes))
