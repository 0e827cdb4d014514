"""From a config block to a model: the names a config may use, and what they stand for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx

from avt_jax.errors import UserError, nearest
from avt_jax.models import ast, uniformer, vit
from avt_jax.models.avt import AVT, AVTConfig
from avt_jax.models.mbt import MBT, MBTConfig


@dataclass(frozen=True)
class InputSpec:
    """The shape of what the model reads.

    Attributes:
      num_frames: video frames of a clip.
      frame_size_px: height and width of a frame.
      fbank_frames: spectrogram frames of a clip.
      mel_bins: mel bins of the spectrogram.
    """

    num_frames: int
    frame_size_px: int
    fbank_frames: int
    mel_bins: int


def _uniformer(config, spec: InputSpec, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Module:
    if spec.frame_size_px < 32:
        raise UserError(
            f"config.data.frame_size_px is {spec.frame_size_px}; UniFormer needs 32 or more."
        )
    return uniformer.UniFormer(config, dtype=dtype, rngs=rngs)


def _ast(config, spec: InputSpec, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Module:
    if spec.fbank_frames < 16:
        raise UserError(
            f"config.data.clip_sec gives {spec.fbank_frames} spectrogram frames; AST needs 16 or "
            "more (0.16 s)."
        )
    return ast.AST(
        config, num_frames=spec.fbank_frames, mel_bins=spec.mel_bins, dtype=dtype, rngs=rngs
    )


def _vit(config, spec: InputSpec, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Module:
    _check_patches("ViT", config, spec)
    return vit.ViT(
        config, num_frames=spec.num_frames, frame_size_px=spec.frame_size_px, dtype=dtype, rngs=rngs
    )


def _check_patches(model: str, config, spec: InputSpec) -> None:
    least = {"num_frames": config.tubelet_frames, "frame_size_px": config.patch_px}
    for name, size in least.items():
        if getattr(spec, name) < size:
            raise UserError(
                f"config.data.{name} is {getattr(spec, name)}; {model} needs {size} or more for "
                "one patch."
            )


# name -> (variants of its config, builder). A new encoder is one line here.
VIDEO_ENCODERS = {"uniformer": (uniformer.VARIANTS, _uniformer), "vit": (vit.VARIANTS, _vit)}
AUDIO_ENCODERS = {"ast": (ast.VARIANTS, _ast)}


def _pick(where: str, name: Any, choices: Mapping[str, Any]) -> Any:
    if name not in choices:
        raise UserError(
            f"{where} is {name!r}{nearest(str(name), choices)}; give one of {', '.join(choices)}."
        )
    return choices[name]


def _fill(where: str, fields: Mapping[str, Any], config_class: type, base: Any = None) -> Any:
    """Makes a config dataclass from a block; `base` supplies what the block leaves out."""
    names = [field.name for field in dataclasses.fields(config_class)]
    for name in fields:
        if name not in names:
            raise UserError(
                f"{where}.{name} is not a field{nearest(name, names)}; "
                f"the fields are {', '.join(names)}."
            )
    missing = [name for name in names if name not in fields] if base is None else []
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}; see configs/common.py.")
    return config_class(**fields) if base is None else dataclasses.replace(base, **fields)


def _encoder(where: str, block: Mapping[str, Any], known: Mapping, spec, dtype, rngs):
    fields = dict(block)
    variants, build = _pick(f"{where}.name", fields.pop("name", None), known)
    base = _pick(f"{where}.variant", fields.pop("variant", None), variants)
    return build(_fill(where, fields, type(base), base), spec, dtype, rngs)


def _avt(block: Mapping[str, Any], num_classes, spec: InputSpec, rngs: nnx.Rngs) -> AVT:
    fields = dict(block)
    video, audio = (fields.pop(name, None) for name in ("video_encoder", "audio_encoder"))
    config = _fill("config.model", fields, AVTConfig)
    encoders = {"video_encoder": None, "audio_encoder": None}
    if config.modalities != "audio":
        encoders["video_encoder"] = _encoder(
            "config.model.video_encoder", video, VIDEO_ENCODERS, spec, config.dtype, rngs
        )
    if config.modalities != "video":
        encoders["audio_encoder"] = _encoder(
            "config.model.audio_encoder", audio, AUDIO_ENCODERS, spec, config.dtype, rngs
        )
    return AVT(
        config,
        num_classes=num_classes,
        **encoders,
        patch_values=_patch_values(encoders, spec),
        rngs=rngs,
    )


def _patch_values(encoders: Mapping[str, nnx.Module | None], spec: InputSpec) -> dict[str, int]:
    """Numbers in the patch of one token, by modality."""
    video, found = encoders["video_encoder"], {"audio": ast.PATCH**2}
    if video is not None:
        clip = (spec.num_frames, spec.frame_size_px, spec.frame_size_px)
        grid = video.token_grid((1, *clip, 3))
        found["video"] = 3 * math.prod(n // g for n, g in zip(clip, grid, strict=True))
    return found


def _mbt(block: Mapping[str, Any], num_classes, spec: InputSpec, rngs: nnx.Rngs) -> MBT:
    config = _fill("config.model", block, MBTConfig)
    if config.modalities != "audio":
        _check_patches("MBT", config, spec)
    if config.modalities != "video" and min(spec.fbank_frames, spec.mel_bins) < config.patch_px:
        raise UserError(
            f"config.data.clip_sec gives {spec.fbank_frames} spectrogram frames of {spec.mel_bins} "
            f"mel bins; MBT needs {config.patch_px} or more of both for one patch."
        )
    return MBT(config, num_classes=num_classes, rngs=rngs, **dataclasses.asdict(spec))


# name -> (class, builder). A new model is one line here.
MODELS = {"avt": (AVT, _avt), "mbt": (MBT, _mbt)}


def abilities(block: Mapping[str, Any]) -> frozenset[str]:
    """What a model of this config block can do besides classifying.

    Returns:
      Of "project" (contrastive embeddings), "match", "reconstruct audio", "reconstruct video".

    Raises:
      UserError: an unknown name.
    """
    model, _ = _pick("config.model.name", block.get("name"), MODELS)
    if not hasattr(model, "project"):
        return frozenset()
    both = {"project", "match"} if block["modalities"] == "av" else set()
    present = [n for n in block["decoders"] if block["modalities"] in ("av", n)]
    return frozenset(both | {f"reconstruct {name}" for name in present})


def build_model(
    block: Mapping[str, Any],
    *,
    num_classes: Mapping[str, int],
    input: InputSpec,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Builds the model that a config describes.

    Args:
      block: the config block `model`.
      num_classes: {label set: number of classes}.
      input: the shape of what it reads.
      rngs: stream "params" for the initial weights.

    Returns:
      The model.

    Raises:
      UserError: an unknown name or field (the nearest valid one is named), or a bad value.
    """
    fields = dict(block)
    _, build = _pick("config.model.name", fields.pop("name", None), MODELS)
    return build(fields, num_classes, input, rngs)
