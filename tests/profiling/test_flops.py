"""Analytic counts against published figures, and against the models' own programs."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from avt_jax import tree
from avt_jax.models.build import build_model
from avt_jax.models.encoders import ast, uniformer
from avt_jax.models.inputs import InputSpec
from avt_jax.models.mbt import MBTConfig
from avt_jax.profiling import flops, parts
from configs import common

CLIP = InputSpec(num_frames=8, frame_size_px=224, fbank_frames=800, mel_bins=128)


def uniformer_norms(config, num_frames):
    """What the published figures count besides: 5 per element of a LayerNorm, 2 of a BatchNorm."""
    layer_norms = batch_norms = 0
    grid = flops.uniformer_grid(config, num_frames, 224)
    for stage, (depth, dim, (t, space)) in enumerate(
        zip(config.depth, config.dim, grid, strict=True)
    ):
        size = t * space * dim
        layer_norms += size  # of the patch embedding
        if stage < 2:
            batch_norms += 2 * depth * size
        else:
            layer_norms += 2 * depth * size
    return 5 * layer_norms + 2 * (batch_norms + size)  # the final norm, after the last stage


@pytest.mark.parametrize(
    "variant,num_frames,published,digits",
    [("S", 16, 41.76, 2), ("B", 16, 96.74, 2), ("S", 8, 17.6, 1), ("B", 8, 40.2, 1)],
)
def test_uniformer_as_published(variant, num_frames, published, digits):
    # The published figures are those of a counter that adds the norms to the multiply-adds; ours
    # leave them out. With them every printed digit agrees.
    config = uniformer.VARIANTS[variant]
    macs = flops.uniformer(config, num_frames, 224, num_classes=400)
    assert round((macs + uniformer_norms(config, num_frames)) / 1e9, digits) == published
    assert 0.997 < macs / 1e9 / published < 1


@pytest.mark.parametrize(
    "stride,num_frames,published", [(10, 1024, 130.6), (16, 1024, 48.7), (16, 400, 18.0)]
)
def test_ast_as_published(stride, num_frames, published):
    config = dataclasses.replace(ast.VARIANTS["base"], stride=stride)
    macs = flops.ast(config, num_frames, 128, num_classes=527)
    rows, columns = ast.patch_grid(num_frames, 128, config)
    # As for UniFormer: the published figures count 5 per element of the 25 LayerNorms.
    norms = 5 * (2 * config.depth + 1) * (rows * columns + 2) * config.dim
    assert round((macs + norms) / 1e9, 1) == published
    assert 0.996 < macs / 1e9 / published < 1


@pytest.mark.parametrize(
    "options,measured_gflop",
    [
        ({}, 437.05),
        (dict(fusion="merged"), 612.3),
        (dict(fusion="merged", fusion_layer=0), 964.4),
        (dict(modalities="audio"), 74.8),
        (dict(modalities="video"), 361.4),
    ],
)
def test_mbt_near_what_xla_counts_of_the_original(options, measured_gflop):
    # XLA adds element-wise work, the softmax above all: 0.4 to 0.8 %, more as attention grows.
    found = flops.mbt(MBTConfig(tubelet_frames=1, **options), {"label": 527}, CLIP)
    assert 0.989 < 2 * sum(found.values()) / 1e9 / measured_gflop < 0.998


def matrix_products(jaxpr):
    """Multiply-adds of all matrix products and convolutions that a program holds."""
    total = 0
    for equation in jaxpr.eqns:
        name, values = equation.primitive.name, equation.params
        if name == "dot_general":
            left = equation.invars[0].aval.shape
            contracted = values["dimension_numbers"][0][0]
            taps = 1
            for axis in contracted:
                taps *= left[axis]
            total += taps * equation.outvars[0].aval.size
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            spec = values["dimension_numbers"].rhs_spec
            per_output = equation.invars[1].aval.size // kernel[spec[0]]
            total += per_output * equation.outvars[0].aval.size
        for value in values.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += matrix_products(inner)
    return total


def depthwise(config, num_frames, size_px):
    """Multiply-adds of UniFormer's depthwise convolutions, which are no matrix products."""
    grid = flops.uniformer_grid(config, num_frames, size_px)
    taps = (27 + 125, 27 + 125, 27, 27)
    stages = zip(config.depth, config.dim, grid, taps, strict=True)
    return sum(depth * dim * t * space * n for depth, dim, (t, space), n in stages)


INPUT = InputSpec(num_frames=6, frame_size_px=72, fbank_frames=90, mel_bins=64)


def block(video=None, audio=None, **changes):
    model = common.tiny(common.get_config()).model.to_dict() | changes
    model["video_encoder"] |= video or {}
    model["audio_encoder"] |= audio or {}
    return model


def mbt_block(**changes):
    fields = dict(dim=32, depth=3, num_heads=2, patch_px=24, fusion_layer=1) | changes
    return dict(name="mbt", **dataclasses.asdict(MBTConfig(**fields)))


@pytest.mark.parametrize(
    "model",
    [
        block(),
        block(video=dict(split=True, std=True), audio=dict(stride=(7, 10))),
        block(fusion="merged", head="average", dim=48),
        block(modalities="audio"),
        block(modalities="video", video_encoder=dict(name="vit", variant="tiny")),
        mbt_block(tubelet_frames=1),
        mbt_block(fusion="merged", classifier="gap", fusion_layer=0),
        mbt_block(fusion="merged", share_encoder=True),
        mbt_block(classifier="gap", test_with_bottlenecks=False),
        mbt_block(modalities="video"),
        mbt_block(fusion_layer=3, modalities="audio"),
    ],
)
def test_analytic_is_what_the_program_multiplies(model):
    classes = {"verb": 5, "noun": 7}
    skeleton = tree.Skeleton(
        lambda: build_model(model, num_classes=classes, input=INPUT, rngs=nnx.Rngs(0))
    )
    video, audio = parts.inputs(INPUT, 1)
    video = None if model["modalities"] == "audio" else video
    audio = None if model["modalities"] == "video" else audio

    def forward(params, stats, video, audio):
        net = skeleton.merge(params, stats)
        return net.fuse(*net.encode(video, audio))["logits"]

    program = jax.make_jaxpr(forward)(skeleton.params, skeleton.stats, video, audio)
    found = flops.analytic(model, classes, INPUT)
    products = matrix_products(program.jaxpr)
    encoder = model.get("video_encoder", {})
    if flops.VIDEO in found and encoder.get("name") == "uniformer":
        options = {name: encoder.get(name, False) for name in ("split", "std")}
        config = dataclasses.replace(uniformer.VARIANTS["tiny"], **options)
        products += depthwise(config, INPUT.num_frames, INPUT.frame_size_px)
    assert sum(found.values()) == products
    counted = parts.parameters(model, skeleton.params)
    assert sum(counted.values()) == tree.parameter_count(skeleton.params)
    assert set(found) <= set(flops.PARTS)


def test_xla_counts_little_more_than_the_formulas():
    model = block(dim=128)
    classes = {"label": 11}
    skeleton = tree.Skeleton(
        lambda: build_model(model, num_classes=classes, input=INPUT, rngs=nnx.Rngs(0))
    )
    batch = 3
    measured = parts.ForwardPass(skeleton, "av", INPUT, batch).flops()
    formula = flops.analytic(model, classes, INPUT)
    assert list(measured) == list(formula) == list(flops.PARTS)
    for part in (flops.VIDEO, flops.AUDIO, flops.FUSION):
        # Element-wise work weighs more the narrower a model is: these have 16 to 128 channels.
        assert 1 < measured[part] / (2 * batch * formula[part]) < 1.35, part


def test_unknown_model():
    with pytest.raises(ValueError, match="no formula for the model 'mpt'"):
        flops.analytic(dict(name="mpt"), {}, INPUT)
    with pytest.raises(ValueError, match="'mpt'"):
        parts.part_of(dict(name="mpt"), "heads/label/kernel")


def test_fusion_grows_as_the_sum_of_squares():
    n, m, length, k, d = 300, 100, 4, 3, 64
    linear = k * (4 + 2 * 4) * d * d
    bottleneck = flops.bottleneck_fusion(k, length, n, m, d, 4.0) - linear * (n + m + 2 * length)
    assert bottleneck == 2 * k * d * ((n + length) ** 2 + (m + length) ** 2)
    merged = flops.merged_fusion(k, n, m, d, 4.0) - linear * (n + m)
    assert merged == 2 * k * d * (n + m) ** 2
    alone = flops.bottleneck_fusion(k, length, 0, m, d, 4.0)
    assert alone == k * flops.transformer_block(m + length, d, 4.0)


def test_inputs_are_a_batch():
    video, audio = parts.inputs(INPUT, 2)
    assert video.shape == (2, 6, 72, 72, 3) and audio.shape == (2, 90, 64)
    assert video.dtype == audio.dtype == jnp.float32
