"""Analytic operation counts: formulas over the config dataclasses.

Counted are multiply-adds of matrix products, convolutions and attention products (queries with
keys, weights with values). Not counted is what is done once per element: biases, norms, GELU,
softmax, residual sums, positions, pooling. One multiply-add is two FLOPs. All counts are of the
forward pass of one clip; the parts of a model are

    video encoder, audio encoder   up to the first layer in which the modalities meet, with the
                                   projection to the fusion's width
    fusion                         the layers in which they meet
    heads                          classification; what only a training loss needs is left out
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from avt_jax.models.build import resolve
from avt_jax.models.encoders import AUDIO_ENCODERS, VIDEO_ENCODERS
from avt_jax.models.encoders.ast import ASTConfig, patch_grid
from avt_jax.models.encoders.uniformer import UniFormerConfig
from avt_jax.models.encoders.vit import ViTConfig
from avt_jax.models.inputs import InputSpec
from avt_jax.models.mbt import MBTConfig

VIDEO = "video encoder"
AUDIO = "audio encoder"
FUSION = "fusion"
HEADS = "heads"
PARTS = (VIDEO, AUDIO, FUSION, HEADS)


def attention_products(n: int, d: int) -> int:
    """Multiply-adds of self-attention's two products over n tokens of width d, all heads."""
    return 2 * n * n * d


def transformer_block(n: int, d: int, mlp_ratio: float) -> int:
    """Multiply-adds of a transformer block.

    Args:
      n: tokens.
      d: width.
      mlp_ratio: hidden width of the MLP over `d`.
    """
    projections = 4 * n * d * d  # queries, keys, values, output
    return projections + attention_products(n, d) + 2 * n * d * int(d * mlp_ratio)


def uniformer_grid(config: UniFormerConfig, num_frames: int, size_px: int) -> list[tuple[int, int]]:
    """(frames, positions of a frame) after the patch embedding of each of the four stages."""
    frames, side, grid = (num_frames - 1) // 2 + 1, size_px // 4, []
    for _ in config.dim:
        grid.append((frames, side * side))
        side //= 2
    return grid


def uniformer(config: UniFormerConfig, num_frames: int, size_px: int, num_classes: int = 0) -> int:
    """Multiply-adds of UniFormer.

    Args:
      config: sizes and options.
      num_frames: of the clip.
      size_px: height and width of a frame.
      num_classes: classes of the head; 0 = an encoder without a head.
    """
    total, channels = 0, 3
    grid = uniformer_grid(config, num_frames, size_px)
    for stage, (depth, dim, (t, space)) in enumerate(
        zip(config.depth, config.dim, grid, strict=True)
    ):
        taps = 3 * 4 * 4 if stage == 0 else (3 if config.std else 1) * 2 * 2
        n = t * space
        mlp = 2 * n * dim * int(dim * config.mlp_ratio)
        position = 27 * n * dim  # depthwise, 3 x 3 x 3
        if stage < 2:
            # Two 1 x 1 x 1 convolutions around a depthwise one of 5 x 5 x 5.
            block = position + 2 * n * dim * dim + 125 * n * dim + mlp
        elif config.split:
            over_time = space * attention_products(t, dim)
            in_space = t * attention_products(space, dim)
            block = position + 2 * 4 * n * dim * dim + over_time + in_space + mlp
        else:
            block = position + transformer_block(n, dim, config.mlp_ratio)
        total += taps * channels * n * dim + depth * block
        channels = dim
    return total + channels * num_classes


def ast(config: ASTConfig, num_frames: int, mel_bins: int, num_classes: int = 0) -> int:
    """Multiply-adds of AST.

    Args:
      config: sizes.
      num_frames: spectrogram frames.
      mel_bins: mel bins.
      num_classes: classes of the head; 0 = an encoder without a head.
    """
    rows, columns = patch_grid(num_frames, mel_bins, config)
    patches = rows * columns
    blocks = config.depth * transformer_block(patches + 2, config.dim, config.mlp_ratio)
    return 16 * 16 * patches * config.dim + blocks + config.dim * num_classes


def _patches(size: tuple[int, ...], patch: tuple[int, ...]) -> int:
    number = 1
    for length, step in zip(size, patch, strict=True):
        number *= length // step
    return number


def _patch_projection(size: tuple[int, ...], patch: tuple[int, ...], dim: int) -> int:
    """Of patches that do not overlap, three channels in; what fills no patch is left out."""
    volume = 3
    for length in patch:
        volume *= length
    return _patches(size, patch) * volume * dim


def vit(config: ViTConfig, num_frames: int, size_px: int, num_classes: int = 0) -> int:
    """Multiply-adds of ViT, with its class token; arguments as those of `uniformer`."""
    size = (num_frames, size_px, size_px)
    patch = (config.tubelet_frames, config.patch_px, config.patch_px)
    n = 1 + _patches(size, patch)
    blocks = config.depth * transformer_block(n, config.dim, config.mlp_ratio)
    return _patch_projection(size, patch, config.dim) + blocks + config.dim * num_classes


def bottleneck_fusion(k: int, bottleneck: int, n: int, m: int, d: int, mlp_ratio: float) -> int:
    """Multiply-adds of `AVBottleneck`.

    Args:
      k: blocks per modality.
      bottleneck: L, bottleneck tokens.
      n: video tokens; 0 = no video.
      m: audio tokens; 0 = no audio.
      d: width.
      mlp_ratio: hidden width of an MLP over `d`.
    """
    return k * sum(transformer_block(x + bottleneck, d, mlp_ratio) for x in (n, m) if x)


def merged_fusion(k: int, n: int, m: int, d: int, mlp_ratio: float) -> int:
    """Multiply-adds of `MergedAttention`; arguments as those of `bottleneck_fusion`."""
    return k * transformer_block(n + m, d, mlp_ratio)


def mbt(config: MBTConfig, num_classes: Mapping[str, int], input: InputSpec) -> dict[str, int]:
    """Multiply-adds of MBT by part; arguments as those of `analytic`."""
    sizes = {
        VIDEO: (
            (input.num_frames, input.frame_size_px, input.frame_size_px),
            (config.tubelet_frames, config.patch_px, config.patch_px),
        ),
        AUDIO: ((input.fbank_frames, input.mel_bins), (config.patch_px, config.patch_px)),
    }
    with_cls = config.classifier == "token"
    present = [VIDEO] * (config.modalities != "audio") + [AUDIO] * (config.modalities != "video")
    tokens = {part: _patches(*sizes[part]) + with_cls for part in present}
    d = config.dim

    def layers(n: int) -> int:
        return transformer_block(n, d, config.mlp_ratio)

    found = {
        part: _patch_projection(*sizes[part], d) + config.fusion_layer * layers(n)
        for part, n in tokens.items()
    }
    if len(present) == 1:
        layer = layers(sum(tokens.values()))
    elif config.fusion == "bottleneck":
        extra = (config.num_bottleneck + with_cls) * config.test_with_bottlenecks
        layer = sum(layers(n + extra) for n in tokens.values())
    else:
        # Each modality's block sees both; shared blocks see both once.
        layer = (1 if config.share_encoder else 2) * layers(sum(tokens.values()))
    vectors = len(present) if with_cls else 1
    return found | {
        FUSION: (config.depth - config.fusion_layer) * layer,
        HEADS: vectors * d * sum(num_classes.values()),
    }


def _encoder_config(block: Mapping[str, Any], known: Mapping[str, Any]) -> Any:
    fields = dict(block)
    variants = known[fields.pop("name")].VARIANTS
    return dataclasses.replace(variants[fields.pop("variant")], **fields)


def _video_encoder(config: Any, input: InputSpec) -> tuple[int, int, int]:
    """(multiply-adds, tokens, width)."""
    shape = (input.num_frames, input.frame_size_px)
    if isinstance(config, UniFormerConfig):
        frames, positions = uniformer_grid(config, *shape)[-1]
        return uniformer(config, *shape), frames * positions, config.dim[-1]
    if isinstance(config, ViTConfig):
        size = (input.num_frames, input.frame_size_px, input.frame_size_px)
        patch = (config.tubelet_frames, config.patch_px, config.patch_px)
        return vit(config, *shape), _patches(size, patch), config.dim
    raise TypeError(f"no formula for a video encoder with {type(config).__name__}; add one here")


def _avt(
    block: Mapping[str, Any], num_classes: Mapping[str, int], input: InputSpec
) -> dict[str, int]:
    found, tokens, dim = {}, {"n": 0, "m": 0}, block["dim"]
    if block["modalities"] != "audio":
        config = _encoder_config(block["video_encoder"], VIDEO_ENCODERS)
        macs, n, width = _video_encoder(config, input)
        found[VIDEO] = macs + (n * width * dim if width != dim else 0)
        tokens["n"] = n
    if block["modalities"] != "video":
        config = _encoder_config(block["audio_encoder"], AUDIO_ENCODERS)
        rows, columns = patch_grid(input.fbank_frames, input.mel_bins, config)
        m = rows * columns
        macs = ast(config, input.fbank_frames, input.mel_bins)
        found[AUDIO] = macs + (m * config.dim * dim if config.dim != dim else 0)
        tokens["m"] = m
    shared = dict(k=block["num_blocks"], d=dim, mlp_ratio=block["mlp_ratio"], **tokens)
    if block["fusion"] == "bottleneck":
        fusion = bottleneck_fusion(bottleneck=block["num_bottleneck"], **shared)
    else:
        fusion = merged_fusion(**shared)
    # "concat" reads all modalities' means at once, "average" each by itself: the same number.
    heads = len(found) * dim * sum(num_classes.values())
    return found | {FUSION: fusion, HEADS: heads}


def analytic(
    block: Mapping[str, Any], num_classes: Mapping[str, int], input: InputSpec
) -> dict[str, int]:
    """Multiply-adds of a model's forward pass by part, for one clip.

    Args:
      block: the config block `model`, one that `build_model` accepts.
      num_classes: {label set: number of classes}.
      input: the shape of what the model reads.

    Returns:
      {part: multiply-adds}, parts of `PARTS`; without the encoder of a missing modality.

    Raises:
      ValueError: no formula for this model.
    """
    name = block["name"]
    if name == "avt":
        return _avt(resolve(block), num_classes, input)
    if name == "mbt":
        fields = resolve(block)
        del fields["name"]
        return mbt(MBTConfig(**fields), num_classes, input)
    raise ValueError(f"no formula for the model {name!r}; profiling/flops.py knows avt and mbt")
