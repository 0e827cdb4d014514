"""A model's cost part by part: of AVT and MBT by hand, and of a model that nobody knows."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from avt_jax import tree
from avt_jax.models import scopes
from avt_jax.models.build import build_model
from avt_jax.models.inputs import InputSpec
from avt_jax.models.mbt import MBTConfig
from avt_jax.profiling import flops, xla
from avt_jax.profiling.forward_pass import ForwardPass, inputs
from configs import common

INPUT = InputSpec(num_frames=6, frame_size_px=72, fbank_frames=90, mel_bins=64)
CLASSES = {"verb": 5, "noun": 7}


def avt_block(video=None, audio=None, **changes):
    model = common.tiny(common.get_config()).model.to_dict() | changes
    model["video_encoder"] |= video or {}
    model["audio_encoder"] |= audio or {}
    return model


def mbt_block(**changes):
    fields = dict(dim=32, depth=3, num_heads=2, patch_px=24, fusion_layer=1) | changes
    return dict(name="mbt", **dataclasses.asdict(MBTConfig(**fields)))


def skeleton_of(model, input=INPUT, classes=CLASSES):
    return tree.Skeleton(
        lambda: build_model(model, num_classes=classes, input=input, rngs=nnx.Rngs(0))
    )


def forward_pass(model, batch=1, **how):
    return ForwardPass(skeleton_of(model, **how), model["modalities"], INPUT, batch)


MODELS = [
    avt_block(),
    avt_block(video=dict(split=True, std=True, remat="blocks"), audio=dict(stride=(7, 10))),
    avt_block(fusion="merged", head="average", dim=48),
    avt_block(fusion="cross_attention"),
    avt_block(modalities="audio"),
    avt_block(modalities="video", video_encoder=dict(name="vit", variant="tiny")),
    avt_block(decoders=("audio", "video"), exchange="sequential"),
    mbt_block(tubelet_frames=1, remat="blocks"),
    mbt_block(fusion="merged", classifier="gap", fusion_layer=0),
    mbt_block(fusion="merged", share_encoder=True),
    mbt_block(classifier="gap", test_with_bottlenecks=False),
    mbt_block(modalities="video"),
    mbt_block(fusion_layer=3, modalities="audio"),
]
# The first that is found in a parameter's path decides.
AVT_PATHS = (
    (r"^video_(encoder|proj)/", scopes.VIDEO),
    (r"^audio_(encoder|proj)/", scopes.AUDIO),
    (r"^fusion/", scopes.FUSION),
    (r".*", scopes.HEADS),
)
MBT_PATHS = (
    (r"^video/", scopes.VIDEO),
    (r"^audio/", scopes.AUDIO),
    (r"^bottleneck$", scopes.FUSION),
    (r".*", scopes.HEADS),
)


def part_by_path(model, path):
    layer = re.match(r"^(?:video|audio)/blocks/(\d+)/", path)
    if layer and int(layer[1]) >= model["fusion_layer"]:
        return scopes.FUSION
    return tree.first_match(MBT_PATHS if model["name"] == "mbt" else AVT_PATHS, path)


@pytest.mark.parametrize("model", MODELS)
def test_parameters_go_where_they_are_read(model):
    skeleton, expected = skeleton_of(model), dict.fromkeys(scopes.PARTS, 0)
    for path, leaf in skeleton.params.items():
        expected[part_by_path(model, path)] += leaf.size
    found = ForwardPass(skeleton, model["modalities"], INPUT).parameters()
    assert found == {part: number for part, number in expected.items() if number}
    assert sum(found.values()) == tree.parameter_count(skeleton.params)


@pytest.mark.parametrize("model", MODELS)
def test_parts_are_the_models_calls(model):
    skeleton = skeleton_of(model)
    forward = ForwardPass(skeleton, model["modalities"], INPUT, 2)
    video, audio = inputs(INPUT, 2)

    def call(what):
        return lambda params, stats, *args: what(skeleton.merge(params, stats), *args)

    def both(count):
        expected, variables = {}, (skeleton.params, skeleton.stats)
        given = [None, None]
        if model["modalities"] != "audio":
            encode = call(lambda model, x: model.encode(x, None)[0])
            expected[scopes.VIDEO] = count(encode, *variables, video)
            given[0] = video
        if model["modalities"] != "video":
            encode = call(lambda model, x: model.encode(None, x)[1])
            expected[scopes.AUDIO] = count(encode, *variables, audio)
            given[1] = audio
        encode = call(lambda model, *x: model.encode(*x))
        tokens = jax.eval_shape(encode, *variables, *given)
        fuse = call(lambda model, *x: model.fusion(*x))
        expected[scopes.FUSION] = count(fuse, *variables, *tokens)
        whole = count(call(lambda model, *x: model.fuse(*x)["logits"]), *variables, *tokens)
        expected[scopes.HEADS] = whole - expected[scopes.FUSION]
        return {part: number for part, number in expected.items() if number}

    assert forward.flops() == both(flops.total)
    # XLA adds up in float32.
    expected = both(xla.flops)
    rounding = 1e-5 * sum(expected.values())
    assert forward.xla_flops() == pytest.approx(expected, rel=0, abs=rounding)


def trained_flops(model):
    """({part: FLOPs} of a loss, the same with the gradient of the parameters)."""
    skeleton = skeleton_of(model)

    def loss(params, stats, video, audio):
        net = skeleton.merge(params, stats)
        logits = net.fuse(*net.encode(video, audio, train=True), train=True)["logits"]
        return sum(jnp.square(value).sum() for value in logits.values())

    args = (skeleton.params, skeleton.stats, *inputs(INPUT))
    return flops.by_part(loss, *args), flops.by_part(jax.value_and_grad(loss), *args)


def test_a_gradient_costs_twice_the_forward_pass():
    forward, trained = trained_flops(mbt_block())
    # All but the gradients of what the embeddings read.
    embedding = {scopes.VIDEO: 27 * 2 * 24**2 * 3 * 32, scopes.AUDIO: 6 * 24**2 * 3 * 32}
    assert trained == {
        part: 3 * number - 2 * embedding.get(part, 0) for part, number in forward.items()
    }
    assert list(trained) == list(scopes.PARTS)


@pytest.mark.parametrize("recomputed", [False, True])
def test_a_gradient_keeps_the_parts(recomputed):
    remat = dict(remat="blocks" if recomputed else "none")
    forward, trained = trained_flops(avt_block(video=remat, audio=remat))
    assert list(trained) == list(forward) == list(scopes.PARTS)
    for part in (scopes.FUSION, scopes.HEADS):
        assert trained[part] == 3 * forward[part]
    for part in (scopes.VIDEO, scopes.AUDIO):
        # A block's last product is not made again: nothing in the backward pass needs it.
        least, most = (3.2, 4) if recomputed else (2.7, 3)
        assert least < trained[part] / forward[part] < most, part


def transformer_block(n, d, ratio):
    return 4 * n * d * d + 2 * n * n * d + 2 * n * d * int(d * ratio)


def test_mbt_by_hand():
    d, layers, patch = 32, 3, 24
    model = mbt_block(num_bottleneck=4)
    tokens = {scopes.VIDEO: 3 * 9 + 1, scopes.AUDIO: 3 * 2 + 1}  # with the class token
    volume = {scopes.VIDEO: 2 * patch**2 * 3, scopes.AUDIO: patch**2 * 3}
    expected = {
        part: (n - 1) * volume[part] * d + transformer_block(n, d, 4.0)
        for part, n in tokens.items()
    }
    fused = sum(transformer_block(n + 5, d, 4.0) for n in tokens.values())
    expected |= {scopes.FUSION: (layers - 1) * fused, scopes.HEADS: 2 * d * (5 + 7)}
    found = forward_pass(model, batch=3).flops()
    assert found == {part: 2 * 3 * macs for part, macs in expected.items()}
    assert list(found) == list(scopes.PARTS)


@pytest.mark.parametrize(
    "options,measured_gflop",
    [
        ({}, 437.05),
        (dict(fusion="merged", fusion_layer=0), 964.4),
        (dict(modalities="audio"), 74.8),
    ],
)
def test_mbt_near_what_xla_counts_of_the_original(options, measured_gflop):
    # XLA adds element-wise work, the softmax above all: 0.4 to 0.8 %, more as attention grows.
    clip = InputSpec(num_frames=8, frame_size_px=224, fbank_frames=800, mel_bins=128)
    config = MBTConfig(tubelet_frames=1, **options)
    model = dict(name="mbt", **dataclasses.asdict(config))
    skeleton = skeleton_of(model, input=clip, classes={"label": 527})
    found = ForwardPass(skeleton, config.modalities, clip).flops()
    assert 0.989 < sum(found.values()) / 1e9 / measured_gflop < 0.998


def test_xla_counts_little_more_than_the_products():
    forward = forward_pass(avt_block(dim=128), batch=3)
    measured, products = forward.xla_flops(), forward.flops()
    assert list(measured) == list(products) == list(scopes.PARTS)
    for part in (scopes.VIDEO, scopes.AUDIO, scopes.FUSION):
        # Element-wise work weighs more the narrower a model is: these have 16 to 128 channels.
        assert 1 < measured[part] / products[part] < 1.35, part


class Unknown(nnx.Module):
    """A model with the two calls, and parts of its own, or none."""

    def __init__(self, *, parts, rngs):
        self.fc1 = nnx.Linear(64, 16, rngs=rngs)
        self.fc2 = nnx.Linear(16, 5, rngs=rngs)
        self.for_a_loss = nnx.Param(jnp.zeros(11))
        self.parts = parts

    def encode(self, video, audio, *, train=False, rngs=None):
        if not self.parts:
            return None, self.fc1(audio)
        with scopes.part("ears"):
            return None, self.fc1(audio)

    def fuse(self, video, audio, *, train=False, rngs=None):
        return {"logits": {"label": self.fc2(audio.mean(1))}}


@pytest.mark.parametrize("parts", [False, True])
def test_unknown_model(parts):
    skeleton = tree.Skeleton(lambda: Unknown(parts=parts, rngs=nnx.Rngs(0)))
    forward = ForwardPass(skeleton, "audio", INPUT)
    ears, rest = 2 * 90 * 64 * 16, 2 * 16 * 5
    wide, narrow = 65 * 16, 17 * 5
    if parts:
        assert forward.flops() == {"ears": ears, "other": rest}
        assert forward.parameters() == {"ears": wide, "heads": 11, "other": narrow}
        # The bias, and the mean over 90 frames.
        assert forward.xla_flops()["ears"] == pytest.approx(ears + 90 * 16)
    else:
        assert forward.flops() == {"model": ears + rest}
        assert forward.parameters() == {"model": wide + narrow + 11}
        assert set(forward.xla_flops()) == {"model"}


def test_a_bottleneck_that_no_block_reads_is_no_part_of_the_fusion():
    assert scopes.FUSION not in forward_pass(mbt_block(fusion_layer=3)).parameters()


def test_inputs_are_a_batch():
    video, audio = inputs(INPUT, 2)
    assert video.shape == (2, 6, 72, 72, 3) and audio.shape == (2, 90, 64)
    assert video.dtype == audio.dtype == jnp.float32
