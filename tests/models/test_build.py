"""Config blocks: what builds, and what is refused with which words."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest
from avt_blocks import CLASSES, SPEC, block
from flax import nnx

from avt_jax import tree
from avt_jax.errors import UserError
from avt_jax.models.avt import AVT, AVTConfig
from avt_jax.models.build import (
    FUSIONS,
    MODELS,
    abilities,
    blocks,
    build_model,
    recipe_block,
    resolve,
    switch_encoder,
)
from avt_jax.models.encoders import AUDIO_ENCODERS, VIDEO_ENCODERS, tokens
from avt_jax.models.encoders.ast import ASTConfig
from avt_jax.models.encoders.uniformer import DepthwiseConv, UniFormerConfig
from avt_jax.models.kernels.choice import Kernels
from avt_jax.models.layers import Attention
from avt_jax.models.mbt import MBTConfig
from avt_jax.settings import fields_of


def make(fields, spec=SPEC, **options):
    return nnx.eval_shape(
        lambda: build_model(fields, num_classes=CLASSES, input=spec, rngs=nnx.Rngs(0), **options)
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
    with pytest.raises(UserError, match="tubelet_frames is 0; give a whole number of 1 or more"):
        make(block(video_encoder=fields | {"tubelet_frames": 0}))


def test_the_size_of_the_input_decides_the_positions():
    longer = dataclasses.replace(SPEC, fbank_frames=80)
    counts = [make(block(), spec).audio_encoder.pos_embed.shape[1] for spec in (SPEC, longer)]
    assert counts == [2 + 2 * 3, 2 + 2 * 5]


def test_kernels_reach_every_module_that_has_forms():
    model = make(block(kernels="xla"))
    told = {type(m): m.kernels for _, m in nnx.iter_graph(model) if hasattr(m, "kernels")}
    assert told == {Attention: Kernels("xla"), DepthwiseConv: Kernels("xla")}
    measured = Kernels("auto", "cpu", (("attention", "1x1 1x1 float32", "plain"),))
    model = make(block(), kernels=measured)
    assert model.video_encoder.blocks1[0].attn.kernels == measured
    # A module that nobody has told chooses by the device.
    assert DepthwiseConv(4, 3, rngs=nnx.Rngs(0)).kernels == "auto"


@pytest.mark.parametrize("precision", ("float32", "bfloat16"))
def test_parameters_are_float32_whatever_the_precision(precision):
    params = tree.Skeleton(lambda: make(block(precision=precision))).params
    assert {leaf.dtype.name for leaf in params.values()} == {"float32"}


@pytest.mark.parametrize(
    ("fields", "words"),
    (
        (block(name="avtt"), r"config.model.name is 'avtt' \(did you mean 'avt'\?\)"),
        (block(fusoin="merged"), r"config.model.fusoin is not a field \(did you mean 'fusion'\?\)"),
        (
            block(fusion="late"),
            f"config.model.fusion is 'late'; give one of {', '.join(map(repr, list(FUSIONS)[:2]))}",
        ),
        (block(modalities="va"), "config.model.modalities is 'va'"),
        (block(head="mean"), "config.model.head is 'mean'"),
        (block(exchange="both"), "config.model.exchange is 'both'"),
        (block(precision="float8"), "config.model.precision is 'float8'"),
        (block(kernels="tpuu"), r"config.model.kernels is 'tpuu' \(did you mean 'tpu'\?\); give"),
        (block(num_heads=3), "num_heads 3 does not divide dim 8"),
        (block(num_heads=0), "num_heads is 0; give a whole number of 1 or more"),
        (block(decoder_heads=3), "decoder_heads 3 does not divide decoder_dim 8"),
        (block(num_bottleneck=0), "num_bottleneck is 0"),
        (block(drop_path=1.0), "config.model.drop_path is 1.0"),
        (
            encoder("video_encoder", name="uniformr"),
            r"video_encoder.name is 'uniformr' \(did you mean 'uniformer'\?\)",
        ),
        (
            encoder("video_encoder", variant="XL"),
            "video_encoder.variant is 'XL'; uniformer has S, B",
        ),
        (encoder("video_encoder", variant="tinny"), r"\(did you mean 'tiny'\?\)"),
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


# Every name in the registries, in a small model that runs. A name that is listed and cannot be
# built, or is built as something else, fails here.


def small(**changes):
    """A whole block, resolved, of the smallest variants."""
    encoders = {f"{modality}_encoder": {"variant": "smoke"} for modality in ("video", "audio")}
    shared = dict(name="avt", dim=8, num_heads=2, num_blocks=1, precision="float32")
    return resolve(shared | encoders | changes)


CASES = {
    **{f"fusion {name}": small(fusion=name) for name in FUSIONS},
    **{
        f"video encoder {name}": small(video_encoder={"name": name, "variant": "smoke"})
        for name in VIDEO_ENCODERS
        if name != tokens.NAME  # reads no clips: test_cached_tokens
    },
    **{
        f"audio encoder {name}": small(audio_encoder={"name": name, "variant": "smoke"})
        for name in AUDIO_ENCODERS
        if name != tokens.NAME
    },
    "model mbt": resolve(dict(name="mbt", dim=8, num_heads=2, depth=2, fusion_layer=1)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_listed_name_builds_and_runs(case):
    fields = CASES[case]

    def run(video, audio):
        model = build_model(fields, num_classes=CLASSES, input=SPEC, rngs=nnx.Rngs(0))
        outputs = model.fuse(*model.encode(video, audio))
        return outputs["logits"], outputs["tokens"]

    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 4, 32, 32, 3), (2, 48, 32))]
    logits, tokens = jax.eval_shape(run, *given)
    assert {name: value.shape for name, value in logits.items()} == {"verb": (2, 3), "noun": (2, 5)}
    assert {value.shape[0::2] for value in tokens.values()} == {(2, 8)}


def test_the_models_under_test_are_all_that_are_listed():
    assert {fields["name"] for fields in CASES.values()} == set(MODELS)
    built = {type(make(fields).fusion) for name, fields in CASES.items() if "fusion" in name}
    assert len(built) == len(FUSIONS), "two names stand for one fusion"
    for known in (VIDEO_ENCODERS, AUDIO_ENCODERS):
        for name, module in known.items():
            assert {"tiny", "smoke"} <= set(module.VARIANTS), name
            assert len({type(config) for config in module.VARIANTS.values()}) == 1


def test_the_fields_of_fusions_do_not_collide():
    owners = [AVTConfig, *(module.Config for module in FUSIONS.values())]
    names = [field.name for owner in owners for field in fields_of(owner)]
    assert len(names) == len(set(names))
    assert not {"name", "video_encoder", "audio_encoder"} & set(names)


def test_mbt_names_its_fusions_as_avt_does():
    (fusion,) = (field for field in fields_of(MBTConfig) if field.name == "fusion")
    assert set(fusion.rule.choices) <= set(FUSIONS)


@pytest.mark.parametrize("name", MODELS)
def test_resolving_fills_in_everything_and_does_so_once(name):
    found = resolve({"name": name})
    assert resolve(found) == found == resolve(json.loads(json.dumps(found)))
    assert found == resolve(recipe_block(name))
    listed = [(place, b.to_dict()) for place, b in blocks({"name": name})]
    flat = {
        key: value for place, one in listed if place == "config.model" for key, value in one.items()
    }
    assert flat == {key: value for key, value in found.items() if not isinstance(value, dict)}
    for key, value in found.items():
        if isinstance(value, dict):
            parts = [one for place, one in listed if place == f"config.model.{key}"]
            assert value == {k: v for one in parts for k, v in one.items()}


# The block of a run that a version before cross-attention saved.
SAVED = {
    "name": "avt",
    "modalities": "av",
    "dim": 64,
    "num_heads": 4,
    "mlp_ratio": 3.0,
    "fusion": "bottleneck",
    "num_blocks": 2,
    "num_bottleneck": 4,
    "exchange": "average",
    "head": "concat",
    "projection_dim": 64,
    "temperature": 0.07,
    "contrastive_bias": -10.0,
    "drop_path": 0.0,
    "decoders": ["audio"],
    "decoder_dim": 32,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "precision": "float32",
    "video_encoder": {"name": "uniformer", "variant": "tiny", "drop_path": 0.0, "remat": "none"},
    "audio_encoder": {"name": "ast", "variant": "tiny", "stride": [10, 16], "drop_path": 0.0},
}


def test_the_block_of_an_earlier_version_is_the_same_model():
    found = resolve(SAVED)
    for key, value in SAVED.items():
        if not isinstance(value, dict):
            assert found[key] == (tuple(value) if isinstance(value, list) else value)
    assert found["video_encoder"]["depth"] == (1, 1, 2, 1)
    assert found["audio_encoder"]["stride"] == (10, 16)
    paths = tree.Skeleton(lambda: make(SAVED)).params
    assert {
        "fusion/bottleneck",
        "fusion/video_blocks/1/attn/qkv/kernel",
        "fusion/audio_blocks/0/mlp/fc1/bias",
        "video_encoder/blocks1/0/attn/kernel",
        "audio_encoder/blocks/1/norm2/scale",
        "audio_decoder/blocks/0/attn/proj/kernel",
        "audio_mask_token",
        "head/layers/joint/verb/kernel",
        "match_head/kernel",
    } <= set(paths)
    merged = tree.Skeleton(lambda: make(SAVED | {"fusion": "merged"})).params
    assert "fusion/blocks/1/attn/qkv/kernel" in merged


def test_what_mbt_called_concat_is_merged():
    saved = dict(name="mbt", fusion="concat", num_bottleneck=4)
    assert resolve(saved)["fusion"] == "merged"
    # Only there: AVT never had that name.
    with pytest.raises(UserError, match="config.model.fusion is 'concat'"):
        resolve({"name": "avt", "fusion": "concat"})


def test_abilities_are_what_the_model_has():
    assert abilities(SAVED) == {"project", "match", "reconstruct audio"}
    assert abilities(SAVED | {"modalities": "video"}) == set()
    assert abilities(SAVED | {"modalities": "audio"}) == {"reconstruct audio"}
    assert abilities({"name": "mbt"}) == set()


RECIPE = {"name": "uniformer", "variant": "B", "drop_path": 0.3, "remat": "none"}


@pytest.mark.parametrize(
    ("before", "choice", "after"),
    (
        # Another encoder has no variant B, but a drop path.
        (RECIPE, {"name": "vit"}, {"name": "vit", "variant": "base", "drop_path": 0.3}),
        (
            {"name": "uniformer", "variant": "smoke"},
            {"name": "vit"},
            {"name": "vit", "variant": "smoke"},
        ),
        # Depths of four stages mean nothing to it.
        (
            {"name": "uniformer", "variant": "tiny", "depth": (1, 2, 2, 1), "mlp_ratio": 2.0},
            {"name": "vit"},
            {"name": "vit", "variant": "tiny", "mlp_ratio": 2.0},
        ),
        (RECIPE, {"variant": "S"}, {"name": "uniformer", "variant": "S", "drop_path": 0.3}),
        (
            {"name": "vit", "variant": "tiny", "patch_px": 4},
            {"name": "uniformer", "variant": "S"},
            {"name": "uniformer", "variant": "S"},
        ),
    ),
)
def test_choosing_another_encoder_keeps_what_still_means_something(before, choice, after):
    assert switch_encoder(before, "video", **choice) == after
    # With every field spelled out, as a resolved config has it, only what was changed counts.
    whole = resolve({"name": "avt", "video_encoder": before})["video_encoder"]
    assert switch_encoder(whole, "video", **choice) == after
    resolve({"name": "avt", "video_encoder": after})


def test_choosing_an_encoder_that_there_is_not():
    with pytest.raises(UserError, match=r"name is 'uniformr' \(did you mean 'uniformer'\?\)"):
        switch_encoder(RECIPE, "video", name="uniformr")
    with pytest.raises(UserError, match="variant is 'B'; vit has base, tiny, smoke"):
        switch_encoder(RECIPE, "video", name="vit", variant="B")


@pytest.mark.parametrize("before,now", ((False, "none"), (True, "blocks")))
def test_what_is_recomputed_had_no_names_once(before, now):
    saved = {"video_encoder": {"variant": "tiny", "remat": before}}
    assert resolve(saved)["video_encoder"]["remat"] == now
    assert resolve({"name": "mbt", "remat": before})["remat"] == now
